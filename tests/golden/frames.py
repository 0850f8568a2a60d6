"""Small frames of every kind that the commands read, the same on every machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tifffile
from astropy.io import fits
from numpy.typing import NDArray

Array = NDArray[Any]
STARS = ((0.22, 0.25, 1.0), (0.25, 0.75, 0.6), (0.52, 0.5, 2.0), (0.75, 0.2, 0.4), (0.8, 0.78, 0.8), (0.5, 0.85, 0.3))
"""Row and column as shares of the sides, and flux in units of the frame's."""
RECIPE = """
[data]
patch = 12
scene_px = 64
pool = 2
reuse = 2
sigma = [0.4, 0.7]
focus = [0.4, 0.7]
[loop]
batch = 4
warmup = 8
interval = 1e9
bf16 = false
"""


def sky(
    seed: int, shape: tuple[int, ...] = (48, 48), level: float = 100, noise: float = 4, flux: float = 3000,
    width: float = 1.3,
) -> Array:  # fmt: skip
    """Stars and one galaxy over a flat sky, with Gaussian noise, in float32.

    Parameters
    ----------
    seed : of the noise. shape : (..., Y, X); every plane has the same stars and noise of its own.
    level, noise : of the sky, per pixel. flux : of a star of unit brightness. width : sigma of a star, px.
    """
    h, w = shape[-2:]
    y, x = np.mgrid[:h, :w].astype(float)
    clean = np.full((h, w), float(level))
    for row, column, share in STARS:
        r2 = (y - row * h) ** 2 + (x - column * w) ** 2
        clean += share * flux / (2 * np.pi * width**2) * np.exp(-r2 / (2 * width**2))
    r = np.hypot((y - 0.5 * h) / 1.0, (x - 0.3 * w) / 2.0)
    clean += flux / 80 * np.exp(-r / 2.0)
    return (clean + np.random.default_rng(seed).normal(0, noise, shape)).astype(np.float32)


def with_variance(path: Path) -> None:
    """FITS in float32 with its variance."""
    image = sky(1)
    planes = [fits.ImageHDU(image, name="SCI"), fits.ImageHDU(np.full_like(image, 16), name="VAR")]
    primary = fits.PrimaryHDU()
    primary.header["OBJECT"] = "made up"
    fits.HDUList([primary, *planes]).writeto(path)


def with_flags(path: Path) -> None:
    """FITS with error and flags, some of them set."""
    image = sky(2)
    dq = np.zeros(image.shape, np.int16)
    dq[5:7, 30:33], dq[20, :], image[21, 3] = 4, 1, np.nan
    planes = {"SCI": image, "ERR": np.full_like(image, 4), "DQ": dq}
    hdus = [fits.PrimaryHDU(), *(fits.ImageHDU(a, name=n) for n, a in planes.items())]
    hdus[1].header["BUNIT"] = "electron"
    fits.HDUList(hdus).writeto(path)


def of_a_camera(path: Path) -> None:
    """FITS in unsigned 16 bits, as cameras write it, with a blank pixel, the gain and the read noise."""
    image = np.round(sky(3, level=1000, noise=18, flux=40000)).astype(np.int32) - 32768
    image[9, 9] = -32768
    hdu = fits.PrimaryHDU(image.astype(np.int16))
    cards = {"BZERO": 32768, "BSCALE": 1, "BLANK": -32768, "GAIN": 3.2, "RDNOISE": 7.5, "BUNIT": "adu"}
    hdu.header.update(cards | {"SATURATE": 60000})
    hdu.header["HISTORY"] = "flat-fielded"
    hdu.writeto(path)


def with_coordinates(path: Path) -> None:
    """FITS of a surface brightness with a distorted world coordinate system."""
    hdu = fits.PrimaryHDU(sky(4, level=2, noise=0.05, flux=40))
    hdu.header.update({
        "CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "CRVAL1": 150.1, "CRVAL2": 2.2, "CRPIX1": 24.5,
        "CRPIX2": 20.0, "CD1_1": -1e-5, "CD1_2": 2e-7, "CD2_1": 2e-7, "CD2_2": 1e-5, "A_ORDER": 2, "B_ORDER": 2,
        "A_2_0": 1e-6,
        "B_0_2": -2e-6, "A_1_1": 3e-7, "BUNIT": "MJy/sr", "PHOTMJSR": 0.5, "DATAMAX": 9.0, "LTM1_1": 1.0, "LTV1": 3.0,
    })  # fmt: skip
    hdu.writeto(path)


def cube(path: Path) -> None:
    """FITS of two planes."""
    fits.PrimaryHDU(sky(5, (2, 32, 40))).writeto(path)


def packed(path: Path) -> None:
    """FITS packed by tiles, without loss."""
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(sky(6), compression_type="GZIP_2", name="SCI")]).writeto(path)


def damaged(path: Path) -> None:
    """FITS with saturated stars, a gap of NaN and a border without data."""
    image = sky(7, flux=60000)
    image = np.minimum(image, np.float32(3000))
    image[12:15, 20:22], image[:, :3] = np.nan, np.nan
    hdu = fits.PrimaryHDU(image)
    hdu.header.update({"SATURATE": 3000.0, "GAIN": 2.0, "RDNOISE": 5.0})
    hdu.writeto(path)


def strip(path: Path) -> None:
    """FITS so long that it is restored in blocks."""
    fits.PrimaryHDU(sky(8, (16, 1552))).writeto(path)


def long_strip(path: Path) -> None:
    """FITS so long that it is made coarser in blocks."""
    fits.PrimaryHDU(sky(9, (32, 3104))).writeto(path)


def fine(path: Path) -> None:
    """FITS of a frame that others are made of."""
    fits.PrimaryHDU(sky(10, (96, 96), level=50, noise=0.5, flux=9000, width=1.6)).writeto(path)


def psf(path: Path) -> None:
    """FITS of a point spread function."""
    y, x = np.mgrid[-6:7, -6:7]
    image = np.exp(-(x**2 + 1.2 * y**2) / (2 * 1.1**2))
    fits.PrimaryHDU((image / image.sum()).astype(np.float32)).writeto(path)


def camera_tiff(path: Path) -> None:
    """TIFF in 16 bits."""
    tifffile.imwrite(path, np.round(sky(11, level=400, noise=9, flux=20000)).astype("u2"), photometric="minisblack")


def fine_tiff(path: Path) -> None:
    """TIFF of a frame that others are made of."""
    image = np.round(sky(12, (96, 96), level=600, noise=3, flux=40000, width=2.0)).astype("u2")
    tifffile.imwrite(path, image, photometric="minisblack")


def ome_tiff(path: Path) -> None:
    """OME-TIFF with times, depths and channels, and what is known of the optics."""
    t, c, z, h, w = 1, 2, 2, 48, 52
    image = np.round(sky(13, (t, c, z, h, w), level=300, noise=8, flux=9000)).astype("u2")
    text = f"""<?xml version="1.0" encoding="UTF-8"?>
<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:1">
<Instrument ID="Instrument:0"><Objective ID="Objective:0" LensNA="1.2" NominalMagnification="60"/></Instrument>
<Image ID="Image:0" Name="cells"><InstrumentRef ID="Instrument:0"/><ObjectiveSettings ID="Objective:0"/>
<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="{w}" SizeY="{h}" SizeZ="{z}" SizeC="{c}" SizeT="{t}"
 PhysicalSizeX="0.1" PhysicalSizeY="0.1" PhysicalSizeZ="0.3" TimeIncrement="2.5">
<Channel ID="Channel:0:0" Name="GFP" SamplesPerPixel="1" EmissionWavelength="525" Color="16711935"/>
<Channel ID="Channel:0:1" Name="mCherry" SamplesPerPixel="1" EmissionWavelength="610"/>
<TiffData IFD="0" PlaneCount="{t * c * z}"/></Pixels></Image></OME>"""
    tifffile.imwrite(path, image, description=text.encode(), metadata=None, photometric="minisblack")


def imagej_tiff(path: Path) -> None:
    """TIFF as ImageJ writes it."""
    image = np.round(sky(14, (2, 28, 32), level=300, noise=8, flux=9000)).astype("u2")
    known = {"axes": "CYX", "unit": "um", "Labels": ["a", "b"]}
    tifffile.imwrite(path, image, imagej=True, resolution=(8, 8), metadata=known)


def colour_tiff(path: Path) -> None:
    """TIFF of three colours in 16 bits."""
    image = np.round(sky(15, (3, 32, 32), level=300, noise=8, flux=9000)).astype("u2")
    tifffile.imwrite(path, np.moveaxis(image, 0, -1), photometric="rgb")


def float_tiff(path: Path) -> None:
    """TIFF in float32 with values below zero."""
    tifffile.imwrite(path, sky(16, level=0, noise=0.2, flux=90), photometric="minisblack")


def hdf5(path: Path) -> None:
    """HDF5 with a variance and a mask."""
    image = sky(17, (2, 32, 32))
    mask = np.zeros(image.shape, np.uint8)
    mask[:, 3, 4:7] = 1
    with h5py.File(path, "w") as file:
        file["image"], file["variance"], file["mask"] = image, np.full_like(image, 16), mask


def ome_zarr(path: Path) -> None:
    """OME-Zarr of two channels."""
    import zarr

    image = np.round(sky(18, (2, 32, 32), level=300, noise=8, flux=9000)).astype("u2")
    group = zarr.create_group(str(path), zarr_format=3)
    group.create_array("0", shape=image.shape, dtype="u2", chunks=(1, 16, 16))[:] = image
    axes = [{"name": "c", "type": "channel"}, *({"name": a, "type": "space", "unit": "nanometer"} for a in "yx")]
    steps = [{"type": "scale", "scale": [1.0, 120.0, 120.0]}]
    sets = [{"path": "0", "coordinateTransformations": steps}]
    images = [{"axes": axes, "datasets": sets, "name": "cells"}]
    group.attrs.update({"ome": {"version": "0.5", "multiscales": images}})


def recipe(path: Path) -> None:
    """What a network is trained on and how: next to nothing."""
    path.write_text(RECIPE)


FRAMES: dict[str, Callable[[Path], None]] = {
    "var.fits": with_variance,
    "flags.fits": with_flags,
    "camera.fits": of_a_camera,
    "wcs.fits": with_coordinates,
    "cube.fits": cube,
    "packed.fits.fz": packed,
    "damaged.fits": damaged,
    "strip.fits": strip,
    "long.fits": long_strip,
    "fine.fits": fine,
    "psf.fits": psf,
    "camera.tif": camera_tiff,
    "fine.tif": fine_tiff,
    "cells.ome.tif": ome_tiff,
    "imagej.tif": imagej_tiff,
    "colour.tif": colour_tiff,
    "float.tif": float_tiff,
    "stack.h5": hdf5,
    "cells.ome.zarr": ome_zarr,
    "tiny.toml": recipe,
}

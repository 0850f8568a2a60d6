"""Files of a PSF: whatever their sampling, centring and form, they give the kernel of the same optics."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from astropy.io import fits

from sciresdiff.errors import InputError, UsageError
from sciresdiff.frame import Frame, PixelSize
from sciresdiff.io.psf_file import read_psf_file
from sciresdiff.io.psf_places import Positions
from sciresdiff.notes import Notes
from sciresdiff.observation.whole_psf import WholePSF, split_specs
from sciresdiff.physics import psf
from sciresdiff.physics.psf.centre import describe_centring
from sciresdiff.physics.psf.field import PSF

PIXEL, FWHM = 0.063, 2.6
Array = Any


def frame_of(h: int = 96, w: int = 96, planes: int = 1, pixel: float | None = PIXEL, **more: Any) -> Frame:
    size = None if pixel is None else PixelSize(pixel, pixel, "arcsec")
    shape = (planes, h, w)
    return Frame(np.zeros(shape, "f4"), np.zeros(shape, bool), "astro", pixel_size=size, **more)


def star(side: int, centre: float | tuple[float, float], fwhm: float = FWHM, width: int | None = None) -> Array:
    """A Gaussian integrated over its own pixels, sum 1."""
    cy, cx = (centre, centre) if isinstance(centre, int | float) else centre
    sub = (np.arange(9) - 4) / 9
    lines = []
    for n, c in ((side, cy), (width or side, cx)):
        at = np.arange(n)[:, None] + sub - c
        lines.append(np.exp(-4 * np.log(2) * at**2 / fwhm**2).mean(1))
    image = np.outer(*lines)
    return image / image.sum()


def save(path: Path, image: Array, cards: dict[str, Any] | None = None, name: str | None = None) -> str:
    hdu = fits.PrimaryHDU(np.asarray(image, "f4"))
    hdu.header.update(cards or {})
    if name:
        hdu.header["EXTNAME"] = name
    hdu.writeto(path, overwrite=True)
    return str(path)


def blur(spec: str, frame: Frame | None = None) -> tuple[PSF, Notes]:
    blurs, notes = WholePSF(frame or frame_of(), 2, 2.0).of_spec(spec)
    assert len(blurs) == 1
    assert blurs[0] is not None
    return blurs[0], notes


def distance(a: Array, b: Array) -> float:
    """Sum of absolute differences of two centred kernels."""
    n = [max(p, q) for p, q in zip(a.shape, b.shape, strict=True)]
    a, b = (np.pad(k, [((m - side) // 2,) * 2 for m, side in zip(n, k.shape, strict=True)]) for k in (a, b))
    return float(np.abs(a - b).sum())


@pytest.fixture
def plain(tmp_path: Path) -> Array:
    """The kernel of a stamp of 25 px, centred, sampled like the frame."""
    return blur(save(tmp_path / "plain.fits", star(25, 12)))[0].mean


FINE = star(129, 64, 4 * FWHM)
OTHER_GRIDS: dict[str, tuple[Array, dict[str, Any]]] = {
    "PIXELSCL": (FINE, {"PIXELSCL": PIXEL / 4}),
    "PIXSCALE": (FINE, {"PIXSCALE": PIXEL / 4}),
    "mas": (FINE, {"PIXSCALE": (1000 * PIXEL / 4, "pixel scale in mas")}),
    "degrees": (FINE, {"PIXELSCL": (PIXEL / 4 / 3600, "[deg] pixel scale")}),
    "all cards of STPSF": (FINE, {"PIXELSCL": PIXEL / 4, "OVERSAMP": 4, "DET_SAMP": 4}),
    "OVERSAMP": (FINE, {"OVERSAMP": 4}),
    "its WCS": (FINE, {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CD1_1": -PIXEL / 14400, "CD2_2": PIXEL / 14400}),
    "3 samples": (star(99, 49, 3 * FWHM), {"PIXELSCL": PIXEL / 3}),
    "2.5 samples": (star(99, 49, 2.5 * FWHM), {"PIXELSCL": PIXEL / 2.5}),
    "8 samples, even, off centre": (star(240, (111, 140.5), 8 * FWHM, 250), {"PIXELSCL": PIXEL / 8}),
    "in the corner": (np.fft.ifftshift(star(128, 64, 4 * FWHM)), {"PIXELSCL": PIXEL / 4}),
}


@pytest.mark.parametrize("form", OTHER_GRIDS)
def test_the_sampling_of_a_file_is_obeyed(tmp_path: Path, plain: Array, form: str) -> None:
    image, cards = OTHER_GRIDS[form]
    found, notes = blur(save(tmp_path / "psf.fits", image, cards))
    # the plain file does not know the PSF beyond its Nyquist frequency, where this one has 0.3 % of its light
    assert distance(found.mean, plain) < 0.01
    assert psf.fwhm(found.mean) == pytest.approx(psf.fwhm(plain), rel=2e-3)
    assert any("samples per frame pixel" in line for line in notes)
    assert not notes.warnings


def test_extensions_of_stpsf_say_what_they_are(tmp_path: Path, plain: Array) -> None:
    binned = FINE[:-1, :-1]  # the light lies on the corner of four detector pixels, which centring undoes
    hdus = [fits.PrimaryHDU()]
    for name, image, cards in (
        ("OVERSAMP", star(129, 64, 8.0), {"PIXELSCL": PIXEL / 4}),
        ("DET_SAMP", star(31, 15, 2.0), {"PIXELSCL": PIXEL}),
        ("OVERDIST", FINE, {"PIXELSCL": PIXEL / 4, "DET_SAMP": 4}),
        ("DET_DIST", binned.reshape(32, 4, 32, 4).sum((1, 3)), {"PIXELSCL": PIXEL, "OVERSAMP": 4, "DET_SAMP": 4}),
    ):
        hdus.append(fits.ImageHDU(image.astype("f4"), fits.Header({**cards, "EXTNAME": name})))
    fits.HDUList(hdus).writeto(tmp_path / "psf.fits")
    best, notes = blur(str(tmp_path / "psf.fits"))
    assert "OVERDIST" in "".join(notes)
    assert distance(best.mean, plain) < 0.01
    detector, notes = blur(str(tmp_path / "psf.fits[DET_DIST]"))
    assert distance(detector.mean, plain) < 0.02  # a half-pixel shift of a PSF of 2.6 px, by Fourier series
    assert not notes.warnings


def test_what_cards_leave_open_is_said_or_refused(tmp_path: Path, plain: Array) -> None:
    path = save(tmp_path / "a.fits", FINE, {"PIXELSCL": PIXEL / 4})
    _, notes = blur(path, frame_of(pixel=None))
    assert any("pixel size is unknown" in line for line in notes.warnings)
    stated, notes = blur(path + ",oversample=4", frame_of(pixel=None))
    assert distance(stated.mean, plain) < 0.01
    assert not notes.warnings
    _, notes = blur(save(tmp_path / "b.fits", FINE, {"PIXELSCL": PIXEL / 4, "OVERSAMP": 2}))
    assert any("PIXELSCL" in line and "OVERSAMP" in line for line in notes.warnings)
    for wrong in (1000 * PIXEL / 4, PIXEL / 4 / 3600):  # mas and degrees, and nothing says so
        with pytest.raises(InputError, match="PIXELSCL.*oversample=N"):
            blur(save(tmp_path / "c.fits", FINE, {"PIXELSCL": wrong}))
    measured = psf.centre_psf(star(129, 64, 4 * float(np.hypot(FWHM, 0.68))))  # the frame's pixel in it already
    found, _ = blur(save(tmp_path / "d.fits", measured) + ",oversample=4,effective=1")
    assert distance(found.mean, plain) < 0.02


STAMPS: dict[str, Array] = {
    "even": 7 * star(32, 15.5),
    "off centre": star(41, (27, 14)),
    "off centre by parts of a pixel": star(48, (30.4, 16.3), width=50),
    "in the corners, even": np.fft.ifftshift(star(32, 16)),
    "in the corners, odd": np.fft.ifftshift(star(33, 16)),
    "rolled along y": np.roll(star(32, 16), 16, 0),
    "rolled along x": np.roll(star(33, 16), 16, 1),
    "in the corners, on a sky": 100 * np.fft.ifftshift(star(32, 16)) + 5,
    "301 px": star(301, 150),
    "500 px": star(500, 249.5),
    "sky": 100 * star(41, 20) + 5,
    "tiny negatives": star(41, 20) - 1e-6,
    "1e8 times": 1e8 * star(25, 12),
    "one plane": star(25, 12)[None],
    "integers": np.rint(6e4 * star(25, 12)),
    "oblong": star(25, (12, 20), width=41),
}


@pytest.mark.parametrize("form", STAMPS)
def test_stamps_of_one_psf_give_one_kernel(tmp_path: Path, plain: Array, form: str) -> None:
    found, notes = blur(save(tmp_path / "psf.fits", STAMPS[form]))
    # shifted by parts of a pixel, what lies beyond the Nyquist frequency (0.3 % at 2.6 px) comes out otherwise
    assert distance(found.mean, plain) < 0.015
    assert not notes.warnings
    assert max(found.mean.shape) < 75


def test_nan_counts_as_empty_but_not_in_the_core() -> None:
    image = star(41, 20)
    image[:3] = np.nan
    image[5, 5] = np.inf
    found, notes = describe_centring(image)
    assert distance(found, describe_centring(star(41, 20))[0]) < 1e-9
    assert any("NaN" in line for line in notes)
    image[20, 21] = np.nan
    with pytest.raises(InputError, match="NaN"):
        describe_centring(image)


def corner() -> Array:
    image = np.zeros((31, 31))
    image[:3, :3] = [[1, 0.5, 0.1], [0.5, 0.2, 0.05], [0.1, 0.05, 0.01]]
    return image


@pytest.mark.parametrize(
    ("image", "where"),
    [
        (corner(), "y 0, x 0"),
        (star(41, (1, 20)), "y 1, x 20"),
        (star(41, (38, 39)), "y 38, x 39"),
        (star(41, 12) + star(41, 28), "y 28, x 28"),
    ],
)
def test_light_that_is_cut_off_or_at_two_places_is_refused(image: Array, where: str) -> None:
    with pytest.raises(InputError, match=where):
        describe_centring(image)


def test_noise_beyond_the_light_is_cut_and_cut_wings_are_said() -> None:
    noise = np.random.default_rng(0).normal(0, 2e-5, (201, 201))  # 0.8 of the light, added up without sign
    found, notes = describe_centring(star(201, 100) + noise)
    assert max(found.shape) < 60
    assert distance(found, describe_centring(star(201, 100))[0]) < 0.05  # what noise the square of the light has
    assert any("noise" in line for line in notes)
    _, notes = describe_centring(star(5, 2))
    assert any("border" in line for line in notes.warnings)


def test_wings_beyond_the_frame_are_cut_and_told(tmp_path: Path) -> None:
    radius = np.hypot(*(np.indices((121, 121)) - 60))
    wide = save(tmp_path / "a.fits", 1 / (1 + (radius / 3) ** 2) ** 1.5)
    found, notes = blur(wide, frame_of(24, 30))
    assert found.mean.shape[0] <= 48
    assert found.mean.shape[1] <= 60
    assert found.mean.sum() == pytest.approx(1)
    assert any("% of its light" in line for line in notes.warnings)


def test_a_cube_has_an_image_for_each_plane(tmp_path: Path) -> None:
    widths = (2.4, 3.0, 3.6)
    path = save(tmp_path / "psf.fits", np.stack([star(33, 16, width) for width in widths]))
    blurs, _ = WholePSF(frame_of(planes=3), 2, 2.0).of_spec(path)
    found = [psf.fwhm(one.mean) for one in blurs if one is not None]
    for width, one in zip(widths, found, strict=True):
        alone = blur(save(tmp_path / "one.fits", star(33, 16, width)))[0]
        assert one == psf.fwhm(alone.mean)
    with pytest.raises(InputError, match="3 images for a frame of 2 planes"):
        WholePSF(frame_of(planes=2), 2, 2.0).of_spec(path)


def test_several_images_are_told_and_one_named_psf_is_taken(tmp_path: Path, plain: Array) -> None:
    for names, warned in ((("A", "B"), True), (("SCI", "PSF"), False)):
        images = [fits.ImageHDU(star(25, 12, w).astype("f4"), name=n) for n, w in zip(names, (4.0, FWHM), strict=True)]
        fits.HDUList([fits.PrimaryHDU(), *images]).writeto(tmp_path / "psf.fits", overwrite=True)
        found, notes = blur(str(tmp_path / "psf.fits"))
        assert bool(notes.warnings) == warned
        assert (distance(found.mean, plain) < 1e-6) != warned


def test_a_tiff_with_its_own_pixel_size(tmp_path: Path) -> None:
    frame = frame_of(pixel=None).with_(pixel_size=PixelSize(0.1, 0.1, "um"), kind="micro")
    size = {"PhysicalSizeX": 0.025, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.025, "PhysicalSizeYUnit": "µm"}
    tifffile.imwrite(tmp_path / "psf.ome.tif", FINE.astype("f4"), metadata={"axes": "YX", **size}, ome=True)
    fine, notes = blur(str(tmp_path / "psf.ome.tif"), frame)
    tifffile.imwrite(tmp_path / "plain.tif", star(25, 12).astype("f4"))
    same, _ = blur(str(tmp_path / "plain.tif"), frame)
    assert distance(fine.mean, same.mean) < 0.01
    assert any("4 samples" in line for line in notes)


def width_at(y: Array, x: Array, side: int = 200) -> Array:
    return 2.6 + 0.8 * np.asarray(y) / side + 0.4 * np.asarray(x) / side


def effective(y: float, x: float, samples: int, side: int) -> Array:
    """An ePSF: a Gaussian that has the frame's pixel in it, sampled more finely."""
    return star(side, side // 2, samples * float(np.hypot(width_at(y, x), 0.68)))


def stpsf(path: Path) -> str:
    places = [(y, x) for x in (0, 66, 133, 199) for y in (0, 66, 133, 199)]
    cards: dict[str, Any] = {"OVERSAMP": 4, "DET_SAMP": 4}
    cards |= {f"DET_YX{i}": f"({y:.1f}, {x:.1f})" for i, (y, x) in enumerate(places)}
    return save(path, np.stack([effective(y, x, 4, 81) for y, x in places]), cards)


def stdpsf(path: Path) -> str:
    xs, ys = (1, 67, 134, 200), (1, 67, 134, 200)
    cards: dict[str, Any] = {"NXPSFS": 4, "NYPSFS": 4}
    cards |= {f"IPSFX{i + 1:02d}": x for i, x in enumerate(xs)} | {f"JPSFY{i + 1:02d}": y for i, y in enumerate(ys)}
    return save(path, np.stack([effective(y - 1, x - 1, 4, 81) for y in ys for x in xs]), cards)


def table(path: Path) -> str:
    at = np.random.default_rng(2).uniform(0, 199, (20, 2))
    places = [(0, 0), (0, 199), (199, 0), (199, 199), (100, 100), *at]
    columns = [fits.Column(n, "D", array=np.array([p[i] for p in places], float)) for i, n in enumerate("YX")]
    images = np.stack([effective(y, x, 4, 81) for y, x in places]).astype("f4")
    fits.HDUList([fits.PrimaryHDU(images), fits.BinTableHDU.from_columns(columns)]).writeto(path)
    return f"{path},oversample=4,effective=1"


@pytest.mark.parametrize("make", [stpsf, stdpsf, table])
def test_grids_of_psfs_give_the_local_one(tmp_path: Path, make: Callable[[Path], str]) -> None:
    found, notes = blur(make(tmp_path / "grid.fits"), frame_of(200, 200, pixel=None))
    assert found.varies
    assert not notes.warnings
    for y, x in ((0, 0), (199, 199), (0, 199), (66, 133)):
        here = found.at(2 * y + 0.5, 2 * x + 0.5)
        wanted = psf.kernel_from_psf(f"gaussian:fwhm={width_at(y, x)}px", pixel=None, scale=2)
        assert wanted is not None
        # between images of two widths lies their mean, which is not the image of the mean width: 3 % at most here
        assert psf.fwhm(here) == pytest.approx(psf.fwhm(wanted), rel=0.03)
        assert here.sum() == pytest.approx(1, abs=1e-5)  # float32 of the weights
        away = [np.average(i - n // 2, weights=here) for i, n in zip(np.indices(here.shape), here.shape, strict=True)]
        assert np.abs(away).max() < 0.02


def terms() -> Array:
    """Images of a PSFEx model that is linear in the position: at its centre, along x, along y; (3, Y, X)."""
    across = (effective(99.5, 104.5, 2, 41) - effective(99.5, 94.5, 2, 41)) * 20
    along = (effective(104.5, 99.5, 2, 41) - effective(94.5, 99.5, 2, 41)) * 20
    return np.stack([effective(99.5, 99.5, 2, 41), across, along])


def psfex(path: Path, as_row: bool, zero: tuple[float, float] = (100.5, 100.5), scale: float = 200.0) -> str:
    """A PSFEx model: numbers in the header, or in columns of the row."""
    mask = terms()[None].astype("f4")
    numbers = {"POLNAXIS": 2, "POLGRP1": 1, "POLNAME1": "X_IMAGE", "POLZERO1": zero[1], "POLSCAL1": scale, "POLGRP2": 1,
               "POLNAME2": "Y_IMAGE", "POLZERO2": zero[0], "POLSCAL2": scale, "POLNGRP": 1, "POLDEG1": 1,
               "PSF_SAMP": 0.5}  # fmt: skip
    columns = [fits.Column("psf_mask" if as_row else "PSF_MASK", f"{mask.size}E", dim="(41,41,3)", array=mask)]
    if as_row:
        kinds = {str: "7A", int: "K", float: "D"}
        columns += [fits.Column(key.lower(), kinds[type(v)], array=np.array([v])) for key, v in numbers.items()]
    hdu = fits.BinTableHDU.from_columns(columns, name="PSF_DATA")
    if not as_row:
        hdu.header.update(numbers)
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path, overwrite=True)
    return str(path)


@pytest.mark.parametrize("as_row", [False, True])
def test_psfex_polynomials(tmp_path: Path, as_row: bool) -> None:
    found, notes = blur(psfex(tmp_path / "a.psf", as_row), frame_of(200, 200, pixel=None))
    assert not notes.warnings
    for y, x in ((99.5, 99.5), (119, 99), (99, 140), (0, 0), (199, 30)):
        here = found.at(2 * y + 0.5, 2 * x + 0.5)
        local = np.tensordot([1, (x - 99.5) / 200, (y - 99.5) / 200], terms(), 1)
        wanted, _ = blur(save(tmp_path / "b.fits", local, {"PSF_SAMP": 0.5}), frame_of(pixel=None))
        assert distance(here, wanted.mean) < 5e-3  # principal components and what is cut of the wings
        assert here.sum() == pytest.approx(1, abs=1e-5)


def test_the_place_of_a_cutout_is_read_or_warned_of(tmp_path: Path) -> None:
    from types import SimpleNamespace

    path = psfex(tmp_path / "a.psf", False)
    small = frame_of(40, 40, pixel=None)
    whole, _ = blur(path, frame_of(200, 200, pixel=None))
    unknown, notes = blur(path, small)
    assert any("LTV1" in line for line in notes.warnings)
    assert psf.fwhm(unknown.mean) == pytest.approx(psf.fwhm(whole.at(199.5, 199.5)), rel=1e-3)
    header = SimpleNamespace(image=fits.Header({"LTV1": -150.0, "LTV2": -120.0}))
    known, notes = blur(path, small.with_(header=header))
    assert not notes.warnings
    # pixel 20 of the cutout is pixel 140, 170 of the field
    here, there = known.at(2 * 20 + 0.5, 2 * 20 + 0.5), whole.at(2 * 140 + 0.5, 2 * 170 + 0.5)
    assert psf.fwhm(here) == pytest.approx(psf.fwhm(there), rel=2e-3)
    # a model whose own zero was moved with the cutout needs no card
    moved, notes = blur(psfex(tmp_path / "b.psf", True, (100.5 - 120, 100.5 - 150)), small)
    assert not notes.warnings
    assert distance(moved.at(40.5, 40.5), here) < 2e-3


def test_windows_of_smooth_maps_are_the_same_whoever_asks(tmp_path: Path) -> None:
    from sciresdiff.region import Region

    found, _ = blur(psfex(tmp_path / "a.psf", False), frame_of(200, 200, pixel=None))
    large, small = found.window(Region(10, 300, 0, 400)), found.window(Region(100, 150, 37, 90))
    inner = large.window(Region(90, 140, 37, 90))
    assert found.maps is not None
    assert large.maps is not None
    assert small.maps is not None
    np.testing.assert_array_equal(large.maps[:, 90:140, 37:90], small.maps)
    np.testing.assert_array_equal(inner.maps, small.maps)
    np.testing.assert_array_equal(found.maps[:, 100:150, 37:90], small.maps)
    np.testing.assert_array_equal(inner.at(3.5, 4.25), found.at(103.5, 41.25))
    assert inner == small


def test_psfs_by_channel_in_one_option() -> None:
    frame = frame_of(planes=6, axes="TCYX", shape=(3, 2, 96, 96))
    assert split_specs("gaussian:fwhm=3px", frame) == ["gaussian:fwhm=3px"]
    a, b = "gaussian:fwhm=3px", "gaussian:fwhm=4px"
    assert split_specs(f"{a}; {b}", frame) == [a, b] * 3
    assert split_specs(";".join([a] * 5 + [b]), frame) == [a] * 5 + [b]
    with pytest.raises(UsageError, match="3 PSFs are given for 2 channels and 6 planes"):
        split_specs(f"{a};{b};{a}", frame)


def test_piff_draws_its_own_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    from types import SimpleNamespace

    hdus = [fits.PrimaryHDU(), *(fits.BinTableHDU.from_columns([fits.Column("type", "8A", array=["Star"])], name=n)
                                 for n in ("psf", "psf_stars"))]  # fmt: skip
    path = str(tmp_path / "a.piff")
    fits.HDUList(hdus).writeto(path)
    monkeypatch.setitem(sys.modules, "piff", None)  # as if it were not installed
    with pytest.raises(InputError, match="pip install piff"):
        blur(path)

    def draw(x: float, y: float, stamp_size: int, center: bool) -> Any:
        assert center
        return SimpleNamespace(array=star(stamp_size, stamp_size // 2, float(width_at(y - 1, x - 1))))

    def picky(**given: Any) -> Any:
        raise TypeError("chipnum is needed")

    for function in (draw, picky):
        model = SimpleNamespace(draw=function)
        monkeypatch.setitem(sys.modules, "piff", SimpleNamespace(read=lambda _, model=model: model))
        if function is picky:
            with pytest.raises(InputError, match="chipnum"):
                blur(path)
            continue
        found, notes = blur(path, frame_of(200, 200, pixel=None))
        assert not notes.warnings
        here, wanted = found.at(0.5, 0.5), psf.kernel_from_psf("gaussian:fwhm=2.6px", pixel=None, scale=2)
        assert wanted is not None
        assert psf.fwhm(here) == pytest.approx(psf.fwhm(wanted), rel=0.01)


REAL = {
    "hsc": ("hsc_cutouts/test1/psf-calexp-pdr3_dud_rev-HSC-I-9813.fits", 3.48, 0.168),
    "sdss": ("sdss_kids/SDSS/G265940psfim.fits", 3.51, 0.339),
    "spire": ("ir/s250_psf.fits", 3.09, 6.0),
    "webbpsf": ("jwst_pair/jw01324001001_webbpsf.fits", 2.14, 0.0308),
    "euclid": ("euclid_group/group.fits[NIR_Y_PSF]", 4.18, 0.1),
    "tinytim": ("psf_formats/acs_hrc_f606w.fits", 2.13, 0.0265),
    "psfex": ("decam_exposures/c4d_140818_232043_ooi_z_ls9-N12-psfex.fits", 3.01, 0.26),
    "galsim": ("galsim/real_galaxy_PSF_images.fits[5]", 3.54, 0.03),
}


@pytest.mark.parametrize("name", REAL)
def test_real_files_have_the_width_that_was_looked_at(shared_data: Path, name: str) -> None:
    from sciresdiff.physics.psf.file import image_of_file

    path, fwhm, pixel = REAL[name]
    image, notes = image_of_file(psf.parse(str(shared_data / "astro" / path)), PixelSize(pixel, pixel, "arcsec"))
    assert psf.fwhm(image) == pytest.approx(fwhm, rel=0.01)
    assert not notes.warnings


def test_psf_samp_of_an_image_is_doubtful_unless_the_pixel_is_stated(tmp_path: Path) -> None:
    yy, xx = np.indices((65, 65)) - 32
    image = np.exp(-(yy**2 + xx**2) / (2 * 2.2**2))
    for name, cards in (("plain", {}), ("psfex", {"POLNAXIS": 0, "CHI2": 1.0})):
        fits.PrimaryHDU(image.astype("f4"), fits.Header({"PSF_SAMP": 0.5, **cards})).writeto(tmp_path / f"{name}.fits")
    pixel = PixelSize(0.2, 0.2, "arcsec")

    def warned(name: str, stated: dict[str, float]) -> bool:
        found = read_psf_file(str(tmp_path / f"{name}.fits"), stated).sampling.of_frame(pixel, name)[2]
        return any(line.startswith("WARNING") and "PSF_SAMP" in line for line in found)

    assert warned("plain", {})
    assert not warned("plain", {"effective": 0})
    assert not warned("psfex", {})


def test_a_grid_of_places_does_not_swing_between_its_outermost_ones() -> None:
    lines = np.linspace(0, 100, 5)
    places = np.stack(np.meshgrid(lines, lines, indexing="ij"), -1).reshape(-1, 2)
    between = np.linspace(0, 100, 81)
    y, x = np.meshgrid(between, between, indexing="ij")
    weights = Positions(places).weights(y, x)
    np.testing.assert_allclose(weights.sum(0), 1, atol=1e-12)
    np.testing.assert_allclose(np.tensordot(places[:, 0], weights, (0, 0)), y, atol=1e-9)  # a slope stays one
    bend = np.diff(weights[:, :, 40], 2, axis=1)
    assert np.abs(bend[:, [0, -1]]).max() < 0.1 * np.abs(bend).max()  # straight at its ends
    # ellipticity that turns about the middle, as that of a telescope does: it is no polynomial there
    turns = (np.hypot(*(at - 50 for at in (y, x))) / 50, np.hypot(*(places.T - 50)) / 50)
    off = np.abs(np.tensordot(turns[1], weights, (0, 0)) - turns[0])
    lines_off = np.abs(bilinear(lines, turns[1].reshape(5, 5), between) - turns[0])
    assert off.mean() < 0.75 * lines_off.mean()


def bilinear(lines, values, at):
    from scipy.interpolate import make_interp_spline

    rows = make_interp_spline(lines, values, 1)(at)
    return make_interp_spline(lines, rows, 1, axis=1)(at)


@pytest.mark.parametrize("fwhm", [1.2, 1.5, 1.8])
def test_an_undersampled_image_gives_the_kernel_of_its_profile(fwhm: float) -> None:
    image = star(21, 10, fwhm=fwhm)
    (found,), notes = WholePSF(frame_of(), 2, 2.0).of_images(image)
    stated = psf.kernel_from_psf(psf.parse(f"gaussian:fwhm={fwhm}px"), pixel=None, scale=2, target_fwhm_px_fine=2.0)
    assert any("undersampled" in line for line in notes)
    assert found is not None and found.kernels.min() > -0.01  # a division of what is aliased has lobes of -0.03
    size = max(found.kernels[0].shape[0], stated.shape[0])
    there = [np.pad(k, (size - k.shape[0]) // 2) for k in (found.kernels[0], stated)]
    assert np.abs(there[0] - there[1]).max() < 0.01 * stated.max()  # the profile is fitted to 1 % of the peak


def test_an_undersampled_image_narrower_than_the_target_is_refused() -> None:
    with pytest.raises(InputError, match="narrower than the target"):
        WholePSF(frame_of(), 2, 3.5).of_images(star(21, 10, fwhm=1.2))


def test_an_undersampled_image_that_is_no_profile_is_used_as_it_is() -> None:
    image = star(21, 10, fwhm=1.5) + 0.3 * star(21, 12, fwhm=1.5)
    _, notes = WholePSF(frame_of(), 2, 2.0).of_images(image / image.sum())
    assert not any("undersampled" in line for line in notes)

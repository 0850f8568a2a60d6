"""TIFF in: OME, ImageJ and plain files, with the pixel size and optics that their metadata state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from sciresdiff.errors import InputError
from sciresdiff.frame import Frame, PixelSize, Quantity
from sciresdiff.io.files import existing, first_line, split_spec
from sciresdiff.io.planes import in_single, settled, to_variance
from sciresdiff.io.tiff_meta import TiffHeader, optics, parsed, provenance, ratio, size_of, to_float

Array = NDArray[Any]

BIT_DEPTHS = (8, 10, 12, 14)
"""Cameras whose values end below the integer type's maximum."""


def read(
    path: str | Path,
    *,
    ext: str | None = None,
    variance: str | None = None,
    mask: str | None = None,
    axes: str | None = None,
    quantity: Quantity | None = None,
    pixel_size: float | PixelSize | None = None,
) -> Frame:
    """Read the first image series of a TIFF; ``sciresdiff.io.read`` describes the parameters.

    Raises
    ------
    InputError
        Missing, truncated or foreign file, ambiguous or wrong axes, 8-bit colour, NaN only.
    """
    file, _ = split_spec(path)
    data, header, said = _load(file, axes)
    planes, bad = in_single(file, to_planes(data, header.axes))
    header = _sized(header, pixel_size)
    facts = optics(header.ome)
    if header.pixel_size is None:
        said = [*said, "pixel size: the file does not say; give --pixel-size for sizes in micrometres"]
    frame = Frame(
        pixels=planes,
        mask=bad,
        kind="micro",
        quantity=quantity,
        pixel_size=header.pixel_size,
        facts=facts,
        axes=header.axes,
        shape=header.shape,
        dtype=data.dtype,
        header=header,
        said=tuple(said),
    )
    return _restored(_other_planes(_saturation(frame), file, variance, mask), file)


def read_image(path: str | Path) -> NDArray[np.float64]:
    """The first series as it is: (Y, X), or (planes, Y, X) with every other axis in front."""
    file, _ = split_spec(path)
    with _opened(file) as tif:
        data, letters = _decoded_pixels(file, tif), str(tif.series[0].axes)
    if data.ndim > 2 and letters.endswith("S"):
        data = np.moveaxis(data, -1, 0)
    return data.astype(np.float64)


def to_planes(data: Array, axes: str) -> Array:
    """(planes, Y, X) from an array with any order of axes."""
    order = [i for i, a in enumerate(axes) if a not in "YX"] + [axes.index("Y"), axes.index("X")]
    moved = data.transpose(order)
    return moved.reshape(-1, *moved.shape[-2:])


def from_planes(planes: Array, axes: str, shape: tuple[int, ...]) -> Array:
    """The array that ``to_planes`` came from, Y and X being those of the planes."""
    others = [i for i, a in enumerate(axes) if a not in "YX"]
    order = [*others, axes.index("Y"), axes.index("X")]
    return planes.reshape(*(shape[i] for i in others), *planes.shape[-2:]).transpose(np.argsort(order))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    existing(path)
    try:
        tif = tifffile.TiffFile(path)
    except Exception as error:  # tifffile raises many kinds on damaged files
        raise InputError(f"{path}: not a whole TIFF file ({first_line(error)}); check or fetch it again") from error
    with tif:
        if not tif.series:
            raise InputError(f"{path}: no image in it")
        yield tif


def _decoded_pixels(path: Path, tif: Any) -> Array:
    """The first series; tifffile would fill what is missing with zeros, so the file's length is looked at first."""
    series, length = tif.series[0], tif.filehandle.size
    try:
        pages = [page for page in series.pages if page is not None]
        ends = [o + n for page in pages for o, n in zip(page.dataoffsets, page.databytecounts, strict=True)]
        whole = max(ends, default=0) <= length
        data = np.asarray(series.asarray()) if whole else None
    except Exception as error:  # unknown codecs, damaged strips
        raise InputError(f"{path}: pixels cannot be read ({first_line(error)}); check or fetch it again") from error
    if data is None:
        raise InputError(f"{path}: not a whole TIFF file (truncated at {length} bytes); check or fetch it again")
    return data


def _load(path: Path, axes: str | None) -> tuple[Array, TiffHeader, list[str]]:
    with _opened(path) as tif:
        series = tif.series[0]
        letters = _letters(path, series, axes)
        said = [f"{len(tif.series)} image series in the file: read the first"] if len(tif.series) > 1 else []
        data = _decoded_pixels(path, tif)
        _check(path, data, letters)
        if "S" in letters:
            said.append("colour: channels are read one by one; gamma-coded colour is not photometric")
        header, more = _header(tif, series, letters)
    return data.astype(data.dtype.newbyteorder("="), copy=False), header, said + more


def _letters(path: Path, series: Any, axes: str | None) -> str:
    """Axis letters, from the user, else from the file where it is sure."""
    shape = tuple(series.shape)
    letters = axes.upper() if axes else str(series.axes)
    if not axes and set(letters) & set("QI"):
        example = letters.replace("Q", "T").replace("I", "T")
        raise InputError(
            f"{path}: axes {letters} of shape {shape} do not say what {'/'.join(sorted(set(letters) & set('QI')))} is; "
            f"give --axes, for instance {example} (time) or {example.replace('T', 'Z')} (depth)"
        )
    sound = len(letters) == len(shape) and len(set(letters)) == len(letters) and {"Y", "X"} <= set(letters)
    if not sound or not letters.isalpha():
        raise InputError(f"{path}: axes {letters!r} do not fit shape {shape}; one letter per axis, Y and X among them")
    return letters


def _check(path: Path, data: Array, letters: str) -> None:
    if 0 in data.shape:
        raise InputError(f"{path}: an axis has no pixel; shape {data.shape}")
    if data.dtype.kind not in "iuf":
        raise InputError(f"{path}: pixels of type {data.dtype}; integers or floats are read")
    if "S" in letters and data.dtype.itemsize == 1:
        raise InputError(f"{path}: 8-bit colour is gamma-coded for display; give the channels as measured, without it")


def _header(tif: Any, series: Any, letters: str) -> tuple[TiffHeader, list[str]]:
    page = tif.pages[0]
    tags = [page.tags.get(name) for name in ("XResolution", "YResolution", "ResolutionUnit")]
    resolution = None
    if tags[0] is not None and tags[1] is not None:
        unit = int(tags[2].value) if tags[2] is not None else 2
        resolution = (ratio(tags[0].value), ratio(tags[1].value), unit)
    ome = str(tif.ome_metadata or "") if tif.is_ome else ""
    imagej = dict(tif.imagej_metadata or {}) if tif.is_imagej else {}
    style = "ome" if parsed(ome) is not None else "imagej" if tif.is_imagej else "plain"
    size, said = size_of(style, ome, imagej, resolution)
    header = TiffHeader(
        style=style,
        axes=letters,
        shape=tuple(series.shape),
        pixel_size=size,
        stated=size is not None,
        resolution=resolution,
        ome=ome if style == "ome" else "",
        imagej=imagej,
        description=str(page.description or ""),
        colour="S" in letters,
    )
    return header, said


def _sized(header: TiffHeader, given: float | PixelSize | None) -> TiffHeader:
    if given is None:
        return header
    size = given if isinstance(given, PixelSize) else PixelSize(float(given), float(given), "um")
    return replace(header, pixel_size=size, stated=False)


def _saturation(frame: Frame) -> Frame:
    """Mask pixels at the integer type's maximum, or at the end of a camera's 8 to 14 bits where several lie there."""
    if frame.dtype.kind not in "iu":
        return frame
    top = float(np.iinfo(frame.dtype).max)
    largest = float(np.nanmax(frame.pixels))
    camera = largest in [2.0**bits - 1 for bits in BIT_DEPTHS] and frame.dtype.itemsize > 1
    level = largest if camera and (frame.pixels == largest).sum() > 1 else top
    full = frame.pixels == np.float32(level)
    facts = {**frame.facts, "saturation": level}
    if full.mean() > 0.5:
        return frame.with_(facts=facts).say(f"saturation: most pixels are {level:g}; taken as values, not masked")
    frame = frame.with_(facts=facts, saturated=full, mask=frame.mask | full)
    return frame.say(f"saturation: {int(full.sum())} pixels at {level:g}, masked") if full.any() else frame


def _other_planes(frame: Frame, file: Path, variance: str | None, mask: str | None) -> Frame:
    """Variance and mask from files of their own."""
    if mask is not None:
        plane = _plane(frame, file, "mask", mask)
        frame = frame.with_(mask=frame.mask | (np.nan_to_num(plane, nan=1.0) != 0))
    if variance is not None:
        plane = _plane(frame, file, "variance", variance)
        return settled(frame, to_variance(plane, split_spec(variance)[0].name))
    return frame


def _plane(frame: Frame, file: Path, what: str, spec: str) -> Array:
    from sciresdiff.io import read_image as read_any

    if not split_spec(spec)[0].is_file():
        raise InputError(f"{split_spec(spec)[0]}: no such file; {what} of a TIFF is a file of its own")
    plane = read_any(spec)
    if plane.shape[-2:] != frame.pixels.shape[1:] or (plane.ndim == 3 and len(plane) not in (1, frame.planes)):
        raise InputError(f"{file}: {what} {spec} has shape {plane.shape}, the image {frame.shape}")
    return np.broadcast_to(plane, frame.pixels.shape)


def _restored(frame: Frame, file: Path) -> Frame:
    """What this program wrote about its own files: kernel, scale, target PSF, and the variance beside."""
    told = provenance(frame.header)
    if "SRDKSCAL" in told:
        kernel = told.get("KERNEL", told.get("SRDKERN", "none"))
        array = np.asarray(kernel, np.float64) if isinstance(kernel, list) else kernel
        frame = frame.with_(kernel=array, kernel_scale=round(float(told["SRDKSCAL"])))
    facts = dict(frame.facts)
    for name, key in (("scale", "SRDSCALE"), ("psf_known", "SRDTFWHM")):
        if (found := to_float(str(told.get(key, "")))) > 0:
            facts[name] = found
    psf = f"gaussian:fwhm={facts['psf_known']:g}px" if "psf_known" in facts else None
    frame = frame.with_(facts=facts, psf=psf, quantity=frame.quantity or told.get("quantity"))
    if told.get("VAR") and frame.variance is None:
        return _beside(frame, file)
    return frame


def _beside(frame: Frame, file: Path) -> Frame:
    from sciresdiff.io import stem

    other = file.with_name(f"{stem(file)}_var.tif")
    if not other.is_file():
        return frame.say(f"noise: {other.name} is not beside the image any more")
    return settled(frame, _plane(frame, file, "variance", str(other))).say(f"noise: {other.name}")

"""TIFF in: OME, ImageJ and plain files, with pixel size and optics from their metadata."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.errors import InputError
from sciresdiff.frame import Frame, PixelSize, Quantity
from sciresdiff.io import stem
from sciresdiff.io.dtypes import to_float32
from sciresdiff.io.files import split_spec
from sciresdiff.io.provenance import apply_provenance
from sciresdiff.io.saturation import mask_saturated, scan_maximum
from sciresdiff.io.source import ReadFrame, Source, check_size, placeholder, replace_frame
from sciresdiff.io.tiff.metadata import (
    TiffHeader,
    find_element,
    parse_xml,
    rational_to_float,
    read_optics,
    read_pixel_size,
    read_provenance,
    read_z_step,
)
from sciresdiff.io.tiff.planes import add_planes, add_variance, open_first_series
from sciresdiff.io.tiff.series import SeriesReader, open_tiff, report_damage, series_reader
from sciresdiff.notes import Notes
from sciresdiff.region import Region

Array = NDArray[Any]


def read(path: str | Path, **options: Any) -> Frame:
    """Read the first image series of a TIFF; `sciresdiff.io.read` describes the options.

    Raises
    ------
    InputError
        Missing, truncated or foreign file, ambiguous or wrong axes, 8-bit colour, NaN only, a damaged page.
    """
    with source(path, **options) as opened:
        return opened.whole()


@contextmanager
def source(
    path: str | Path,
    *,
    ext: str | None = None,
    variance: str | None = None,
    mask: str | None = None,
    axes: str | None = None,
    quantity: Quantity | None = None,
    pixel_size: float | PixelSize | None = None,
    saturated: bool = True,
    outside: bool = False,
) -> Iterator[Source]:
    """Open the first image series of a TIFF, to be read region by region; errors as in `read`.

    The whole image is read once when it is opened, for saturation can only be recognised in all of it.
    """
    file, _ = split_spec(path)
    with ExitStack() as stack:
        with report_damage(file):
            pixels, header, notes = _open_series(stack, file, axes, outside)
        header = _with_pixel_size(header, pixel_size)
        if header.pixel_size is None:
            notes += Notes("pixel size: the file does not say; give --pixel-size for sizes in micrometres")
        shape = (pixels.planes, *(pixels.shape[pixels.axes.index(a)] for a in "YX"))
        frame = Frame(
            pixels=placeholder(shape, np.float32),
            mask=placeholder(shape, bool),
            kind="micro",
            quantity=quantity,
            pixel_size=header.pixel_size,
            facts=read_optics(header.ome) | read_z_step(header.style, header.ome, header.imagej),
            axes=header.axes,
            shape=header.shape,
            dtype=pixels.dtype,
            header=header,
            notes=notes,
        )
        image = Source(frame, _cut(file, pixels, frame), str(file))
        maximum = scan_maximum(file, image)
        marked = mask_saturated(image, maximum) if saturated else image
        yield _with_provenance(add_planes(marked, stack, file, variance, mask), stack, file)


def read_image(path: str | Path) -> NDArray[np.float64]:
    """Read the first series as it is: (Y, X), or (..., Y, X) with every other axis in front.

    Raises
    ------
    InputError
        Missing, truncated or foreign file, a damaged page.
    """
    with ExitStack() as stack:
        pixels = open_first_series(stack, split_spec(path)[0])
        y, x = (pixels.shape[pixels.axes.index(a)] for a in "YX")
        planes = [pixels.window(i, Region(0, y, 0, x)) for i in range(pixels.planes)]
    lead = [n for a, n in zip(pixels.axes, pixels.shape, strict=True) if a not in "YX"]
    return np.stack(planes).reshape(*lead, y, x).astype(np.float64)


def to_planes(data: Array, axes: str) -> Array:
    """Rearrange an array to planes.

    Parameters
    ----------
    data : array
        Axes in any order.
    axes : str
        A letter for each axis, Y and X among them.

    Returns
    -------
    (planes, Y, X) array
        The last of the other axes varies fastest.
    """
    order = [i for i, a in enumerate(axes) if a not in "YX"] + [axes.index("Y"), axes.index("X")]
    moved = data.transpose(order)
    return moved.reshape(-1, *moved.shape[-2:])


def from_planes(planes: Array, axes: str, shape: tuple[int, ...]) -> Array:
    """Undo `to_planes`.

    Parameters
    ----------
    planes : (planes, Y, X) array
        Y and X may differ from those in ``shape``.
    axes : str
        Order of the array.
    shape : tuple of int
        Sizes of the other axes, in the order of ``axes``.
    """
    others = [i for i, a in enumerate(axes) if a not in "YX"]
    order = [*others, axes.index("Y"), axes.index("X")]
    return planes.reshape(*(shape[i] for i in others), *planes.shape[-2:]).transpose(np.argsort(order))


def _open_series(
    stack: ExitStack, path: Path, axes: str | None, outside: bool
) -> tuple[SeriesReader, TiffHeader, Notes]:
    tif = stack.enter_context(open_tiff(path, outside))
    series = tif.series[0]
    check_size(path, tuple(series.shape))
    letters = _resolve_axes(path, series, axes)
    _check(path, tuple(series.shape), np.dtype(series.dtype), letters)
    pixels = series_reader(path, tif, letters)
    header, of_header = _header(tif, series, letters)
    return pixels, header, _notes(tif, pixels, letters) + of_header


def _notes(tif: Any, pixels: SeriesReader, letters: str) -> Notes:
    """Notes on a series."""
    series, notes = tif.series[0], Notes()
    if len(tif.series) > 1:
        notes += Notes(f"{len(tif.series)} image series in the file: read the first")
    if series.is_multifile:
        count = len({page.parent.filename for page in series.pages if page is not None})
        notes += Notes(f"{count} files make up this image: read as one")
    if pixels.missing:
        notes += Notes(f"planes: {len(pixels.missing)} of {pixels.planes} are named in the file and not there; masked")
    if "S" in letters:
        notes += Notes("colour: channels are read one by one; gamma-coded colour is not photometric")
    return notes


def _cut(path: Path, pixels: SeriesReader, frame: Frame) -> ReadFrame:
    """Reads regions of the image alone; planes that are missing from the file are NaN."""

    def cut(plane: int, region: Region) -> Frame:
        if plane in pixels.missing:
            values = np.full((1, *region.shape), np.nan, np.float32)
            return frame.with_(pixels=values, mask=np.ones(values.shape, bool))
        with report_damage(path):
            values, bad = to_float32(path, pixels.window(plane, region)[None])
        return frame.with_(pixels=values, mask=bad)

    return cut


def _resolve_axes(path: Path, series: Any, axes: str | None) -> str:
    """Axis letters: the user's, else the file's unless they are ambiguous."""
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


def _check(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], letters: str) -> None:
    if 0 in shape:
        raise InputError(f"{path}: an axis has no pixel; shape {shape}")
    if dtype.kind not in "iuf":
        raise InputError(f"{path}: pixels of type {dtype}; integers or floats are read")
    if "S" in letters and dtype.itemsize == 1:
        raise InputError(f"{path}: 8-bit colour is gamma-coded for display; give the channels as measured, without it")


def _header(tif: Any, series: Any, letters: str) -> tuple[TiffHeader, Notes]:
    page = tif.pages[0]
    tags = [page.tags.get(name) for name in ("XResolution", "YResolution", "ResolutionUnit")]
    resolution = None
    if tags[0] is not None and tags[1] is not None:
        unit = int(tags[2].value) if tags[2] is not None else 2  # inches, where the tag is missing (TIFF 6.0)
        resolution = (rational_to_float(tags[0].value), rational_to_float(tags[1].value), unit)
    ome = str(tif.ome_metadata or "") if tif.is_ome else ""
    imagej = dict(tif.imagej_metadata or {}) if tif.is_imagej else {}
    style = "ome" if find_element(parse_xml(ome), "Pixels") is not None else "imagej" if tif.is_imagej else "plain"
    size, notes = read_pixel_size(style, ome, imagej, resolution)
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
    return header, notes


def _with_pixel_size(header: TiffHeader, given: float | PixelSize | None) -> TiffHeader:
    if given is None:
        return header
    size = given if isinstance(given, PixelSize) else PixelSize(float(given), float(given), "um")
    return replace(header, pixel_size=size, stated=False)


def _with_provenance(image: Source, stack: ExitStack, file: Path) -> Source:
    """Apply this program's own record, and the variance beside the image."""
    provenance = read_provenance(image.frame.header)
    image = replace_frame(image, apply_provenance(image.frame, provenance))
    return _with_own_variance(image, stack, file) if provenance.get("VAR") and image.frame.variance is None else image


def _with_own_variance(image: Source, stack: ExitStack, file: Path) -> Source:
    other = file.with_name(f"{stem(file)}_var.tif")
    if not other.is_file():
        missing = Notes(f"noise: {other.name} is not beside the image any more")
        return replace_frame(image, image.frame.with_notes(missing))
    image = add_variance(image, stack, file, str(other))
    return replace_frame(image, image.frame.with_notes(Notes(f"noise: {other.name}")))

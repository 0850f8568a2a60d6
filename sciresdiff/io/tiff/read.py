"""TIFF in: OME, ImageJ and plain files, with the pixel size and optics that their metadata state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.errors import InputError
from sciresdiff.frame import Frame, PixelSize, Quantity
from sciresdiff.io.files import split_spec
from sciresdiff.io.planes import part_in_single
from sciresdiff.io.source import Source, empty
from sciresdiff.io.tiff.marks import image_of, other_planes, with_variance
from sciresdiff.io.tiff.meta import TiffHeader, first, optics, parsed, provenance, ratio, size_of
from sciresdiff.io.tiff.series import Pixels, opened_tiff, pixels_of, sound
from sciresdiff.io.told import restored
from sciresdiff.io.windows import looked_through, saturation, telling
from sciresdiff.notes import Notes
from sciresdiff.region import Region

Array = NDArray[Any]


def read(path: str | Path, **options: Any) -> Frame:
    """Read the first image series of a TIFF; ``sciresdiff.io.read`` describes the parameters.

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
) -> Iterator[Source]:
    """The first image series of a TIFF, window by window; errors as in `read`.

    Saturation is a matter of the whole image, which is gone through once when it is opened.
    """
    file, _ = split_spec(path)
    with ExitStack() as stack:
        with sound(file):
            pixels, header, notes = _load(stack, file, axes)
        header = _sized(header, pixel_size)
        if header.pixel_size is None:
            notes += Notes("pixel size: the file does not say; give --pixel-size for sizes in micrometres")
        shape = (pixels.planes, *(pixels.shape[pixels.axes.index(a)] for a in "YX"))
        frame = Frame(
            pixels=empty(shape, np.float32),
            mask=empty(shape, bool),
            kind="micro",
            quantity=quantity,
            pixel_size=header.pixel_size,
            facts=optics(header.ome),
            axes=header.axes,
            shape=header.shape,
            dtype=pixels.dtype,
            header=header,
            notes=notes,
        )
        image = Source(frame, _cut(file, pixels, frame), str(file))
        marked = saturation(image, looked_through(file, image))
        yield _restored(other_planes(marked, stack, file, variance, mask), stack, file)


def read_image(path: str | Path) -> NDArray[np.float64]:
    """The first series as it is: (Y, X), or (planes, Y, X) with every other axis in front."""
    with ExitStack() as stack:
        pixels = image_of(stack, split_spec(path)[0])
        y, x = (pixels.shape[pixels.axes.index(a)] for a in "YX")
        planes = [pixels.window(i, Region(0, y, 0, x)) for i in range(pixels.planes)]
    lead = [n for a, n in zip(pixels.axes, pixels.shape, strict=True) if a not in "YX"]
    return np.stack(planes).reshape(*lead, y, x).astype(np.float64)


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


def _load(stack: ExitStack, path: Path, axes: str | None) -> tuple[Pixels, TiffHeader, Notes]:
    tif = stack.enter_context(opened_tiff(path))
    series = tif.series[0]
    letters = _letters(path, series, axes)
    _check(path, tuple(series.shape), np.dtype(series.dtype), letters)
    pixels = pixels_of(path, tif, letters)
    header, of_header = _header(tif, series, letters)
    return pixels, header, _notes(tif, pixels, letters) + of_header


def _notes(tif: Any, pixels: Pixels, letters: str) -> Notes:
    """What the user should know of a series."""
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


def _cut(path: Path, pixels: Pixels, frame: Frame) -> Callable[[int, Region], Frame]:
    """Regions of the image alone."""

    def cut(plane: int, region: Region) -> Frame:
        if plane in pixels.missing:
            values = np.full((1, *region.shape), np.nan, np.float32)
            return frame.with_(pixels=values, mask=np.ones(values.shape, bool))
        with sound(path):
            values, bad = part_in_single(path, pixels.window(plane, region)[None])
        return frame.with_(pixels=values, mask=bad)

    return cut


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
        unit = int(tags[2].value) if tags[2] is not None else 2
        resolution = (ratio(tags[0].value), ratio(tags[1].value), unit)
    ome = str(tif.ome_metadata or "") if tif.is_ome else ""
    imagej = dict(tif.imagej_metadata or {}) if tif.is_imagej else {}
    style = "ome" if first(parsed(ome), "Pixels") is not None else "imagej" if tif.is_imagej else "plain"
    size, notes = size_of(style, ome, imagej, resolution)
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


def _sized(header: TiffHeader, given: float | PixelSize | None) -> TiffHeader:
    if given is None:
        return header
    size = given if isinstance(given, PixelSize) else PixelSize(float(given), float(given), "um")
    return replace(header, pixel_size=size, stated=False)


def _restored(image: Source, stack: ExitStack, file: Path) -> Source:
    """What this program wrote about its own files, and the variance beside."""
    told = provenance(image.frame.header)
    image = telling(image, restored(image.frame, told))
    return _beside(image, stack, file) if told.get("VAR") and image.frame.variance is None else image


def _beside(image: Source, stack: ExitStack, file: Path) -> Source:
    from sciresdiff.io import stem

    other = file.with_name(f"{stem(file)}_var.tif")
    if not other.is_file():
        return telling(image, image.frame.with_notes(Notes(f"noise: {other.name} is not beside the image any more")))
    image = with_variance(image, stack, file, str(other))
    return telling(image, image.frame.with_notes(Notes(f"noise: {other.name}")))

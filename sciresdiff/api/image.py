"""What the verbs take for an image: an array, a file, a frame, or astropy's CCDData."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
from astropy.nddata import CCDData
from numpy.typing import NDArray

from sciresdiff import io
from sciresdiff.errors import InputError, SciresdiffWarning, UsageError
from sciresdiff.frame import Frame, Kind, PixelSize
from sciresdiff.io.source import Source, in_memory
from sciresdiff.notes import Notes
from sciresdiff.options import Option

Array = NDArray[Any]
Image: TypeAlias = Array | str | Path | Frame | CCDData
"""An image of one plane (h, w) or several (planes, h, w), the file of one, or what a verb returned."""
Options = TypeVar("Options")


@contextmanager
def open_image(
    image: Image,
    kind: Kind,
    *,
    variance: Array | str | None = None,
    mask: Array | str | None = None,
    unit: str | None = None,
    pixel_size: PixelSize | None = None,
    reading: Mapping[str, Any] | None = None,
) -> Iterator[tuple[str | None, Source]]:
    """The image as a source of windows, and its path where it is a file that is read as it stands.

    Parameters
    ----------
    image : as `Image` says.
    kind : ``astro`` or ``micro``, of an image that is no file.
    variance, mask : (h, w) or (planes, h, w) arrays that belong to it, or for a file what `io.read` takes.
    unit, pixel_size : of an array.
    reading : further keywords of `io.open_source`, for a file.

    Raises
    ------
    InputError : a file that cannot be read, an array of another number of axes, or arrays that do not fit each other.
    """
    planes = {"variance": variance, "mask": mask}
    arrays = {name: np.asarray(value) for name, value in planes.items() if value is not None and not is_name(value)}
    if isinstance(image, str | Path):
        names = {name: value for name, value in planes.items() if is_name(value)}
        with io.open_source(image, **{**(reading or {}), **names}) as source:
            if arrays:
                yield None, in_memory(with_planes(source.whole(), arrays))
            else:
                yield str(image), source
        return
    for name, value in planes.items():
        if is_name(value):
            raise InputError(f"{name}: {value!r} names a part of a file, but the image is no file; give an array")
    yield None, in_memory(with_planes(frame_of(image, kind, unit, pixel_size), arrays))


def is_name(value: Any) -> bool:
    """Whether a plane is named and not given."""
    return isinstance(value, str | Path)


def frame_of(image: Array | Frame | CCDData, kind: Kind, unit: str | None, pixel_size: PixelSize | None) -> Frame:
    """An image in memory as a frame; NaN is masked.

    Raises
    ------
    InputError : no image of two or three axes, or one of complex numbers.
    """
    image = getattr(image, "frame", image)
    if isinstance(image, Frame):
        return image
    if isinstance(image, CCDData):
        return frame_of_ccddata(image, kind)
    pixels = np.asarray(image)
    if pixels.ndim not in (2, 3) or not pixels.size or pixels.dtype.kind not in "iufb":
        raise InputError(
            f"image: an array of shape {pixels.shape} and type {pixels.dtype}; give numbers of shape (h, w) or "
            "(planes, h, w)"
        )
    stack = pixels.reshape(-1, *pixels.shape[-2:]).astype(np.float32)
    axes = "YX" if pixels.ndim == 2 else "ZYX" if kind == "astro" else "TYX"
    return Frame(stack, ~np.isfinite(stack), kind, unit=unit, pixel_size=pixel_size, axes=axes, shape=pixels.shape)


def frame_of_ccddata(image: CCDData, kind: Kind) -> Frame:
    """A `CCDData` as a frame: its data, mask, uncertainty and unit.

    Raises
    ------
    InputError : an uncertainty of another shape.
    """
    frame = frame_of(np.asarray(image.data), kind, None if image.unit is None else str(image.unit), None)
    arrays: dict[str, Array] = {}
    if image.mask is not None:
        arrays["mask"] = np.asarray(image.mask)
    if image.uncertainty is not None:
        known = image.uncertainty.uncertainty_type
        value = np.asarray(image.uncertainty.array, np.float64)
        arrays["variance"] = value if known == "var" else value**2 if known == "std" else 1 / value
    return with_planes(frame, arrays)


def with_planes(frame: Frame, arrays: Mapping[str, Array]) -> Frame:
    """A frame with other variance or mask; a pixel that either of them has no value for is masked.

    Raises
    ------
    InputError : a shape that does not fit.
    """
    for name, value in arrays.items():
        if value.shape not in (frame.pixels.shape, frame.pixels.shape[1:]):
            raise InputError(f"{name}: shape {value.shape} does not fit the image's {frame.pixels.shape[1:]}")
    whole = {name: np.broadcast_to(value, frame.pixels.shape) for name, value in arrays.items()}
    if "mask" in whole:
        frame = frame.with_(mask=frame.mask | whole["mask"].astype(bool))
    if "variance" in whole:
        variance = whole["variance"].astype(np.float64)
        frame = frame.with_(variance=variance, mask=frame.mask | ~np.isfinite(variance))
    return frame


def make_options(kind: type[Options], base: Options | None, settings: Mapping[str, Any]) -> Options:
    """The options of a verb: a dataclass, and what is given by name over it, each within its limits.

    Raises
    ------
    UsageError : a name that is no option, or a value outside of its limits.
    """
    names = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    for name in settings:
        if name not in names:
            near = get_close_matches(name, names, 1)
            hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(names)}"
            raise UsageError(f"{name}: no such option{hint}")
    # the spelling of the command line, so that both interfaces say the same sentence
    spelled = {name: "--" + name.replace("_", "-") for name in settings}
    checked = {name: Option.of(kind, name).checked(spelled[name], value) for name, value in settings.items()}
    return replace(base, **checked) if base is not None else kind(**checked)  # type: ignore[type-var]


def warn_of(notes: Notes) -> Notes:
    """The notes, those that warn raised as Python warnings too."""
    for line in notes.warnings:
        warnings.warn(line.removeprefix("WARNING "), SciresdiffWarning, stacklevel=3)
    return notes


def squeeze(stack: Array) -> Array:
    """(1, ...) as (...): an image of one plane has no axis of planes."""
    return stack[0] if len(stack) == 1 else stack

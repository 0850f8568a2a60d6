"""What the verbs take for an image: an array, a file, a frame, or astropy's NDData and CCDData."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeAlias, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
from astropy import units
from astropy.io.fits import Header
from astropy.nddata import MissingDataAssociationException, NDData, VarianceUncertainty
from numpy.typing import NDArray

from sciresdiff import io
from sciresdiff.errors import InputError, SciresdiffWarning, UsageError
from sciresdiff.frame import Frame, Kind, PixelSize
from sciresdiff.io.fits.beam import with_beam
from sciresdiff.io.fits.extensions import rescale_extension
from sciresdiff.io.fits.header import valid_header
from sciresdiff.io.fits.keywords import read_facts
from sciresdiff.io.fits.layout import rescale_cards
from sciresdiff.io.fits.read import FitsHeader
from sciresdiff.io.fits.wcs import pixel_size as measure_pixel
from sciresdiff.io.fits.wcs import wcs_cards
from sciresdiff.io.masks import warn_inverted
from sciresdiff.io.source import Source, in_memory
from sciresdiff.notes import Notes
from sciresdiff.options import Option
from sciresdiff.physics.psf.field import PSF
from sciresdiff.physics.psf.kernel import normalize_kernel
from sciresdiff.units import quantity_of_unit

Array = NDArray[Any]
Image: TypeAlias = Array | str | Path | Frame | NDData
"""An image of one plane (h, w) or several (planes, h, w), the file of one, or what a verb returned."""
Plane: TypeAlias = Array | float | str | Path
"""A variance or mask: an array of the image's shape, one number, or the name of an extension or a file."""
Options = TypeVar("Options")
NEEDED = {"variance": "real numbers, unit**2", "mask": "True where a pixel carries no information"}
"""What an array that belongs to an image holds."""


@contextmanager
def open_image(
    image: Image,
    kind: Kind,
    *,
    variance: Plane | None = None,
    mask: Plane | None = None,
    unit: str | None = None,
    pixel_size: PixelSize | None = None,
    reading: Mapping[str, Any] | None = None,
    name: str = "image",
) -> Iterator[tuple[str | None, Source]]:
    """The image as a source of windows, and its path where it is a file that is read as it stands.

    Parameters
    ----------
    image : as `Image` says.
    kind : ``astro`` or ``micro``, of an image that is no file.
    variance, mask : (h, w) or (planes, h, w) arrays that belong to it, one number, or for a file what `io.read` takes.
    unit, pixel_size : of an array.
    reading : further keywords of `io.open_source`, for a file.
    name : what it is, for messages.

    Raises
    ------
    InputError : a file that cannot be read, an array of another number of axes, or arrays that do not fit each other.
    UsageError : a kind, unit or pixel size that is none.
    """
    refuse_description(image, kind, unit, pixel_size)
    planes = {"variance": variance, "mask": mask}
    arrays = {name: value for name, value in planes.items() if value is not None and not is_name(value)}
    if isinstance(image, str | Path):
        names = {name: value for name, value in planes.items() if is_name(value)}
        with io.open_source(image, **{**(reading or {}), **names}) as source:
            if arrays:
                yield None, in_memory(with_planes(source.whole(), arrays))
            else:
                yield str(image), source
        return
    for plane, value in planes.items():
        if is_name(value):
            raise InputError(f"{plane}: {str(value)!r} names a part of a file, but the image is no file; give an array")
    frame = frame_of(image, kind, unit, pixel_size, name)
    if not np.isfinite(frame.pixels).any():
        raise InputError(f"{name}: all pixels are NaN or infinite; give one with values")
    yield None, in_memory(with_planes(frame, arrays))


def is_name(value: Any) -> bool:
    """Whether a plane is named and not given."""
    return isinstance(value, str | Path)


def refuse_description(image: Image, kind: object, unit: object, pixel_size: object) -> None:
    """Refuse what does not describe the image.

    Raises
    ------
    UsageError : another kind, a unit that is no text or belongs to no array, or a pixel size without its unit.
    """
    if kind not in get_args(Kind):
        raise UsageError(f"kind: {kind!r} is given, but astro or micro is allowed")
    if unit is not None and not isinstance(unit, str):
        raise UsageError(f"unit: {unit!r} is given, but a text is needed, for instance 'adu'")
    if unit is not None and isinstance(getattr(image, "frame", image), str | Path | Frame | NDData):
        raise UsageError(f"unit: {unit!r} is given, but this image states its own; leave it out, or give an array")
    if not isinstance(pixel_size, PixelSize | None):
        raise UsageError(f"pixel_size: {pixel_size!r} is given; say the unit too, for example '0.11um' or '0.05arcsec'")


def frame_of(image: Image, kind: Kind, unit: str | None, pixel_size: PixelSize | None, name: str = "image") -> Frame:
    """An image in memory as a frame; NaN and what a masked array masks are masked.

    Raises
    ------
    InputError : no image of two or three axes, one of anything but real numbers, or values beyond float32.
    """
    image = getattr(image, "frame", image)
    if isinstance(image, Frame):
        return image
    if isinstance(image, NDData):
        return frame_of_nddata(image, kind, name)
    pixels = array_of(name, image)
    if pixels.ndim not in (2, 3) or not pixels.size or pixels.dtype.kind not in "iuf":
        what = f"an array of shape {pixels.shape} and type {pixels.dtype}" if pixels.ndim else type(image).__name__
        raise InputError(f"{name}: {what} is given; give numbers of shape (h, w) or (planes, h, w)")
    with np.errstate(over="ignore"):
        stack = pixels.reshape(-1, *pixels.shape[-2:]).astype(np.float32)
    mask = ~np.isfinite(stack)
    if pixels.dtype.itemsize > 4 and np.isfinite(pixels.reshape(stack.shape)[mask]).any():
        raise InputError(
            f"{name}: values up to {np.abs(pixels[np.isfinite(pixels)]).max():.1e}, but float32 ends at 3.4e+38; "
            "divide it by a power of ten"
        )
    if isinstance(image, np.ma.MaskedArray):
        mask |= np.ma.getmaskarray(image).reshape(mask.shape)
    axes = "YX" if pixels.ndim == 2 else "ZYX" if kind == "astro" else "TYX"
    unit = str(image.unit) if isinstance(image, units.Quantity) else unit
    return Frame(stack, mask, kind, unit=unit, pixel_size=pixel_size, axes=axes, shape=pixels.shape)


def frame_of_nddata(image: NDData, kind: Kind, name: str) -> Frame:
    """An `NDData` or `CCDData` as a frame: data, mask, uncertainty and unit, and header and WCS where it has them.

    Raises
    ------
    InputError : an uncertainty of another shape, of an unknown type, or in a unit that is none of the image.
    """
    frame = frame_of(image.data, kind, None if image.unit is None else str(image.unit), None, name)
    frame = with_cards(frame, header_of(image))
    arrays: dict[str, Any] = {}
    if image.mask is not None:
        arrays["mask"] = image.mask
    if image.uncertainty is not None:
        arrays["variance"] = variance_of(image)
    return with_planes(frame, arrays)


def header_of(image: NDData) -> Header:
    """The FITS cards of an `NDData`: those of its metadata, and of its WCS."""
    header = valid_header(image.meta) if isinstance(image.meta, Header) else Header()
    if image.unit is not None and "BUNIT" not in header:
        header["BUNIT"] = image.unit.to_string()
    if hasattr(image.wcs, "to_header"):
        for keyword in wcs_cards(header):  # CD and PC do not go together
            header.remove(keyword, ignore_missing=True)
        header.update(image.wcs.to_header(relax=True))
    return header


def with_cards(frame: Frame, header: Header) -> Frame:
    """A frame with a header, and with what this says of pixels and detector."""
    if not header:
        return frame
    size = measure_pixel(header)
    facts, notes = read_facts((header,), frame.unit, size)
    stated = quantity_of_unit(frame.unit)
    kept = FitsHeader(primary=header, image=header, plain=True, quantity=stated) if frame.kind == "astro" else None
    described = frame.with_(pixel_size=size, facts=facts, quantity=stated, header=kept).with_notes(notes)
    return with_beam(described, header)


def header_on_grid(header: Any, scale: float, quantity: str) -> Any:
    """The header of a frame on another grid; one that is not of FITS says nothing of the sky and stays.

    Parameters
    ----------
    scale : new pixels per old pixel and axis.
    quantity : ``sum`` or ``mean``.
    """
    if not isinstance(header, FitsHeader):
        return header
    return replace(
        header,
        primary=rescale_cards(header.primary, scale, quantity, header.plane_axes if header.plain else None),
        image=rescale_cards(header.image, scale, quantity, header.plane_axes),
        rest=tuple(new for extension in header.rest if (new := rescale_extension(extension, scale)) is not None),
    )


def variance_of(image: NDData) -> Array:
    """The variance of an `NDData` in its own unit squared.

    Raises
    ------
    InputError : an uncertainty of an unknown type, or in a unit that is none of the image.
    """
    given = image.uncertainty
    try:
        with np.errstate(divide="ignore"):
            variance = given.represent_as(VarianceUncertainty)
        return np.asarray(variance.array if given.unit is None else variance.quantity.to(image.unit**2).value)
    except (TypeError, units.UnitConversionError, MissingDataAssociationException) as error:
        raise InputError(
            f"uncertainty: {type(given).__name__} in {given.unit} is no error of an image in {image.unit}; give "
            f"StdDevUncertainty, VarianceUncertainty or InverseVariance in its unit"
        ) from error


def array_of(name: str, value: Any) -> Array:
    """Whatever is given as an array.

    Raises
    ------
    InputError : rows of different lengths, for instance.
    """
    try:
        return np.asarray(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: {type(value).__name__} is given, which makes no array; give numbers") from error


def with_planes(frame: Frame, planes: Mapping[str, Any]) -> Frame:
    """A frame with other variance or mask; a pixel without a finite variance above 0 is masked.

    Raises
    ------
    InputError : a shape or type that does not fit, or a variance in another unit.
    """
    whole: dict[str, Array] = {}
    for name, given in planes.items():
        value = array_of(name, in_unit_of(frame, given) if isinstance(given, units.Quantity) else given)
        single = name == "variance" and value.ndim == 0
        if not single and value.shape not in (frame.pixels.shape, frame.pixels.shape[1:]):
            raise InputError(f"{name}: shape {value.shape} does not fit the image's {frame.pixels.shape[1:]}")
        if value.dtype.kind not in ("iuf" if name == "variance" else "biuf"):
            raise InputError(f"{name}: an array of type {value.dtype}; give {NEEDED[name]}")
        whole[name] = np.broadcast_to(value, frame.pixels.shape)
    if "mask" in whole:
        bad = whole["mask"].astype(bool)
        notes = warn_inverted("what is given", [(frame, bad)], whole=False)
        frame = frame.with_(mask=frame.mask | bad).with_notes(notes)
    if "variance" in whole:
        variance = whole["variance"].astype(np.float64)
        frame = frame.with_(variance=variance, mask=frame.mask | ~((variance > 0) & np.isfinite(variance)))
    return frame


def in_unit_of(frame: Frame, variance: units.Quantity) -> Array:
    """A variance with a unit, in that of the image squared.

    Raises
    ------
    InputError : a unit that is none of the image.
    """
    try:
        return np.asarray(variance.to((frame.astropy_unit if frame.unit else units.one) ** 2).value)
    except units.UnitConversionError as error:
        raise InputError(
            f"variance: {variance.unit} is given, but the image is in {frame.unit or 'no unit'}; give its square"
        ) from error


def kernel_of(kernel: Any) -> PSF | None:
    """The blur that is given as an array or a field; None for none.

    Raises
    ------
    InputError : no two axes of odd length, values that are not finite, or a sum that is not above 0.
    """
    if kernel is None or isinstance(kernel, PSF):
        return kernel
    values = array_of("kernel", kernel)
    if values.dtype.kind not in "iuf" or values.ndim != 2 or any(side % 2 == 0 for side in values.shape):
        raise InputError(
            f"kernel: an array of shape {values.shape} and type {values.dtype}; give numbers of shape (K, L), both odd"
        )
    return PSF.constant(normalize_kernel(values))


def psf_of(psf: Any) -> Array | None:
    """An image of a PSF; None for none.

    Raises
    ------
    InputError : what is no array of real numbers.
    """
    if psf is None:
        return None
    if isinstance(psf, PSF):
        raise InputError("psf: a PSF field is the blur on the output grid; give it as kernel")
    values = array_of("psf", psf)
    if values.dtype.kind not in "iuf":
        raise InputError(f"psf: an array of type {values.dtype}; give real numbers of shape (Y, X), or a SPEC")
    return values


def make_options(kind: type[Options], base: Options | None, settings: Mapping[str, Any]) -> Options:
    """The options of a verb: a dataclass, and what is given by name over it, each within its limits.

    Raises
    ------
    UsageError : a name that is no option, or a value of another type or outside of its limits.
    """
    if base is not None and not isinstance(base, kind):
        raise UsageError(f"options: {type(base).__name__} is given, but {kind.__name__} is needed")
    names, hints = [f.name for f in fields(kind)], get_type_hints(kind)  # type: ignore[arg-type]
    for name in settings:
        if name not in names:
            near = get_close_matches(name, names, 1)
            hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(names)}"
            raise UsageError(f"{name}: no such option{hint}")
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in settings.items()}
    # the spelling of the command line, so that both interfaces say the same sentence
    spelled = {name: "--" + name.replace("_", "-") for name in settings}
    for name, value in settings.items():
        refuse_type(spelled[name], value, hints[name])
    checked = {name: Option.of(kind, name).checked(spelled[name], value) for name, value in settings.items()}
    return replace(base, **checked) if base is not None else kind(**checked)  # type: ignore[type-var]


def refuse_type(name: str, value: Any, hint: Any) -> None:
    """Refuse a value that is not of an option's type.

    Parameters
    ----------
    name : the option as the command line spells it.
    hint : the type of its field.

    Raises
    ------
    UsageError : says which types or values are allowed.
    """
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if not any(fits_type(value, kind) for kind in kinds):
        allowed = [word for kind in kinds for word in words_of(kind)]
        said = f"an array of shape {value.shape}" if isinstance(value, np.ndarray) and value.ndim else repr(value)
        raise UsageError(f"{name}: {said} is given, but {' or '.join(allowed)} is allowed")


def fits_type(value: Any, kind: Any) -> bool:
    """Whether a value has one type of a union."""
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if kind in (int, float):
        real = (int, np.integer) if kind is int else (int, float, np.integer, np.floating)
        return isinstance(value, real) and not isinstance(value, bool)
    return isinstance(value, get_origin(kind) or kind)


def words_of(kind: Any) -> list[str]:
    """What a type allows, in words."""
    if get_origin(kind) is Literal:
        return [repr(choice) for choice in get_args(kind)]
    named = {int: "a whole number", float: "a number", bool: "True or False", str: "a text"}
    return [] if kind is type(None) else [named.get(kind, "a list" if get_origin(kind) else kind.__name__)]


def warn_of(notes: Notes) -> Notes:
    """The notes, those that warn raised as Python warnings too."""
    for line in notes.warnings:
        warnings.warn(line.removeprefix("WARNING "), SciresdiffWarning, stacklevel=3)
    return notes


def squeeze(stack: Array) -> Array:
    """(1, ...) as (...): an image of one plane has no axis of planes."""
    return stack[0] if len(stack) == 1 else stack

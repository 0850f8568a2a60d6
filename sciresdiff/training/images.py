"""Images that training reads: every science format, and pictures (PNG, JPEG ...) as linear light.

8-bit colour is taken for sRGB and decoded to linear light (IEC 61966-2-1); everything else, grey 8-bit pictures
included, is taken as linear.  ``light`` = ``linear`` or ``srgb`` overrides that: pairs that were made from the codes
themselves, as those of DIV2K, agree with their kernel only as ``linear``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff import io
from sciresdiff.errors import InputError
from sciresdiff.frame import Quantity

PICTURES: dict[str, str] = {
    ".png": "png_decode", ".jpg": "jpeg8_decode", ".jpeg": "jpeg8_decode", ".webp": "webp_decode", ".bmp": "bmp_decode",
}  # fmt: skip
"""Ending of a picture -> function of imagecodecs."""


@dataclass(frozen=True)
class Image:
    """The planes of one file."""

    name: str
    pixels: NDArray[np.float32]
    """(planes, Y, X), linear in light; pictures from 0 to 1."""
    mask: NDArray[np.bool_]
    """(planes, Y, X), True where bad."""
    variance: NDArray[Any] | None = None
    """(planes, Y, X), where the file has it."""
    step: NDArray[np.float32] | float = 0.0
    """What one code more adds to a pixel, whose rounding is noise of step^2 / 12; 0 for floats."""
    kernel: NDArray[np.float64] | str | None = None
    """PSF that the file states, as `frame.Frame` has it."""
    kernel_scale: int | None = None
    """Scale of the fine grid that ``kernel`` lies on."""
    quantity: Quantity | None = None
    """None: not stated."""


PLANES = re.compile(r"_(err|support|gate|dq|var|draws|kernel|trust)\.tiff?$", re.IGNORECASE)
"""Planes that stand beside a TIFF: part of an image, not one of their own."""


def is_image(path: Path) -> bool:
    """Whether a file of a folder is an image that can be read here, and no plane that stands beside one."""
    known = path.suffix.lower() in PICTURES or io.suffix(path).lower() in io.FORMATS
    return known and not path.name.startswith(".") and not PLANES.search(path.name)


def read(path: Path, light: str = "auto") -> Image:
    """Read the planes of a file.

    Parameters
    ----------
    light : auto, linear or srgb, see above.

    Raises
    ------
    InputError : missing, damaged or of no known kind.
    """
    if path.suffix.lower() in PICTURES:
        return _image_of_codes(path, _decode_picture(path), light)
    if path.suffix.lower() in (".tif", ".tiff") and (codes := _read_colour_tiff(path)) is not None:
        return _image_of_codes(path, codes, light)
    frame = io.read(path)
    whole = frame.dtype.kind in "iu"
    if light == "srgb":
        return _image_of_codes(path, np.moveaxis(frame.pixels.astype(frame.dtype), 0, -1), light)
    return Image(
        str(path), frame.pixels, frame.mask, frame.variance, 1.0 if whole else 0.0, frame.kernel, frame.kernel_scale,
        frame.quantity_or_usual()[0],
    )  # fmt: skip


def _decode_picture(path: Path) -> NDArray[Any]:
    """The codes of a picture, (Y, X) or (Y, X, S)."""
    import imagecodecs

    decode: Callable[[bytes], Any] = getattr(imagecodecs, PICTURES[path.suffix.lower()])
    try:
        return np.asarray(decode(path.read_bytes()))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    except Exception as error:  # each codec has errors of its own
        raise InputError(f"{path}: not a whole {path.suffix[1:].upper()} image; check or fetch it again") from error


def _read_colour_tiff(path: Path) -> NDArray[Any] | None:
    """The codes (Y, X, 3) of an 8-bit colour TIFF, which `sciresdiff.io` does not take for a measurement; else None."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as tif:
            series = tif.series[0]
            fits = str(series.axes) == "YXS" and series.dtype == np.uint8
            return np.asarray(series.asarray()) if fits else None
    except Exception:  # what is wrong with it is reported by io.read
        return None


def _image_of_codes(path: Path, codes: NDArray[Any], light: str) -> Image:
    """Planes of a picture (Y, X) or (Y, X, S); an alpha channel, the second or fourth, is left out."""
    if codes.ndim not in (2, 3) or codes.dtype.kind not in "iuf" or 0 in codes.shape:
        raise InputError(f"{path}: shape {codes.shape} of {codes.dtype} is no image of (Y, X) or (Y, X, colours)")
    planes = codes[None] if codes.ndim == 2 else np.moveaxis(codes, -1, 0)
    planes = planes[: len(planes) - (len(planes) in (2, 4))]
    whole = codes.dtype.kind in "iu"
    top = float(np.iinfo(codes.dtype).max) if whole else 1.0
    values, step = planes.astype(np.float32) / np.float32(top), 1 / top if whole else 0.0
    coded = light == "srgb" or (light == "auto" and len(planes) == 3 and codes.dtype == np.uint8)
    steps: NDArray[np.float32] | float = step
    if coded:  # a step of one code is more light where the picture is bright, and its rounding is more noise
        steps = (step * srgb_slope(values)).astype(np.float32)
        values = srgb_to_linear(values).astype(np.float32)
    return Image(str(path), values, ~np.isfinite(values), None, steps, None, None, "mean")


def srgb_to_linear(code: NDArray[Any]) -> NDArray[Any]:
    """Linear light of sRGB codes c of 0 ... 1 (IEC 61966-2-1); an array of any shape, as (planes, Y, X).

    c / 12.92 up to 0.04045, then ((c + 0.055) / 1.055)^2.4.
    """
    return np.where(code <= 0.04045, code / 12.92, ((np.maximum(code, 0.04045) + 0.055) / 1.055) ** 2.4)


def srgb_slope(code: NDArray[Any]) -> NDArray[Any]:
    """Derivative d(light) / d(code) of `srgb_to_linear`, of the shape of ``code``, as (planes, Y, X)."""
    return np.where(code <= 0.04045, 1 / 12.92, 2.4 / 1.055 * ((np.maximum(code, 0.04045) + 0.055) / 1.055) ** 1.4)

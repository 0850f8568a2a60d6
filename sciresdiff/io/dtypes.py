"""Types of pixels: those that can be written, and the conversions from and to the file's type."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.errors import InputError, UsageError

TYPES = ("uint8", "int16", "uint16", "int32", "uint32", "float32", "float64")
"""Types that every format can hold."""


def parse_dtype(dtype: str | np.dtype[Any]) -> np.dtype[Any]:
    """Return the numpy type of ``--dtype``.

    Raises
    ------
    UsageError
        It is not one of `TYPES`.
    """
    try:
        wanted = np.dtype(dtype)
    except TypeError:
        wanted = np.dtype(object)
    if wanted.name not in TYPES:
        raise UsageError(f"--dtype: {dtype} is not written here; give one of {', '.join(TYPES)}")
    return wanted


def cast_pixels(data: NDArray[Any], dtype: str | np.dtype[Any] | None) -> tuple[NDArray[Any], int]:
    """Convert pixels to the type of a file.

    Parameters
    ----------
    data : (..., h, w) array
        Pixels; NaN becomes 0 in an integer type.
    dtype : str or dtype, optional
        Type of the file; float32 where it is None.

    Returns
    -------
    pixels : (..., h, w) array
        Integers are rounded half to even and clipped to the range of their type. **Never rescaled.**
    clipped : int
        Number of pixels outside that range.
    """
    wanted = np.dtype(dtype or "f4")
    if wanted.kind == "f":
        return data.astype(wanted), 0
    limits = np.iinfo(wanted)
    whole = np.rint(np.nan_to_num(data.astype(np.float64), nan=0.0))
    clipped = int(((whole < limits.min) | (whole > limits.max)).sum())
    return np.clip(whole, limits.min, limits.max).astype(wanted), clipped


def to_float32(path: Path, stack: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Convert planes of a file to single precision.

    Parameters
    ----------
    path : Path
        Named in the error.
    stack : (planes, h, w) array
        Values of any type.

    Returns
    -------
    planes : (planes, h, w) float32 array
        NaN where the file has no finite number.
    bad : (planes, h, w) bool array
        True there.

    Raises
    ------
    InputError
        A finite value beyond 3.4e38, which single precision does not have.
    """
    with np.errstate(over="ignore"):
        planes = stack.astype(np.float32)
    bad = ~np.isfinite(planes)
    if np.isfinite(stack[bad]).any():
        raise InputError(f"{path}: values beyond 3.4e38 are not held here; bring the image to a larger unit")
    planes[bad] = np.nan
    return planes, bad

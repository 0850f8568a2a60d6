"""Data-quality planes: which flags of which observatory make a pixel bad or saturated.

The rules are those of the data handbooks: HST ("DQ array" of the ACS and WFC3 data handbooks), JWST (DQ flags of the
JWST calibration pipeline), the NOIRLab Community Pipeline (PLVER), and LSST's MP_* mask planes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from sciresdiff.io.fits.header import card_number, card_value
from sciresdiff.io.quality_bits import BLANK, OURS, RING, SATURATED

Array = NDArray[Any]

DQ_PLANES = ("DQ", "MASK", "FLAGS", "FLAG", "FLG", "MSK", "BPM", "DQM", "BADPIX", "QUALITY")
"""Names of data-quality planes."""

HST_HARMLESS = 64 | 1024
"""Warm pixel, charge trap: the calibration corrects them well enough."""

HST_SATURATED = 256 | 2048
"""Full well, and the limit of the A/D converter."""

JWST_BAD, JWST_SATURATED = 1 | 2, 2
"""DO_NOT_USE and SATURATED; the other bits are information."""

CP_CODES_HARMLESS, CP_CODES_SATURATED = (7,), (3,)
"""Community Pipeline from 3.5 on: integer codes. 7 is a difference to other exposures, which variable stars have."""

CP_BITS_SATURATED = 2
"""Community Pipeline before 3.5: bits."""

LSST_BAD = {"BAD", "SAT", "INTRP", "CR", "NO_DATA", "SUSPECT", "UNMASKEDNAN", "STREAK", "CROSSTALK", "VIGNETTED"}
"""Mask planes (MP_*) that make a pixel bad. DETECTED marks sources, and is never bad."""


WIDE_BIT = 1 << 30
"""Bit of an output's 32 that stands for all above them (OTHER_BAD_PIXEL of JWST)."""


def flag_words(values: Array) -> NDArray[np.int64]:
    """Flags of any width as words of 64 bits.

    Parameters
    ----------
    values : (..., h, w) array
        Integers of any type, or whole numbers in floating point; NaN has no bit.
    """
    if values.dtype.kind == "f":
        return np.nan_to_num(np.rint(values), nan=0.0, posinf=0.0, neginf=0.0).astype(np.int64)
    unsigned = values.astype(f"u{values.dtype.itemsize}", copy=False)  # -1 of 16 bits is 16 flags, not 64
    return unsigned.astype(np.uint64).view(np.int64)


def fold_flags(words: NDArray[np.int64]) -> NDArray[np.int32]:
    """Flags (..., h, w) in 32 bits: the lower ones as they are, `WIDE_BIT` where there is a higher one."""
    wide = words.view(np.uint64)
    low = (wide & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    return np.where(wide >> np.uint64(32) != 0, low | np.uint32(WIDE_BIT), low).view(np.int32)


def decode_flags(
    dq: Array, headers: tuple[fits.Header, ...], mask_header: fits.Header
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], str]:
    """Decode a data-quality plane.

    Parameters
    ----------
    dq : (..., h, w) int64 array
        Flags as `flag_words` gives them.
    headers : tuple of Header
        The image's and the primary one: TELESCOP, INSTRUME, PLVER, SDQFLAGS.
    mask_header : Header
        Of the plane itself: MP_* cards.

    Returns
    -------
    bad, saturated : (..., h, w) bool arrays
    rule : str
        Name of the convention, for the user.
    """
    if f"SRDBIT{BLANK.number}" in mask_header:  # of a file that this program wrote; where it rings there is a value
        bad, saturated, rule = _decode_of_observatory(dq & ~OURS, headers, mask_header)
        return bad | ((dq & OURS & ~RING.bit) != 0), saturated | ((dq & SATURATED.bit) != 0), rule
    return _decode_of_observatory(dq, headers, mask_header)


def _decode_of_observatory(
    dq: Array, headers: tuple[fits.Header, ...], mask_header: fits.Header
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], str]:
    """`decode_flags` by the conventions of the observatories alone."""
    planes = {
        str(key)[3:]: int(card_number(mask_header, key) or 0) for key in mask_header if str(key).startswith("MP_")
    }
    planes = {name: bit for name, bit in planes.items() if 0 <= bit < 63}
    if planes:
        return _lsst(dq, planes)
    telescope = _first_text(headers, "TELESCOP").upper()
    if telescope.startswith("HST"):
        serious = next((int(x) for h in headers if (x := card_number(h, "SDQFLAGS"))), 2**15 - 1)
        return (dq & serious & ~HST_HARMLESS) != 0, (dq & HST_SATURATED) != 0, "HST bits without the harmless ones"
    if telescope.startswith("JWST"):
        return (dq & JWST_BAD) != 0, (dq & JWST_SATURATED) != 0, "JWST's DO_NOT_USE and SATURATED"
    if version := re.match(r"V?(\d+)\.(\d+)", _first_text(headers, "PLVER")):
        return _community_pipeline(dq, headers, (int(version[1]), int(version[2])))
    return dq != 0, np.zeros(dq.shape, bool), "every flag"


def _first_text(headers: tuple[fits.Header, ...], key: str) -> str:
    return next((str(found).strip() for h in headers if (found := card_value(h, key))), "")


def _lsst(dq: Array, planes: Mapping[str, int]) -> tuple[NDArray[np.bool_], NDArray[np.bool_], str]:
    bad = np.int64(sum(1 << bit for name, bit in planes.items() if name in LSST_BAD))
    saturated = 1 << planes["SAT"] if "SAT" in planes else 0
    named = " ".join(sorted(LSST_BAD & set(planes)))
    return (dq & bad) != 0, (dq & saturated) != 0, f"mask planes {named}"


def _community_pipeline(
    dq: Array, headers: tuple[fits.Header, ...], version: tuple[int, int]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], str]:
    if version < (3, 5) and "decam" in _first_text(headers, "INSTRUME").lower():
        return dq != 0, (dq & CP_BITS_SATURATED) != 0, "every bit (Community Pipeline before 3.5)"
    bad = (dq != 0) & ~np.isin(dq, CP_CODES_HARMLESS)
    return bad, np.isin(dq, CP_CODES_SATURATED), "Community Pipeline codes, 7 being harmless"

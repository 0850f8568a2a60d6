"""What an HDU holds, by its name: an image, its noise, its flags, its PSF, alone or of one band among several.

``SCI``, ``ERR`` and ``DQ`` belong together; so do ``VIS_FLUX``, ``VIS_RMS`` and ``VIS_PSF``, or ``1-1.E.SCI`` and
``1-1.E.FLG``: a word that tells what it is, and a tag that tells of which image.
"""

from __future__ import annotations

import re
from typing import Any

from sciresdiff.io.fits.dq import DQ_PLANES
from sciresdiff.io.fits.header import card_value
from sciresdiff.io.variance import NOISE_PLANES

OUR_PLANES = ("SUPPORT", "GATE", "TRUST", "KERNEL")
"""Planes that this program writes; those of an input are not copied to its output."""

PSF = "PSF"
IMAGES = ("SCI", "SCIENCE", "IMAGE", "IMG", "FLUX", "DATA", "BGSUB", "SIGNAL")
"""Words of an image; without a tag only the first three tell it from others."""

FIRST_WORDS = ("VAR", "ERR", "DQ", "MASK", "WHT", "IVAR", "SCI", "PSF")
"""Words that also stand before the tag: ``VAR_POISSON``, ``SCI_F200W``."""


def split_name(name: str) -> tuple[str, str]:
    """Split the name of an HDU into the word that tells what it is, and the tag of its image.

    Returns
    -------
    word, tag : str
        In capitals; ``SCI`` for every image. A name without such a word is its own word and tag; ``PRIMARY`` and words
        that stand alone have no tag.
    """
    plain = name.strip().upper()
    if plain in ("SCI", "SCIENCE", "IMAGE"):
        return "SCI", ""
    if plain in NOISE_PLANES or plain in DQ_PLANES or plain in OUR_PLANES or plain == PSF:
        return plain, ""
    parts = re.split(r"[_. -]", plain)
    if len(parts) > 1 and _is_word(parts[-1]):
        return _word(parts[-1]), plain[: -len(parts[-1]) - 1]
    if len(parts) > 1 and parts[0] in FIRST_WORDS:
        return _word(parts[0]), plain[len(parts[0]) + 1 :]
    return plain, "" if plain in ("", "PRIMARY") else plain


def _is_word(part: str) -> bool:
    return part in IMAGES or part in NOISE_PLANES or part in DQ_PLANES or part == PSF


def _word(part: str) -> str:
    return "SCI" if part in IMAGES else part


def hdu_role(hdu: Any) -> str:
    """What an HDU is, in capitals: EXTTYPE (LSST), else the word in its name; SCI for an image."""
    return _role_and_tag(hdu)[0]


def hdu_tag(hdu: Any) -> str:
    """The image that an HDU belongs to, by its name: ``VIS`` of ``VIS_RMS``; empty where its name is a word alone."""
    return _role_and_tag(hdu)[1]


def _role_and_tag(hdu: Any) -> tuple[str, str]:
    if stated := str(card_value(hdu.header, "EXTTYPE", "") or "").strip():
        return split_name(stated)[0], ""
    return split_name(str(hdu.name))


def is_plane(hdu: Any) -> bool:
    """Whether an HDU is noise, flags or PSF of an image, or a plane of this program."""
    role = hdu_role(hdu)
    return role in NOISE_PLANES or role in DQ_PLANES or role in OUR_PLANES or role == PSF

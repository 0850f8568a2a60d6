"""Noise, flags and PSF in FITS files of their own beside the image, found by their names."""

from __future__ import annotations

import re
from pathlib import Path

_NOISE_FILES = (
    "var", "variance", "err", "error", "sigma", "rms", "unc", "noise_map", "noise",
    "ivar", "invvar", "ivm", "weight", "wht",
)  # fmt: skip
_FLAG_FILES = ("dq", "mask", "flags", "flag", "bpm", "badpix", "msk")

TRIPLETS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("ooi", ("oow",), ("ood",)), ("opi", ("opw",), ("opd",)), ("osi", ("osw",), ("osd",)),
    ("int", ("unc",), ("msk",)),
    *((name, _NOISE_FILES, _FLAG_FILES) for name in ("image", "img", "im", "sci", "science", "data")),
    ("", tuple(f".{name}" for name in _NOISE_FILES), tuple(f".{name}" for name in _FLAG_FILES)),
)  # fmt: skip
"""Word in the name of an image -> the words in the names of its noise and its flags.

The first lines are NOIRLab's and WISE's; the others are what pipelines and users write (``x.fits`` and
``x.weight.fits`` of SWarp and SExtractor).
"""


PSF_FILES = ("psf", "webbpsf", "stpsf")
"""Words in the name of a PSF, in the place of the image's."""


def find_noise_and_flags(path: Path) -> dict[str, tuple[Path, str]]:
    """Find the noise, flags and PSF of a FITS image in files beside it, by the names in `TRIPLETS`.

    Returns
    -------
    dict
        ``noise``, ``flags`` and ``psf``, where there is one -> the file, and the word in its name that tells what it
        holds.
    """
    found: dict[str, tuple[Path, str]] = {}
    if not re.search(r"(?i)\.(fits|fit|fts)(\.(fz|gz))?$", path.name):
        return found
    for image, noise, flags in TRIPLETS:
        psfs = PSF_FILES if flags is _FLAG_FILES else ()
        for kind, words in (("noise", noise), ("flags", flags), ("psf", psfs)):
            there = [(other, word) for word in words if (other := _replace_word(path, image, word)) and other.is_file()]
            if there and kind not in found:
                found[kind] = (there[0][0], there[0][1].strip("."))
    return found


def _replace_word(path: Path, old: str, new: str) -> Path | None:
    """The file's name with its last word ``old`` replaced; an empty ``old`` puts ``new`` before the suffix."""
    pattern = rf"(?i)(?:.*[_.-])?({old})(?=[_.-]).*" if old else r"(?i).*?()(?:\.(?:fits|fit|fts)(?:\.(?:fz|gz))?)"
    match = re.fullmatch(pattern, path.name)
    if match is None:
        return None
    word = new.upper() if match[1].isupper() else new
    return path.with_name(path.name[: match.start(1)] + word + path.name[match.end(1) :])

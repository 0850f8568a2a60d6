"""What the unit of a pixel means: values that add up, that average, or that are not linear in light.

Units are read word by word, with rules of our own: half of those in use (``counts/sec``, ``e-``, ``nanomaggies``,
``JY/BEAM``, ``10^-20 erg/s/cm^2/A``, ``K (Tmb)``) are not FITS, and astropy.units does not parse them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal, NamedTuple

NO_UNIT = ("", "unitless", "none", "unknown", "na", "n/a", "-", "undefined")
"""What stands in BUNIT where nobody filled it in."""

NOT_LINEAR = re.compile(
    r"(ab|st|vega)?[munp]?mag(nitudes?|s)?|dex|db|log(\d+|arithm)?|ln|a?(rc)?sinh|luptitudes?|lupt\w*|mmag"
)
"""Words of a unit whose values are a logarithm or another function of light."""

INTENSITY = re.compile(
    r"[munpk]?k(elvin)?(_?(cmb|rj|thermo\w*|t?mb|t?b|t?a\*?))?|[munpk]?(g(auss)?|t(esla)?)|r(ayleighs?)?"
)
"""Temperatures, magnetic fields and Rayleighs, which average (small letters)."""

COUNT = re.compile(
    r"adus?|dn|du|counts?|cts?|cnts?|el|e|e-|electrons?|photo-?e(lectrons?)?-?|ph|phot|photons?|hits?|events?"
    r"|data_?numbers?"
)
"""Counts, with or without a gain (small letters)."""

ELECTRON = re.compile(r"el|e|e-|electrons?|photo-?e(lectrons?)?-?|ph|phot|photons?")
"""Counts of which each is one electron."""

FLUX = re.compile(
    r"[munpfkg]?(jy|jansky)s?|nano-?magg(y|ies)|n?mgy|maggy|maggies|[munkmg]?ergs?|[munkg]?w(atts?)?|j(oules?)?|sfu"
    r"|flam(bda)?|fnu|[lm]_?sun|crab|photlam|[munkg]?ev"
)
"""Flux and energy, which add up unless they are per area of sky (small letters)."""

PER_AREA = re.compile(r"sr|ster(adians?)?|beams?|bm|bms|arcsec\w*|asec|as|arcmin\w*|amin|deg\w*|sq(\w*)|mas|rad|\"|''?")
"""Areas of sky: what is divided by one is an intensity (small letters)."""

PER_PIXEL = re.compile(r"pix(els?)?|px|pxl")
PER_SECOND = re.compile(r"s|secs?|seconds?")
PER_TIME = re.compile(r"s|secs?|seconds?|exp(osure)?|frame|read|min|minutes?|h|hr|hours?")

_SCALE = re.compile(
    r"^[\s\[(]*(10\s*(\*\*|\^)\s*[({]?[+-]?\d+[)}]?|10[+-]\d+|[\d.]+(e[+-]?\d+)?)[\s*.x×)\]]*", re.IGNORECASE
)


_SIGNS = str.maketrans("µμ⁻⁰¹²³⁴", "uu-01234")


class Factor(NamedTuple):
    """A word of a unit and its power: ``cm`` and -2."""

    word: str
    power: float


def clean_unit(text: object) -> str | None:
    """A unit as it stands in a file, without blanks around it; None where nobody filled it in."""
    unit = str(text or "").strip()
    return None if unit.lower() in NO_UNIT else unit


def parse_unit(unit: str) -> list[Factor]:
    """Split a unit into words and powers, in the small letters of ``jy`` and ``beam``.

    A leading power of ten is left out. What follows a slash or ``per`` has negative powers, up to the next slash,
    point or asterisk only if it is not in brackets: ``erg/s/cm^2/A``, ``erg s-1 cm-2``, ``count / (s pix)``.
    """
    plain = _SCALE.sub("", unit.strip().translate(_SIGNS)).replace("**", "^")
    plain = re.sub(r"\bper\b", "/", plain, flags=re.IGNORECASE)
    plain = re.sub(r"(?<=\d)-(?=[A-Za-z])", "/", plain)  # W/m^2-sr
    factors, sign, depth, at_slash = [], 1, 0, False
    for piece in re.findall(r"[/()\[\]*.·]|[^/()\[\]*.·\s]+", plain):
        if piece == "/":
            sign, at_slash = -1, True
        elif piece in "([":
            depth += 1
        elif piece in ")]":
            depth, sign = max(depth - 1, 0), 1 if depth <= 1 else sign
        elif piece in "*.·":
            sign = sign if depth else 1
        else:
            factors += [Factor(word, sign * power) for word, power in _powers(piece)]
            sign = sign if depth or not at_slash else 1
            at_slash = False
    return factors


def _powers(piece: str) -> Iterable[tuple[str, float]]:
    """Words of a piece without blanks: ``cm-2`` is cm to -2, ``e-`` is a word."""
    match = re.fullmatch(r"([^\d^]+?)\^?[({]?([+-]?\d+(?:/\d+)?)?[)}]?", piece)
    if match is None:
        return [(piece.lower(), 1.0)]
    number = match[2] or "1"
    top, _, bottom = number.partition("/")
    return [(match[1].lower().rstrip("^"), float(top) / float(bottom or 1))]


def quantity_of_unit(unit: str | None) -> Literal["sum", "mean"] | None:
    """Tell from a unit whether values of a block of pixels add up or average.

    Returns
    -------
    {"sum", "mean"} or None
        ``sum`` for counts and fluxes per pixel, also per second (``adu``, ``electron/s``, ``nJy/pixel``,
        ``erg/s/cm^2/A``); ``mean`` for surface brightness, temperatures and fields (``MJy/sr``, ``Jy/beam``, ``K``,
        ``Gauss``); None for a unit of neither kind.
    """
    factors = parse_unit(unit or "")
    over = [f.word for f in factors if f.power < 0]
    under = [f for f in factors if f.power > 0]
    if any(PER_AREA.fullmatch(word) for word in over) or any(
        f.power < -1 and PER_PIXEL.fullmatch(f.word) for f in factors
    ):
        return "mean"
    if not under:
        return None
    first = under[0].word
    if COUNT.fullmatch(first) or FLUX.fullmatch(first):
        return "sum"
    if INTENSITY.fullmatch(first) or (first in ("km", "m", "cm") and "s" in over):
        return "mean"
    return None


def is_rate(unit: str | None) -> bool:
    """Whether a unit is counts per second."""
    factors = parse_unit(unit or "")
    return is_count(unit) and any(f.power == -1 and PER_SECOND.fullmatch(f.word) for f in factors)


def is_count(unit: str | None) -> bool:
    """Whether a unit counts something in a pixel, per second or not: a gain turns it into electrons."""
    return _counts(unit, COUNT)


def is_electron(unit: str | None) -> bool:
    """Whether a unit counts electrons or photons, per second or not, so that a gain of 1 turns it into electrons."""
    return _counts(unit, ELECTRON)


def _counts(unit: str | None, what: re.Pattern[str]) -> bool:
    factors = parse_unit(unit or "")
    over = [f.word for f in factors if f.power < 0]
    named = [f.word for f in factors if f.power > 0]
    known = all(PER_PIXEL.fullmatch(word) or PER_TIME.fullmatch(word) for word in over)
    return len(named) == 1 and bool(what.fullmatch(named[0])) and known


def find_nonlinear(unit: str | None) -> str | None:
    """The word of a unit that says its values are not linear in light (``mag``, ``dex``, ``log``); None without one."""
    words = re.findall(r"[A-Za-z]+\d*", unit or "")
    return next((word for word in words if NOT_LINEAR.fullmatch(word.lower())), None)


ASTROPY_WORDS = {
    "counts": "count", "cts": "count", "cnts": "count", "electrons": "electron", "e-": "electron", "e": "electron",
    "photons": "photon", "pixels": "pix", "px": "pix", "sec": "s", "secs": "s", "second": "s", "seconds": "s",
    "ergs": "erg", "kelvin": "K", "jy": "Jy", "beam": "beam", "angstroms": "Angstrom", "ster": "sr",
    "nanomaggies": "nmgy", "nanomaggy": "nmgy", "maggies": "mgy", "maggy": "mgy",
}  # fmt: skip
"""Words of units as files write them (small letters) -> as astropy does, whose ``e`` is the charge of an electron."""


def astropy_text(unit: str) -> str:
    """A unit in the words that ``astropy.units.Unit`` knows, as far as they can be translated.

    What stands behind a kelvin (``K (Tmb)``, ``uK_CMB``) tells the scale of temperature, and is left out.
    """
    plain = re.sub(r"(?<=K)(\s*[(\[]\s*T\w*\*?\s*[)\]]|\s+T[a-z]+\*?|_\w+)", "", unit.replace("μ", "µ"))
    plain = re.sub(r"\bper\b", "/", plain)
    plain = re.sub(r"(?<=[/ .])S(?=$|[ )/]|-1|\^)", "s", plain)  # DN/S
    return re.sub(r"[A-Za-z]+-?(?![\w-])|[A-Za-z]+", lambda m: ASTROPY_WORDS.get(m[0].lower(), m[0]), plain)

"""What a check is: a function of the evidence, what it needs, what it tells and what it cannot see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from sciresdiff.checks.evidence import Evidence, Result

Answer = Result | list[Result] | None

NEEDS = {
    "truth": "a truth (--truth)",
    "low": "the frame that was restored (--low)",
    "variance": "the noise of the frame (--variance)",
    "operator": "the blur (--psf or --kernel)",
    "err": "an ERR plane beside the image",
    "support": "a SUPPORT plane beside the image",
    "draws": "the draws beside the image (upscale --save-samples)",
    "trust": "a TRUST plane beside the image",
    "again": "the way the image was made, to make it again of other data (--probe)",
    "target_fwhm_px": "the FWHM that the image is meant to have (--target-fwhm)",
}
"""Field of `Evidence` -> what it is called where it is missing."""


class UnmeasuredError(Exception):
    """Raised by a check that cannot be computed on this evidence; the message says why, in a few words."""


@dataclass(frozen=True)
class Check:
    """A line of the registry."""

    make: Callable[[Evidence], Answer]
    """Its docstring gives name, formula, unit and source."""
    tells: str
    """What a value means, in one sentence for a reader who does not know the formula."""
    blind: str
    """What it cannot see."""
    needs: tuple[str, ...] = ()
    """Fields of `Evidence` without which it cannot be computed."""
    names: tuple[str, ...] = ()
    """Names of its results; the check's own alone by default."""
    rivals: bool = True
    """Whether it is made for the baselines, too."""


def lacks(check: Check, evidence: Evidence) -> list[str]:
    """What the evidence has not of what a check needs, in words."""
    return [words for field, words in NEEDS.items() if field in check.needs and getattr(evidence, field) is None]


def measured(name: str, check: Check, evidence: Evidence) -> list[Result]:
    """The check's results, or one without a value that says why there is none."""
    if missing := lacks(check, evidence):
        return [absent(name, f"needs {' and '.join(missing)}")]
    try:
        found = check.make(evidence)
    except UnmeasuredError as why:
        return [absent(name, str(why))]
    if not found:
        return [absent(name, "nothing here that it could measure")]
    return [finite(result) for result in (found if isinstance(found, list) else [found])]


def absent(name: str, why: str) -> Result:
    """A result without a value."""
    return Result(name, None, "", "all", meaning=f"not computed: {why}")


def finite(result: Result) -> Result:
    """The same result; NaN becomes no value, with a word about it.  Infinity stays, it is what a perfect image has."""
    if result.value is None or result.value == result.value:
        return result
    return replace(result, value=None, meaning=f"not computed: no finite value; {result.meaning}")

"""What a check is: a function of the evidence, what it needs, what it tells and what it cannot see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sciresdiff.checks.evidence import Evidence
from sciresdiff.checks.result import Result, drop_nan, not_computed
from sciresdiff.errors import UnmeasuredError

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


@dataclass(frozen=True)
class Check:
    """An entry of the registry."""

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


def missing_inputs(check: Check, evidence: Evidence) -> list[str]:
    """List what a check needs and the evidence lacks, in words."""
    return [words for field, words in NEEDS.items() if field in check.needs and getattr(evidence, field) is None]


def run_check(name: str, check: Check, evidence: Evidence) -> list[Result]:
    """Compute the check's results, or one without a value that says why there is none.

    Parameters
    ----------
    name : of the check in the registry.
    check : its entry.
    evidence : one plane.
    """
    if missing := missing_inputs(check, evidence):
        return [not_computed(name, f"needs {' and '.join(missing)}")]
    try:
        found = check.make(evidence)
    except UnmeasuredError as why:
        return [not_computed(name, str(why))]
    if not found:
        return [not_computed(name, "nothing here that it could measure")]
    return [drop_nan(result) for result in (found if isinstance(found, list) else [found])]

"""TRUST of a restored file: the calibrated mask of every plane, or why there is none.

Blocks mark what scores well, and count it; whether the mask may speak of a plane is known when all of its blocks are
done.  What the frame alone decides is known before, and then there is no plane.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.jobs.upscale.inputs import Inputs
from sciresdiff.jobs.upscale.options import UpscaleOptions
from sciresdiff.notes import Notes
from sciresdiff.observation.observation import Observation
from sciresdiff.observation.sample import Samples
from sciresdiff.restoration import trust
from sciresdiff.restoration.restored import RestoredPlane

Sums = Mapping[str, float]
"""Of a block or a plane: pixels that are kept, and what their sharpness is made of."""


@dataclass(frozen=True)
class Marker:
    """How the blocks of a file are marked; it pickles."""

    calibration: Mapping[str, Any] | None
    """None where nothing is marked."""
    why: str = ""
    """Then why not."""
    facts: Sequence[Mapping[str, float]] = field(default_factory=tuple)
    """What decides beforehand, of every plane."""


@dataclass(frozen=True)
class Verdict:
    """What is said of the mask when all is done."""

    notes: Notes
    card: str
    """Of the header: what is guaranteed, or why nothing is."""
    empty: tuple[int, ...]
    """Planes in which nothing is marked."""
    silent: bool
    """Whether that is all of them."""


def find_marker(options: UpscaleOptions, inputs: Inputs, samples: Samples) -> Marker:
    """Whether a file is like those that its model's mask was calibrated on, as far as that is known beforehand."""
    calibration = inputs.model.card.get("trust") if inputs.model else None
    if calibration is None:
        return Marker(None, "the model has no calibrated mask")
    if why := other_than_calibrated(options, inputs, calibration):
        return Marker(None, why)
    planes = range(inputs.frame.planes)
    facts = [trust.facts(inputs.observation.of_sample(samples(plane), plane)) for plane in planes]
    reasons = [trust.refusal(calibration, likely(calibration, one)) for one in facts]
    if all(reasons):
        return Marker(None, str(reasons[0]))
    return Marker(calibration, "", facts)


def likely(calibration: Mapping[str, Any], facts: Mapping[str, float]) -> dict[str, float]:
    """The facts with a chi2 that nothing speaks against: where this is refused, no restoration helps."""
    at = int(np.searchsorted(trust.SNR_EDGES, facts["snr"]))
    ranges = (calibration.get("domain") or {}).get("chi2")
    return {**facts, "chi2": float(ranges[at][0]) if ranges else float("nan")}


def mark(
    calibration: Mapping[str, Any], restored: RestoredPlane, window: Observation, core: tuple[slice, slice]
) -> tuple[NDArray[Any], Sums]:
    """TRUST of a block's core as its pixels score, and what it adds to the verdict.

    Parameters
    ----------
    restored, window : the block with what surrounds it.
    core : its own pixels, on the fine grid.
    """
    kept = trust.score(restored, window)[core] <= float(calibration["threshold"])
    laplace, contrast = (plane[core][kept].sum(dtype=float) for plane in trust.fineness(restored.mean, window.scale))
    return kept.astype(np.uint8), {
        "kept": float(kept.sum()),
        "laplace": float(laplace),
        "contrast": float(contrast),
    }


def add_sums(sums: Sequence[Sums]) -> Sums:
    """The sums of several blocks."""
    return {name: sum(one[name] for one in sums) for name in ("kept", "laplace", "contrast")}


def verdict(marker: Marker, sums: Sequence[Sums], chi2: Sequence[float], written: bool) -> Verdict:
    """Whether the mask may speak of every plane.

    Parameters
    ----------
    sums : of every plane, added up over its blocks. chi2 : of every plane.
    written : whether the planes are in the file already, so that they can be emptied but not left out.
    """
    if marker.calibration is None:
        return no_mask(marker.why, "no TRUST plane")
    known = marker.calibration
    found = [
        trust.refusal(known, {**facts, "chi2": c}) or trust.blunt(known, one)
        for facts, c, one in zip(marker.facts, chi2, sums, strict=True)
    ]
    if all(found):
        return no_mask(str(found[0]), "nothing in TRUST is marked" if written else "no TRUST plane", len(found))
    few = {i for i, one in enumerate(sums) if one["kept"] < trust.FEWEST}
    lines = [f"trust: nothing in plane {i} is marked: {why}" for i, why in enumerate(found) if why]
    empty = tuple(sorted(few | {i for i, why in enumerate(found) if why}))
    return Verdict(Notes(trust.promise(known), *lines), card_text(known), empty, False)


def no_mask(why: str, what: str, planes: int = 0) -> Verdict:
    """No mask, and why."""
    return Verdict(Notes(f"trust: {what}: {why}"), why, tuple(range(planes)), True)


def card_text(calibration: Mapping[str, Any]) -> str:
    """The guarantee for a header."""
    return "alpha {alpha:g} delta {delta:g}, {images} simulated frames ({field})".format(**calibration)


def other_than_calibrated(options: UpscaleOptions, inputs: Inputs, calibration: Mapping[str, Any]) -> str | None:
    """Why a restoration with these options is not the one that was calibrated; None where it is."""
    if inputs.then:
        return "it was calibrated for one model, not for two in a row"
    if inputs.frame.kind != calibration["field"]:
        return f"it was calibrated on scenes of another field ({calibration['field']})"
    default = UpscaleOptions()
    if options.samples < default.samples:
        return f"it was calibrated with {default.samples} draws, not {options.samples}"
    for name in ("steps", "realism", "refine", "consistency"):
        if getattr(options, name) != getattr(default, name):
            return f"it was calibrated with the default --{name}"
    return None

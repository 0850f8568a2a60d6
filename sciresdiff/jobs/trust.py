"""TRUST of a restored file: the calibrated mask of every plane, or why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff import trust
from sciresdiff.jobs.options import UpscaleOptions
from sciresdiff.jobs.resolve import Resolved

if TYPE_CHECKING:
    from sciresdiff.restore import Restored


@dataclass(frozen=True)
class Trusted:
    """What `upscale` writes and says."""

    plane: NDArray[np.uint8] | None
    """(planes, Y, X), 1 trusted; None where no plane has a mask."""
    said: list[str]
    card: str
    """Of the header: what is guaranteed, or why nothing is."""


def trusted(options: UpscaleOptions, resolved: Resolved, done: list[Restored]) -> Trusted:
    """The mask of every plane; a plane that is refused has 0 everywhere."""
    calibration = resolved.model.card.get("trust") if resolved.model else None
    if calibration is None:
        return silent("the model has no calibrated mask")
    if why := other_than_calibrated(options, resolved, calibration):
        return silent(why)
    found = [trust.mask(calibration, seen(resolved, one, i)) for i, one in enumerate(done)]
    reasons = [(i, why) for i, (_, why) in enumerate(found) if why]
    if len(reasons) == len(found):
        return silent(reasons[0][1])
    empty = np.zeros(done[0].mean.shape, np.uint8)
    lines = [f"trust: nothing in plane {i} is marked: {why}" for i, why in reasons]
    plane = np.stack([empty if mask is None else mask for mask, _ in found])
    return Trusted(plane, [trust.promise(calibration), *lines], brief(calibration))


def silent(why: str) -> Trusted:
    """No mask, and why."""
    return Trusted(None, [f"trust: no TRUST plane: {why}"], why)


def brief(calibration: dict[str, Any]) -> str:
    """The guarantee for a header."""
    return "alpha {alpha:g} delta {delta:g}, {images} simulated frames ({field})".format(**calibration)


def other_than_calibrated(options: UpscaleOptions, resolved: Resolved, calibration: dict[str, Any]) -> str | None:
    """Why a restoration with these options is not the one that was calibrated; None where it is."""
    if resolved.then:
        return "it was calibrated for one model, not for two in a row"
    if resolved.frame.kind != calibration["field"]:
        return f"it was calibrated on scenes of another field ({calibration['field']})"
    default = UpscaleOptions()
    if options.samples < default.samples:
        return f"it was calibrated with {default.samples} draws, not {options.samples}"
    for name in ("steps", "realism", "refine", "consistency"):
        if getattr(options, name) != getattr(default, name):
            return f"it was calibrated with the default --{name}"
    return None


def seen(resolved: Resolved, done: Restored, plane: int) -> trust.Seen:
    """One plane, as the mask looks at it."""
    frame = resolved.frame
    return trust.Seen(
        done.mean, done.err, done.support, done.gate, frame.pixels[plane], resolved.variance[plane], frame.mask[plane],
        resolved.kernel, resolved.scale, resolved.quantity, done.chi2,
    )  # fmt: skip

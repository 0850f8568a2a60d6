"""A wanted image that is nearly as wide as its exposures' PSFs: restored sharper, and then widened.

The kernel between such an image and its data has negative lobes of up to 1.8 times its light, with which
Richardson-Lucy runs away at bright stars.  A sharper image has a wider kernel, with less of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sciresdiff.notes import Notes
from sciresdiff.observation.joint import Joint
from sciresdiff.observation.resolve_joint import Given, resolve_joint, with_target
from sciresdiff.physics.psf.image import TooNarrowError

MOST_LOBES = 0.3
"""Negative light of kernels, in units of their sum. Stars of 3e5 and 3e7 times the noise of the sky are restored in 60
iterations with 0.3 and 0.5; with 0.8 the second and with 1.2 the first gives no finite image."""
SHARES = (0.9, 0.8, 0.7, 0.6, 0.5)
"""FWHM of the image that is restored over that of the wanted one, the first that does."""


def resolve_sharper(given: Sequence[Given], scale: float, grid: Any = None, align: str = "wcs") -> Joint:
    """The measurement of one image by several exposures, such that it can be restored; see `resolve_joint`."""
    joint = resolve_joint(given, scale, grid, align)
    wanted, lobes = joint.target_fwhm, largest_lobes(joint)
    if wanted is None or lobes <= MOST_LOBES:
        return joint
    targets = [share * wanted for share in SHARES]
    found = resolve_restorable(given, targets, scale, grid, align)
    sharp, own = found or (resolve_target(given, targets[-1], scale, grid, align), targets[-1])
    line = Notes(
        f"psf: the kernel between an image of FWHM {wanted:.3g} output px and the exposures has {lobes:.2g} times its "
        f"light in negative lobes; it is restored to {own:.3g} px, then widened"
    )
    return replace(sharp, target_fwhm=wanted, widened=float(np.sqrt(wanted**2 - own**2)), notes=sharp.notes + line)


def resolve_restorable(
    given: Sequence[Given], targets: Sequence[float], scale: float, grid: Any = None, align: str = "wcs"
) -> tuple[Joint, float] | None:
    """The measurement of the first image whose kernels have few negative lobes, and its FWHM; None where all have more.

    Parameters
    ----------
    targets : FWHM of the images, output px; one that is wider than a PSF is passed over.
    """
    for target in targets:
        try:
            joint = resolve_target(given, target, scale, grid, align)
        except TooNarrowError:
            continue
        if largest_lobes(joint) <= MOST_LOBES:
            return joint, target
    return None


def resolve_target(given: Sequence[Given], target: float, scale: float, grid: Any, align: str = "wcs") -> Joint:
    """`resolve_joint` of an image of another FWHM, output px."""
    return resolve_joint([with_target(one, target) for one in given], scale, grid, align)


def largest_lobes(joint: Joint) -> float:
    """Negative light of the exposures' kernels over their sum, at the most; of the mean ones where they vary."""
    kernels = [part.exposure.psf.mean for part in joint.parts if part.exposure.psf is not None]
    return max((float(np.maximum(-k, 0).sum() / k.sum()) for k in kernels), default=0.0)

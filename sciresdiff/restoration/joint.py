"""The recipe for several exposures: their data in; one image with its error and its samples on the output's grid out.

Physics alone: Richardson-Lucy over all exposures until they are explained, the consistency step, and samples of the
linear-Gaussian posterior.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciresdiff.diffusion import noise as noise_field
from sciresdiff.errors import UsageError
from sciresdiff.malloc import keep_freed
from sciresdiff.observation.joint import JointWindow
from sciresdiff.physics.consistency import Data, close_joint_flux, consistency_step, support
from sciresdiff.restoration.fallback import PATIENCE, physics_estimate
from sciresdiff.restoration.posterior import PERTURBATION_ITERATIONS, PERTURBED_DATA, PERTURBED_SCENE, Moments
from sciresdiff.restoration.prior import Estimate
from sciresdiff.restoration.restore import FLAT_PX, refuse_nonfinite_image, starting_estimate
from sciresdiff.restoration.restored import RestoredPlane
from sciresdiff.restoration.settings import Settings

Progress = Callable[[int, int, str], None]

CELL = 32
"""Side of the cells in which the flux is closed, output px."""


@dataclass(frozen=True)
class RestoredJoint:
    """A window of the image, and what it leaves of every exposure."""

    plane: RestoredPlane
    chi2: dict[int, tuple[float, int]]
    """Number of an exposure -> chi2 over its valid pixels in the core, and how many these are."""


@torch.inference_mode()
def restore_joint(
    window: JointWindow,
    settings: Settings | None = None,
    device: torch.device | str = "cpu",
    progress: Progress = lambda done, total, label: None,
) -> RestoredJoint:
    """Restore the image that several exposures show, or a window of it.

    Parameters
    ----------
    window : with an exposure that has valid pixels in it.
    settings : the default ones without; ``consistency`` has to be ``noise`` or ``off``.
    device : where the tensors live.
    progress : told (done, total, what).

    Raises
    ------
    UsageError : consistency ``exact``.
    InputError : the data cannot be explained.
    """
    keep_freed()
    settings = settings or Settings()
    if settings.consistency == "exact":
        raise UsageError("--consistency exact: exposures contradict each other within their noise; use noise")
    data = window.data(device)
    count = settings.samples if settings.refine else 0
    best = physics_estimate(data)
    best = starting_estimate(data, best, replace(settings, consistency="off"))
    best = replace(best, x=closed(window, data, best.x, best.w.square(), settings))
    progress(1, 1 + count, "physics")
    units, moments, kept = window.joint.units, Moments(), []
    for deviation in draw_deviations(window, data.renew_noise(best.x), best, settings.seed, count):
        moments = moments.with_sample(deviation)
        if settings.keep_draws:
            kept.append(units.image(best.x + deviation))
        progress(1 + moments.count, 1 + count, "draws")
    x = best.x + moments.mean() + (moments.last if count == 1 else 0)
    spread = moments.spread() if count > 1 else best.w
    refuse_nonfinite_image(x, spread)
    flat = data.planar.average(best.w.square(), FLAT_PX)
    unseen = None if best.unseen is None else (best.unseen > 0).squeeze().cpu().numpy()
    held = support(data, x, flat).clamp(0, 1).squeeze().cpu().numpy()
    counted = core_mask(window, data)
    chi2, seen, total = figures(data, x, counted)
    each = {number: chi2[k] for k, (number, _) in enumerate(window.members)}
    pixels = sum(n for _, n in each.values())
    overall = sum(value * n for value, n in each.values()) / max(pixels, 1)
    plane = RestoredPlane(
        units.image(x), units.spread(spread), held, np.ones_like(held), np.stack(kept) if kept else None,
        overall, seen / total if total else float("nan"), count, total, unseen,
    )  # fmt: skip
    return RestoredJoint(plane, each)


def closed(window: JointWindow, data: Data, x: Tensor, w2: Tensor, settings: Settings) -> Tensor:
    """An image with the flux of its cells brought to that of the exposures, unless consistency is off."""
    if settings.consistency == "off":
        return x
    first = window.tile.window
    return close_joint_flux(data, x, w2, CELL, (first.y0, first.x0))


def draw_deviations(window: JointWindow, data: Data, best: Estimate, seed: int, count: int) -> Iterator[Tensor]:
    """Deviations of samples of the linear-Gaussian posterior from their mean, (1, 1, Y, X); in pairs of opposite sign.

    With e ~ N(0, W) and n ~ N(0, N): e + W A^T (A W A^T + N)^-1 (n - A e) (Papandreou & Yuille 2010).
    """
    deviation = torch.zeros(())
    for draw in range(count):
        if draw % 2 == 0:
            e = best.w * scene_noise(window, seed, draw // 2).to(best.w)
            n = data.noise.sqrt() * data_noise(window, data, seed, draw // 2).to(best.w)
            deviation = consistency_step(replace(data, y=n), e, best.w.square(), PERTURBATION_ITERATIONS, PATIENCE)
        yield deviation if draw % 2 == 0 else -deviation


def scene_noise(window: JointWindow, seed: int, pair: int) -> Tensor:
    """Unit noise of the image by its place on the output's grid, (1, 1, Y, X)."""
    first = window.tile.window
    return noise_field.gaussian(seed, pair, PERTURBED_SCENE, 0, first.y0, first.x0, *window.shape)[None, None]


def data_noise(window: JointWindow, data: Data, seed: int, pair: int) -> Tensor:
    """Unit noise of every exposure by the place in its file, (1, C, h, w)."""
    noise = torch.zeros(data.y.shape)
    for k, (number, part) in enumerate(window.members):
        (h, w), (y, x) = part.exposure.grid.shape, part.exposure.origin
        noise[0, k, :h, :w] = noise_field.gaussian(seed, pair, PERTURBED_DATA, number, y, x, h, w)
    return noise


def core_mask(window: JointWindow, data: Data) -> Tensor:
    """1 where a valid pixel of an exposure has its middle in the core, (1, C, h, w)."""
    counted, core = torch.zeros_like(data.valid), window.tile.core
    for k, (_, part) in enumerate(window.members):
        region = part.exposure.region
        assert region is not None
        corners = part.place.corners(region)
        middle = (corners[:-1, :-1] + corners[1:, 1:] + corners[:-1, 1:] + corners[1:, :-1]) / 4 + 0.5
        inside = (middle[..., 0] >= core.y0) & (middle[..., 0] < core.y1)
        inside &= (middle[..., 1] >= core.x0) & (middle[..., 1] < core.x1)
        h, w = inside.shape
        counted[0, k, :h, :w] = data.valid[0, k, :h, :w] * torch.from_numpy(inside).to(data.valid)
    return counted


def figures(data: Data, x: Tensor, counted: Tensor) -> tuple[list[tuple[float, int]], float, float]:
    """chi2 and pixels of every exposure, and the light above the sky in A x and in y, in units of the noise."""
    again = data.operator.apply(x)
    square = (data.y - again).square() / data.noise * counted
    pixels = counted.sum((-2, -1))[0]
    chi2 = square.double().sum((-2, -1))[0] / pixels.clamp_min(1)
    seen, total = (float((v.double() * counted).sum()) for v in (again, data.y))
    return [(float(c), int(n)) for c, n in zip(chi2, pixels, strict=True)], seen, total


def residual_of(window: JointWindow, image: NDArray[np.floating]) -> list[tuple[int, float, int]]:
    """chi2 of exposures against an image that was made without them, in its core.

    Parameters
    ----------
    window : with the exposures in question.
    image : (Y, X) of the window, in the unit of the output.

    Returns
    -------
    Number, sum of the squares of the residuals over the noise, and pixels, of every exposure.
    """
    data = window.data()
    x = window.joint.units.noise_units(image, data.y)
    data = data.renew_noise(x)
    chi2, _, _ = figures(data, x, core_mask(window, data))
    return [(number, value * n, n) for (number, _), (value, n) in zip(window.members, chi2, strict=True)]

"""The recipe for several exposures: their data in; one image with its error and its samples on the output's grid out.

Physics alone.  Richardson-Lucy over all exposures, as many iterations as predict pixels best that were held out; what
it makes of its own noiseless data tells what it leaves undone, and that is added once (`estimate_image`).  Samples are
a parametric bootstrap of all of that: data are simulated from the image and its noise, and restored in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sciresdiff.diffusion import noise as noise_field
from sciresdiff.errors import UsageError
from sciresdiff.malloc import keep_freed
from sciresdiff.observation.joint import Joint, JointWindow, Known
from sciresdiff.physics.consistency import Data, support
from sciresdiff.physics.exposures import ExposuresOperator
from sciresdiff.physics.held_out import SIDE, WHOLE, WINDOWS, predicting_iterations
from sciresdiff.physics.kernel_blur import KernelBlur
from sciresdiff.physics.local import box_mean
from sciresdiff.physics.psf.kernel import target_psf
from sciresdiff.physics.richardson_lucy import pedestal, richardson_lucy
from sciresdiff.region import Region
from sciresdiff.restoration.bootstrap import student_factor
from sciresdiff.restoration.posterior import PERTURBED_DATA
from sciresdiff.restoration.restore import FLAT_PX, refuse_nonfinite_image
from sciresdiff.restoration.restored import RestoredPlane
from sciresdiff.restoration.settings import Settings
from sciresdiff.run.findings import Findings
from sciresdiff.tiling import Tile

Progress = Callable[[int, int, str], None]

HOLD = 1_000_005
"""Step of the noise field that tells which."""
FIRST_LOOK = 10
"""Iterations of the estimates on which the levels of the skies are compared, and rounds of that."""
ROUNDS = 2
SOURCE = (4.0, 7.0)
"""Standard deviations of the light around a pixel up to which there is sky, and from which there is a source."""


@dataclass(frozen=True)
class RestoredJoint:
    """A window of the image, and what it leaves of every exposure."""

    plane: RestoredPlane
    sharp: NDArray[np.floating]
    """(Y, X), the image before it is widened, in the unit of the output."""
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
    window : of a measurement that is `measure_joint`-d, with an exposure that has valid pixels in it.
    settings : the default ones without; ``consistency`` has to be ``noise``.
    device : where the tensors live.
    progress : told (done, total, what).

    Raises
    ------
    UsageError : another consistency.
    InputError : what comes out is not finite.
    """
    keep_freed()
    settings = settings or Settings()
    if settings.consistency != "noise":
        raise UsageError(f"--consistency {settings.consistency}: exposures are restored with noise; leave it out")
    data, known = window.data(device), window.joint.known
    assert known is not None
    count = settings.samples if settings.refine else 0
    x = estimate_image(data, known)
    progress(1, 1 + count, "physics")
    units, kept, squares, drawn = window.joint.units, [], torch.zeros_like(x), 0
    widen = widening(window)
    for deviation in map(widen, draw_deviations(window, data.renew_noise(x), x, known, settings.seed, count)):
        squares, drawn = squares + deviation.square(), drawn + 1
        if settings.keep_draws:
            kept.append(units.image(widen(x) + deviation))
        progress(1 + drawn, 1 + count, "draws")
    spread = (squares / drawn).sqrt() if drawn else data.planar.spread_sigma(data.noise)
    refuse_nonfinite_image(x, spread)
    flat = data.planar.average(data.planar.contrast(x, data.noise).square(), FLAT_PX)
    held = support(data, x, flat).clamp(0, 1).squeeze().cpu().numpy()
    chi2, seen, total = figures(data, x, core_mask(window, data))
    each = {number: chi2[k] for k, (number, _) in enumerate(window.members)}
    pixels = sum(n for _, n in each.values())
    overall = sum(value * n for value, n in each.values()) / max(pixels, 1)
    plane = RestoredPlane(
        units.image(widen(x)), units.spread(spread), held, np.ones_like(held), np.stack(kept) if kept else None,
        overall, seen / total if total else float("nan"), count, total, None,
    )  # fmt: skip
    return RestoredJoint(plane, units.image(x), each)


def widening(window: JointWindow) -> Callable[[Tensor], Tensor]:
    """The Gaussian that brings the image of a window, (1, 1, Y, X), to the PSF that is wanted of it."""
    if not window.joint.widened:
        return lambda image: image
    kernel = target_psf(window.joint.widened)
    h, w = kernel.shape
    return KernelBlur(kernel, window.shape, (h // 2, w // 2)).apply


def iterate(data: Data, known: Known, iterations: int) -> Tensor:
    """Richardson-Lucy over all exposures, (1, 1, Y, X)."""
    level = data.y.new_full((1, 1, 1, 1), known.pedestal)
    return next(islice(richardson_lucy(data, level), iterations - 1, None))


def estimate_image(data: Data, known: Known) -> Tensor:
    """The image, (1, 1, Y, X): R(y) + (R(y) - R(A R(y))) with R(.) Richardson-Lucy, and its first estimate in the sky.

    R is stopped early and leaves part of the structure undone; of its own data without noise it leaves about the same
    part again, which is known there and is added back (twicing, Tukey 1977, Exploratory Data Analysis, 16).  Where no
    source shows there is no structure to gain, and every iteration adds noise: one is enough (`source_weight`).
    """
    estimates = richardson_lucy(data, data.y.new_full((1, 1, 1, 1), known.pedestal))
    first = next(estimates)
    once = next(islice(estimates, known.iterations - 2, None)) if known.iterations > 1 else first
    again = iterate(replace(data, y=data.operator.apply(once) * data.valid), known, known.iterations)
    return torch.lerp(first, 2 * once - again, source_weight(data, known))


def source_weight(data: Data, known: Known) -> Tensor:
    """1 where exposures show a source, 0 where they show empty sky, (1, 1, Y, X)."""
    assert isinstance(data.operator, ExposuresOperator)
    sigmas = data.operator.significance(data.y, data.noise, data.valid, known.radius)
    low, high = SOURCE
    side = 2 * known.radius + 1
    near = F.max_pool2d(((sigmas - low) / (high - low)).clamp(0, 1), side, stride=1, padding=known.radius)
    return box_mean(near, known.radius)


def draw_deviations(
    window: JointWindow, data: Data, x: Tensor, known: Known, seed: int, count: int
) -> Iterator[Tensor]:
    """Deviations of samples from the image, (1, 1, Y, X): the errors of images restored from data simulated of it.

    y* = A x + n with n ~ N(0, N), in pairs of opposite n; the deviation is x - x*, so that a sample x + (x - x*) is
    what the truth may be if the error at x* is as that at x (parametric bootstrap, Efron & Tibshirani 1993, An
    Introduction to the Bootstrap, 6.5).  With n pairs their scatter has n degrees of freedom, and is made so much
    larger that one of it holds 68.3 % of the cases (Student's t).
    """
    again, factor = data.operator.apply(x), student_factor(count)
    for draw in range(count):
        n = data.noise.sqrt() * data_noise(window, data, seed, draw // 2, PERTURBED_DATA)
        made = replace(data, y=(again + (-n if draw % 2 else n)) * data.valid)
        yield factor * (x - estimate_image(made, known))


def data_noise(window: JointWindow, data: Data, seed: int, pair: int, step: int) -> Tensor:
    """Unit noise of every exposure by the place in its file, (1, C, h, w)."""
    noise = torch.zeros_like(data.y)
    for k, (number, part) in enumerate(window.members):
        (h, w), (y, x) = part.exposure.grid.shape, part.exposure.origin
        noise[0, k, :h, :w] = noise_field.gaussian(seed, pair, step, number, y, x, h, w, data.y.device)
    return noise


@torch.inference_mode()
def measure_joint(joint: Joint, findings: Findings | None = None) -> Joint:
    """The measurement with what its windows have to agree on: levels of the skies, pedestal, iterations.

    Parameters
    ----------
    joint : of exposures from files or in memory.
    findings : keeps what is measured.
    """

    def measure() -> dict[str, Any]:
        found, known = measure_levels(joint)
        return {"skies": [part.sky for part in found.parts], "known": asdict(known)}

    measured = (findings or Findings()).one("levels", measure)
    parts = [replace(part, sky=sky) for part, sky in zip(joint.parts, measured["skies"], strict=True)]
    return replace(joint, parts=parts, known=Known(**measured["known"]))


def measure_levels(joint: Joint) -> tuple[Joint, Known]:
    """The measurement with its skies on one level, and what else its windows have to agree on."""
    windows = [window for tile in sample_tiles(joint) if (window := joint.window(tile)).members]
    windows = [window for window in windows if any(valid.any() for valid in window.valid)]
    level = max((float(pedestal(window.data()).max()) for window in windows), default=4.0)
    known = Known(level, 1, source_radius(joint))
    for _ in range(ROUNDS):
        joint = replace(joint, parts=shift_skies(joint, windows, known))
        windows = [window.on_skies(joint) for window in windows]
    return joint, replace(known, iterations=count_iterations(windows, known))


def source_radius(joint: Joint) -> int:
    """Half the FWHM of the exposures' PSFs, and a pixel of the first one at least, output px."""
    widths = [part.exposure.psf.width for part in joint.parts if part.exposure.psf is not None]
    return max(1, round(max(joint.scale, 1.1774 * float(np.median(widths or [0.0])))))


def sample_tiles(joint: Joint) -> list[Tile]:
    """All of a small image; of a large one windows in the middle of their shares."""
    whole = joint.canvas
    if max(joint.grid.shape) <= WHOLE:
        return [Tile(Region.of_shape(joint.grid.shape), whole)]
    found = []
    for i in range(WINDOWS):
        for k in range(WINDOWS):
            middle = [int((j + 0.5) / WINDOWS * n) for j, n in zip((i, k), joint.grid.shape, strict=True)]
            y0, x0 = (max(m - SIDE // 2, 0) for m in middle)
            region = Region(y0, min(y0 + SIDE, joint.grid.shape[0]), x0, min(x0 + SIDE, joint.grid.shape[1]))
            found.append(Tile(region, region))
    return found


def shift_skies(joint: Joint, windows: Sequence[JointWindow], known: Known) -> list:  # type: ignore[type-arg]
    """The exposures with their skies on one level: what an image of all leaves of each in the mean belongs to its sky.

    The first exposure's stays, for the output has it.
    """
    most = 1 + max(part.number for part in joint.parts)
    sums, weights = np.zeros(most), np.zeros(most)
    for window in windows:
        data = window.data()
        x = iterate(data, known, FIRST_LOOK)
        left = (data.residual(x) / data.noise).double().sum((-2, -1))[0]
        weight = (data.valid / data.noise).double().sum((-2, -1))[0]
        for (number, _), r, w in zip(window.members, left, weight, strict=True):
            sums[number] += float(r)
            weights[number] += float(w)
    shift = np.where(weights > 0, sums / np.maximum(weights, 1e-30), 0.0)
    shift = np.where(weights > 0, shift - shift[0], 0.0) if weights[0] > 0 else shift
    unit = joint.sigma
    return [replace(part, sky=part.sky + float(shift[part.number]) * unit * part.factor) for part in joint.parts]


def count_iterations(windows: Sequence[JointWindow], known: Known) -> int:
    """Iterations of Richardson-Lucy that predict pixels best which it was not given."""
    shares = any(f > 1 for window in windows for part in window.joint.parts for f in part.exposure.noise.correlation)
    cases = [(data, data_noise(window, data, 0, 0, HOLD)) for window in windows for data in [window.data()]]
    return predicting_iterations(cases, torch.full((1, 1, 1, 1), known.pedestal), shares)


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

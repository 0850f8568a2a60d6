"""The recipe in depth: the planes of a stack in; the restored volume with its error and its samples out.

What is restored are the emitters u: points, which the whole PSF blurs, y = A u + n.  The wanted volume is G u, seen
through a Gaussian of the wanted widths, so that no PSF has to be divided by it: along z an aperture leaves frequencies
that no data hold.  Physics alone: Richardson-Lucy until the data are explained, the consistency step; the samples'
errors are those of the same procedure on data that are known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sciresdiff.diffusion import noise as noise_field
from sciresdiff.errors import UsageError
from sciresdiff.malloc import keep_freed
from sciresdiff.observation.stack import Stack, empty_level
from sciresdiff.physics.conjugate_residuals import volume_step
from sciresdiff.physics.consistency import Data, support
from sciresdiff.physics.depth import DepthOperator
from sciresdiff.physics.psf.shapes import FWHM_PER_SIGMA
from sciresdiff.physics.richardson_lucy import MOST_ITERATIONS, OUTLIER, pedestal, richardson_lucy
from sciresdiff.restoration.bootstrap import Bootstrap, student_factor, with_opposites
from sciresdiff.restoration.ops import box_mean
from sciresdiff.restoration.posterior import PERTURBED_DATA, PERTURBED_SCENE, Moments, width_of_draw
from sciresdiff.restoration.restore import FLAT_PX, refuse_nonfinite_image
from sciresdiff.restoration.restored import RestoredPlane
from sciresdiff.restoration.settings import Settings

Progress = Callable[[int, int, str], None]

PEAK = 10.0
"""Mean of 5 x 5 pixels above their surroundings, in its own noise, from which on something is in focus there."""
SURROUNDINGS = 6
"""Pixels on each side over which these are averaged."""
CHECK, FALLS = 4, 0.99
"""Iterations of Richardson-Lucy between two looks at chi2, and its share of the last one that is no fall any more."""
LEVELS = 16
"""Data that are simulated to measure the error of the level."""
STACKS = 4096
"""Fields of noise that are set aside for each stack: more than it has planes."""


@torch.inference_mode()
def restore_volume(
    stack: Stack,
    settings: Settings | None = None,
    device: torch.device | str = "cpu",
    progress: Progress = lambda done, total, label: None,
) -> list[RestoredPlane]:
    """Restore the planes of a stack, or a window of it, as one volume.

    Parameters
    ----------
    stack : of C planes (h, w) in memory.
    settings : the default ones without; ``consistency`` has to be ``noise``.
    device : where the tensors live.
    progress : told (done, total, what).

    Returns
    -------
    A plane for each of the stack's. **The flux of a plane is not that of its data**: light is put back into the plane
    that it came from, and what came from beyond the stack is left out.

    Raises
    ------
    UsageError : another consistency than ``noise``.
    InputError : the data cannot be explained.
    """
    keep_freed()
    settings = settings or Settings()
    if settings.consistency != "noise":
        raise UsageError(f"--consistency {settings.consistency}: a stack in depth is restored with noise; leave it out")
    data, operator = stack.data(device), stack.operator(device)
    data = replace(data, operator=operator)
    count = settings.samples if settings.refine else 0
    u, w, iterations = estimate_volume(data, stack)
    progress(1, 1 + count, "physics")
    wanted = Wanted(operator, *stack.depth.target)
    best, moments, kept = wanted(u), Moments(), []
    renewed = data.renew_noise(u)
    response = response_to_width(renewed, u, w) if count > 1 else None
    shift = None if response is None else wanted(response)
    for draw, sample in enumerate(volume_errors(renewed, u, w, iterations, stack, settings.seed, count, wanted)):
        if shift is not None:
            sample = torch.add(sample, shift, alpha=width_of_draw(settings.seed, draw))
        moments = moments.with_sample(sample)
        if settings.keep_draws:
            kept.append(stack.units.image(best + sample))
        progress(1 + moments.count, 1 + count, "draws")
    x = best + moments.mean() + (moments.last if count == 1 else 0)
    spread = moments.spread() if count > 1 else wanted(w)
    refuse_nonfinite_image(x, spread)
    flat = box_mean(w.square(), FLAT_PX * stack.scale)
    held = operator.crop(support(data, u, flat).clamp(0, 1))
    return split_planes(stack, data, u, x, spread, held, kept, count)


def estimate_volume(data: Data, stack: Stack, iterations: int | None = None) -> tuple[Tensor, Tensor, int]:
    """The emitters, the scale of their error before the data were consulted, and the iterations that they took.

    Parameters
    ----------
    iterations : of Richardson-Lucy, where they are known.

    Returns
    -------
    u, w : (1, D, H, W), noise units.
    iterations : of Richardson-Lucy.
    """
    u, k = explain_stack(data, stack, iterations)
    s = stack.scale
    floor = stack.operator(data.y.device).spread(data.noise.sqrt()) / s**2
    # an emitter is positive: its own size is the scale of its error, and as it may lie a voxel beside, that of those
    # around it; down to what the noise leaves of none
    w = around(u) + floor
    return volume_step(data, u, w.square()), w, k


def measure_pedestal(stack: Stack) -> float:
    """What Richardson-Lucy adds to the data of a stack: enough for its darkest plane, in units of the noise."""
    return float(pedestal(stack.data()).max())


def explain_stack(data: Data, stack: Stack, iterations: int | None = None) -> tuple[Tensor, int]:
    """Richardson-Lucy until chi2 is 1 or falls no further, or for as many iterations as the whole stack takes."""
    known = iterations or stack.known.iterations
    level = data.y.new_full((1, 1, 1, 1), stack.known.pedestal)
    where = peaks(data) if known is None else None
    most, found = known or MOST_ITERATIONS, [float("inf")]
    for k, u in enumerate(richardson_lucy(data, level, emits=False), start=1):
        if where is not None and k % CHECK == 0:
            found.append(chi2_of(data, u, where))
        if k >= most or found[-1] <= 1 or (len(found) > 2 and found[-1] > FALLS * found[-2]):
            return u, k
    raise AssertionError("Richardson-Lucy has no end of its own")


def chi2_of(data: Data, u: Tensor, where: Tensor) -> float:
    """chi2 over the pixels ``where`` (1, C, h, w), those beyond `OUTLIER` sigma counted as that."""
    left = (data.residual(u).square() / data.noise).clamp_max(OUTLIER**2)
    return float((left * where).sum() / where.sum())


def peaks(data: Data) -> Tensor:
    """1 where the data stand above their surroundings, else 0, (1, C, h, w); all valid pixels where they do nowhere.

    The light of other planes is smooth, and explained long before what is in focus: a chi2 over all of a stack tells
    how much of it there is, and not whether the rest is sharp.
    """
    stands = box_mean(data.y, 2) - box_mean(data.y, SURROUNDINGS)
    noise = box_mean(data.noise, 2) / 25
    there = data.valid * (stands > PEAK * noise.sqrt())
    return there if bool(there.any()) else data.valid


class Wanted:
    """G: emitters (1, D, H, W) as the wanted volume shows them, its measured part (1, C, s*h, s*w)."""

    def __init__(self, operator: DepthOperator, planes: float, px: float) -> None:
        """Take the FWHM along z and laterally."""
        self.operator = operator
        like = operator.spectrum.real
        self.along, self.across = (gaussian_line(width).to(like) for width in (planes, px))

    def __call__(self, u: Tensor) -> Tensor:
        """The measured part of G u."""
        return self.operator.crop(self.blur(u))

    def blur(self, u: Tensor) -> Tensor:
        """G u, (1, D, H, W). **Light within a FWHM of the volume's outermost planes is lost**."""
        z, r = len(self.along) // 2, len(self.across) // 2
        v = F.conv3d(u[None], self.along[None, None, :, None, None], padding=(z, 0, 0))
        v = F.conv3d(v, self.across[None, None, None, :, None], padding=(0, r, 0))
        return F.conv3d(v, self.across[None, None, None, None, :], padding=(0, 0, r))[0]


def gaussian_line(fwhm: float) -> Tensor:
    """A Gaussian sampled at the middles of pixels or planes, sum 1, (K,)."""
    sigma = fwhm / FWHM_PER_SIGMA
    at = torch.arange(-int(np.ceil(5 * sigma)), int(np.ceil(5 * sigma)) + 1, dtype=torch.float64)
    line = torch.exp(-0.5 * (at / sigma) ** 2)
    return line / line.sum()


def volume_errors(
    data: Data, u: Tensor, w: Tensor, iterations: int, stack: Stack, seed: int, count: int, wanted: Wanted
) -> Iterator[Tensor]:
    """Deviations that the error of a volume may have, (1, C, s*h, s*w), in pairs of opposite sign.

    The sum of three: noise, by the `Bootstrap` of the whole procedure, enlarged by Student's t for few pairs; structure
    that the data do not hold (`missing_structure`); and the level's own error, which new data are taken off: it is
    missing in all planes, and stands in the output.

    Parameters
    ----------
    data : with the noise of the emitters u (1, D, H, W).
    w : the scale of their error.
    iterations : of Richardson-Lucy that u took.
    """
    known = stack.known.level_error
    level = level_error(data, u) if known is None else known
    bootstrap = Bootstrap(data, u, lambda made: estimate_volume(made, stack, iterations)[0])

    def deviations() -> Iterator[Tensor]:
        for draw in range(0, count, 2):
            # one number for the whole stack: so few draws have its scatter if all have its size
            off = level * (-1.0) ** (draw // 4)
            n = data.noise.sqrt() * unit_noise(data, stack, data.noise, seed, draw // 2, PERTURBED_DATA)
            noise = wanted(bootstrap.noise_error(n - off)) + off / stack.scale**2
            e = missing_structure(data, u, w, wanted, unit_noise(data, stack, w, seed, draw // 2, PERTURBED_SCENE))
            yield torch.add(wanted(e), noise, alpha=student_factor(count))

    return with_opposites(deviations(), count)


def missing_structure(data: Data, u: Tensor, w: Tensor, wanted: Wanted, unit: Tensor) -> Tensor:
    """Structure e - W A^T (A W A^T + N)^-1 A e of emitters that the data do not hold, (1, D, H, W).

    e has the size of the emitters themselves, which are positive and may be distributed otherwise within what is
    resolved: it agrees with itself over the resolution of the wanted volume.  White, it would all but vanish there.

    Parameters
    ----------
    u, w : the emitters and the scale of their error, which takes e off where it is seen.
    unit : white noise of variance 1, of their shape.
    """
    smooth = wanted.blur(unit)
    e = around(u) * smooth / float(smooth.std())
    return volume_step(replace(data, y=torch.zeros_like(data.y)), e, w.square())


def around(u: Tensor) -> Tensor:
    """Root mean square over the 27 voxels around each, (1, D, H, W)."""
    return F.avg_pool3d(u.square()[None], 3, stride=1, padding=1)[0].sqrt_()


def level_error(data: Data, u: Tensor) -> float:
    """Standard error of the level of a stack without light, in the unit of the data.

    The scatter of what `measure_stacks` finds in data that are simulated of the emitters u (1, D, H, W), whose level is
    0, and the light that these put where it was found: how much of it went into the level the data do not tell.
    """
    seen, root = (v[0].double().cpu().numpy() for v in (data.operator.apply(u), data.noise.sqrt()))
    valid, rng = data.valid[0].cpu().numpy() > 0, np.random.default_rng(0)
    there = [plane for plane in range(len(valid)) if valid[plane].any()]
    found = [
        min(empty_level(seen[i] + root[i] * rng.standard_normal(seen[i].shape), valid[i]) for i in there)
        for _ in range(LEVELS)
    ]
    light = min(empty_level(seen[i], valid[i]) for i in there)
    return float(np.hypot(np.std(found), light))


def response_to_width(data: Data, u: Tensor, w: Tensor) -> Tensor | None:
    """What one standard error of the PSF's width changes in the emitters, (1, D, H, W); None where it has none.

    A PSF drawn out by 1 + f along all axes shows dA u more, and the estimate takes up its opposite:
    -W A^T (A W A^T + N)^-1 dA u, to the first order in f.  With A_+ and A_- of 1 + f and 1 - f, dA = (A_+ - A_-) / 2.

    Parameters
    ----------
    data : with ``width_error``, f.
    u, w : (1, D, H, W), the emitters and the scale of their error, noise units.
    """
    if not data.width_error:
        return None
    wide, narrow = (data.operator.rescale(1 + sign * data.width_error).apply(u) for sign in (1, -1))
    missing = replace(data, y=(narrow - wide) / 2)
    return volume_step(missing, torch.zeros_like(u), w.square())


def unit_noise(data: Data, stack: Stack, like: Tensor, seed: int, pair: int, step: int) -> Tensor:
    """Unit noise by the place in the file, so that blocks agree; of the shape of ``like``."""
    fine = like.shape != data.y.shape
    beyond, margin = stack.operator().margin if fine else (0, 0)
    s = stack.scale if fine else 1
    y, x = (s * first - margin for first in data.origin)
    planes = range(STACKS * stack.number - beyond, STACKS * stack.number - beyond + like.shape[1])
    height, width = like.shape[-2:]
    fields = noise_field.field(seed, pair, step, list(planes), y, x, height, width, like.device)
    return fields[None].to(like.dtype)


def split_planes(
    stack: Stack, data: Data, u: Tensor, x: Tensor, spread: Tensor, held: Tensor, kept: list, count: int
) -> list[RestoredPlane]:
    """The restored volume as planes in the frame's unit, with chi2 and flux of each.

    Parameters
    ----------
    u : (1, D, H, W), the emitters.
    x, spread, held : (1, C, s*h, s*w), the wanted volume, its error and its support.
    kept : (C, s*h, s*w) of every sample that is kept.
    """
    units, again = stack.units, data.operator.apply(u)
    core = core_mask(data, stack)
    sky = units.sky / units.sigma
    chi2 = (((data.y - again).square() / data.noise) * core).sum((-2, -1)) / core.sum((-2, -1)).clamp_min(1)
    seen, total = (((v + sky).double() * core).sum((-2, -1))[0] for v in (again, data.y))
    image, err, support_ = units.image(x), units.spread(spread), held[0].cpu().numpy()
    measured = (again[0].double() * units.sigma + units.sky).float().cpu().numpy()
    planes = len(stack.planes)
    image, err = (v.reshape(planes, *v.shape[-2:]) for v in (image, err))
    return [
        RestoredPlane(
            image[i], err[i], support_[i], np.ones_like(support_[i]),
            np.stack([one.reshape(image.shape)[i] for one in kept]) if kept else None,
            float(chi2[0, i]), float(seen[i] / total[i]) if total[i] else float("nan"), count, float(total[i]),
            seen=measured[i],
        )
        for i in range(planes)
    ]  # fmt: skip


def core_mask(data: Data, stack: Stack) -> Tensor:
    """1 where a valid pixel counts, (1, C, h, w)."""
    core = stack.planes[0].core
    if core is None:
        return data.valid
    inside, here = torch.zeros_like(data.valid), (..., *core.slices)
    inside[here] = data.valid[here]
    return inside

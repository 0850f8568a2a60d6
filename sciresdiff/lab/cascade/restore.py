"""A cascade: two models in a row, draw by draw (CDM, Ho et al. 2022, arXiv:2106.15282).

Draw k of the first model is the coarse image of draw k of the second one, so that the draws of the whole carry the
errors of both.  What is passed on is not the draw x_k itself but

    y_k = m + sqrt(1 - 2 sigma^2) (x_k - m) + sigma E z,    of variance  sigma^2 E^2

with m and E the first model's mean and ERR: Gaussian noise of a level sigma that the second model is told, so that it
does not rely on details that the first may have got wrong (conditioning augmentation), and as much less of the draw's
own deviation that truths about y_k are spread as E on the first grid, if E is right: 1 - 2 sigma^2 from the deviation,
sigma^2 from the noise, sigma^2 from what the second model leaves open.  Every draw, and the mean, is held to the frame
itself with the operator of both scales at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciresdiff.diffusion.method_file import LARGEST_USE
from sciresdiff.diffusion.noise import key_of
from sciresdiff.errors import UsageError
from sciresdiff.frame import Quantity
from sciresdiff.physics.consistency import Data, consistent
from sciresdiff.physics.psf.split import split
from sciresdiff.restoration.model import Model
from sciresdiff.restoration.prior import Estimate, box, finer, kernel_features
from sciresdiff.restoration.refiner import condition
from sciresdiff.restoration.restore import (
    FINAL_ITERATIONS,
    PATIENCE,
    Part,
    Progress,
    Restored,
    Settings,
    Units,
    begun,
    drawn,
    gaussian,
    modelled,
    prepared,
    refines,
    refreshed,
    restore,
    summed_up,
)

Array = NDArray[np.float32]
Second = Callable[[Tensor, Tensor, int | None], Array]
"""(image between the stages, its variance, number of the draw; None: no draw, the best estimate) -> fine image, all in
the frame's unit; the tensors (1, 1, Y, X)."""

STAGE_TWO, WHOLE = 2, 3
"""What tells the noise of the second model, and of the last step, from the first model's."""


def augmentation_level(model: Model) -> float:
    """The noise that a model wants on an earlier one's image, in units of that one's ERR; the most if it was not asked.

    A model that was trained on frames alone trusts details too much that an earlier model may have got wrong.
    """
    told = model.method.augment if model.method else {}
    return float(told.get("use", LARGEST_USE))


def smooth_error(first: Restored) -> Tensor:
    """The first model's ERR: its mean square over 3 x 3 pixels, as few draws scatter by themselves.

    Returns
    -------
    (1, 1, Y, X), in the frame's unit.
    """
    return box(torch.from_numpy(first.err.astype(np.float64))[None, None].square(), 1).sqrt()


def coarse_draw(
    first: Restored, error: Tensor, level: float, seed: int, draw: int, data: Data | None = None
) -> tuple[Tensor, Tensor]:
    """What the second model is given for a draw, and its variance; (1, 1, Y, X), in the frame's unit.

    Parameters
    ----------
    first : with its draws. error : `smooth_error`. level : sigma, above 0 and below 1 / sqrt(2).
    data : the frame, which says where in its plane it lies; None: at the origin.
    """
    assert first.draws is not None
    mean, one = (torch.from_numpy(v.astype(np.float64))[None, None] for v in (first.mean, first.draws[draw]))
    noise = gaussian(mean, seed, draw, 1_000_003, data)
    return mean + (1 - 2 * level**2) ** 0.5 * (one - mean) + level * error * noise, (level * error).square()


def chain_draws(
    data: Data, first: Restored, second: Second, fine: Callable[[Array], Tensor], w: Tensor, level: float, seed: int
) -> Iterator[Tensor]:
    """Draws of the whole, in noise units, each held to the frame.

    Parameters
    ----------
    data : the frame, with the operator of both scales. fine : a fine image in the frame's unit -> noise units.
    w : (1, 1, s*h, s*w), what the first stage may be wrong by, per fine pixel.
    """
    error = smooth_error(first)
    assert first.draws is not None
    for draw in range(len(first.draws)):
        x = fine(second(*coarse_draw(first, error, level, key_of(seed, STAGE_TWO), draw, data), draw))
        yield refreshed(data, x, w, key_of(seed, WHOLE), draw)


def between_stages(part: Part, units: Units, scale: int) -> Part:
    """Where the image between the stages lies in its plane, and what that plane is like: the frame, pixel by pixel.

    All of it is told by the frame's plane, so that parts agree; nothing is read off the part.

    Parameters
    ----------
    units : of the first model's image, from which a frame's sky and noise are brought to it. scale : the first model's.
    """
    sky, sigma = units.sky / units.per_fine, units.sigma * scale / units.per_fine
    level = replace(part.level, sky=sky, sigma=sigma, y=part.level.y / np.float32(scale))
    core = tuple(slice(scale * s.start, scale * s.stop) for s in part.core)
    return Part(level, (scale * part.origin[0], scale * part.origin[1]), core)  # type: ignore[arg-type]


def second_stage(
    model: Model,
    kernel: NDArray[np.float64] | None,
    quantity: Quantity,
    settings: Settings,
    device: torch.device,
    part: Part | None = None,
) -> Second:
    """The second model as a function of the image between the stages.

    Parameters
    ----------
    kernel : what the second model is to undo, on the fine grid. part : where the image lies, see `between_stages`.
    """
    settings, level = replace(settings, seed=key_of(settings.seed, STAGE_TWO)), augmentation_level(model)
    features = torch.from_numpy(kernel_features(kernel, model.scale))[None].to(device)

    def second(y: Tensor, variance: Tensor, draw: int | None) -> Array:
        pixels, noise = (v[0, 0].cpu().numpy().astype(np.float32) for v in (y, variance))
        clear = np.zeros(pixels.shape, dtype=bool)
        data, units = prepared(pixels, noise, clear, kernel, model.scale, quantity, device, part)
        best, _ = modelled(data, features, model, settings)
        if draw is None:
            return units.image(best.x)
        assert model.refiner is not None
        known = condition(data, best, features, model.refiner.config.conditions, level)
        return units.image(drawn(data, best, known, model, settings, draw))

    return second


@torch.inference_mode()
def cascade(
    pixels: NDArray[np.float32],
    variance: NDArray[np.float32],
    mask: NDArray[np.bool_],
    kernel: NDArray[np.float64] | None,
    quantity: Quantity,
    models: tuple[Model, Model],
    settings: Settings,
    device: torch.device | str = "cpu",
    progress: Progress = lambda done, total, label: None,
    part: Part | None = None,
) -> Restored:
    """Restore one plane by two models in a row; the scale is the product of theirs.

    Parameters
    ----------
    pixels, variance, mask : (h, w), as for `restore.restore`, in the frame's own unit.
    kernel : blur between the wanted image and this one, of both scales together, on the fine grid; None for none.
    quantity : ``sum`` or ``mean``. models : the first, and the one that goes on with its draws.
    settings : how draws are made. device : where networks run. progress : is told what is done.
    part : where a window lies in a plane that is larger.

    Returns
    -------
    Restored: ERR is the scatter of the chained draws; **neither model's calibration holds for it**.  GATE is the first
    model's.

    Raises
    ------
    InputError : no valid pixel.
    UsageError : a model without a refiner, or mode ``exact`` with a kernel.
    """
    one, two = models
    if not (refines(one, settings) and refines(two, settings)):
        raise UsageError("--then: a cascade passes draws on; both need a refiner, and --no-refine is not allowed")
    if settings.consistency == "exact" and kernel is not None:
        raise UsageError("--consistency exact: with a kernel it amplifies the noise by 1e3 and more; use noise")
    device, total = torch.device(device), 2 * (1 + settings.samples)
    data, units = prepared(pixels, variance, mask, kernel, one.scale * two.scale, quantity, device, part)
    coarse, rest = split(kernel, two.scale)
    stage = replace(settings, keep_draws=True)
    first = restore(pixels, variance, mask, coarse, one.scale, quantity, one, stage, device,
                    lambda done, _, label: progress(done, total, f"{label}, first model"), part)  # fmt: skip
    error = smooth_error(first)
    units_one = replace(units, per_fine=one.scale**2 if quantity == "sum" else 1, scale=one.scale)
    between = between_stages(part, units_one, one.scale) if part else None
    second = second_stage(two, rest, quantity, settings, device, between)
    share = two.scale**2 if quantity == "sum" else 1
    w = units.noise_units(finer(error, two.scale)[0, 0].numpy() / share, data.y, spread=True)

    def fine(image: Array) -> Tensor:
        return units.noise_units(image, data.y)

    guess = fine(second(torch.from_numpy(first.mean)[None, None], error.square(), None))
    x = consistent(data, guess, w.square(), FINAL_ITERATIONS, PATIENCE)
    best = begun(data, Estimate(x, w, guess), settings)
    gate = finer(torch.from_numpy(first.gate)[None, None], two.scale).to(data.y)
    draws = chain_draws(data, first, second, fine, w, augmentation_level(two), settings.seed)
    half = total // 2
    return summed_up(data, units, best, gate, draws, None, settings,
                     lambda done, _, label: progress(half + done, total, f"{label}, second model"), part)  # fmt: skip

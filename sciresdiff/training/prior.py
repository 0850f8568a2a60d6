"""Training the prior through the physics: losses in units of the local noise, chosen by the recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sciresdiff.diffusion.losses import LOSSES, Context
from sciresdiff.diffusion.method_file import nearest
from sciresdiff.errors import UsageError
from sciresdiff.nets import BACKBONES
from sciresdiff.nets.half import has_fast_bfloat16
from sciresdiff.physics.consistency import Data
from sciresdiff.physics.richardson_lucy import pedestal, richardson_lucy
from sciresdiff.restoration.model import PRESETS, Model, save
from sciresdiff.restoration.ops import local_contrast, upsample_nearest
from sciresdiff.restoration.prior import Estimate, Prior, PriorConfig
from sciresdiff.training.batch import Batch
from sciresdiff.training.data import Pairs, Prefetch
from sciresdiff.training.loop import LoopOptions, Say, State, mixed_precision, training_loop
from sciresdiff.training.options import TrainOptions
from sciresdiff.training.prepare import VALIDATION, check_state, count_millions, open_data, provenance, resume, set_up
from sciresdiff.training.process_group import SINGLE, ProcessGroup
from sciresdiff.training.recipe import TERMS, DataRecipe, read_losses, read_recipe


@dataclass(frozen=True)
class Plan:
    """What a training of a prior begins with."""

    device: torch.device
    recipe: DataRecipe
    loop: LoopOptions
    terms: Mapping[str, float]
    """Losses and their weights."""
    prior: Prior
    """Untrained."""
    pairs: Pairs


def plan(options: TrainOptions, say: Say, group: ProcessGroup = SINGLE) -> Plan:
    """Resolve and check all that a training begins with: options, recipe, network, data.

    Parameters
    ----------
    options, say, group : as for `train`.

    Raises
    ------
    UsageError, InputError : options, a recipe or data that do not fit.
    """
    device = set_up(options, group)
    (recipe, loop), terms = read_recipe(options), read_losses(options.recipe)
    return Plan(device, recipe, loop, terms, build_prior(options), open_data(recipe, options.seed, options, say))


def check(options: TrainOptions, say: Say) -> None:
    """Refuse what `train` would refuse, in the same words; nothing is written.

    Raises
    ------
    UsageError, InputError : as in `train`.
    """
    found = plan(options, say)
    check_state(found.prior, options, found.loop, found.device)


def train(options: TrainOptions, say: Say, group: ProcessGroup = SINGLE) -> Path:
    """Train a prior, or resume where the same command was stopped.

    Parameters
    ----------
    options : what is asked for.
    say : takes one line for the user.
    group : the processes that share the work; they are connected (`process_group.connect`).

    Returns
    -------
    The path of the model, which is usable from the first report on.

    Raises
    ------
    UsageError, InputError : options, a recipe or data that do not fit.
    """
    # Setup: the device, what to train on and by which losses, the network, the data.
    found = plan(options, say, group)
    device, recipe, loop, terms, prior, pairs = (
        found.device, found.recipe, found.loop, found.terms, found.prior, found.pairs,
    )  # fmt: skip
    output, bf16 = Path(options.output), loop.bf16 and has_fast_bfloat16(device)
    held_out = Pairs(recipe, options.seed + VALIDATION)  # from another stream

    # Resume where the same command was stopped, else begin.
    run = resume(prior, options, loop, device, group)
    say(f"prior of {count_millions(prior):.2f} M parameters, {recipe.kind} x{options.scale}")

    # Loop: batch, loss, step; report and snapshot at intervals and at the end.
    def batch_loss(module: nn.Module, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        return loss(module, batch, generator, bf16, terms)

    def snapshot(average: nn.Module, state: State) -> None:
        assert isinstance(average, Prior)
        record = {**provenance(recipe, options, state), "loss": terms}
        save(Model(average, card=model_card(output.stem, recipe, record)), output)

    training_loop(run, Prefetch(pairs, run.share, device), batch_loss, Validation(held_out), snapshot, say)
    return output


def build_prior(options: TrainOptions) -> Prior:
    """An untrained prior, of the size of a preset."""
    sizes = {**PRESETS[options.preset], **({"stages": options.stages} if options.stages else {})}
    prior = Prior(PriorConfig(options.scale, check_backbone(options.backbone), **sizes))
    return prior.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def check_backbone(name: str | None) -> str:
    """The name of the network asked for, else resnet.

    Raises
    ------
    UsageError : there is no such network.
    """
    name = name or "resnet"
    if name not in BACKBONES:
        some = f"{', '.join(BACKBONES)}{nearest(name, BACKBONES)}"
        raise UsageError(f"--backbone: {name!r} is no network; allowed are {some}")
    return name


def model_card(name: str, recipe: DataRecipe, record: Mapping[str, Any]) -> dict[str, Any]:
    """The card of a model that is a prior alone.

    Parameters
    ----------
    name : of the model.
    recipe : what it was trained on; its ranges are those that the model is made for.
    record : how the prior came to be.
    """
    return {
        "name": name,
        "kind": recipe.kind,
        "scale": recipe.scale,
        "target_fwhm_px": 2.0,
        "range": {"sigma_low_px": recipe.sigma, "photon": recipe.photon},
        "trained": {"prior": dict(record)},
    }


# The loss


def loss(
    prior: nn.Module, batch: Batch, generator: torch.Generator, bf16: bool, terms: Mapping[str, float] = TERMS
) -> tuple[Tensor, dict[str, float]]:
    """The losses of every stage's image, in local units, and the likelihood of its scale.

    L = sum_k c_k sum_terms w L_term(x_k, truth), with c_k = 1 for the last stage and 1/2 for the others.

    Parameters
    ----------
    prior : (data, kernel, run) -> the estimates of its stages.
    batch : B pairs.
    generator : not used; a prior is trained without noise of its own.
    bf16 : networks in bfloat16.
    terms : name of LOSSES, or ``scale``, -> weight w.

    Returns
    -------
    The loss, and the last stage's terms by name.
    """
    del generator
    estimates = prior(batch.data, batch.kernel, mixed_precision(bf16))
    unit = local_scale(batch.truth, batch.data)
    sky, slope = fit_photon_noise(batch) if "poisson-nll" in terms else (None, None)
    total = batch.truth.new_zeros(())
    parts: dict[str, float] = {}
    for k, estimate in enumerate(estimates):
        context = Context(unit, scale=estimate.w, noise=batch.data.noise, sky=sky, slope=slope, knee=2.0)
        stage: Any = 0.0
        for name, weight in terms.items():
            if name == "scale":
                value = scale_loss(estimate, batch.truth, unit)
            else:
                value = image_loss(name, estimate, batch, context)
            stage = stage + weight * value
            parts[name] = float(value.detach())
        total = total + (1.0 if k == len(estimates) - 1 else 0.5) * stage
    return total, parts


def local_scale(truth: Tensor, data: Data) -> Tensor:
    """The error that counts as one, sqrt(N / s^4 + (0.1 amplitude)^2), (B, 1, s*h, s*w).

    It is the noise per fine pixel where there is only noise, a tenth of the local contrast where there is structure.

    Parameters
    ----------
    truth : (B, 1, s*h, s*w), in noise units.
    data : its observation.
    """
    scale = data.scale
    _, amplitude = local_contrast(truth, data.noise, scale)
    noise = upsample_nearest(data.noise, scale) / scale**4
    return (noise + (0.1 * amplitude).square()).sqrt()


def fit_photon_noise(batch: Batch) -> tuple[Tensor, Tensor]:
    """Sky and slope of the variance, N = sky + slope (A truth)+, of every pair: both (B, 1, 1, 1).

    A straight line by least squares through the pair's own variance and signal, slope = cov(A x, N) / var(A x); without
    signal there is next to no slope.
    """
    clean = batch.data.operator.apply(batch.truth).clamp_min(0).double()
    noise = batch.data.noise.double()
    dx, dy = (v - v.mean((1, 2, 3), keepdim=True) for v in (clean, noise))
    slope = (dx * dy).mean((1, 2, 3), keepdim=True) / dx.square().mean((1, 2, 3), keepdim=True).clamp_min(1e-12)
    slope = slope.clamp_min(1e-6)
    sky = (noise - slope * clean).mean((1, 2, 3), keepdim=True)
    sky = torch.maximum(sky, 0.01 * noise.amin((1, 2, 3), keepdim=True))
    return sky.to(batch.truth.dtype), slope.to(batch.truth.dtype)


def scale_loss(estimate: Estimate, truth: Tensor, unit: Tensor) -> Tensor:
    """Negative log likelihood of the predicted scale w of the guess's error: mean(log w + (guess - truth)^2 / 2 w^2).

    It is the error of the guess *before* the data are consulted that w is fitted to, because the consistency step takes
    it for Sigma.  No gradient reaches the guess.

    Parameters
    ----------
    estimate : guess and w of a stage, (B, 1, s*h, s*w).
    truth : (B, 1, s*h, s*w).
    unit : (B, 1, s*h, s*w), `local_scale`; w counts in it, so that bright sources do not outweigh the sky.
    """
    # Cut at 50: a few bright pixels that are off by ten scales would else set the scale of all.
    ratio = ((estimate.guess - truth).detach() / estimate.w).square().clamp_max(50)
    return (torch.log(estimate.w / unit) + 0.5 * ratio).mean()


def image_loss(name: str, estimate: Estimate, batch: Batch, context: Context) -> Tensor:
    """A loss of LOSSES of a stage's image, as one number."""
    return LOSSES[name](estimate.x, batch.truth, context).mean()  # type: ignore[no-any-return]


# Validation


class Validation:
    """A fixed set of pairs, with the best stopping point of Richardson-Lucy on each."""

    def __init__(self, pairs: Pairs, count: int = 32) -> None:
        """Take the first ``count`` pairs of a stream that training never draws from."""
        self.batches = [pairs.batch(n, 16) for n in range(0, count, 16)]
        self.baseline = torch.cat([self.richardson_lucy_psnr(b) for b in self.batches])

    @staticmethod
    def richardson_lucy_psnr(batch: Batch) -> Tensor:
        """PSNR (B,) in dB at the best of 30 accelerated iterations (about 225 plain ones)."""
        scores = []
        for k, x in enumerate(richardson_lucy(batch.data, pedestal(batch.data))):
            scores.append(psnr(x, batch.truth))
            if k >= 29:
                break
        return torch.stack(scores).amax(0)

    def __call__(self, prior: nn.Module) -> dict[str, float]:
        """Gain over that baseline.

        Returns
        -------
        ``gain_db``, ``gain_first_db`` : of the last and of the first stage, dB, mean over the pairs; ``worse_share`` :
        share of the pairs that lose more than 0.1 dB.
        """
        with torch.no_grad():
            gains = [[psnr(e.x, b.truth) for e in prior(b.data, b.kernel)] for b in self.batches]
        stages = [torch.cat(stage) - self.baseline for stage in zip(*gains, strict=True)]
        last = stages[-1]
        return {
            "gain_db": float(last.mean()),
            "gain_first_db": float(stages[0].mean()),
            "worse_share": float((last < -0.1).float().mean()),
        }


def psnr(x: Tensor, truth: Tensor) -> Tensor:
    """PSNR (B,) in dB of images (B, 1, H, W), by the range of their truth: 10 log10(range^2 / mean squared error)."""
    span = truth.amax((1, 2, 3)) - truth.amin((1, 2, 3))
    return 10 * torch.log10(span.square() / (x - truth).square().mean((1, 2, 3)).clamp_min(1e-20))

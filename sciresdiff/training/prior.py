"""Training the prior through the physics: losses in units of the local noise, chosen by the recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from sciresdiff.training.data import Ahead, Batch, DataRecipe, Pairs
from sciresdiff.training.folders import UserData
from sciresdiff.training.loop import LoopOptions, Run, Say, State, fit, quick
from sciresdiff.training.options import TrainOptions
from sciresdiff.training.recipe import TERMS, losses_of, recipe_of
from sciresdiff.training.world import ALONE, World


def fine_scale(estimate: Tensor, data: Data) -> Tensor:
    """The error that counts as one: the noise per fine pixel, and a tenth of the local contrast."""
    scale = data.operator.scale
    _, amplitude = local_contrast(estimate, data.noise, scale)
    noise = upsample_nearest(data.noise, scale) / scale**4
    return (noise + (0.1 * amplitude).square()).sqrt()


def photon(batch: Batch) -> tuple[Tensor, Tensor]:
    """Sky and slope of the variance, noise = sky + slope (A truth)+, of every pair: both (B, 1, 1, 1).

    A line through the pair's own variance and signal; without signal there is next to no slope.
    """
    clean = batch.data.operator.apply(batch.truth).clamp_min(0).double()
    noise = batch.data.noise.double()
    dx, dy = (v - v.mean((1, 2, 3), keepdim=True) for v in (clean, noise))
    slope = (dx * dy).mean((1, 2, 3), keepdim=True) / dx.square().mean((1, 2, 3), keepdim=True).clamp_min(1e-12)
    slope = slope.clamp_min(1e-6)
    sky = (noise - slope * clean).mean((1, 2, 3), keepdim=True)
    sky = torch.maximum(sky, 0.01 * noise.amin((1, 2, 3), keepdim=True))
    return sky.to(batch.truth.dtype), slope.to(batch.truth.dtype)


def loss(
    prior: nn.Module, batch: Batch, generator: torch.Generator, bf16: bool, terms: Mapping[str, float] = TERMS
) -> tuple[Tensor, dict[str, float]]:
    """The losses of every stage's image, in local units, and the likelihood of its scale; early stages weigh half.

    The scale is fitted to the error of the network's guess *before* the data are consulted: that error is what the
    consistency step takes for Sigma.

    Parameters
    ----------
    terms : name of LOSSES, or ``scale``, -> weight.
    """
    del generator
    estimates = prior(batch.data, batch.kernel, quick(bf16))
    unit = fine_scale(batch.truth, batch.data)
    sky, slope = photon(batch) if "poisson-nll" in terms else (None, None)
    total = batch.truth.new_zeros(())
    parts: dict[str, float] = {}
    for k, estimate in enumerate(estimates):
        context = Context(unit, scale=estimate.w, noise=batch.data.noise, sky=sky, slope=slope, knee=2.0)
        stage: Any = 0.0
        for name, weight in terms.items():
            value = scale_loss(estimate, batch.truth, unit) if name == "scale" else mean(name, estimate, batch, context)
            stage = stage + weight * value
            parts[name] = float(value.detach())
        total = total + (1.0 if k == len(estimates) - 1 else 0.5) * stage
    return total, parts


def scale_loss(estimate: Estimate, truth: Tensor, unit: Tensor) -> Tensor:
    """Likelihood of the predicted scale of the guess's error, whatever that error is."""
    ratio = ((estimate.guess - truth).detach() / estimate.w).square().clamp_max(50)
    return (torch.log(estimate.w / unit) + 0.5 * ratio).mean()


def mean(name: str, estimate: Estimate, batch: Batch, context: Context) -> Tensor:
    """A loss of a stage's image as one number."""
    return LOSSES[name](estimate.x, batch.truth, context).mean()  # type: ignore[no-any-return]


def decibel(x: Tensor, truth: Tensor) -> Tensor:
    """PSNR of every image of a batch, with the truth's own range."""
    span = truth.amax((1, 2, 3)) - truth.amin((1, 2, 3))
    return 10 * torch.log10(span.square() / (x - truth).square().mean((1, 2, 3)).clamp_min(1e-20))


class Validation:
    """A fixed set of pairs, with the best stopping point of Richardson-Lucy on each."""

    def __init__(self, pairs: Pairs, count: int = 32) -> None:
        """Pairs of a stream that training never draws from."""
        self.batches = [pairs.batch(n, 16) for n in range(0, count, 16)]
        self.rival = torch.cat([self.best(b) for b in self.batches])

    @staticmethod
    def best(batch: Batch) -> Tensor:
        """PSNR at the best of 30 accelerated iterations (about 225 plain ones)."""
        scores = []
        for k, x in enumerate(richardson_lucy(batch.data, pedestal(batch.data))):
            scores.append(decibel(x, batch.truth))
            if k >= 29:
                break
        return torch.stack(scores).amax(0)

    def __call__(self, prior: nn.Module) -> dict[str, float]:
        """Gain over that rival, in dB, of every stage."""
        with torch.no_grad():
            gains = [[decibel(e.x, b.truth) for e in prior(b.data, b.kernel)] for b in self.batches]
        stages = [torch.cat(stage) - self.rival for stage in zip(*gains, strict=True)]
        last = stages[-1]
        return {
            "gain_db": float(last.mean()),
            "gain_first_db": float(stages[0].mean()),
            "worse_share": float((last < -0.1).float().mean()),
        }


def real_images(paths: Sequence[str], side: int) -> UserData:
    """The user's data, of which every image has to hold a patch of ``side`` fine px; read when pairs are made."""
    return UserData(tuple(paths), side)


def backbone_of(name: str | None) -> str:
    """The network asked for, else resnet.

    Raises
    ------
    UsageError : there is no such network.
    """
    name = name or "resnet"
    if name not in BACKBONES:
        some = f"{', '.join(BACKBONES)}{nearest(name, BACKBONES)}"
        raise UsageError(f"--backbone: {name!r} is no network; allowed are {some}")
    return name


def state_file(output: Path) -> Path:
    """Where the state of a run lies: beside the model."""
    return output.with_suffix(".state")


def begun(
    module: nn.Module, options: TrainOptions, loop: LoopOptions, device: torch.device, world: World = ALONE
) -> Run:
    """A run with its state file, taken up where it was left unless ``resume`` is off."""
    state = state_file(Path(options.output))
    if world.first:
        state.parent.mkdir(parents=True, exist_ok=True)
        if not options.resume:
            state.unlink(missing_ok=True)
    return Run(module, state, loop, device, world)


def provenance(data: DataRecipe, options: TrainOptions, state: State) -> dict[str, Any]:
    """How a model came to be, for its card."""
    return {
        "data": data.to_dict(),
        "real_frames": [Path(p).name for p in options.data],
        "samples": state.seen,
        "minutes": round(state.seconds / 60, 1),
        "seed": options.seed,
        "torch": torch.__version__,
    }


def train(options: TrainOptions, say: Say, world: World = ALONE) -> Path:
    """Train a prior, or go on where the same command left off.

    Parameters
    ----------
    world : the processes that share the work; they are connected (`sciresdiff.training.world.joined`).

    Returns
    -------
    The path of the model, which is usable from the first report on.
    """
    device = world.device(options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    (recipe, loop), terms = recipe_of(options), losses_of(options.recipe)
    sizes = {**PRESETS[options.preset], **({"stages": options.stages} if options.stages else {})}
    prior = Prior(PriorConfig(options.scale, backbone_of(options.backbone), **sizes))
    prior.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    output = Path(options.output)
    run = begun(prior, options, loop, device, world)
    pairs = Pairs(recipe, options.seed, real_images(options.data, recipe.patch * recipe.scale))
    ahead = Ahead(lambda n: pairs.batch(n + run.share[0], run.share[1], device))
    bf16 = loop.bf16 and has_fast_bfloat16(device)

    def snapshot(average: nn.Module, state: State) -> None:
        assert isinstance(average, Prior)
        card = {
            "name": output.stem,
            "kind": recipe.kind,
            "scale": options.scale,
            "target_fwhm_px": 2.0,
            "range": {"sigma_low_px": recipe.sigma, "photon": recipe.photon},
            "trained": {"prior": {**provenance(recipe, options, state), "loss": terms}},
        }
        save(Model(average, card=card), output)

    say(f"prior of {sum(p.numel() for p in prior.parameters()) / 1e6:.2f} M parameters, {recipe.kind} x{options.scale}")
    fit(
        run,
        ahead,
        lambda module, batch, generator: loss(module, batch, generator, bf16, terms),
        Validation(Pairs(recipe, options.seed + 7_919)),
        snapshot,
        say,
    )
    return output

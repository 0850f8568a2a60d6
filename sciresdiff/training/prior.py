"""Training the prior: squared error in units of the local noise, through the physics."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from sciresdiff.errors import InputError, UsageError
from sciresdiff.model import PRESETS, Model, device_of, save
from sciresdiff.physics.consistency import Data, richardson_lucy
from sciresdiff.prior import Prior, PriorConfig, contrast, finer, pedestal
from sciresdiff.training.data import Ahead, Batch, DataRecipe, Pairs
from sciresdiff.training.loop import LoopOptions, Run, Say, State, fit, in_hardware, quick


@dataclass(frozen=True)
class TrainOptions:
    """What the two training commands take."""

    output: str
    data: tuple[str, ...] = ()
    """Real frames or HDF5 sets that join the simulated scenes."""
    scale: int = 4
    kind: str | None = None
    """``astro`` or ``micro``; the recipe's by default."""
    backbone: str = "resnet"
    stages: int | None = None
    recipe: str | None = None
    """TOML file with the tables [data] and [loop]; every key is a field of DataRecipe or LoopOptions."""
    minutes: float | None = None
    images: int | None = None
    preset: str = "base"
    resume: bool = True
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    prior: str | None = None
    """The prior that a refiner is trained for."""
    method: str = "sciresdiff"
    calibrate: bool = True
    """Whether a refiner's training ends with the calibration of ERR and TRUST on simulated frames."""


def fine_scale(estimate: Tensor, data: Data) -> Tensor:
    """The error that counts as one: the noise per fine pixel, and a tenth of the local contrast."""
    scale = data.operator.scale
    _, amplitude = contrast(estimate, data.noise, scale)
    noise = finer(data.noise, scale) / scale**4
    return (noise + (0.1 * amplitude).square()).sqrt()


def flux_error(error: Tensor, data: Data, cell: int = 8) -> Tensor:
    """Error of the flux in cells of 8 x 8 coarse pixels, in units of the noise of that sum."""
    side = cell * data.operator.scale
    total = F.avg_pool2d(error, side, divisor_override=1)
    return total / F.avg_pool2d(data.noise, cell, divisor_override=1).sqrt()


def loss(prior: nn.Module, batch: Batch, generator: torch.Generator, bf16: bool) -> tuple[Tensor, dict[str, float]]:
    """Huber error of every stage in local units, likelihood of its scale, and the flux of cells.

    The scale is fitted to the error of the network's guess *before* the data are consulted: that error is what the
    consistency step takes for Sigma.
    """
    del generator
    estimates = prior(batch.data, batch.kernel, quick(bf16))
    unit = fine_scale(batch.truth, batch.data)
    total = batch.truth.new_zeros(())
    parts: dict[str, float] = {}
    for k, estimate in enumerate(estimates):
        weight = 1.0 if k == len(estimates) - 1 else 0.5
        error = estimate.x - batch.truth
        fit_ = F.huber_loss(error / unit, torch.zeros_like(error), delta=2.0)
        ratio = ((estimate.guess - batch.truth).detach() / estimate.w).square().clamp_max(50)
        scale = (torch.log(estimate.w / unit) + 0.5 * ratio).mean()
        off = flux_error(error, batch.data)
        flux = F.huber_loss(off, torch.zeros_like(off), delta=2.0)
        total = total + weight * (fit_ + 0.1 * scale + 0.02 * flux)
        parts = {"fit": float(fit_.detach()), "scale": float(scale.detach()), "flux": float(flux.detach())}
    return total, parts


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


def recipe_of(options: TrainOptions) -> tuple[DataRecipe, LoopOptions]:
    """The data recipe and the loop's options: defaults, then the TOML file, then the command's options.

    Raises
    ------
    UsageError : a file that cannot be read, or an unknown key.
    """
    tables: dict[str, Any] = {}
    if options.recipe:
        try:
            tables = tomllib.loads(Path(options.recipe).read_text())
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise UsageError(f"--recipe: {options.recipe} cannot be read ({error})") from None
    data = DataRecipe(**table_of(tables, "data", DataRecipe))
    loop = LoopOptions(**table_of(tables, "loop", LoopOptions))
    data = replace(data, kind=options.kind or data.kind, scale=options.scale)
    loop = replace(loop, seed=options.seed)
    if options.minutes or options.images:
        loop = replace(loop, minutes=options.minutes, images=options.images)
    return data, loop


def table_of(tables: dict[str, Any], name: str, cls: type[DataRecipe | LoopOptions]) -> dict[str, Any]:
    """A table of a recipe as arguments of its class.

    Raises
    ------
    UsageError : a key that the class does not have.
    """
    known = {f.name for f in fields(cls)}
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in tables.get(name, {}).items()}
    if unknown := sorted(set(given) - known):
        raise UsageError(f"--recipe: [{name}] has no key {unknown[0]!r}; allowed are {', '.join(sorted(known))}")
    return given


def real_images(paths: Sequence[str], side: int) -> list[NDArray[np.float32]]:
    """Real frames as scenes: the sky removed, in units of the sky noise, masked pixels at the sky.

    Raises
    ------
    InputError : a frame smaller than a training patch.
    """
    from sciresdiff import io
    from sciresdiff.normalize import background

    images = []
    for path in paths:
        for plane in io.read(path):
            pixels, bad = plane.pixels[0], plane.mask[0]
            sky, sigma = background(pixels, bad)
            if min(pixels.shape) < side:
                raise InputError(f"{path}: {pixels.shape} px is smaller than a training patch of {side} px")
            images.append(np.where(bad, 0, (pixels - sky) / max(sigma, 1e-9)).astype(np.float32))
    return images


def state_file(output: Path) -> Path:
    """Where the state of a run lies: beside the model."""
    return output.with_suffix(".state")


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


def train(options: TrainOptions, say: Say) -> Path:
    """Train a prior, or go on where the same command left off.

    Returns
    -------
    The path of the model, which is usable from the first report on.
    """
    device = device_of(options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    recipe, loop = recipe_of(options)
    sizes = {**PRESETS[options.preset], **({"stages": options.stages} if options.stages else {})}
    prior = Prior(PriorConfig(options.scale, options.backbone, **sizes))
    prior.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    output = Path(options.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    run = Run(prior, state_file(output), loop, device)
    pairs = Pairs(recipe, options.seed, real_images(options.data, recipe.patch * recipe.scale))
    ahead = Ahead(lambda n: pairs.batch(n, loop.batch, device))
    bf16 = loop.bf16 and in_hardware(device)

    def snapshot(average: nn.Module, state: State) -> None:
        assert isinstance(average, Prior)
        card = {
            "name": output.stem,
            "kind": recipe.kind,
            "scale": options.scale,
            "target_fwhm_px": 2.0,
            "range": {"sigma_low_px": recipe.sigma, "photon": recipe.photon},
            "trained": {"prior": provenance(recipe, options, state)},
        }
        save(Model(average, card=card), output)

    say(f"prior of {sum(p.numel() for p in prior.parameters()) / 1e6:.2f} M parameters, {recipe.kind} x{options.scale}")
    fit(
        run,
        ahead,
        lambda module, batch, generator: loss(module, batch, generator, bf16),
        Validation(Pairs(recipe, options.seed + 7_919)),
        snapshot,
        say,
    )
    return output

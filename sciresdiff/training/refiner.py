"""Training the refiner: draws around a frozen prior, in units of the prior's own scale."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sciresdiff import plugins
from sciresdiff.diffusion import method as methods
from sciresdiff.diffusion.losses import LOSSES
from sciresdiff.diffusion.method import Method
from sciresdiff.diffusion.sampler import train_pair
from sciresdiff.diffusion.share import draw_samples
from sciresdiff.diffusion.weight import DYNAMIC
from sciresdiff.errors import UsageError
from sciresdiff.nets.half import has_fast_bfloat16
from sciresdiff.restoration.fallback import FINAL_ITERATIONS
from sciresdiff.restoration.hooks import apply_training_hooks
from sciresdiff.restoration.model import Model, has_card, load, locate, prior_card, read_card, save
from sciresdiff.restoration.ops import upsample_nearest
from sciresdiff.restoration.prior import Estimate, Prior
from sciresdiff.restoration.refiner import Refiner, RefinerConfig, condition, refiner_for
from sciresdiff.restoration.residual_space import noise_scale, residual_space
from sciresdiff.restoration.restore import PRIOR_ITERATIONS
from sciresdiff.training.batch import Batch
from sciresdiff.training.calibrate import calibrate_err
from sciresdiff.training.data import Pairs, Prefetch
from sciresdiff.training.loop import LoopOptions, Say, State, mixed_precision, training_loop
from sciresdiff.training.options import TrainOptions
from sciresdiff.training.prepare import (
    CALIBRATION,
    TRUST,
    VALIDATION,
    check_state,
    count_millions,
    open_data,
    provenance,
    resume,
    set_up,
    state_file,
)
from sciresdiff.training.process_group import SINGLE, ProcessGroup
from sciresdiff.training.recipe import DataRecipe, read_recipe
from sciresdiff.training.trust import calibrate_trust

WIDTHS = {"tiny": {"width": 16, "depth": 1}, "small": {"width": 32, "depth": 3}, "base": {"width": 48, "depth": 4}}
"""Size of the network by preset."""
ERROR_CUT = 20.0
"""Errors beyond so many scales of the prior weigh no more."""


@dataclass(frozen=True)
class Plan:
    """What a training of a refiner begins with."""

    device: torch.device
    base: Model
    """Whose prior is refined; frozen."""
    method: Method
    recipe: DataRecipe
    loop: LoopOptions
    refiner: Refiner
    """Untrained."""
    pairs: Pairs


def plan(options: TrainOptions, say: Say, group: ProcessGroup = SINGLE) -> Plan:
    """Resolve and check all that a training begins with: the prior, method, recipe, network, data.

    Parameters
    ----------
    options, say, group : as for `train`.

    Raises
    ------
    UsageError, InputError : no prior given, or one of another scale; a recipe or data that do not fit.
    """
    if options.prior is None:
        raise UsageError("--prior: a refiner needs the prior that it refines; give the file that train-prior wrote")
    device = set_up(options, group)
    base, method = load_base_model(options, say).to(device), methods.load(options.method_name)
    recipe, loop = read_recipe(replace(options, kind=base.card["kind"]))
    refiner = build_refiner(method, base.scale, options)
    return Plan(device, base, method, recipe, loop, refiner, open_data(recipe, options.seed + 1, options, say))


def check(options: TrainOptions, say: Say) -> None:
    """Refuse what `train` would refuse, in the same words; nothing is written.

    Raises
    ------
    UsageError, InputError : as in `train`.
    """
    found = plan(options, say)
    check_state(found.refiner, options, found.loop, found.device)


def train(options: TrainOptions, say: Say, group: ProcessGroup = SINGLE) -> Path:
    """Train a refiner for a prior, or resume where the same command was stopped.

    Parameters
    ----------
    options : what is asked for.
    say : takes one line for the user.
    group : the processes that share the work, connected; the first of them calibrates alone, after the others ended.

    Returns
    -------
    The path of the whole model (prior, refiner, method), usable from the first report on.

    Raises
    ------
    UsageError : no prior given, or one of another scale.
    """
    # Setup: the device, the frozen prior, the diffusion and its network, the data.
    found = plan(options, say, group)
    device, base, method, recipe, loop, refiner, pairs = (
        found.device, found.base, found.method, found.recipe, found.loop, found.refiner, found.pairs,
    )  # fmt: skip
    output, bf16 = Path(options.output), loop.bf16 and has_fast_bfloat16(device)
    prepare_codec(refiner.to(device), base.prior, method, recipe, loop, options, say)
    held_out = Pairs(recipe, options.seed + VALIDATION)  # from another stream

    # Resume where the same command was stopped, else begin.
    run = resume(refiner, options, loop, device, group)
    say(f"refiner of {count_millions(refiner):.2f} M parameters, method {options.method_name}")

    # Loop: batch, loss, step; report and snapshot at intervals and at the end.
    def batch_loss(module: nn.Module, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        assert isinstance(module, Refiner)
        return loss(module, batch, generator, base.prior, method, bf16)

    def snapshot(average: nn.Module, state: State) -> None:
        assert isinstance(average, Refiner)
        card = model_card(base.card, output.stem, provenance(recipe, options, state))
        save(Model(base.prior, average, method, card), output)

    validate = validation(held_out, base.prior, method)
    training_loop(run, Prefetch(pairs, run.share, device), batch_loss, validate, snapshot, say)

    # Calibrate ERR and TRUST.
    if options.calibrate and group.first:
        calibrate(output, recipe, options.seed, device, say)
    return output


# Setup


def load_base_model(options: TrainOptions, say: Say) -> Model:
    """The model whose prior a refiner is trained for: one of ours, or a published network taken over.

    Raises
    ------
    InputError : missing, unreadable or of no known architecture.
    UsageError : of another scale than asked for.
    """
    assert options.prior is not None
    path = locate(options.prior)
    scale = prior_scale(options.prior)
    if scale != options.scale:
        raise UsageError(f"--scale {options.scale}: the prior {options.prior} has scale {scale}; give that one")
    if has_card(path):
        found = load(options.prior)
        if not found.is_checked:
            say(f"prior: {path.name} holds no checksum; whether its weights are whole is not known")
        return found
    model: Model = plugins.load("sciresdiff.lab.published.load_prior:prior_model")(path, options, say)
    return model


def prior_scale(name: str) -> int:
    """The scale of a prior by name or path, ours or published.

    Raises
    ------
    InputError : missing, unreadable, or of no known architecture.
    """
    path = locate(name)
    if has_card(path):
        return int(read_card(path)["prior"]["scale"])
    return int(plugins.load("sciresdiff.lab.published.load_prior:network_of")(path)[1])


def build_refiner(method: Method, scale: int, options: TrainOptions) -> Refiner:
    """An untrained refiner for a method, of the size of a preset."""
    config = refiner_config(method, scale, method.network(options.backbone or ""), options.preset)
    refiner = refiner_for(method, config)
    return refiner.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def refiner_config(method: Method, scale: int, backbone: str, preset: str) -> RefinerConfig:
    """The architecture that a method asks for."""
    alpha = float(method.weight_params.get("alpha", 0.5)) if method.weight in DYNAMIC else None
    return RefinerConfig(
        scale, backbone, **WIDTHS[preset], prediction=method.prediction, conditions=method.conditions, alpha=alpha
    )


def prepare_codec(
    refiner: Refiner,
    prior: Prior,
    method: Method,
    recipe: DataRecipe,
    loop: LoopOptions,
    options: TrainOptions,
    say: Say,
) -> None:
    """Train the codec of a latent method in place, before its diffusion; a run that is resumed has it already.

    Parameters
    ----------
    refiner : whose codec is trained.
    prior : in whose units the codec works.
    method : other methods have no codec.
    recipe, loop : pairs and budget of the whole training.
    options : whether a run is resumed, and the seed.
    say : takes one line for the user.
    """
    if method.space == "latent" and not (options.resume and state_file(Path(options.output)).exists()):
        train_codec = plugins.load("sciresdiff.lab.latent.train_codec:train_codec")
        train_codec(refiner, prior, method, recipe, loop, options.seed + 2, say)


def model_card(card: Mapping[str, Any], name: str, record: Mapping[str, Any]) -> dict[str, Any]:
    """The card of a model with another refiner: without what was measured on the draws of the one before.

    Parameters
    ----------
    card : of the model that the prior comes from.
    name : of the new model.
    record : how the refiner came to be.
    """
    kept = prior_card(card)
    return {**kept, "name": name, "trained": {**kept.get("trained", {}), "refiner": dict(record)}}


# The loss


def loss(
    refiner: Refiner, batch: Batch, generator: torch.Generator, prior: Prior, method: Method, bf16: bool
) -> tuple[Tensor, dict[str, float]]:
    """Error of the estimate of the clean image, in units of the prior's scale, at random steps of the path.

    The image is z_0 = (truth - mu) / w in the units of a `ResidualSpace`; at a random step t the state is
    x_t = a z_0 + b mu + s eps, and the loss is the mean of weight(t) L(answer - target), over valid pixels.

    Parameters
    ----------
    refiner : the network that is trained.
    batch : B pairs.
    generator : draws steps and noise.
    prior : frozen.
    method : path, target, loss and hooks; the physics hook is part of the estimate in training as in use.
    bf16 : networks in bfloat16.

    Returns
    -------
    The loss; ``left``, the mean square of z_0, and ``error``, what of it is still wrong.
    """
    level: Tensor | float = 1.0
    if method.augment:
        batch, level = plugins.load("sciresdiff.lab.cascade.augment:augment")(batch, method.augment, generator)

    # What the prior leaves open, in its own units, and what the network is told of it.
    best, path = prior_estimate(prior, batch, bf16), method.training_path()
    space = residual_space(method, batch.data, best)
    known = condition(batch.data, best, batch.kernel, refiner.config.conditions, level)
    truth = space.truth(batch.truth)
    valid = upsample_nearest(batch.data.valid, prior.config.scale)
    if refiner.latent:
        value = refiner.loss(method, space, known, truth, valid, generator, mixed_precision(bf16))
        return value, {"left": float(truth.square().mean())}

    # A random step of every sample's path, and the state there.
    size, device = batch.truth.shape[0], batch.truth.device
    t = draw_samples(lambda n: torch.randint(1, path.T + 1, (n,), generator=generator, device=device), size, generator)
    eps = draw_samples(
        lambda n: torch.randn((n, *truth.shape[1:]), generator=generator, device=device), size, generator
    )
    w = noise_scale(method, space, refiner.alpha, image=False)
    x, target, weight = train_pair(method, truth, space.mu, w, t, eps)

    # The network's answer, or the image once the data were consulted, against what is right.
    p = path.at(t, truth)
    answer, z = refiner.estimate(x, p, space, known, mixed_precision(bf16))
    if "consistency" in method.hooks:
        error, weight = space.truth(apply_training_hooks(method, batch.data, space.image(z), best.w, p)) - truth, 1.0
    else:
        error = answer - target
    value = (LOSSES[method.loss](error.clamp(-ERROR_CUT, ERROR_CUT)) * weight * valid).mean()
    return value, {"left": float(truth.square().mean()), "error": float(error.detach().square().mean())}


def prior_estimate(prior: Prior, batch: Batch, bf16: bool) -> Estimate:
    """The frozen prior's last estimate of a batch, with the iterations that restoration uses."""
    with torch.no_grad():
        return prior(batch.data, batch.kernel, mixed_precision(bf16), PRIOR_ITERATIONS, FINAL_ITERATIONS)[-1]


def validation(pairs: Pairs, prior: Prior, method: Method) -> Callable[[nn.Module], dict[str, float]]:
    """Loss on 32 pairs of a stream that training never draws from, with fixed noise."""
    batches = [pairs.batch(n, 16) for n in (0, 16)]

    def measure(refiner: nn.Module) -> dict[str, float]:
        assert isinstance(refiner, Refiner)
        with torch.no_grad():
            values = [loss(refiner, b, torch.Generator().manual_seed(7), prior, method, False)[0] for b in batches]
        return {"held_out": float(np.mean([float(v) for v in values]))}

    return measure


# Calibration


def calibrate(path: Path, recipe: DataRecipe, seed: int, device: torch.device, say: Say) -> None:
    """Calibrate ERR and TRUST of the model in a file on simulated frames, and write it again.

    Parameters
    ----------
    path : of the model.
    recipe : what the frames are drawn from.
    seed : of the training; the frames come from streams of their own.
    device : where frames are restored.
    say : takes one line for the user.
    """
    say("calibrating ERR and TRUST on simulated frames")
    model = calibrate_err(load(str(path)).to(device), recipe, seed + CALIBRATION)
    save(calibrate_trust(model, recipe, seed + TRUST), path)

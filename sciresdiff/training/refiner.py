"""Training the refiner: draws around a frozen prior, in units of the prior's own scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
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
from sciresdiff.training.calibrate import calibrated_card
from sciresdiff.training.data import Ahead, Batch, Pairs
from sciresdiff.training.loop import Say, State, fit, quick
from sciresdiff.training.options import TrainOptions
from sciresdiff.training.prior import begun, provenance, real_images, state_file
from sciresdiff.training.recipe import recipe_of
from sciresdiff.training.trust import trusted_card
from sciresdiff.training.world import ALONE, World

WIDTHS = {"tiny": {"width": 16, "depth": 1}, "small": {"width": 32, "depth": 3}, "base": {"width": 48, "depth": 4}}


def config_of(method: Method, scale: int, backbone: str, preset: str) -> RefinerConfig:
    """The refiner that a method asks for."""
    alpha = float(method.weight_params.get("alpha", 0.5)) if method.weight in DYNAMIC else None
    return RefinerConfig(
        scale, backbone, **WIDTHS[preset], prediction=method.prediction, conditions=method.conditions, alpha=alpha
    )


def anchored(prior: Prior, batch: Batch, bf16: bool) -> Estimate:
    """The frozen prior's last estimate."""
    with torch.no_grad():
        return prior(batch.data, batch.kernel, quick(bf16), PRIOR_ITERATIONS, FINAL_ITERATIONS)[-1]


def loss(
    refiner: Refiner, batch: Batch, generator: torch.Generator, prior: Prior, method: Method, bf16: bool
) -> tuple[Tensor, dict[str, float]]:
    """Error of the estimate of the clean image, in units of the prior's scale, at random steps of the path.

    The physics hook is part of the estimate in training as in use.
    """
    level: Tensor | float = 1.0
    if method.augment:
        batch, level = plugins.load("sciresdiff.lab.cascade.augment:augment")(batch, method.augment, generator)
    best, path = anchored(prior, batch, bf16), method.training_path()
    space = residual_space(method, batch.data, best)
    known = condition(batch.data, best, batch.kernel, refiner.config.conditions, level)
    truth = space.truth(batch.truth)
    valid = upsample_nearest(batch.data.valid, prior.config.scale)
    if refiner.latent:
        value = refiner.loss(method, space, known, truth, valid, generator, quick(bf16))
        return value, {"left": float(truth.square().mean())}
    size, device = batch.truth.shape[0], batch.truth.device
    t = draw_samples(lambda n: torch.randint(1, path.T + 1, (n,), generator=generator, device=device), size, generator)
    eps = draw_samples(
        lambda n: torch.randn((n, *truth.shape[1:]), generator=generator, device=device), size, generator
    )
    w = noise_scale(method, space, refiner.alpha, image=False)
    x, target, weight = train_pair(method, truth, space.mu, w, t, eps)
    p = path.at(t, truth)
    answer, z = refiner.estimate(x, p, space, known, quick(bf16))
    if "consistency" in method.hooks:
        error, weight = space.truth(apply_training_hooks(method, batch.data, space.image(z), best.w, p)) - truth, 1.0
    else:
        error = answer - target
    value = (LOSSES[method.loss](error.clamp(-20, 20)) * weight * valid).mean()
    return value, {"left": float(truth.square().mean()), "error": float(error.detach().square().mean())}


def validation(pairs: Pairs, prior: Prior, method: Method) -> Any:
    """Loss on pairs that training never draws, with fixed noise."""
    batches = [pairs.batch(n, 16) for n in (0, 16)]

    def measure(refiner: nn.Module) -> dict[str, float]:
        assert isinstance(refiner, Refiner)
        with torch.no_grad():
            values = [loss(refiner, b, torch.Generator().manual_seed(7), prior, method, False)[0] for b in batches]
        return {"held_out": float(np.mean([float(v) for v in values]))}

    return measure


def scale_of(name: str) -> int:
    """The scale of a prior by name or path, ours or published.

    Raises
    ------
    InputError : missing, unreadable, or of no known architecture.
    """
    path = locate(name)
    if has_card(path):
        return int(read_card(path)["prior"]["scale"])
    return int(plugins.load("sciresdiff.lab.published.load_prior:network_of")(path)[1])


def base_model(options: TrainOptions, say: Say) -> Model:
    """The model whose prior a refiner is trained for: one of ours, or a published network taken over.

    Raises
    ------
    InputError : missing, unreadable or of no known architecture.
    UsageError : of another scale than asked for.
    """
    assert options.prior is not None
    path = locate(options.prior)
    scale = scale_of(options.prior)
    if scale != options.scale:
        raise UsageError(f"--scale {options.scale}: the prior {options.prior} has scale {scale}; give that one")
    if has_card(path):
        return load(options.prior)
    taken: Model = plugins.load("sciresdiff.lab.published.load_prior:prior_model")(path, options, say)
    return taken


def card_of(card: Mapping[str, Any], name: str, told: Mapping[str, Any]) -> dict[str, Any]:
    """The card of a model with another refiner: without what was measured on the draws of the one before.

    Parameters
    ----------
    told : how the refiner came to be.
    """
    kept = prior_card(card)
    return {**kept, "name": name, "trained": {**kept.get("trained", {}), "refiner": dict(told)}}


def train(options: TrainOptions, say: Say, world: World = ALONE) -> Path:
    """Train a refiner for a prior, or go on where the same command left off.

    Parameters
    ----------
    world : the processes that share the work, connected; the first of them calibrates alone, after the others ended.

    Returns
    -------
    The path of the whole model (prior, refiner, method), usable from the first report on.

    Raises
    ------
    UsageError : no prior given, or one of another scale.
    """
    if options.prior is None:
        raise UsageError("--prior: a refiner needs the prior that it refines; give the file that train-prior wrote")
    device = world.device(options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    base = base_model(options, say).to(device)
    method = methods.load(options.method_name)
    options = replace(options, kind=base.card["kind"])
    recipe, loop = recipe_of(options)
    backbone = method.network(options.backbone or "")
    refiner = refiner_for(method, config_of(method, base.scale, backbone, options.preset))
    refiner.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if method.space == "latent" and not (options.resume and state_file(Path(options.output)).exists()):
        train_codec = plugins.load("sciresdiff.lab.latent.train_codec:train_codec")
        train_codec(refiner.to(device), base.prior, method, recipe, loop, options.seed + 2, say)
    output = Path(options.output)
    run = begun(refiner, options, loop, device, world)
    pairs = Pairs(recipe, options.seed + 1, real_images(options.data, recipe.patch * recipe.scale))
    bf16 = loop.bf16 and has_fast_bfloat16(device)

    def refiner_loss(module: nn.Module, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        assert isinstance(module, Refiner)
        return loss(module, batch, generator, base.prior, method, bf16)

    def snapshot(average: nn.Module, state: State) -> None:
        assert isinstance(average, Refiner)
        card = card_of(base.card, output.stem, provenance(recipe, options, state))
        save(Model(base.prior, average, method, card), output)

    say(
        f"refiner of {sum(p.numel() for p in refiner.parameters()) / 1e6:.2f} M parameters,"
        f" method {options.method_name}"
    )
    fit(
        run,
        Ahead(lambda n: pairs.batch(n + run.share[0], run.share[1], device)),
        refiner_loss,
        validation(Pairs(recipe, options.seed + 7_919), base.prior, method),
        snapshot,
        say,
    )
    if not (options.calibrate and world.first):
        return output
    say("calibrating ERR and TRUST on simulated frames")
    model = calibrated_card(load(str(output)).to(device), recipe, options.seed + 15_859)
    save(trusted_card(model, recipe, options.seed + 23_788), output)
    return output

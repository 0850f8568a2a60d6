"""Training the autoencoder of a latent method, before its diffusion: the first phase of train-refiner."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from sciresdiff.diffusion.method import Method
from sciresdiff.lab.latent.codec import Codec
from sciresdiff.lab.latent.refiner import LatentRefiner
from sciresdiff.restoration.prior import Prior
from sciresdiff.restoration.residual_space import residual_space
from sciresdiff.training.data import Pairs
from sciresdiff.training.loop import LoopOptions, Say
from sciresdiff.training.recipe import DataRecipe
from sciresdiff.training.refiner import prior_estimate

SHARE = 8
"""The phase takes one part in so many of the budget."""
RATE = 2e-3
WARMUP = 10
"""Batches over which the rate rises."""


def fit_codec(
    codec: Codec, images: Callable[[int], Tensor], batches: int | None, minutes: float | None, say: Say
) -> float:
    """Train a codec in place for what comes back to be near what went in, and freeze it with codes of unit spread.

    Huber loss of the images in their own units, Adam, cosine decay of the rate.

    Parameters
    ----------
    images : number of a batch -> (B, 1, Y, X), of order one. batches, minutes : the budget; the first given counts.

    Returns
    -------
    Root mean square of what is lost over that of the images, on a batch that was not trained on.
    """
    codec.requires_grad_(True).train()
    optimizer = torch.optim.Adam(codec.parameters(), lr=RATE)
    start, n, share = time.monotonic(), 0, 0.0
    while share < 1:
        x = images(n)
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, (n + 1) / WARMUP) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share)))
        optimizer.zero_grad(set_to_none=True)
        F.huber_loss(codec(x), x).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(codec.parameters(), 1.0)
        optimizer.step()
        n += 1
        share = n / batches if batches else (time.monotonic() - start) / (60 * (minutes or 1.0))
    codec.requires_grad_(False).eval()
    codec.settle(torch.cat([images(k) for k in range(min(n, 4))]))
    x = images(n)
    left = float((codec(x) - x).square().mean().sqrt() / x.square().mean().sqrt().clamp_min(1e-9))
    say(f"codec trained on {n} batches; it loses {100 * left:.0f} % of the image's contrast")
    return left


def train_codec(
    refiner: LatentRefiner, prior: Prior, method: Method, recipe: DataRecipe, loop: LoopOptions, seed: int, say: Say
) -> None:
    """Train the codec of a latent method on truths in its units, with a share of the budget."""
    pairs, device = Pairs(recipe, seed), next(refiner.parameters()).device

    def images(n: int) -> Tensor:
        batch = pairs.batch(n * loop.batch, loop.batch, device)
        return residual_space(method, batch.data, prior_estimate(prior, batch, False)).truth(batch.truth)

    batches = max(loop.images // SHARE // loop.batch, 1) if loop.images else None
    fit_codec(refiner.codec, images, batches, (loop.minutes or 20.0) / SHARE, say)

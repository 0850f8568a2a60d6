"""Which losses bias flux: the answer that each asks for under a skewed posterior, and a small prior trained with each.

    python docs/benchmarks/losses.py [--pairs 8000] [--passes 3] [--losses mse,l1]

Prints one Markdown table.  Every prior begins with the same weights and sees the same star fields in the same order, on
one thread; the recipe's ``scale`` term is part of each.  Sources are picked by the data alone, as a catalogue is made:
picked by the truth, even a perfect mean would look biased.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sciresdiff.diffusion.losses import LOSSES, Context
from sciresdiff.physics import psf
from sciresdiff.physics.consistency import Data, consistency_step
from sciresdiff.physics.operators import Operator
from sciresdiff.physics.psf.field import PSF
from sciresdiff.restoration.fallback import FINAL_ITERATIONS
from sciresdiff.restoration.model import PRESETS
from sciresdiff.restoration.ops import local_contrast, psf_features
from sciresdiff.restoration.prior import Estimate, Prior, PriorConfig, starting_estimates
from sciresdiff.training import prior as training
from sciresdiff.training.batch import Batch
from sciresdiff.training.loop import LoopOptions, Run, mixed_precision

SCALE, BATCH = 2, 8
MEASURED = 2.0
"""Signal-to-noise ratio at which the faint source of the first column was measured."""
LOWEST, HIGHEST = 0.2, 1000.0
"""Signal-to-noise ratios of all sources, which are as many as F^-1.5 says."""
WIDTH, KERNEL = 1.0, 1.2
"""Sigma of a star in the image that is wanted and of the kernel, fine px."""
SEEN = float(np.hypot(WIDTH, KERNEL)) / SCALE
"""Sigma of a star in the data, px."""
PATCH, DENSITY, PHOTON = 32, 0.01, 0.02
"""Side of a frame, stars per coarse pixel, growth of the variance with the signal."""
APERTURE = 2.0
"""Radius of the apertures, coarse px."""
CLASSES = {"faint": (4.0, 8.0), "middle": (12.0, 40.0), "bright": (100.0, 1000.0)}
"""Measured signal-to-noise ratios of the sources that are summed."""
TERMS: dict[str, dict[str, float]] = {
    **{name: {name: 1.0} for name in LOSSES if name not in ("flux", "lpips")},
    "huber + 0.02 flux": {"huber": 1.0, "flux": 0.02},
    "l1 + 0.02 flux": {"l1": 1.0, "flux": 0.02},
}
"""Combinations by the name of their row; lpips needs weights that do not come with the package."""


def posterior(count: int = 200) -> tuple[np.ndarray, float]:
    """Equally likely fluxes of a faint source, and their mean, in units of the noise.

    The prior falls as F^-1.5 from `LOWEST` on, as counts of sources do; the data say `MEASURED` +- 1.
    """
    flux = np.geomspace(LOWEST, 50, 200_001)
    density = flux**-1.5 * np.exp(-0.5 * (MEASURED - flux) ** 2)
    mass = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2 * np.diff(flux))])
    values = np.interp((np.arange(count) + 0.5) / count, mass / mass[-1], flux)
    return values, float(values.mean())


def asked(terms: dict[str, float]) -> float:
    """The flux of least expected loss under `posterior` over its mean, less one: a star of known shape and place."""
    values, mean = posterior()
    y, x = np.mgrid[:24, :24] - 11.5
    star = torch.from_numpy(np.exp(-0.5 * (x**2 + y**2) / WIDTH**2))
    star = (star / star.sum())[None, None]
    fluxes = torch.from_numpy(values).view(-1, 1, 1, 1)
    # flux over its noise is the signal-to-noise ratio where a coarse pixel has the noise 1 / sqrt(sum of star^2)
    noise = 1 / float(F.avg_pool2d(star, SCALE, divisor_override=1).square().sum()) ** 0.5
    flat = torch.full((1, 1, 12, 12), 1 / noise**2, dtype=torch.float64)
    unit = 1 / (noise * SCALE**2)
    context = Context(unit, noise=flat, sky=1 / noise**2, slope=0.1 / noise, knee=2.0)

    def expected(flux: float) -> float:
        target, answer = fluxes * star / noise**2, (flux * star / noise**2).expand(len(values), -1, -1, -1)
        spread = float(np.sqrt(np.mean((values - flux) ** 2))), float(np.sqrt(2) * np.mean(np.abs(values - flux)))
        total = 0.0
        for name, weight in terms.items():
            # the best scale of a likelihood for that answer
            scale = star / noise**2 * spread[name == "laplace-nll"]
            known = context if "nll" not in name else Context(**{**vars(context), "scale": scale})
            total += weight * float(LOSSES[name](answer, target, known).mean())
        return total

    grid = np.linspace(0.05, 4, 198)
    return float(grid[int(np.argmin([expected(flux) for flux in grid]))]) / mean - 1


class Stars:
    """Star fields by number: stands for `training.data.Pairs`."""

    def __init__(self, seed: int) -> None:
        """``seed`` names the stream."""
        self.seed = seed
        self.kernel = psf.render(psf.parse(f"gaussian:sigma={KERNEL}px"), None, integrate=False)

    def truth(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """One field, (s*p, s*p), and the noise of its data, (p, p), in units of the sky's."""
        rng, n = np.random.default_rng([self.seed, number]), PATCH * SCALE
        count = rng.poisson(DENSITY * (PATCH + 8) ** 2)
        snr = rng.uniform(HIGHEST**-0.5, LOWEST**-0.5, count) ** -2
        flux = snr * np.sqrt(4 * np.pi * (SEEN**2 + 1 / 12))  # the noise of the best weighted sum
        y, x = rng.uniform(-4 * SCALE, n + 4 * SCALE, (2, count, 1))
        rows, columns = (np.exp(-0.5 * ((np.arange(n) - c) / WIDTH) ** 2) for c in (y, x))
        image = np.einsum("k,ky,kx->yx", flux / (2 * np.pi * WIDTH**2), rows, columns)
        return image, rng.standard_normal((PATCH, PATCH))

    def batch(self, first: int, size: int) -> Batch:
        """Fields ``first`` ... ``first + size - 1``, measured."""
        drawn = [self.truth(first + i) for i in range(size)]
        truth, normal = (torch.from_numpy(np.stack(v).astype(np.float32))[:, None] for v in zip(*drawn, strict=True))
        operator = Operator((PATCH, PATCH), SCALE, self.kernel)
        clean = operator.apply(truth)
        noise = 1 + PHOTON * clean
        features = torch.from_numpy(psf_features(PSF.constant(self.kernel), SCALE)).expand(size, -1)
        data = Data(clean + noise.sqrt() * normal, noise, torch.ones_like(clean), operator)
        return Batch(data, truth, features)


def picked(batch: Batch) -> Tensor:
    """Measured signal-to-noise ratio where a source is found in the data, else 0: (B, 1, h, w)."""
    offset = torch.arange(-3, 4, dtype=torch.float32)
    star = torch.exp(-0.5 * (offset[:, None] ** 2 + offset**2) / (SEEN**2 + 1 / 12))
    star = (star / star.sum())[None, None]
    sums, noise = F.conv2d(batch.data.y, star, padding=3), F.conv2d(batch.data.noise, star.square(), padding=3)
    snr = sums / noise.sqrt()
    edge = F.pad(torch.ones_like(snr)[..., 4:-4, 4:-4], (4,) * 4)
    return snr * (snr == F.max_pool2d(snr, 5, 1, padding=2)) * edge


def bias(batch: Batch, image: Tensor, limits: tuple[float, float]) -> tuple[float, float]:
    """Flux error in apertures over the true flux there, all sources between limits; and its standard error."""
    offset = torch.arange(-4, 5, dtype=torch.float32)
    disc = (torch.hypot(offset[:, None], offset) <= APERTURE).float()[None, None]
    snr = picked(batch)
    chosen = (snr >= limits[0]) & (snr < limits[1])
    error, flux = (
        F.conv2d(F.avg_pool2d(v, SCALE, divisor_override=1), disc, padding=4)[chosen].double()
        for v in (image - batch.truth, batch.truth)
    )
    total = float(flux.sum())
    return float(error.sum()) / total, float(error.std()) * len(error) ** 0.5 / total


@dataclass(frozen=True)
class Frame:
    """A batch, and what of its training does not depend on the network."""

    batch: Batch
    smooth: Tensor
    start: Estimate
    """Of Richardson and Lucy, as `prior.Prior` begins."""
    context: Context


def framed(batch: Batch) -> Frame:
    """A batch made ready."""
    smooth, sharp = starting_estimates(batch.data, PriorConfig.early, PriorConfig.late)
    _, amplitude = local_contrast(sharp, batch.data.noise, SCALE)
    unit, (sky, slope) = training.local_scale(batch.truth, batch.data), training.fit_photon_noise(batch)
    context = Context(unit, noise=batch.data.noise, sky=sky, slope=slope, knee=2.0)
    return Frame(batch, smooth, Estimate(sharp, amplitude * float(np.exp(-1)), sharp), context)


def guessed(prior: Prior, frame: Frame) -> Estimate:
    """The network's own image, before the data are consulted."""
    return prior.stage(0, frame.batch.data, frame.start, frame.smooth, frame.batch.kernel, mixed_precision(False))


def trained(terms: dict[str, float], frames: list[Frame], passes: int) -> Prior:
    """A tiny prior whose guess is trained by itself, as that of any network without physics is."""
    torch.manual_seed(0)
    prior = Prior(PriorConfig(SCALE, **PRESETS["tiny"]))
    weights = {**terms, "scale": training.TERMS["scale"]}

    def value(module: torch.nn.Module, frame: Frame, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        assert isinstance(module, Prior)
        estimate, truth = guessed(module, frame), frame.batch.truth
        context = replace(frame.context, scale=estimate.w)
        parts = {name: training.image_loss(name, estimate, frame.batch, context) for name in terms}
        parts["scale"] = training.scale_loss(estimate, truth, context.unit)
        return sum(weights[name] * part for name, part in parts.items()), {}  # type: ignore[return-value]

    with TemporaryDirectory() as folder:
        loop = LoopOptions(batch=BATCH, rate=2e-3, warmup=400, images=BATCH * len(frames) * passes, bf16=False)
        run = Run(prior, Path(folder) / "none.state", loop, torch.device("cpu"))
        run.state.planned = run.plan()
        for frame in frames * passes:
            run.step(frame, value)
    assert isinstance(run.average, Prior)
    return run.average


def cells(prior: Prior, frame: Frame, rival: Tensor) -> Iterator[str]:
    """What is said of one trained prior: its gain, the bias of its guess and of what the data make of it."""
    batch = frame.batch
    with torch.no_grad():
        guess = guessed(prior, frame)
        held = consistency_step(batch.data, guess.guess, guess.w.square(), FINAL_ITERATIONS)
    yield f"{float((training.psnr(guess.guess, batch.truth) - rival).mean()):+.2f}"
    for image in (guess.guess, held):
        for limits in CLASSES.values():
            value, error = bias(batch, image, limits)
            yield f"{100 * value:+.1f} ± {100 * error:.1f}"


def main() -> None:
    """Train, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=8000, help="pairs that each prior is trained on")
    parser.add_argument("--passes", type=int, default=3, help="passes over them")
    parser.add_argument("--losses", default=",".join(TERMS), help="names of rows, by commas")
    told = parser.parse_args()
    rows = [name for name in told.losses.split(",") if name in TERMS]
    if len(rows) < len(told.losses.split(",")):
        parser.error(f"--losses: allowed are {', '.join(TERMS)}")
    torch.set_num_threads(1)
    frames = [framed(Stars(0).batch(n, BATCH)) for n in range(0, told.pairs // BATCH * BATCH, BATCH)]
    held_out = framed(Stars(2).batch(0, 512))
    rival = training.Validation.richardson_lucy_psnr(held_out.batch)
    heads = ["loss", "asks for", "gain, dB", *CLASSES, *(f"{name}, after" for name in CLASSES)]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}", flush=True)
    for name in rows:
        print(f"{name} ...", file=sys.stderr)
        parts = [
            name,
            f"{100 * asked(TERMS[name]):+.0f}",
            *cells(trained(TERMS[name], frames, told.passes), held_out, rival),
        ]
        print(f"| {' | '.join(parts)} |", flush=True)


if __name__ == "__main__":
    main()

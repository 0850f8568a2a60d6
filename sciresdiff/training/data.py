"""Training pairs, in noise units: drawn on the fly (a scene, a random kernel, random noise), or given by the user.

Every pair is a pure function of (seed, number of the pair), so that a resumed run sees what the uninterrupted one
would have seen.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

from sciresdiff import scenes
from sciresdiff.degradation.recipe import Recipe
from sciresdiff.physics import psf
from sciresdiff.physics.consistency import Data
from sciresdiff.physics.operators import Operator, separable_terms
from sciresdiff.physics.psf.field import PSF
from sciresdiff.restoration.ops import psf_features
from sciresdiff.training import folders
from sciresdiff.training.degradation import degraded_pair, stated_recipe
from sciresdiff.training.given import Given, patch, stacked_terms

RANK = 3
"""Separable terms of a training kernel; the kernel that is cut there is the one that makes the data, too."""


@dataclass(frozen=True)
class DataRecipe:
    """What pairs are drawn, in units of the coarse pixel and of the sky noise."""

    kind: str = "astro"
    scale: int = 4
    patch: int = 40
    """Side of a coarse patch, px."""
    sigma: tuple[float, float] = (0.3, 1.3)
    """Width of the kernel (standard deviation of its Gaussian equivalent), coarse px, log-uniform."""
    focus: tuple[float, float] = (0.5, 0.75)
    """Narrower range from which half of the widths are drawn."""
    noise: tuple[float, float] = (0.3, 6.0)
    """Sky noise of a coarse pixel divided by the scale, in units of the scene, log-uniform."""
    photon: tuple[float, float] = (3e-4, 1.0)
    """Slope of the variance with the signal, both in noise units, log-uniform."""
    pedestal: tuple[float, float] = (1.0, 300.0)
    """Largest background left under the scene, in noise units, log-uniform."""
    shapes: tuple[str, ...] = ("gaussian", "gaussian", "elliptical", "moffat", "airy", "none")
    scene_px: int = 384
    pool: int = 128
    """Scenes kept at a time."""
    reuse: int = 16
    """Pairs drawn for every new scene."""
    grain_share: float = 0.3
    """Share of pairs whose truth carries noise of its own, as every real truth does."""
    grain: tuple[float, float] = (0.3, 5.0)
    """Standard deviation of that noise, in units of the coarse noise spread over its fine pixels, log-uniform."""
    real_share: float | None = None
    """Share of pairs that come from the user's data, where there are any; half by default."""
    degradation: str = ""
    """Recipe of ``degrade`` that frames of the user's go through; without it they are scenes like the simulated."""
    kernel: str = ""
    """Blur of given pairs that do not state theirs: a SPEC in fine px, or area, bilinear, bicubic."""
    light: str = "auto"
    """How the codes of pictures are read: auto (8-bit colour as sRGB), linear or srgb."""

    def to_dict(self) -> dict[str, Any]:
        """For the model card."""
        return asdict(self)


@dataclass(frozen=True)
class Batch:
    """Pairs in noise units, quantity ``sum``."""

    data: Data
    truth: Tensor
    """(B, 1, s*p, s*p)"""
    kernel: Tensor
    """(B, 4), `psf_features`"""
    labels: tuple[str, ...] = field(default=())


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A number whose logarithm is uniform."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def draw_kernel(rng: np.random.Generator, recipe: DataRecipe) -> NDArray[np.float64]:
    """A random kernel on the fine grid, sum 1."""
    low, high = recipe.focus if rng.random() < 0.5 else recipe.sigma
    sigma = log_uniform(rng, low, high) * recipe.scale
    shape = recipe.shapes[rng.integers(len(recipe.shapes))]
    if shape == "none":
        return np.ones((1, 1))
    spec = {
        "gaussian": lambda: f"gaussian:sigma={sigma}px",
        "elliptical": lambda: f"gaussian:sigma={sigma}px,ratio={rng.uniform(0.6, 1)},theta={rng.uniform(0, 180)}deg",
        "moffat": lambda: f"moffat:fwhm={2.355 * sigma}px,beta={rng.uniform(2.5, 5)}",
        "airy": lambda: f"airy:fwhm={2.355 * sigma}px",
    }[shape]()
    kernel = psf.render(psf.parse(spec), None, integrate=False)
    widest = int(5 * recipe.sigma[1] * recipe.scale)
    cut = [slice(max(0, n // 2 - widest), n // 2 + widest + 1) for n in kernel.shape]
    kernel = kernel[cut[0], cut[1]]
    return kernel / kernel.sum()


def truncated(kernel: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """The terms of a kernel, (RANK, 2, side), padded with zeros."""
    terms = separable_terms(kernel, max_rank=RANK)
    pad = (side - terms.shape[-1]) // 2
    return np.pad(terms, ((0, RANK - len(terms)), (0, 0), (pad, pad)))


class Scenes:
    """The scene of any number, of which the last few are kept."""

    def __init__(self, recipe: DataRecipe, seed: int) -> None:
        """A pool of simulated scenes; ``seed`` names the stream."""
        self.recipe, self.seed = recipe, seed
        self.kept: OrderedDict[int, NDArray[np.float32]] = OrderedDict()

    def __getitem__(self, number: int) -> NDArray[np.float32]:
        """Scene ``number``: (scene_px, scene_px)."""
        if number not in self.kept:
            rng = np.random.default_rng([self.seed, 1, number])
            self.kept[number] = scenes.scene(self.recipe.kind, rng, self.recipe.scene_px).pixels
            while len(self.kept) > 2 * self.recipe.pool:
                self.kept.popitem(last=False)
        return self.kept[number]

    def recent(self, pair: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """One of the scenes that are in the pool when pair number ``pair`` is drawn."""
        newest = self.recipe.pool + pair // self.recipe.reuse
        return self[newest - int(rng.integers(self.recipe.pool))]


def cut(image: NDArray[np.float32], side: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """A random square of ``side`` pixels, turned and mirrored at random."""
    y, x = (int(rng.integers(n - side + 1)) for n in image.shape)
    patch = np.rot90(image[y : y + side, x : x + side], int(rng.integers(4)))
    return patch[::-1] if rng.random() < 0.5 else patch


def masked(shape: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float32]:
    """1 where valid: usually everywhere, sometimes with single bad pixels, a bad column or a blob."""
    valid = np.ones(shape, dtype=np.float32)
    if rng.random() < 0.25:
        valid[rng.random(shape) < log_uniform(rng, 1e-3, 3e-2)] = 0
    if rng.random() < 0.05:
        valid[:, rng.integers(shape[1])] = 0
    return valid


def grain(
    truth: NDArray[np.float32], slope: float, rng: np.random.Generator, recipe: DataRecipe
) -> NDArray[np.float32]:
    """Noise of the truth's own: white or slightly smooth, and mostly growing with the signal as photon noise does."""
    noise = gaussian_filter(rng.standard_normal(truth.shape, dtype=np.float32), rng.choice([0, 0, 0, 0.5]))
    growth = slope * recipe.scale**2 * np.clip(truth, 0, None) if rng.random() < 0.8 else 0 * truth
    sigma = log_uniform(rng, *recipe.grain) / recipe.scale**2
    return np.asarray(noise / noise.std() * sigma * np.sqrt(1 + growth), dtype=np.float32)


class Pairs:
    """Batches by number, for one recipe and seed."""

    def __init__(
        self, recipe: DataRecipe, seed: int, real: Sequence[NDArray[np.float32]] | folders.UserData = ()
    ) -> None:
        """``real``: what joins the simulated scenes with ``real_share``.

        Images whose noise is far below what will be added, which serve as scenes, or the user's data.

        Raises
        ------
        UsageError : keys of the recipe that do not fit.
        InputError : data that cannot be read or used.
        """
        self.recipe, self.seed, self.shelf = recipe, seed, folders.Shelf([])
        self.degradation = stated_recipe(recipe.degradation)
        if isinstance(real, folders.UserData):
            real, self.shelf = real.opened(recipe.scale, recipe.kernel, recipe.light)
        self.real = list(real)
        self.scenes = Scenes(recipe, seed)

    @property
    def real_share(self) -> float:
        """Share of pairs that come from the user's data."""
        return 0.5 if self.recipe.real_share is None else self.recipe.real_share

    def draw(self, pair: int) -> dict[str, NDArray[Any]]:
        """Pair number ``pair`` before it is measured; one that is given, or degraded by a recipe, has its y already."""
        rng = np.random.default_rng([self.seed, 2, pair])
        count = len(self.real) + len(self.shelf)
        if not count or rng.random() >= self.real_share:
            return self.simulated(self.scenes.recent(pair, rng), rng)
        place = int(rng.integers(count))
        recent = self.shelf.recent
        found = self.real[place] if place < len(self.real) else recent(pair, self.recipe.reuse, rng)
        if isinstance(found, Given):
            return self.moved(patch(found, self.recipe.patch, rng), rng)
        return self.simulated(found, rng) if self.degradation is None else self.degraded(found, rng)

    def pedestal(self, rng: np.random.Generator) -> float:
        """What is left of a background, per fine pixel."""
        recipe = self.recipe
        return log_uniform(rng, *recipe.pedestal) * rng.uniform(-0.05, 1) / recipe.scale**2

    def moved(self, drawn: dict[str, NDArray[Any]], rng: np.random.Generator) -> dict[str, NDArray[Any]]:
        """A given pair with a random pedestal, as simulated ones have it."""
        left = np.float32(self.pedestal(rng))
        y = (drawn["y"] + left * np.float32(self.recipe.scale**2)) * drawn["valid"]
        return {**drawn, "truth": drawn["truth"] + left, "y": y}

    def degraded(self, image: NDArray[np.float32], rng: np.random.Generator) -> dict[str, NDArray[Any]]:
        """A patch of an image through a recipe of ``degrade``, with the noise and the kernel that it states."""
        recipe = self.recipe
        truth = cut(image, recipe.patch * recipe.scale, rng)
        pair = degraded_pair(truth, cast(Recipe, self.degradation), recipe.scale, rng)
        return self.moved(patch(pair, recipe.patch, rng), rng)

    def simulated(self, image: NDArray[np.float32], rng: np.random.Generator) -> dict[str, NDArray[Any]]:
        """A patch of an image that stands for a scene without noise, with a random kernel and noise."""
        recipe, side = self.recipe, self.recipe.patch * self.recipe.scale
        truth = cut(image, side, rng) / (log_uniform(rng, *recipe.noise) * recipe.scale)
        slope = log_uniform(rng, *recipe.photon)
        if rng.random() < recipe.grain_share:
            truth = truth + grain(truth, slope, rng, recipe)
        left = self.pedestal(rng)
        kernel = draw_kernel(rng, recipe)
        return {
            "truth": (truth + left).astype(np.float32),
            "terms": truncated(kernel, 2 * int(5 * recipe.sigma[1] * recipe.scale) + 1).astype(np.float32),
            "kernel": psf_features(PSF.constant(kernel), recipe.scale),
            "slope": np.array(slope, dtype=np.float32),
            "sky": np.array(log_uniform(rng, 0.5, 2), dtype=np.float32),
            "normal": rng.standard_normal((recipe.patch, recipe.patch), dtype=np.float32),
            "valid": masked((recipe.patch, recipe.patch), rng),
        }

    def batch(self, first: int, size: int, device: torch.device | str = "cpu") -> Batch:
        """Pairs ``first`` ... ``first + size - 1``, measured."""
        drawn = [self.draw(first + i) for i in range(size)]

        def stacked(name: str, *dims: int, given: float = 0.0) -> Tensor:
            """One entry of every pair; pairs that are given have ``given`` where only simulated ones have it."""
            arrays = [d[name] if name in d else np.full([n for n in dims if n > 1], given, np.float32) for d in drawn]
            return torch.from_numpy(np.stack(arrays)).to(device).view(size, *dims)

        p, s = self.recipe.patch, self.recipe.scale
        terms = torch.from_numpy(stacked_terms([d["terms"] for d in drawn])).to(device)
        operator = Operator.batch((p, p), s, terms)
        truth = stacked("truth", 1, p * s, p * s)
        clean = operator.apply(truth)
        noise = stacked("sky", 1, 1, 1, given=1.0) + stacked("slope", 1, 1, 1) * clean.clamp_min(0)
        valid = stacked("valid", 1, p, p)
        y = (clean + stacked("normal", 1, p, p) * noise.sqrt()) * valid
        for i, pair in enumerate(drawn):
            if "y" in pair:
                y[i, 0], noise[i, 0] = (torch.from_numpy(pair[name]).to(device) for name in ("y", "noise"))
        return Batch(Data(y, noise, valid, operator), truth, stacked("kernel", 4))


class Ahead:
    """Calls ``make(n)`` for the next n while the current one is used."""

    def __init__(self, make: Callable[[int], Any]) -> None:
        """``make`` must be a pure function of its argument."""
        self.make, self.pool = make, ThreadPoolExecutor(1)
        self.next: tuple[int, Future[Any]] | None = None

    def __call__(self, n: int, step: int) -> Any:
        """make(n), with make(n + step) begun."""
        ready = self.next[1].result() if self.next and self.next[0] == n else self.make(n)
        self.next = (n + step, self.pool.submit(self.make, n + step))
        return ready

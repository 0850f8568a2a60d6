"""Simulated training pairs: a patch of a scene without noise, with a random PSF, background and noise.

The order of the draws is part of a pair: changing it changes every pair of every seed.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from sciresdiff import scenes
from sciresdiff.physics import psf
from sciresdiff.physics.psf.field import PSF
from sciresdiff.restoration.ops import psf_features
from sciresdiff.training.kernel_terms import kernel_terms
from sciresdiff.training.pair import NoiseDraw, Pair
from sciresdiff.training.recipe import DataRecipe

RANK = 3
"""Separable terms of a training PSF; the PSF that is cut there is the one that makes the data, too."""
FWHM_OF_SIGMA = 2.355
"""FWHM of a Gaussian of sigma 1, 2 sqrt(2 ln 2)."""


class ScenePool:
    """Simulated scenes by number, of which the last few are kept in memory."""

    def __init__(self, recipe: DataRecipe, seed: int) -> None:
        """``seed`` names the stream of scenes."""
        self.recipe, self.seed = recipe, seed
        self.cache: OrderedDict[int, NDArray[np.float32]] = OrderedDict()

    def __getitem__(self, number: int) -> NDArray[np.float32]:
        """Scene ``number``, (scene_px, scene_px)."""
        if number not in self.cache:
            rng = np.random.default_rng([self.seed, 1, number])
            self.cache[number] = scenes.scene(self.recipe.kind, rng, self.recipe.scene_px).pixels
            while len(self.cache) > 2 * self.recipe.pool:
                self.cache.popitem(last=False)
        return self.cache[number]

    def draw(self, pair: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """One of the scenes that are in the pool when pair number ``pair`` is drawn, (scene_px, scene_px).

        The pool moves on by one scene every ``reuse`` pairs, a function of the number alone.
        """
        newest = self.recipe.pool + pair // self.recipe.reuse
        return self[newest - int(rng.integers(self.recipe.pool))]


def simulate_pair(image: NDArray[np.float32], recipe: DataRecipe, rng: np.random.Generator) -> Pair:
    """Draw a patch of an image that stands for a scene without noise, and how it is observed.

    Parameters
    ----------
    image : (H, W), larger than a patch, the sky at 0.
    recipe : the ranges from which PSF, noise and background are drawn.
    """
    side = recipe.patch * recipe.scale
    # The drawn number times the scale is the sky noise of a coarse pixel, which becomes the unit.
    truth = crop(image, side, rng) / (log_uniform(rng, *recipe.noise) * recipe.scale)
    slope = log_uniform(rng, *recipe.photon)
    if rng.random() < recipe.grain_share:
        truth = truth + draw_grain(truth, slope, rng, recipe)
    background = draw_pedestal(recipe, rng)
    kernel = draw_kernel(rng, recipe)
    sky = log_uniform(rng, 0.5, 2)
    normal = rng.standard_normal((recipe.patch, recipe.patch), dtype=np.float32)
    return Pair(
        truth=(truth + background).astype(np.float32),
        terms=kernel_terms(kernel, RANK, 2 * widest_radius(recipe) + 1).astype(np.float32),
        features=psf_features(PSF.constant(kernel), recipe.scale),
        valid=draw_valid((recipe.patch, recipe.patch), rng),
        coarse=NoiseDraw(np.float32(sky), np.float32(slope), normal),
    )


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw a number whose logarithm is uniform between those of ``low`` and ``high``."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def draw_kernel(rng: np.random.Generator, recipe: DataRecipe) -> NDArray[np.float64]:
    """Draw a PSF on the fine grid: its shape by the recipe's list, its width log-uniform.

    Half of the widths come from the narrower range ``focus``.  Moffat and Airy profiles get the FWHM of the Gaussian of
    that sigma.

    Returns
    -------
    (K, K), K odd, sum 1, cut at five times the widest sigma of the recipe; (1, 1) without blur.
    """
    low, high = recipe.focus if rng.random() < 0.5 else recipe.sigma
    sigma = log_uniform(rng, low, high) * recipe.scale
    shape = recipe.shapes[rng.integers(len(recipe.shapes))]
    if shape == "none":
        return np.ones((1, 1))
    fwhm = FWHM_OF_SIGMA * sigma
    spec = {
        "gaussian": lambda: f"gaussian:sigma={sigma}px",
        "elliptical": lambda: f"gaussian:sigma={sigma}px,ratio={rng.uniform(0.6, 1)},theta={rng.uniform(0, 180)}deg",
        "moffat": lambda: f"moffat:fwhm={fwhm}px,beta={rng.uniform(2.5, 5)}",
        "airy": lambda: f"airy:fwhm={fwhm}px",
    }[shape]()
    kernel = psf.render(psf.parse(spec), None, integrate=False)
    widest = widest_radius(recipe)
    inside = [slice(max(0, n // 2 - widest), n // 2 + widest + 1) for n in kernel.shape]
    kernel = kernel[inside[0], inside[1]]
    return kernel / kernel.sum()


def widest_radius(recipe: DataRecipe) -> int:
    """Radius at which PSFs are cut, fine px: five sigma of the widest."""
    return int(5 * recipe.sigma[1] * recipe.scale)


def draw_pedestal(recipe: DataRecipe, rng: np.random.Generator) -> float:
    """Draw what is left of a background under the scene, per fine pixel, in noise units.

    A share of -5 to 100 % of the drawn largest background: sky is at times subtracted too well.
    """
    return log_uniform(rng, *recipe.pedestal) * rng.uniform(-0.05, 1) / recipe.scale**2


def crop(image: NDArray[np.float32], side: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Cut a random square out of an image, turned and mirrored at random.

    Parameters
    ----------
    image : (H, W).
    side : of the square, px, at most H and W.
    rng : draws place, turn and mirror.

    Returns
    -------
    (side, side), a view of the image.
    """
    y, x = (int(rng.integers(n - side + 1)) for n in image.shape)
    patch = np.rot90(image[y : y + side, x : x + side], int(rng.integers(4)))
    return patch[::-1] if rng.random() < 0.5 else patch


def draw_valid(shape: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw a mask (h, w), 1 where valid.

    A quarter of the masks have single bad pixels, 0.1 to 3 % of all; one in twenty has a bad column.
    """
    valid = np.ones(shape, dtype=np.float32)
    if rng.random() < 0.25:
        valid[rng.random(shape) < log_uniform(rng, 1e-3, 3e-2)] = 0
    if rng.random() < 0.05:
        valid[:, rng.integers(shape[1])] = 0
    return valid


def draw_grain(
    truth: NDArray[np.float32], slope: float, rng: np.random.Generator, recipe: DataRecipe
) -> NDArray[np.float32]:
    """Draw noise of the truth's own, as every real truth has it.

    It is white or slightly smooth, of variance sigma^2 (1 + slope s^2 x+) / s^4: mostly growing with the signal as
    photon noise does, else flat.

    Parameters
    ----------
    truth : (s*p, s*p), x in noise units.
    slope : of the coarse image's variance with its signal.
    rng : of the pair.
    recipe : ``grain`` is the range of sigma.

    Returns
    -------
    (s*p, s*p)
    """
    noise = gaussian_filter(rng.standard_normal(truth.shape, dtype=np.float32), rng.choice([0, 0, 0, 0.5]))
    growth = slope * recipe.scale**2 * np.clip(truth, 0, None) if rng.random() < 0.8 else 0 * truth
    sigma = log_uniform(rng, *recipe.grain) / recipe.scale**2
    return np.asarray(noise / noise.std() * sigma * np.sqrt(1 + growth), dtype=np.float32)

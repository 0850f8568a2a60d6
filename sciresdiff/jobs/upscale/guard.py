"""The last look at an output: whether it contradicts its data, where, and what the likely cause is.

The image is measured again by the operator, and what that leaves of the data is added up by place: in the empty sky, on
bright sources, in their middles, beside masked pixels.  A wrong noise shows in the sky, a wrong PSF at the sources.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from sciresdiff.observation.grid import upsample_nearest
from sciresdiff.observation.observation import Observation
from sciresdiff.restoration.restored import RestoredPlane

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

HIGHEST_CHI2 = 1.25
"""chi2 of an image above this contradicts its data. Fitting lowers it: 0.4 to 1.05 where noise and PSF are right."""
LOWEST_CHI2 = 0.2
"""chi2 of the empty sky below this tells of a variance that is stated too large: fitting alone leaves 0.35 or more."""
CHANCE = 5.0
"""Sigma of the mean of n squares, (2 / n)^1/2, by which a limit is moved: chance alone exceeds it once in 3 million."""
FAINT, BRIGHT = 2.0, 20.0
"""Signal of an image in sigma of the data: below it is sky, above it a bright source."""
NEAR = 3
"""Coarse pixels around a masked one, or around the middle of a bright source, that belong to it."""
RING = 5.0
"""Depth of a hole below the sky, ERR and sigma of the data."""
RING_SHARE = 0.01
"""Share of the fine pixels around bright sources that may be as deep."""
FEWEST = 50
"""Fewest pixels that a limit is applied to."""
FLUX = 0.005
"""Share of the light that may be lost or made, where it is more than the noise explains."""


def measure(window: Observation, restored: RestoredPlane, inside: tuple[slice, slice]) -> dict[str, float]:
    """What a block adds to the verdict: counts and sums over the valid pixels of its core.

    Parameters
    ----------
    window : what the block was restored from.
    restored : its planes, over all of the window.
    inside : the core, in pixels of the window.
    """
    exposure, scale = window.exposure, window.scale
    image = torch.from_numpy(restored.mean.astype(np.float64))
    again = window.operator().apply(image[None, None])[0, 0].numpy()
    valid = exposure.valid & np.isfinite(again)
    sigma = np.sqrt(np.where(valid, exposure.variance, 1).astype(np.float64))
    z = np.where(valid, (exposure.pixels - again) / sigma, 0)
    signal = np.where(valid, again - window.units.sky, 0) / sigma
    core = np.zeros(valid.shape, bool)
    core[inside] = True
    counted = valid & core
    hidden = ndimage.binary_dilation(exposure.mask, iterations=NEAR)
    middle = (signal > BRIGHT) & (signal >= ndimage.maximum_filter(signal, 2 * NEAR - 1))
    found = {}
    for name, where in {
        "all": counted,
        "faint": counted & (signal < FAINT) & ~hidden,
        "bright": counted & (signal >= BRIGHT) & ~hidden,
        "hidden": counted & hidden,
    }.items():
        found[f"{name}_px"], found[f"{name}_z2"] = int(where.sum()), float((z[where] ** 2).sum())
    at = middle & counted & ~hidden
    found["middles"], found["middles_z"] = int(at.sum()), float(z[at].sum())
    found["middles_share"] = float((z[at] / signal[at]).sum())
    r = np.where(counted, exposure.pixels - again, 0)
    found["lost"] = float(r.sum())
    found["light"] = float(np.abs(np.where(counted, exposure.pixels, 0)).sum())
    found["variance"] = float((sigma[counted] ** 2).sum())
    return {**found, **count_holes(window, restored, signal, core, sigma)}


def count_holes(
    window: Observation, restored: RestoredPlane, signal: Array, core: Mask, sigma: Array
) -> dict[str, float]:
    """Fine pixels around bright sources, and those of them that lie deep below the sky and are not flagged.

    Parameters
    ----------
    signal, sigma : (h, w), of the image measured again, and of the data.
    core : (h, w), True in the core.
    """
    scale, units, exposure = window.scale, window.units, window.exposure
    near = ndimage.binary_dilation(signal > BRIGHT, iterations=2 * NEAR) & core & ~exposure.mask
    fine = upsample_nearest(near, scale)
    if restored.unseen is not None:
        fine = fine & ~restored.unseen
    depth = units.sky / window.per_fine - restored.mean
    least = np.maximum(np.nan_to_num(restored.err), upsample_nearest(sigma, scale) / window.per_fine)
    return {"near": int(fine.sum()), "holes": int((fine & (depth > RING * least)).sum())}

"""The last look at an output: whether it contradicts its data, where, and what the likely cause is.

The image is measured again by the operator, and what that leaves of the data is added up by place: in the empty sky, on
bright sources, in their middles, beside masked pixels.  A wrong noise shows in the sky, a wrong PSF at the sources.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from sciresdiff.checks.scatter import mad_std
from sciresdiff.io.quality_bits import RING as RING_BIT
from sciresdiff.notes import Notes
from sciresdiff.observation.grid import upsample_nearest
from sciresdiff.observation.noise import of_plane
from sciresdiff.observation.observation import Observation
from sciresdiff.physics.richardson_lucy import DARKEST
from sciresdiff.restoration.restored import RestoredPlane

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

HIGHEST_CHI2 = 1.15
"""chi2 of an image above this contradicts its data: fitting lowers it, to 0.15 ... 1.05 where noise and PSF are right.
"""
HIGHEST_BRIGHT_CHI2 = 4.0
"""The same of bright sources alone; 0.1 ... 2.7 where noise and PSF are right."""
HIGHEST_FLAGGED_CHI2 = 3.0
"""The same of the pixels that are flagged beside masked ones; at most 2 where noise and PSF are right."""
ABSURD = 1000.0
"""chi2 above this tells of a noise in another unit rather than of a bad image."""
LOWEST_SCATTER = 0.6
"""Scatter of the data in empty sky, in units of the stated noise: below this the noise is stated too large."""
CHANCE = 5.0
"""Sigma of the mean of n squares, (2 / n)^1/2, by which a limit is moved: chance alone exceeds it once in 3 million."""
FAINT, BRIGHT = 2.0, 20.0
"""Signal of an image in sigma of the data: below the first is sky, above the second a bright source."""
NEAR = 3
"""Coarse pixels around a masked one, or half of those around a bright source, that belong to it."""
WORSE = 5.0
"""chi2 of bright sources over that of the sky from which on the PSF is the cause, and not the noise."""
RING = 10.0
"""Depth of a hole beside a bright source below the darkest data of the plane and all data nearby, in ERR and in sigma
of the data; at most 7 where noise and PSF are right."""
MISFIT = 4.2
"""chi2 over 5 x 5 pixels beside masked ones above which they are flagged; twice what chance exceeds once in a thousand.
"""
FLAGGED_SHARE = 0.5
"""Share of the pixels that may be flagged before that is a warning."""
FEWEST_HOLES = 3
"""Fine pixels as deep that tell of rings."""
FEWEST = 50
"""Fewest pixels that a limit is applied to."""
LOST = 0.005
"""Share of the light that may be lost or made, where it is more than the noise explains."""
MOST_TOLD = 3
"""Planes of which a doubt is told in full."""


@dataclass(frozen=True)
class Doubt:
    """A reason not to believe an image."""

    name: str
    """Of what is beyond its limit: chi2, noise, flux or rings."""
    words: str
    """For the user, with the likely cause."""


@dataclass(frozen=True)
class Guard:
    """What the last look says of every plane."""

    planes: Sequence[Sequence[Doubt]]
    flagged: int
    """Valid pixels beside masked ones that have a bit of their own in DQ."""

    @property
    def names(self) -> list[str]:
        """What is beyond its limit in any plane."""
        return list(dict.fromkeys(doubt.name for plane in self.planes for doubt in plane))

    @property
    def card(self) -> str:
        """For the header."""
        return ", ".join(self.names) or "passed"

    @property
    def notes(self) -> Notes:
        """Lines for the user."""
        lines, count = [], {name: sum(name in [d.name for d in plane] for plane in self.planes) for name in self.names}
        told = dict.fromkeys(self.names, 0)
        for number, plane in enumerate(self.planes):
            of = f" of plane {number}" if len(self.planes) > 1 else ""
            for doubt in plane:
                told[doubt.name] += 1
                if told[doubt.name] <= MOST_TOLD:
                    lines.append(f"WARNING {doubt.name}: {doubt.words.format(of=of)}")
        lines += [
            f"WARNING {name}: the same of {n - MOST_TOLD} more planes" for name, n in count.items() if n > MOST_TOLD
        ]
        if self.flagged:
            lines.append(
                f"rings: {self.flagged} input px beside masked ones, or around masked cores, are not held by the data; "
                f"they have {RING_BIT.bit} in DQ"
            )
        return Notes(*lines)


@dataclass(frozen=True)
class Remeasured:
    """A restored window, measured again: arrays (h, w) on the grid of the data, 0 where these are not valid."""

    signal: Array
    """The image measured again, above the sky, in sigma of the data."""
    z: Array
    """What it leaves of the data, in sigma."""
    sigma: Array
    """Of the data, in their unit; 1 where they are not valid."""
    valid: Mask
    depth: Array
    """(s*h, s*w), how far the image lies below the sky and all data nearby, in ERR or sigma of the data, whichever is
    larger."""


def remeasure(window: Observation, restored: RestoredPlane) -> Remeasured:
    """The image of a window, measured again by its operator."""
    exposure, scale = window.exposure, window.scale
    image = torch.from_numpy(restored.mean.astype(np.float64))
    again = window.operator().apply(image[None, None])[0, 0].numpy()
    valid = exposure.valid & np.isfinite(again)
    sigma = np.sqrt(np.where(valid, exposure.variance, 1).astype(np.float64))
    least = np.maximum(np.nan_to_num(restored.err), upsample_nearest(sigma, scale) / window.per_fine)
    darkest = ndimage.minimum_filter(np.where(valid, exposure.pixels, np.inf), 2 * NEAR + 1)
    dark = upsample_nearest(np.minimum(darkest, darkest_of_plane(window)), scale) / window.per_fine
    return Remeasured(
        np.where(valid, again - window.units.sky, 0) / sigma,
        np.where(valid, exposure.pixels - again, 0) / sigma,
        sigma,
        valid,
        (dark - restored.mean) / least,
    )


def remeasured_plane(window: Observation, restored: RestoredPlane, sky: float) -> Remeasured:
    """A plane of a stack, as the volume that was restored of all of them is seen in it.

    **Rings are not looked for**: data of other planes say nothing of how dark a plane of the volume may be.

    Parameters
    ----------
    window : the plane.
    restored : with what the volume predicts for it.
    sky : level of the stack without light, in its unit.
    """
    exposure, seen = window.exposure, restored.seen
    assert seen is not None
    valid = exposure.valid & np.isfinite(seen)
    sigma = np.sqrt(np.where(valid, exposure.pixel_variance, 1).astype(np.float64))
    return Remeasured(
        np.where(valid, seen - sky, 0) / sigma,
        np.where(valid, exposure.pixels - seen, 0) / sigma,
        sigma,
        valid,
        np.zeros(window.grid.shape),
    )


def darkest_of_plane(window: Observation) -> float:
    """Value below which only 0.1 % of the plane's valid pixels are, at most the sky; in the frame's unit.

    Between crowded stars a scene is darker than all of its blurred data nearby, but not than the darkest of the plane.
    """
    exposure, units = window.exposure, window.units
    if exposure.statistics:
        lowest = units.sky + units.sigma * float(np.quantile(exposure.statistics[0].y, DARKEST))
    else:
        lowest = float(np.quantile(exposure.pixels[exposure.valid], DARKEST))
    return min(lowest, units.sky)


def flag_beside_masks(window: Observation, restored: RestoredPlane, again: Remeasured) -> RestoredPlane:
    """A restored window whose `unseen` holds what beside masked pixels does not fit the data, or rings.

    A saturated source spills over further than a mask says, and a masked value reached its neighbours before it was
    masked. What is flagged depends on `NEAR` and 4 px around a pixel alone, so that blocks agree.
    """
    mask = window.exposure.mask
    if not mask.any():
        return restored
    share = ndimage.uniform_filter(again.valid.astype(float), 5)
    misfit = ndimage.uniform_filter(again.z**2, 5) > MISFIT * np.maximum(share, 1e-6)
    deep = any_of_block(again.depth > RING, window.scale)
    near = ndimage.binary_dilation(mask, iterations=NEAR + 2)
    beside = ndimage.binary_dilation((misfit | deep) & near, iterations=2) & near & ~mask
    if not beside.any():
        return restored
    fine = upsample_nearest(beside, window.scale)
    return replace(restored, unseen=fine if restored.unseen is None else restored.unseen | fine)


def any_of_block(fine: Mask, scale: int) -> Mask:
    """Whether any fine pixel (s*h, s*w) of a coarse one is True, (h, w)."""
    h, w = (side // scale for side in fine.shape)
    return np.asarray(fine.reshape(h, scale, w, scale).any((1, 3)))


def measure(
    window: Observation, restored: RestoredPlane, again: Remeasured, inside: tuple[slice, slice]
) -> dict[str, float]:
    """What a block adds to the verdict: counts and sums over the valid pixels of its core that are not flagged.

    Parameters
    ----------
    window : what the block was restored from.
    restored, again : its planes, over all of the window, and their image measured again.
    inside : the core, in pixels of the window.
    """
    core = np.zeros(again.valid.shape, bool)
    core[inside] = True
    z, signal, counted = again.z, again.signal, core & again.valid
    flagged = np.zeros_like(core) if restored.unseen is None else any_of_block(restored.unseen, window.scale)
    judged = counted & ~flagged
    faint, bright = judged & (signal < FAINT), judged & (signal >= BRIGHT)
    middle = bright & (signal >= ndimage.maximum_filter(signal, 2 * NEAR - 1))
    around = ndimage.binary_dilation(signal > BRIGHT, iterations=2 * NEAR) & core & ~flagged & ~window.exposure.mask
    # an error of the PSF is in the variance near sources, and is no scatter
    plane, noise = window.exposure.plane, window.exposure.noise.limited(0)
    sky = (z + signal) * again.sigma / np.sqrt(np.where(again.valid, noise.variance(plane), 1))
    found: dict[str, float] = {}
    for name, where in {"all": judged, "faint": faint, "bright": bright, "flagged": flagged & counted}.items():
        found |= {f"{name}_px": int(where.sum()), f"{name}_z2": float((z[where] ** 2).sum())}
    return {
        **found,
        "holes": int((again.depth > RING)[upsample_nearest(around, window.scale)].sum()),
        "middles": int(middle.sum()),
        "learned": float((1 - restored.gate).sum()),
        "scatter": float(mad_std(sky[faint])) if faint.any() else 0.0,
        "lost": float((z * again.sigma)[counted].sum()),
        "light": float(np.abs(window.exposure.pixels[counted]).sum()),
        "variance": float((again.sigma[counted] ** 2).sum()),
    }


def judge(planes: Sequence[Sequence[Mapping[str, float]]], correlation: tuple[float, ...] = ()) -> Guard:
    """The verdict over the blocks of every plane.

    Parameters
    ----------
    planes : of every plane what `measure` said of its blocks; none of a block without a valid pixel.
    correlation : factors by which the noise of every plane, or of all, was taken larger than the scatter of single
        pixels, for it is correlated; empty for white noise.
    """
    factors = [next(iter(of_plane(correlation, number)), 1.0) for number in range(len(planes))]
    flagged = sum(int(block["flagged_px"]) for plane in planes for block in plane)
    pooled = zip(planes, factors, strict=True)
    return Guard([judge_plane(pool(plane), factor) if plane else [] for plane, factor in pooled], flagged)


def pool(blocks: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The sums of several blocks; of the scatter the mean by the pixels that it was measured on."""
    total = {name: float(sum(block[name] for block in blocks)) for name in blocks[0]}
    weight = max(total["faint_px"], 1)
    return {**total, "scatter": sum(block["scatter"] * block["faint_px"] for block in blocks) / weight}


def judge_plane(sums: Mapping[str, float], correlation: float) -> list[Doubt]:
    """What is beyond its limit in one plane; ``sums`` of `pool`."""
    doubts = []
    chi2, bright = mean(sums, "all"), mean(sums, "bright")
    if chi2 > limit(sums, "all", HIGHEST_CHI2) or bright > limit(sums, "bright", HIGHEST_BRIGHT_CHI2):
        at = "" if chi2 > limit(sums, "all", HIGHEST_CHI2) else f" ({bright:.2g} at bright sources)"
        words = f"{chi2:.2g} of the image against the data{{of}}{at}, where 1 is right; "
        doubts.append(Doubt("chi2", words + find_cause(sums)))
    if sums["faint_px"] >= FEWEST and 0 < sums["scatter"] * correlation < LOWEST_SCATTER:
        words = (
            f"the empty sky{{of}} scatters by {sums['scatter'] * correlation:.2g} of the noise that was stated or "
            "measured, which is too large, and ERR with it (--variance, --gain, --read-noise)"
        )
        doubts.append(Doubt("noise", words))
    if abs(sums["lost"]) > max(CHANCE * sums["variance"] ** 0.5, LOST * sums["light"]):
        doubts.append(Doubt("flux", f"{sums['lost'] / sums['light']:.2%} of the light{{of}} is not in the image"))
    doubts += judge_flagged(sums)
    if sums["holes"] >= FEWEST_HOLES:
        doubts.append(
            Doubt(
                "rings",
                f"{sums['holes']:.0f} px{{of}} around bright sources lie {RING:g} ERR and more below all data there; "
                "the PSF is stated too wide, or sources are saturated (--psf, --saturation)",
            )
        )
    return doubts


def judge_flagged(sums: Mapping[str, float]) -> list[Doubt]:
    """What is beyond its limit beside masked pixels, whose flag would hide it."""
    chi2, pixels = mean(sums, "flagged"), sums["flagged_px"]
    if chi2 > limit(sums, "flagged", HIGHEST_FLAGGED_CHI2):
        words = (
            f"{chi2:.2g} of the {pixels:.0f} px{{of}} that are flagged around masked or saturated stars, where 1 is "
            "right; the mask is too small, or the PSF is of another width or shape (--mask, --saturation, --psf)"
        )
        return [Doubt("chi2", words)]
    if pixels > FLAGGED_SHARE * (sums["all_px"] + pixels):
        words = f"{pixels:.0f} px{{of}} beside masked ones are not held by the data; is the mask complete, or is "
        return [Doubt("rings", words + "it of good pixels? (--mask, --saturation)")]
    return []


def mean(sums: Mapping[str, float], where: str) -> float:
    """chi2 of a place; 0 where it has too few pixels to be judged."""
    pixels = sums[f"{where}_px"]
    return sums[f"{where}_z2"] / pixels if pixels >= FEWEST else 0.0


def limit(sums: Mapping[str, float], where: str, highest: float) -> float:
    """A limit of chi2, moved by what chance does with so many pixels."""
    return highest + CHANCE * float(np.sqrt(2 / max(sums[f"{where}_px"], 1)))


def find_cause(sums: Mapping[str, float]) -> str:
    """The likely cause of a chi2 that is too high, by where the misfit is and which sign it has."""
    if mean(sums, "all") > ABSURD:
        return "is the noise a variance, in the image's unit squared?"
    faint, bright = mean(sums, "faint"), mean(sums, "bright")
    if faint > limit(sums, "faint", HIGHEST_CHI2) and bright < WORSE * faint:
        words = "the empty sky does not fit either: the noise is stated too small (--variance, --gain, --read-noise)"
        return f"{words}, or the model was not trained for such a frame (--model physics)" if sums["learned"] else words
    # a PSF that is stated too narrow leaves no misfit: the image takes up the rest of the width
    if sums["middles"]:
        return "bright sources do not fit the PSF: it is too wide or of another shape, or they are saturated (--psf)"
    return "the image does not explain its structure: look at --psf and at the noise"

"""Cosmic rays that an image of all exposures does not explain: those on and beside stars, too.

Exposures that are compared pixel by pixel may differ on a star by their places and PSFs as much as by a cosmic ray
(`sciresdiff.observation.exposure_outliers`).  An image of all of them knows both.  Richardson-Lucy is run without the
pixels that it leaves bright, predicts these, and takes for cosmic rays

    y - A x > 5 sqrt(N + (c D)^2 + (0.02 A x)^2)

with D the largest difference of A x between neighbouring pixels.  c is how far PSF and place of the exposure are off;
it is measured on all bright pixels, of which cosmic rays are few.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sciresdiff.io.quality_bits import OUTLIER
from sciresdiff.notes import Notes
from sciresdiff.observation.exposure_outliers import BESIDE, CALIBRATION, FIRST, LEAST_ROOM, NOISE_OF_STEP
from sciresdiff.observation.joint import Joint, JointWindow, Known
from sciresdiff.observation.outlier_mask import count_places
from sciresdiff.observation.pixel_set import PixelSet, of_text, to_text
from sciresdiff.physics.consistency import Data
from sciresdiff.physics.exposures import ExposuresOperator
from sciresdiff.physics.richardson_lucy import pedestal
from sciresdiff.region import Region
from sciresdiff.restoration.joint import core_mask, iterate, sample_tiles
from sciresdiff.run.findings import Findings
from sciresdiff.tiling import Tile

FEWEST = 3
"""Exposures that it takes to tell which is right."""
ITERATIONS = 20
"""Of Richardson-Lucy. With the true PSF 12 to 40 find the same."""
ROUNDS = 3
"""Images, each without the pixels that the one before leaves bright."""
SUSPECT, BESIDE_SUSPECT = 3.5, 2.0
"""Standard deviations from which a pixel is left out of the next image, and one beside it."""
STEEP = 3.0
"""D over the noise from which a pixel tells how far PSF and place are off."""
ENOUGH = 30
"""Such pixels that are needed; `LEAST_ROOM` is c otherwise."""
QUANTILES = ((0.95, 1.96), (0.98, 2.33))
"""Parts of |y - A x| and of the brighter and darker side, and how many standard deviations these are."""
SEEN = 0.9
"""Area of a pixel that valid pixels of other exposures have to cover, where it is judged."""
SIDE, HALO = 512, 32
"""Side of the parts of an image that are looked at, and what is fitted around them, output px."""


@dataclass(frozen=True)
class _Fit:
    """What an image leaves of the data, (1, C, h, w) each."""

    left: Tensor
    """y - A x, on a sky of its own for every exposure."""
    seen: Tensor
    """A x."""
    noise: Tensor
    """N at A x."""
    steps: Tensor
    """D, beyond what noise makes of it."""

    def sigmas(self, room: Tensor) -> Tensor:
        """What is left over what noise, PSF, place and calibration make, ``room`` being c, (1, C, 1, 1)."""
        spread = self.noise + (room * self.steps).square() + (CALIBRATION * self.seen).square()
        return self.left / spread.sqrt()


@torch.inference_mode()
def without_cosmic_rays(joint: Joint, findings: Findings | None = None) -> Joint:
    """The exposures with the pixels masked that are brighter than an image of all explains, where there are three.

    It is decided once for all of the image, in parts of `SIDE` px that do not depend on blocks.  **A source that varies
    is brighter than explained, too.**

    Parameters
    ----------
    joint : of exposures from files or in memory.
    findings : keeps what is found in each part.
    """
    if len(joint.parts) < FEWEST:
        return joint
    findings = findings or Findings()
    room = {int(number): c for number, c in findings.one("room", partial(measure_room, joint)).items()}

    def look_at(tile: Tile) -> dict[int, str]:
        return {number: to_text(at) for number, at in find_cosmic_rays(joint.window(tile), room).items()}

    cores = {tile: tile.core for tile in parts_of(joint)}
    found = findings.all(
        {f"cosmic rays {c.y0} {c.y1} {c.x0} {c.x1}": partial(look_at, tile) for tile, c in cores.items()}
    ).values()
    places = {
        part.number: [of_text(here[str(part.number)]) for here in found if str(part.number) in here]
        for part in joint.parts
    }
    pixels = [PixelSet.of_places(part.exposure.grid.shape, places[part.number]) for part in joint.parts]
    notes = Notes()
    for part, one in zip(joint.parts, pixels, strict=True):
        notes += describe_cosmic_rays(part.name, one)
    return replace(joint.masking(pixels), notes=joint.notes + notes)


def parts_of(joint: Joint) -> list[Tile]:
    """The image with its margin in nearly equal parts, each with `HALO` px around it."""
    canvas, found = joint.canvas, []
    edges = []
    for start, stop in ((canvas.y0, canvas.y1), (canvas.x0, canvas.x1)):
        count = -(-(stop - start) // SIDE)
        edges.append([start + (stop - start) * k // count for k in range(count + 1)])
    for y0, y1 in pairwise(edges[0]):
        for x0, x1 in pairwise(edges[1]):
            found.append(joint.tile(Region(y0, y1, x0, x1), HALO))
    return found


def measure_room(joint: Joint) -> dict[int, float]:
    """c of every exposure by its number: by how much of D the bulk of its bright pixels is off.

    Cosmic rays make no difference to it, being less than 2 % of them.
    """
    kept: dict[int, list[NDArray[np.float64]]] = {part.number: [] for part in joint.parts}
    for tile in sample_tiles(joint):
        window = joint.window(tile)
        if not any(valid.any() for valid in window.valid):
            continue
        data = window.data()
        fit = _fit(data, data.valid)
        steep = (data.valid > 0) & (fit.steps > STEEP * fit.noise.sqrt())
        for k, (number, _) in enumerate(window.members):
            planes = [plane[0, k][steep[0, k]].double().numpy() for plane in (fit.left, fit.noise, fit.steps)]
            kept[number].append(np.stack(planes))
    return {number: _room(np.concatenate(rows, 1) if rows else np.zeros((3, 0))) for number, rows in kept.items()}


def _room(pixels: NDArray[np.float64]) -> float:
    """The least c with which residuals, noise and steps (3, n) have the quantiles of a normal distribution."""
    left, noise, steps = pixels
    if len(left) < ENOUGH:
        return LEAST_ROOM
    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        ratio = left / np.sqrt(noise + (middle * steps) ** 2)
        sides = np.abs(ratio), ratio, -ratio
        (both, both_sigmas), (one, one_sigmas) = QUANTILES
        most = max(np.quantile(sides[0], both) / both_sigmas, *(np.quantile(s, one) / one_sigmas for s in sides[1:]))
        low, high = (middle, high) if most > 1 else (low, middle)
    return high if low else 0.0


def find_cosmic_rays(window: JointWindow, room: Mapping[int, float]) -> dict[int, NDArray[np.int64]]:
    """Pixels of exposures that are brighter than an image without them explains.

    Parameters
    ----------
    window : a part of the image.
    room : c of every exposure by its number.

    Returns
    -------
    Number of an exposure -> (n, 2) of y and x, px of it, of those whose middle lies in the core.
    """
    if len(window.members) < 2 or not any(valid.any() for valid in window.valid):
        return {}
    data = window.data()
    c = data.y.new_tensor([room[number] for number, _ in window.members]).view(1, -1, 1, 1)
    judged = (data.valid > 0) & (window.operator.seen_by_others(data.valid) > SEEN)
    held = torch.zeros_like(judged)
    for _ in range(ROUNDS):
        sigmas = _fit(data, data.valid * ~held).sigmas(c)
        held = _grow(judged & (sigmas > SUSPECT), judged & (sigmas > BESIDE_SUSPECT))
        if not bool(held.any()):
            return {}
    found = judged & (sigmas > FIRST)
    found = _grow(found, judged & (sigmas > BESIDE), _outlier_flags(window, data)) & (core_mask(window, data) > 0)
    return {
        number: np.argwhere(found[0, k].cpu().numpy()) + np.array(part.exposure.origin)
        for k, (number, part) in enumerate(window.members)
        if bool(found[0, k].any())
    }


def _fit(data: Data, valid: Tensor) -> _Fit:
    """What an image of the valid pixels leaves of all."""
    x = iterate(replace(data, valid=valid), Known(float(pedestal(data).max()), ITERATIONS), ITERATIONS)
    seen, noise = data.operator.apply(x), data.renew_noise(x).noise
    left = data.y - seen
    for k in range(left.shape[1]):
        sky = (valid[0, k] > 0) & (seen[0, k] < noise[0, k].sqrt())
        if bool(sky.any()):
            left[0, k] -= left[0, k][sky].median()
    assert isinstance(data.operator, ExposuresOperator)
    there = data.operator.coverage > 0
    above = F.max_pool2d(torch.where(there, seen, -torch.inf), 3, 1, 1) - seen
    below = seen + F.max_pool2d(torch.where(there, -seen, -torch.inf), 3, 1, 1)
    steps = (torch.maximum(above, below) - NOISE_OF_STEP * noise.sqrt()).clamp_min(0)
    return _Fit(left, seen, noise, torch.where(there, steps, torch.zeros_like(steps)))


def _grow(core: Tensor, more: Tensor, flagged: Tensor | None = None) -> Tensor:
    """Pixels with those of others that touch them, or that touch flagged ones."""
    about = core if flagged is None else core | flagged
    return core | ((F.max_pool2d(about.float(), 3, 1, 1) > 0) & more)


def _outlier_flags(window: JointWindow, data: Data) -> Tensor:
    """Where exposures are masked already, since they contradict the others, (1, C, h, w)."""
    out = torch.zeros_like(data.valid, dtype=torch.bool)
    for k, (_, part) in enumerate(window.members):
        if (flags := part.exposure.plane.flags) is not None:
            h, w = flags.shape[-2:]
            out[0, k, :h, :w] = torch.from_numpy((flags[0] & OUTLIER.bit) != 0)
    return out


def describe_cosmic_rays(name: str, pixels: PixelSet) -> Notes:
    """The line about pixels of an exposure that the image of all does not explain.

    Parameters
    ----------
    name : of its file.
    pixels : of it.
    """
    n = len(pixels)
    if not n:
        return Notes()
    objects = count_places(pixels)
    return Notes(
        f"cosmic rays: {name}: {n} more pixel{'s' if n > 1 else ''} in {objects} place{'s' if objects > 1 else ''}"
        f" brighter than the image of all exposures explains masked (DQ {OUTLIER.bit}); --no-cosmic keeps"
        f" {'them' if n > 1 else 'it'}"
    )

"""A stack of planes as one measurement of a volume, or a window of it, in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from sciresdiff.errors import InputError
from sciresdiff.frame import PLANES, Frame
from sciresdiff.io.source import placeholder
from sciresdiff.notes import Notes
from sciresdiff.observation.depth import Depth, StackStatistics
from sciresdiff.observation.noise import PER_PIXEL, Noise
from sciresdiff.observation.observation import Observation
from sciresdiff.observation.options import Stated
from sciresdiff.observation.resolve_noise import resolve_noise
from sciresdiff.observation.sample import STRIP, WHOLE, Sample, Samples, Window
from sciresdiff.observation.units import NoiseUnits
from sciresdiff.physics.consistency import Data
from sciresdiff.physics.depth import DepthOperator
from sciresdiff.physics.variance_model import VarianceModel
from sciresdiff.region import Region
from sciresdiff.tiling import Tile

EMPTY = 0.01
"""Share of the local means of a plane that are taken for empty; the emptiest plane is the stack's sky."""
AROUND = 2
"""Pixels around one over which that mean is taken."""


@dataclass(frozen=True)
class Stack:
    """The planes of one channel and time, and their PSF in three dimensions."""

    planes: Sequence[Observation]
    """Every plane, in memory, from the first in z on."""
    depth: Depth
    number: int
    """Of the stack in its file."""

    @classmethod
    def of_window(cls, observation: Observation, number: int, tile: Tile) -> Stack:
        """A window of one stack of a file; the same whoever asks."""
        depth = observation.depth
        assert depth is not None
        return cls([observation.window(plane, tile) for plane in depth.stacks[number]], depth, number)

    @property
    def known(self) -> StackStatistics:
        """What the whole stack is like."""
        return self.depth.statistics[self.number]

    @property
    def scale(self) -> int:
        """Output pixels per pixel and axis."""
        return self.planes[0].scale

    @property
    def valid(self) -> NDArray[np.bool_]:
        """(C, h, w), True where a pixel carries information."""
        return np.stack([plane.exposure.valid for plane in self.planes])

    @cached_property
    def units(self) -> NoiseUnits:
        """Noise units, the same for all planes: light moves between them."""
        first = self.planes[0]
        return NoiseUnits(self.known.sky, self.known.sigma, float(first.per_fine), first.scale)

    def operator(self, device: torch.device | str = "cpu") -> DepthOperator:
        """A, in noise units: a value of a plane is a sum over its fine pixels."""
        shape = (len(self.planes), *self.planes[0].exposure.grid.shape)
        beyond, margin = self.depth.margin
        margins = beyond, margin * self.scale
        return DepthOperator(shape, self.scale, self.depth.psfs[self.number], margins, device=device)

    def data(self, device: torch.device | str = "cpu") -> Data:
        """y, N, the valid pixels and A as tensors (1, C, h, w) in noise units."""
        units, valid = self.units, self.valid
        y = np.stack([one.exposure.pixels for one in self.planes]).astype(np.float64)
        n = np.stack([one.exposure.pixel_variance for one in self.planes])
        y = np.where(valid, (y - units.sky) / units.sigma, 0)
        n = np.where(valid, n / units.sigma**2, 1)
        y_, n_, valid_ = (torch.from_numpy(v.astype(np.float32))[None].to(device) for v in (y, n, valid))
        exposure = self.planes[0].exposure
        return Data(y_, n_, valid_, self.operator(device), None, exposure.origin, self._model(device),
                    self.depth.width_error)  # fmt: skip

    def _model(self, device: torch.device | str) -> VarianceModel | None:
        """Variance as a function of A x, maps (1, C, h, w); None where it does not depend on it."""
        exposures = [one.exposure for one in self.planes]
        models = [one.noise.limited(PER_PIXEL).model(one.plane) for one in exposures]
        if not any(model.depends_on_signal for model in models):
            return None
        models = [model.in_units(self.units.sky, self.units.sigma) for model in models]

        def stacked(name: str) -> Tensor:
            shape = exposures[0].grid.shape
            numbers = [np.broadcast_to(np.asarray(getattr(model, name), np.float32), shape) for model in models]
            return torch.from_numpy(np.stack(numbers))[None].to(device)

        return VarianceModel(*(stacked(name) for name in ("floor", "slope", "zero")))


def pooled_samples(frame: Frame, samples: Samples, depth: Depth) -> tuple[Frame, Samples]:
    """Every stack of a file as one plane: some of its planes one below the other, with masked seams.

    One camera took them all, so that its noise is the same in all of them, and so is the level without light.
    """

    def sample(number: int) -> Sample:
        planes = depth.stacks[number]
        h, w = samples(planes[0]).pixels.shape
        count = int(np.clip(WHOLE // (h * w), 1, len(planes)))
        some = [planes[i] for i in np.unique(np.linspace(0, len(planes) - 1, count).round().astype(int))]
        parts = [samples(plane).frame for plane in some]
        there = [name for name in PLANES if getattr(parts[0], name) is not None]
        arrays = {name: np.concatenate([getattr(part, name) for part in parts], 1) for name in there}
        rows = np.arange(len(parts) * h)
        inner = (rows >= STRIP) & (rows < len(rows) - STRIP)
        arrays["mask"] = arrays["mask"].copy()
        arrays["mask"][:, inner & ((rows % h < STRIP) | (rows % h >= h - STRIP))] = True
        size = (len(parts) * h, w)
        return Sample(parts[0].with_(**arrays), (Window(Region.of_shape(size), (slice(0, size[0]), slice(0, w))),))

    count = len(depth.stacks)
    nothing = placeholder((count, *frame.pixels.shape[1:]), np.float32)
    made = {name: placeholder(nothing.shape, getattr(frame, name).dtype) for name in PLANES
            if getattr(frame, name) is not None}  # fmt: skip
    return frame.with_(**made, axes="CYX", shape=nothing.shape), sample


def resolve_stack_noise(frame: Frame, samples: Samples, stated: Stated, depth: Depth) -> tuple[Noise, Notes]:
    """The noise model of a file of stacks: what is measured is measured on all planes of a stack together."""
    if frame.variance is not None or any(isinstance(x, str) for x in (stated.gain, stated.read_noise, stated.offset)):
        return resolve_noise(frame, samples, stated)
    noise, notes = resolve_noise(*pooled_samples(frame, samples, depth), stated)
    stack_of = {plane: i for i, planes in enumerate(depth.stacks) for plane in planes}

    def of_planes(each: tuple) -> tuple:  # type: ignore[type-arg]
        return each if len(each) <= 1 else tuple(each[stack_of[plane]] for plane in range(frame.planes))

    return replace(noise, detectors=of_planes(noise.detectors), correlation=of_planes(noise.correlation)), notes


def measure_stacks(observation: Observation, samples: Samples) -> Observation:
    """The observation with the statistics of its stacks.

    Raises
    ------
    InputError : a stack without a valid pixel.
    """
    depth, exposure = observation.depth, observation.exposure
    assert depth is not None
    found = []
    for planes in depth.stacks:
        skies, sigmas = [], []
        for plane in planes:
            sample = samples(plane)
            variance = exposure.noise.limited(PER_PIXEL).variance_of_sample(sample, plane)
            good = ~sample.mask & np.isfinite(sample.pixels) & np.isfinite(variance) & (variance > 0)
            if good.any():
                skies.append(empty_level(sample.pixels, good))
                sigmas.append(float(np.sqrt(np.median(variance[good]))))
        if not skies:
            raise InputError("variance: no pixel is valid and has a variance above zero; give --variance or --mask")
        found.append(StackStatistics(min(skies), float(np.median(sigmas))))
    return replace(observation, depth=replace(depth, statistics=tuple(found)))


def empty_level(pixels: NDArray[np.float32], good: NDArray[np.bool_]) -> float:
    """Level of the darkest parts of a plane (h, w): a low quantile of its local means."""
    side = 2 * AROUND + 1
    weight = ndimage.uniform_filter(good.astype(np.float64), side)
    light = ndimage.uniform_filter(np.where(good, pixels, 0).astype(np.float64), side)
    means = (light / np.maximum(weight, 1 / side**2))[good]
    return float(np.quantile(means, EMPTY))

"""Several exposures of one field as one measurement of an image on the output's grid, or a window of it in memory.

Every exposure keeps its own pixels, noise, mask and PSF.  For the solvers all are brought to one scale: the flux of the
first exposure above the sky of each, in units of the first one's noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciresdiff.frame import Quantity
from sciresdiff.notes import Notes
from sciresdiff.observation.exposure import Exposure
from sciresdiff.observation.grid import Grid
from sciresdiff.observation.noise import PER_PIXEL
from sciresdiff.observation.outlier_mask import mask_pixels
from sciresdiff.observation.pixel_set import PixelSet
from sciresdiff.observation.placement import Placement
from sciresdiff.observation.units import NoiseUnits
from sciresdiff.physics.consistency import Data
from sciresdiff.physics.exposures import ExposuresOperator, Seen
from sciresdiff.physics.kernel_blur import KernelBlur
from sciresdiff.physics.operators import Operator
from sciresdiff.physics.resample import resample
from sciresdiff.physics.variance_model import VarianceModel
from sciresdiff.region import Region
from sciresdiff.tiling import Tile

Array = NDArray[Any]

UNKNOWN_NOISE = 100.0
"""Variance of a pixel that is no data, in units of the first exposure's noise: its place says next to nothing."""


@dataclass(frozen=True)
class Part:
    """One exposure among several."""

    exposure: Exposure
    """``psf`` is the blur on the output's grid that comes before its pixels, see `observation.psf_on_grid`."""
    place: Placement
    """Its pixels -> px of the output's grid."""
    factor: float
    """Its flux over the first exposure's."""
    sky: float
    """In its own unit, as ``sigma``, the noise of its median pixel."""
    sigma: float
    name: str
    """Of its file."""
    number: int = 0
    """Among all exposures, from 0."""


@dataclass(frozen=True)
class Known:
    """What windows of an image have to agree on."""

    pedestal: float
    """Added to the data while Richardson-Lucy runs, noise units."""
    iterations: int
    """Of it."""
    radius: int = 2
    """Output px around a pixel whose light tells whether there is a source."""


@dataclass(frozen=True)
class Joint:
    """Several exposures, and the grid of the wanted image."""

    parts: Sequence[Part]
    sky: float
    """Of the first exposure, whose unit and sky the output has, whether it is one of the parts or not."""
    sigma: float
    """Noise of its median pixel."""
    grid: Grid
    """Of the output."""
    scale: float
    """Output px along the side of a pixel of the first exposure."""
    quantity: Quantity
    margin: int = 0
    """Output px around the grid that are restored with it: their light falls on pixels of exposures at its edge."""
    target_fwhm: float | None = None
    """Of the image's PSF, output px."""
    widened: float = 0.0
    """FWHM of the Gaussian that the image and its samples are convolved with at the end, output px; 0 for none."""
    notes: Notes = field(default_factory=Notes)
    known: Known | None = None

    @property
    def per_fine(self) -> float:
        """Output pixels among which a value is shared out: s^2 for ``sum``, 1 for ``mean``."""
        return self.scale**2 if self.quantity == "sum" else 1.0

    @property
    def heaviest(self) -> float:
        """The largest weight that an exposure has: flux over noise, squared, in the first one's units."""
        return max((self.sigma * part.factor / part.sigma) ** 2 for part in self.parts)

    @property
    def units(self) -> NoiseUnits:
        """Noise units: those of the first exposure, whose sky the output has."""
        return NoiseUnits(self.sky, self.sigma, self.per_fine, self.scale)

    @property
    def canvas(self) -> Region:
        """The grid with its margin, px of the grid."""
        h, w = self.grid.shape
        return Region(-self.margin, h + self.margin, -self.margin, w + self.margin)

    def tile(self, core: Region, halo: int) -> Tile:
        """A part of the image with so many px around it, as far as the canvas goes."""
        canvas = self.canvas
        around = Region(
            max(core.y0 - halo, canvas.y0), min(core.y1 + halo, canvas.y1),
            max(core.x0 - halo, canvas.x0), min(core.x1 + halo, canvas.x1),
        )  # fmt: skip
        return Tile(core, around)

    def window(self, tile: Tile) -> JointWindow:
        """A part of the image, with the pixels of every exposure that may see it; the same whoever asks.

        Parameters
        ----------
        tile : what counts and what is restored around it, px of the grid.
        """
        return JointWindow.of(self, tile)

    def masking(self, pixels: Sequence[PixelSet]) -> Joint:
        """The same with pixels of every exposure masked, in the order of the parts."""
        parts = [
            replace(part, exposure=mask_pixels(part.exposure, one))
            for part, one in zip(self.parts, pixels, strict=True)
        ]
        return replace(self, parts=parts)

    def without(self, number: int) -> Joint:
        """The same without one of the exposures."""
        return replace(self, parts=[part for part in self.parts if part.number != number])

    def only(self, number: int) -> Joint:
        """The same with one of the exposures alone."""
        return replace(self, parts=[part for part in self.parts if part.number == number])


@dataclass(frozen=True)
class JointWindow:
    """A window of the image and the pixels of the exposures that see it, in memory."""

    joint: Joint
    tile: Tile
    members: Sequence[tuple[int, Part]]
    """Number of an exposure, and its pixels here, with its placement on the window."""

    @classmethod
    def of(cls, joint: Joint, tile: Tile) -> JointWindow:
        """Read a window of every exposure that lies in it."""
        found = []
        for part in joint.parts:
            region = part.place.overlap(tile.window, part.exposure.grid.shape)
            if region is not None:
                found.append((part.number, replace(part, exposure=part.exposure.window(0, region))))
        return cls(joint, tile, found)

    @property
    def core(self) -> Region:
        """What counts, px of the window."""
        return self.tile.core.within(self.tile.window)

    @property
    def shape(self) -> tuple[int, int]:
        """Of the window, output px."""
        return self.tile.window.shape

    @cached_property
    def operator(self) -> ExposuresOperator:
        """A, in noise units and on one scale of flux."""
        window, canvas = self.tile.window, self.joint.canvas
        here = [
            None if (psf := part.exposure.psf) is None else psf.window(window.within(canvas)).simplest
            for _, part in self.members
        ]
        fixed = [psf.kernels[0].shape for psf in here if psf is not None and not psf.varies]
        margin = max((m // 2 for m, _ in fixed), default=0), max((n // 2 for _, n in fixed), default=0)
        seen = []
        for (_, part), psf in zip(self.members, here, strict=True):
            blur: KernelBlur | Operator | None = None
            if psf is not None:
                blur = Operator(self.shape, 1, psf) if psf.varies else KernelBlur(psf.kernels[0], self.shape, margin)
            region = part.exposure.region
            assert region is not None
            corners = part.place.corners(region) - np.array([window.y0, window.x0])
            seen.append(Seen(blur, resample(corners, self.shape).single()))
        return ExposuresOperator(seen, self.joint.scale)

    def on_skies(self, joint: Joint) -> JointWindow:
        """The same of a measurement that differs by the skies of its exposures alone; the operator is kept."""
        skies = {part.number: part.sky for part in joint.parts}
        members = [(number, replace(part, sky=skies[number])) for number, part in self.members]
        found = replace(self, joint=joint, members=members)
        found.__dict__["operator"] = self.operator  # where `cached_property` holds it
        return found

    @cached_property
    def valid(self) -> list[NDArray[np.bool_]]:
        """(h_k, w_k) of every member, True where a pixel carries information and lies in the window."""
        return [
            part.exposure.valid & seen.pixels.coverage
            for (_, part), seen in zip(self.members, self.operator.parts, strict=True)
        ]

    def data(self, device: torch.device | str = "cpu") -> Data:
        """y, N, the valid pixels and A as tensors (1, C, h, w), C the exposures that lie in the window."""
        units, area = self.joint.units, self.operator.relative_area[0].numpy()
        rows, weights = [], []
        for k, ((_, part), valid) in enumerate(zip(self.members, self.valid, strict=True)):
            h, w = valid.shape
            share = area[k, :h, :w] if self.joint.quantity == "mean" else 1.0
            unit = units.sigma * part.factor
            y = np.where(valid, share * (part.exposure.pixels.astype(np.float64) - part.sky) / unit, 0)
            n = np.where(valid, share**2 * part.exposure.pixel_variance.astype(np.float64) / unit**2, UNKNOWN_NOISE)
            rows.append((y, n, valid))
            weights.append((unit / part.sigma) ** 2)
        y_, n_, valid_ = (self._stack([row[i] for row in rows], fill) for i, fill in enumerate((0, UNKNOWN_NOISE, 0)))
        weight = torch.tensor(weights, dtype=torch.float32).view(1, -1, 1, 1)
        return Data(y_, n_, valid_, self.operator, model=self._model(), weight=weight / self.joint.heaviest)

    def _stack(self, planes: Sequence[Array], fill: float) -> Tensor:
        """Planes (h_k, w_k) as channels (1, C, h, w)."""
        h, w = self.operator.shape
        out = np.full((1, len(planes), h, w), fill, np.float32)
        for k, plane in enumerate(planes):
            out[0, k, : plane.shape[0], : plane.shape[1]] = plane
        return torch.from_numpy(out)

    def _model(self) -> VarianceModel | None:
        """Variance as a function of A x, maps (1, C, h, w); None where it does not depend on it."""
        area = self.operator.relative_area[0].numpy()
        models, shares = [], []
        for k, (_, part) in enumerate(self.members):
            model = part.exposure.noise.limited(PER_PIXEL).model(part.exposure.plane)
            models.append(model.in_units(part.sky, self.joint.units.sigma * part.factor))
            h, w = part.exposure.grid.shape
            shares.append(area[k, :h, :w] if self.joint.quantity == "mean" else np.ones((h, w)))
        if not any(model.depends_on_signal for model in models):
            return None
        powers = {"floor": 2, "slope": 1, "zero": 1}
        return VarianceModel(
            *(
                self._stack(
                    [np.broadcast_to(np.asarray(getattr(m, name)), s.shape) * s**power
                     for m, s in zip(models, shares, strict=True)],
                    UNKNOWN_NOISE if name == "floor" else 0.0,
                )
                for name, power in powers.items()
            )
        )  # type: ignore[arg-type]  # fmt: skip

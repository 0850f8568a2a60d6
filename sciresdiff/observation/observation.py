"""What is known of the wanted image: the exposures, the grid it is wanted on, and its PSF."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sciresdiff.errors import InputError
from sciresdiff.frame import Quantity
from sciresdiff.io.source import in_memory
from sciresdiff.notes import Notes
from sciresdiff.observation.depth import Depth
from sciresdiff.observation.exposure import Exposure
from sciresdiff.observation.grid import Grid
from sciresdiff.observation.noise import PER_PIXEL, Noise
from sciresdiff.observation.sample import Sample
from sciresdiff.observation.units import NoiseUnits
from sciresdiff.physics.consistency import Data
from sciresdiff.physics.operators import Operator
from sciresdiff.physics.psf.field import PSF
from sciresdiff.physics.sky import estimate_sky
from sciresdiff.region import Region
from sciresdiff.tiling import Tile


@dataclass(frozen=True)
class Observation:
    """All that was measured of one wanted image; everything that restores or judges it is given this."""

    exposures: Sequence[Exposure]
    grid: Grid
    """The output grid: the pixels of the wanted image."""
    target_fwhm: float | None = None
    """FWHM of the wanted image's PSF, output px; None where the PSF says what image is wanted."""
    notes: Notes = field(default_factory=Notes)
    """What was read, measured and assumed."""
    core: Region | None = None
    """The exposure's pixels that count in a window; the others surround them.  None: all."""
    depth: Depth | None = None
    """Its stacks, where their planes are restored as volumes; None: every plane by itself."""

    @classmethod
    def of_arrays(
        cls,
        pixels: NDArray[Any],
        variance: NDArray[Any],
        scale: int,
        psf: PSF | NDArray[Any] | None = None,
        mask: NDArray[Any] | None = None,
        quantity: Quantity = "sum",
    ) -> Observation:
        """One exposure, out of arrays.

        Parameters
        ----------
        pixels, variance, mask, psf, quantity : as for `Exposure.of_arrays`.
        scale : output pixels per pixel of the exposure and axis.
        """
        if not isinstance(scale, int | np.integer) or isinstance(scale, bool) or scale < 1:
            raise InputError(f"scale: {scale!r} is given, but a whole number of 1 or more is needed")
        exposure = Exposure.of_arrays(pixels, variance, mask, psf, quantity)
        return cls([exposure], exposure.grid.refine(scale))

    @property
    def exposure(self) -> Exposure:
        """The only exposure.

        Raises
        ------
        InputError : there are several; they are not restored jointly.
        """
        if len(self.exposures) != 1:
            raise InputError(f"exposures: {len(self.exposures)} are given; give one, they are not restored jointly")
        return self.exposures[0]

    @property
    def scale(self) -> int:
        """Output pixels per pixel of the exposure and axis."""
        return self.grid.ratio(self.exposure.grid)

    @property
    def quantity(self) -> Quantity:
        """Of the exposure and of the wanted image."""
        return self.exposure.quantity

    @property
    def per_fine(self) -> int:
        """Output pixels among which the value of a pixel of the exposure is shared out: s^2 for ``sum``, 1 for
        ``mean``."""
        return self.scale**2 if self.quantity == "sum" else 1

    def window(self, plane: int, tile: Tile) -> Observation:
        """The same for a part of one plane, in memory.

        Parameters
        ----------
        tile : what counts and what is read for it, in the exposure's pixels.
        """
        scale, psf = self.scale, self.exposure.psf_of(plane)
        here = None if psf is None else psf.window(tile.window.scaled(scale))
        exposure = replace(self.exposure.window(plane, tile.window), psf=here)
        core = None if tile.core == tile.window else tile.core.within(tile.window)
        grid = Grid(exposure.grid.refine(scale).shape, self.grid.pixel_size)
        return replace(self, exposures=[exposure], grid=grid, core=core)

    def of_sample(self, sample: Sample, plane: int) -> Observation:
        """The same of what a plane was sampled on, in memory: windows that lie side by side.

        Parameters
        ----------
        sample : of the plane.
        plane : its number.
        """
        exposure, scale = self.exposure, self.scale
        frame = sample.frame.with_(variance=exposure.noise.variance_of_sample(sample, plane)[None])
        grid, psf = Grid(frame.pixels.shape[1:]), exposure.psf_of(plane)  # type: ignore[arg-type]
        if psf is not None and psf.varies and not sample.whole:  # windows side by side have no places
            psf = PSF.constant(psf.mean)
        part = replace(
            exposure, image=in_memory(frame), grid=grid, noise=Noise(), psf=psf, psfs=(), statistics=(), region=None
        )
        return replace(self, exposures=[part], grid=grid.refine(scale))

    def with_pixels(self, pixels: NDArray[Any], variance: NDArray[Any]) -> Observation:
        """The same observation of one plane in memory, of other data.

        Parameters
        ----------
        pixels, variance : (h, w), unit and unit**2.
        """
        return replace(self, exposures=[self.exposure.with_pixels(pixels, variance)])

    @cached_property
    def units(self) -> NoiseUnits:
        """Noise units of a plane in memory: those of the whole plane, where it is known what that is like.

        Raises
        ------
        InputError : no pixel is valid.
        """
        exposure = self.exposure
        if not exposure.valid.any():
            raise InputError("variance: no pixel is valid and has a variance above zero; give --variance or --mask")
        if exposure.statistics:
            (whole,) = exposure.statistics
            sky, sigma = whole.sky, whole.sigma
        else:
            sky = estimate_sky(exposure.pixels, ~exposure.valid)[0]
            sigma = float(np.sqrt(np.median(exposure.pixel_variance[exposure.valid])))
        return NoiseUnits(float(sky), sigma, float(self.per_fine), self.scale)

    def data(self, device: torch.device | str = "cpu") -> Data:
        """y, N, the valid pixels and A of a plane in memory, as tensors (1, 1, h, w) in noise units.

        Raises
        ------
        InputError : no pixel is valid; a PSF that does not fit the frame.
        """
        exposure, units = self.exposure, self.units
        bad = ~exposure.valid
        y = np.where(bad, 0, (exposure.pixels.astype(np.float64) - units.sky) / units.sigma)
        n = np.where(bad, 1, exposure.pixel_variance.astype(np.float64) / units.sigma**2)
        y_, n_, valid = (as_tensor(v, device) for v in (y, n, ~bad))
        statistics = exposure.statistics[0] if exposure.statistics else None
        model = exposure.noise.limited(PER_PIXEL).model(exposure.plane)
        if model.depends_on_signal:
            model = model.in_units(units.sky, units.sigma)
            numbers = {f.name: getattr(model, f.name) for f in fields(model)}
            maps: dict[str, Any] = {k: as_tensor(v, device) for k, v in numbers.items() if np.ndim(v)}
            model = replace(model, **maps)
        # In noise units fine values add up to coarse ones, whatever the quantity: `NoiseUnits` undoes it.
        return Data(y_, n_, valid, Operator(exposure.grid.shape, self.scale, exposure.psf, device=device),
                    statistics, exposure.origin, model if model.depends_on_signal else None,
                    (exposure.psf and exposure.psf.width_error) or 0.0)  # fmt: skip

    def operator(self, dtype: torch.dtype = torch.float64) -> Operator:
        """A in the frame's own unit, from the output grid to the exposure's: what checks measure an image with."""
        exposure = self.exposure
        return Operator(exposure.grid.shape, self.scale, exposure.psf, exposure.quantity, dtype)


def as_tensor(plane: NDArray[Any], device: torch.device | str) -> torch.Tensor:
    """A plane (h, w) as a float32 tensor (1, 1, h, w)."""
    return torch.from_numpy(plane.astype(np.float32))[None, None].to(device)

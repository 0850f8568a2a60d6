"""The noise of an exposure: the variance of every pixel, at the value that is expected of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.frame import PLANES, Frame
from sciresdiff.notes import Notes
from sciresdiff.observation.sample import Sample, Samples
from sciresdiff.physics.detector import Detector
from sciresdiff.physics.expectation import REACH, expected_signal
from sciresdiff.physics.sky import estimate_sky
from sciresdiff.physics.variance_model import VarianceModel
from sciresdiff.region import Region

PSF_ERROR = {"--psf": 0.01, "header": 0.03, "measured": 0.03}
"""Relative error of a PSF by its origin; a kernel that is stated, or that ``degrade`` wrote, is exact."""
DARKEST = 0.02
"""Electrons that are expected of a pixel at least: an expectation that is measured on 50 pixels cannot tell fewer, and
a pixel without any would have no noise."""


@dataclass(frozen=True)
class Noise:
    """The noise model of an exposure; without a detector, the file's own variance plane is the variance."""

    detectors: tuple[Detector, ...] = ()
    """Gain, read noise and offset of every plane, or one for all, whose numbers may be maps; win over the file's
    plane."""
    correlation: tuple[float, ...] = ()
    """Factor on the standard deviation for noise that neighbouring pixels share, of every plane; empty: white."""
    psf_error: float = 0.0
    """Share of the light above ``sky`` by which the PSF may be wrong."""
    sky: tuple[float, ...] = ()
    """Level of every plane's sky, in the file's unit; needed with ``psf_error``."""
    expected: NDArray[np.float64] | None = None
    """Expected signal (h, w) of a window, in the file's unit, where it was estimated on more than the window."""

    @property
    def depends_on_signal(self) -> bool:
        """Whether a pixel's variance depends on its expected signal."""
        return bool(self.psf_error) or any(detector.photons for detector in self.detectors)

    @property
    def reach(self) -> int:
        """Pixels around a window that its variance depends on."""
        return REACH if self.depends_on_signal else 0

    def window(self, plane: int, region: Region) -> Noise:
        """The noise model of a part of one plane: maps are cut, numbers hold everywhere.

        Parameters
        ----------
        plane : its number.
        region : pixels of the plane.
        """
        return replace(
            self,
            detectors=tuple(detector.crop(region) for detector in of_plane(self.detectors, plane)),
            correlation=of_plane(self.correlation, plane),
            sky=of_plane(self.sky, plane),
            expected=None if self.expected is None else self.expected[region.slices],
        )

    def model(self, frame: Frame) -> VarianceModel:
        """Variance as a function of the expected signal, of a frame of one plane whose noise this is.

        N(e) = c^2 v(e) + (f (e - sky))^2, with v of the detector or the file's plane, c the correlation and f the error
        of the PSF.
        """
        if self.detectors:
            (detector,) = self.detectors
            model = detector.model
            if detector.photons:
                model = replace(model, floor=np.maximum(model.floor, DARKEST * model.slope / detector.gain))
        else:
            assert frame.variance is not None
            model = VarianceModel(frame.variance[0])
        for factor in self.correlation:
            model = replace(model, floor=model.floor * factor**2, slope=model.slope * factor**2)
        return replace(model, psf_error=self.psf_error, sky=self.sky[0]) if self.psf_error else model

    def expectation(self, frame: Frame) -> NDArray[np.float64]:
        """Expected signal (h, w) of a frame of one plane whose noise this is, in its unit."""
        if self.expected is not None:
            return self.expected
        return expected_signal(frame.pixels[0], frame.mask[0], self.model(frame).at)

    def variance(self, frame: Frame) -> NDArray[np.floating[Any]]:
        """Variance (h, w), unit**2, of a frame of one plane whose noise this is: that at its expected signal."""
        model = self.model(frame)
        if model.depends_on_signal:
            return model.at(self.expectation(frame))
        return np.broadcast_to(np.asarray(model.floor, np.float64), frame.pixels.shape[1:])

    def variance_of_sample(self, sample: Sample, plane: int) -> NDArray[np.floating[Any]]:
        """Variance (h, w), unit**2, of a plane's sample, whose windows lie side by side."""
        if sample.whole:
            return self.window(plane, Region.of_shape(sample.pixels.shape)).variance(sample.frame)
        variance = np.empty(sample.pixels.shape)
        for window in sample.windows:
            part = crop_frame(sample.frame, window.at)
            variance[window.at] = self.window(plane, window.region).variance(part)
        return variance


def of_plane(each: tuple[Any, ...], plane: int) -> tuple[Any, ...]:
    """The one of a plane among those of every plane, or the only one; empty where there is none."""
    return each if len(each) == 1 else each[plane : plane + 1]


def crop_frame(frame: Frame, at: tuple[slice, slice]) -> Frame:
    """A part of a frame: rows and columns of all its planes."""
    arrays = {name: getattr(frame, name) for name in PLANES}
    return frame.with_(**{name: a[(slice(None), *at)] for name, a in arrays.items() if a is not None})


def with_psf_error(noise: Noise, frame: Frame, samples: Samples, origin: str) -> tuple[Noise, Notes]:
    """The noise with what an imperfectly known PSF may get wrong of the light above the sky.

    Parameters
    ----------
    origin : where the PSF comes from; `PSF_ERROR` has its error.
    """
    share = PSF_ERROR.get(origin, 0.0)
    if not share:
        return noise, Notes()
    line = f"psf: taken as known to {100 * share:g} % of the light above the sky, which the variance now holds"
    levels = tuple(sky_level(samples(i)) for i in range(frame.planes))
    return replace(noise, psf_error=share, sky=levels), Notes(line)


def sky_level(sample: Sample) -> float:
    """Level of the sky of a sample, in the file's unit; 0 where nothing is valid."""
    return 0.0 if sample.mask.all() else float(estimate_sky(sample.pixels, sample.mask)[0])

"""The noise of an exposure: the variance of every pixel, at the value that is expected of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.frame import PLANES, Frame
from sciresdiff.observation.sample import Sample
from sciresdiff.physics.detector import Detector
from sciresdiff.physics.expectation import REACH, expected_signal
from sciresdiff.physics.psf import width_error
from sciresdiff.physics.psf.width_error import WidthError
from sciresdiff.physics.variance_model import VarianceModel
from sciresdiff.region import Region

DARKEST = 0.02
"""Electrons that are expected of a pixel at least: an expectation that is measured on 50 pixels cannot tell fewer, and
a pixel without any would have no noise."""
PER_PIXEL = 0.01
"""Error of the PSF's width that a restoration takes for noise of single pixels.  The rest is one number for the whole
frame, and is in the samples: as noise it would blur the image (of cells, 5 % cost 1.6 dB)."""


@dataclass(frozen=True)
class Noise:
    """The noise model of an exposure; without a detector, the file's own variance plane is the variance."""

    detectors: tuple[Detector, ...] = ()
    """Gain, read noise and offset of every plane, or one for all, whose numbers may be maps; win over the file's
    plane."""
    correlation: tuple[float, ...] = ()
    """Factor on the standard deviation for noise that neighbouring pixels share, of every plane; empty: white."""
    width_errors: tuple[WidthError, ...] = ()
    """How well the width of every plane's PSF is known, or one for all; empty: exactly."""
    width_change: NDArray[np.float64] | None = None
    """What that width changes in a window (h, w), see `WidthError.change`, where more than the window was seen."""
    expected: NDArray[np.float64] | None = None
    """Expected signal (h, w) of a window, in the file's unit, where it was estimated on more than the window."""

    @property
    def depends_on_signal(self) -> bool:
        """Whether a pixel's variance depends on its expected signal."""
        return any(detector.photons for detector in self.detectors)

    @property
    def reach(self) -> int:
        """Pixels around a window that its variance depends on."""
        return max(REACH if self.depends_on_signal else 0, width_error.REACH if self.width_errors else 0)

    def limited(self, share: float) -> Noise:
        """The same with errors of the width that are no larger than a share of it; 0 leaves them out."""
        errors = tuple(replace(error, share=min(error.share, share)) for error in self.width_errors)
        return replace(self, width_errors=errors if share else ())

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
            width_errors=tuple(error.window(region) for error in of_plane(self.width_errors, plane)),
            width_change=None if self.width_change is None else self.width_change[region.slices],
            expected=None if self.expected is None else self.expected[region.slices],
        )

    def model(self, frame: Frame) -> VarianceModel:
        """Variance as a function of the expected signal, of a frame of one plane whose noise this is.

        N(e) = c^2 v(e) + (f dA x)^2, with v of the detector or the file's plane, c the correlation, f the error of the
        PSF's width and dA x what that changes.  Without the last term bright cores, whose noise is small beside it,
        force rings on their surroundings.
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
        for error in self.width_errors:
            model = replace(model, floor=model.floor + (error.share * self.change_of_width(frame)) ** 2)
        return model

    def change_of_width(self, frame: Frame) -> NDArray[np.float64]:
        """dA x of a frame of one plane, (h, w), see `WidthError.change`; 0 where the width is exact."""
        if self.width_change is not None or not self.width_errors:
            return np.zeros(frame.pixels.shape[1:]) if self.width_change is None else self.width_change
        return self.width_errors[0].change(frame.pixels[0], frame.mask[0])

    def expectation(self, frame: Frame) -> NDArray[np.float64]:
        """Expected signal (h, w) of a frame of one plane whose noise this is, in its unit."""
        if self.expected is not None:
            return self.expected
        return expected_signal(frame.pixels[0], frame.mask[0], self.limited(0).model(frame).at)

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

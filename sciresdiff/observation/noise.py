"""The noise of a frame: what is stated, what the file says, else what can be measured.

Order of belief: ``--variance``, ``--gain`` with ``--read-noise``, a variance-like plane of the file, gain and read
noise of its header, the histogram of a camera frame, the scatter of the sky.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff import io
from sciresdiff.errors import InputError
from sciresdiff.frame import Frame
from sciresdiff.notes import Notes
from sciresdiff.observation.options import Stated
from sciresdiff.observation.sample import Sample, Samples, first_with_data
from sciresdiff.physics.detector import Detector
from sciresdiff.physics.photon_transfer import detector_from_photon_transfer
from sciresdiff.physics.sky import estimate_sky, noise_correlation, sky_noise
from sciresdiff.region import Region

CORRELATED = 1.1
"""Noise correlation above which the variance is inflated and the user warned."""
PSF_ERROR = {"--psf": 0.01, "header": 0.03, "measured": 0.03}
"""Relative error of a PSF by its origin; a kernel that is stated, or that ``degrade`` wrote, is exact."""


@dataclass(frozen=True)
class Noise:
    """The noise model of an exposure; with no field set, the file's own variance plane is the variance."""

    detector: Detector | None = None
    """Gain, read noise and offset, numbers or maps; wins over the file's plane."""
    sky_variance: tuple[float, ...] = ()
    """unit**2, of every plane's sky, where nothing else is known."""
    correlation: float = 1.0
    """Factor on the standard deviation for noise that neighbouring pixels share."""
    psf_error: float = 0.0
    """Share of the light above ``sky`` by which the PSF may be wrong."""
    sky: tuple[float, ...] = ()
    """Level of every plane's sky, in the file's unit; needed with ``psf_error``."""

    def window(self, plane: int, region: Region) -> Noise:
        """The noise model of a part of one plane: maps are cut, numbers hold everywhere.

        Parameters
        ----------
        plane : its number.
        region : pixels of the plane.
        """
        return replace(
            self,
            detector=None if self.detector is None else crop_detector(self.detector, region),
            sky_variance=self.sky_variance[plane : plane + 1],
            sky=self.sky[plane : plane + 1],
        )

    def variance(self, frame: Frame) -> NDArray[np.floating[Any]]:
        """Variance (h, w), unit**2, of a frame of one plane whose noise this is.

        N = c^2 v + (f (y - sky))^2, with v of the detector, the sky or the file's plane, c the correlation and f the
        error of the PSF.
        """
        pixels = frame.pixels[0]
        variance: NDArray[np.floating[Any]]
        if self.detector is not None:
            variance = np.asarray(self.detector.variance(pixels), np.float64)
        elif self.sky_variance:
            (level,) = self.sky_variance
            variance = np.broadcast_to(np.float64(level), pixels.shape)
        else:
            assert frame.variance is not None
            variance = frame.variance[0]
        if self.correlation != 1:
            variance = variance * self.correlation**2
        if not self.psf_error:
            return variance
        (level,) = self.sky
        # Without this term bright cores, whose noise is small beside it, force rings on their surroundings.
        return variance + (self.psf_error * (pixels - np.float64(level))) ** 2

    def variance_of_sample(self, sample: Sample, plane: int) -> NDArray[np.floating[Any]]:
        """Variance (h, w), unit**2, of a plane's sample, whose windows lie side by side."""
        if sample.whole:
            return self.window(plane, Region.of_shape(sample.pixels.shape)).variance(sample.frame)
        variance = np.empty(sample.pixels.shape)
        for window in sample.windows:
            part = crop_frame(sample.frame, window.at)
            variance[window.at] = self.window(plane, window.region).variance(part)
        return variance


def crop_frame(frame: Frame, at: tuple[slice, slice]) -> Frame:
    """Pixels, mask and variance of a part of a frame."""
    here = (slice(None), *at)
    noise = None if frame.variance is None else frame.variance[here]
    return frame.with_(
        pixels=frame.pixels[here], mask=frame.mask[here], variance=noise, saturated=None, dq=None, flags=None
    )


def crop_detector(detector: Detector, region: Region) -> Detector:
    """The detector of a part of the frame."""
    known: dict[str, Any] = {f.name: getattr(detector, f.name) for f in fields(detector)}
    here: dict[str, Any] = {n: v[region.slices] if isinstance(v, np.ndarray) else v for n, v in known.items()}
    return replace(detector, **here)


def resolve_noise(frame: Frame, samples: Samples, stated: Stated) -> tuple[Noise, Notes]:
    """The noise model of a file, and where it comes from.

    Parameters
    ----------
    frame : what the file says; its values are not used.
    samples : what is measured on is this.
    stated : what the user states.

    Raises
    ------
    InputError : nothing is known, and nothing can be measured.
    """
    has_plane = frame.variance is not None
    if not has_plane or (stated.variance is None and stated.gain is not None):
        detector, notes = resolve_detector(frame, samples, stated)
        if detector is not None:
            return inflate(Noise(detector), notes, samples, frame.planes)
        if not has_plane:
            noise, more = measure_sky_variance(frame, samples)
            return noise, notes + more
    else:
        notes = Notes()
    return inflate(Noise(), notes + Notes(noise="--variance" if stated.variance else "file"), samples, frame.planes)


def resolve_detector(frame: Frame, samples: Samples, stated: Stated) -> tuple[Detector | None, Notes]:
    """Gain, read noise and offset: stated, else of the header, else from a camera frame's histogram.

    Returns
    -------
    None where gain or read noise stay unknown, and the notes.
    """
    found = {name: detector_value(frame, stated, name) for name in ("gain", "read_noise", "offset")}
    known: dict[str, Any] = {name: x for name, x in found.items() if x is not None}
    detector = Detector(**known)
    if frame.kind == "micro" and frame.dtype.kind == "u" and "gain" not in known:
        first = samples(first_with_data(samples, frame.planes))
        camera, lines = detector_from_photon_transfer(first.pixels, None if first.whole else first.mask)
        return camera and replace(camera, **known), Notes(*lines, noise="histogram")
    notes = Notes(noise="--gain" if stated.gain else "header")
    if not {"gain", "read_noise"} <= set(known):
        if stated.gain is not None or stated.read_noise is not None:
            notes += Notes("noise: --gain and --read-noise say nothing without each other, and are not used")
        return None, notes
    gain, read_noise, offset = (format_value(x) for x in (detector.gain, detector.read_noise, detector.offset))
    return detector, notes + Notes(f"noise: gain {gain} e/unit, read noise {read_noise} e, offset {offset}")


def detector_value(frame: Frame, stated: Stated, name: str) -> float | NDArray[np.float32] | None:
    """A number of the detector, or a map of it: what is stated, else the file's fact of that name.

    Parameters
    ----------
    frame : what the file says.
    stated : what the user states; a text names the file of a map.
    name : ``gain`` (e/unit), ``read_noise`` (e) or ``offset`` (unit).

    Returns
    -------
    A number, an (h, w) array, or None where nobody says.
    """
    given: float | str | None = getattr(stated, name)
    if isinstance(given, str):
        return read_detector_map(name, given, frame.pixels.shape[1:])
    return given if given is not None else frame.facts.get(name)


def read_detector_map(name: str, path: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A number of the detector for every pixel of a frame; **all of it is held, 4 bytes a pixel**.

    Parameters
    ----------
    name : the field of `Detector`, for messages.
    path : the map's file.
    shape : (h, w) of the frame.

    Raises
    ------
    InputError : it cannot be read, or has another shape.
    """
    option = "--" + name.replace("_", "-")
    try:
        image = io.read_image(path).astype(np.float32)
    except InputError as error:
        raise InputError(f"{option}: {error}; give a number, or the file of a map") from error
    if image.shape != shape:
        raise InputError(f"{option}: {path} has shape {image.shape}, but the frame has {shape}; give one that fits")
    return image


def format_value(number: float | NDArray[Any]) -> str:
    """A number in four digits, or that it is a map."""
    return "(map)" if isinstance(number, np.ndarray) else f"{number:.4g}"


def measure_sky_variance(frame: Frame, samples: Samples) -> tuple[Noise, Notes]:
    """One variance for every pixel of a plane, measured on its sky; **photon noise of sources is not in it**.

    Raises
    ------
    InputError : a constant image, or one with too few valid pixels.
    """

    def measure(sample: Sample) -> float:
        empty = frame.planes > 1 and sample.mask.all()  # nothing will be asked of such a plane
        return 1.0 if empty else sky_noise(sample.pixels, sample.mask)

    sigma = np.array([measure(samples(i)) for i in range(frame.planes)])
    for i in np.flatnonzero(~(sigma > 0)):
        where = f"plane {i}" if frame.planes > 1 else "the image"
        sample = samples(int(i))
        valid = sample.pixels[~sample.mask]
        why = "is constant" if valid.size and np.ptp(valid) == 0 else f"has too few valid pixels of sky ({valid.size})"
        raise InputError(f"variance: {where} {why}, its noise cannot be measured; give it, for instance by --variance")
    much = f"{sigma.min():.4g}" if frame.planes == 1 else f"{sigma.min():.4g} to {sigma.max():.4g}"
    line = f"noise: sky scatter {much} per pixel; photon noise of bright sources is not in it"
    return Noise(sky_variance=tuple(map(float, sigma**2))), Notes(line, noise="sky scatter")


def inflate(noise: Noise, notes: Notes, samples: Samples, planes: int) -> tuple[Noise, Notes]:
    """The noise times its measured correlation, where that is more than slight.

    Resampled and filtered frames have noise that neighbours share: the scatter of a sum over b x b pixels is then more
    than b times that of a pixel, and a variance per pixel promises too much of it.

    Parameters
    ----------
    noise : of the frame.
    notes : so far.
    samples : of its planes; the first one that is not empty is measured.
    planes : their number.
    """
    number = first_with_data(samples, planes)
    first = samples(number)
    factor = noise_correlation(first.pixels, first.mask, noise.variance_of_sample(first, number))
    notes += Notes(noise_correlation=f"{factor:.3f}")
    if factor <= CORRELATED:
        return noise, notes
    line = f"noise: neighbouring pixels are correlated (box scatter {factor:.2f} times quadrature); variance inflated"
    return replace(noise, correlation=factor), notes + Notes(line)


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

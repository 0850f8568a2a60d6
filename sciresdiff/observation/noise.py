"""The noise of a frame: what is given, what the file says, else what can be measured."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff import io
from sciresdiff.errors import InputError
from sciresdiff.frame import Frame
from sciresdiff.observation.options import Stated
from sciresdiff.observation.sample import Sample, Samples
from sciresdiff.physics.sky import estimate_sky

if TYPE_CHECKING:
    from sciresdiff.physics.detector import Detector

CORRELATED = 1.1
"""Noise correlation above which the variance is inflated and the user warned."""
PSF_DOUBT = {"--psf": 0.01, "header": 0.03, "measured": 0.03}
"""Relative error of a PSF by where it came from; a kernel that is given, or that ``degrade`` wrote, is exact."""


@dataclass(frozen=True)
class Noise:
    """What the variance of any window of a frame follows from, beside what the file says of that window."""

    detector: Detector | None = None
    """Its numbers, or maps of them; wins over the file's plane."""
    sky: tuple[float, ...] = ()
    """Variance of every plane's sky, where nothing else is known."""
    correlation: float = 1.0
    """Factor on the standard deviation."""
    doubt: float = 0.0
    """Share of the light above ``levels`` by which the PSF may be wrong."""
    levels: tuple[float, ...] = ()
    """Of every plane's sky."""

    def of(self, frame: Frame, plane: int, y0: int = 0, x0: int = 0) -> NDArray[np.float64]:
        """Variance (h, w) of a frame of one plane, the window of plane number ``plane`` that begins at (y0, x0)."""
        pixels = frame.pixels[0]
        if self.detector is not None:
            h, w = pixels.shape
            here = cut(self.detector, slice(y0, y0 + h), slice(x0, x0 + w))
            variance = np.asarray(here.variance(pixels), np.float64)
        elif self.sky:
            variance = np.broadcast_to(np.float64(self.sky[plane]), pixels.shape)
        else:
            assert frame.variance is not None
            variance = frame.variance[0].astype(np.float64)
        if self.correlation != 1:
            variance = variance * self.correlation**2
        return variance + (self.doubt * (pixels - np.float64(self.levels[plane]))) ** 2 if self.doubt else variance

    def over(self, sample: Sample, plane: int) -> NDArray[np.float64]:
        """Variance (h, w) of a sample."""
        if sample.whole:
            return self.of(sample.frame, plane)
        variance = np.empty(sample.pixels.shape)
        for window in sample.windows:
            part = window_of(sample.frame, window.at)
            variance[window.at] = self.of(part, plane, window.region.y0, window.region.x0)
        return variance


def window_of(frame: Frame, at: tuple[slice, slice]) -> Frame:
    """A part of a frame's pixels, mask and variance."""
    here = (slice(None), *at)
    noise = None if frame.variance is None else frame.variance[here]
    return frame.with_(pixels=frame.pixels[here], mask=frame.mask[here], variance=noise, saturated=None, dq=None)


def cut(detector: Detector, rows: slice, columns: slice) -> Detector:
    """The detector of a window: maps are cut, numbers hold everywhere."""
    known: dict[str, Any] = {f.name: getattr(detector, f.name) for f in fields(detector)}
    here: dict[str, Any] = {n: v[rows, columns] if isinstance(v, np.ndarray) else v for n, v in known.items()}
    return replace(detector, **here)


def noise_of(frame: Frame, samples: Samples, options: Stated, said: list[str], sources: dict[str, str]) -> Noise:
    """Where the variance of every pixel comes from.

    That of ``--variance``, else of ``--gain`` with a read noise, else of a plane of the file, else of the header's
    gain and read noise, else the scatter of the sky.

    Parameters
    ----------
    frame : what the file says; its values are not used.

    Raises
    ------
    InputError : nothing is known, and nothing can be measured.
    """
    given = frame.variance is not None
    if not given or (options.variance is None and options.gain is not None):
        detector = detector_of(frame, samples, options, said, sources)
        if detector is not None:
            return inflated(Noise(detector), samples, said, sources)
    if not given:
        return Noise(sky=sky_scatter(frame, samples, said, sources))
    sources["noise"] = "--variance" if options.variance else "file"
    return inflated(Noise(), samples, said, sources)


def variance_of(frame: Frame, noise: Noise) -> NDArray[np.float64]:
    """Variance of every pixel of a frame in memory, (planes, h, w)."""
    return np.stack([noise.of(plane, i) for i, plane in enumerate(frame)])


def detector_of(
    frame: Frame, samples: Samples, options: Stated, said: list[str], sources: dict[str, str]
) -> Detector | None:
    """Gain, read noise and offset: options, else the header, else what a camera frame's histogram shows."""
    from sciresdiff.physics.detector import Detector
    from sciresdiff.physics.photon_transfer import detector_from_photon_transfer

    found = {name: stated(frame, options, name) for name in ("gain", "read_noise", "offset")}
    known: dict[str, Any] = {name: x for name, x in found.items() if x is not None}
    detector = Detector(**known)
    sources["noise"] = "--gain" if options.gain else "header"
    if frame.kind == "micro" and frame.dtype.kind == "u" and "gain" not in known:
        first = samples(0)
        camera, lines = detector_from_photon_transfer(first.pixels, None if first.whole else first.mask)
        said.extend(lines)
        sources["noise"] = "histogram"
        return camera and replace(camera, **known)
    if not {"gain", "read_noise"} <= set(known):
        if options.gain is not None or options.read_noise is not None:
            said.append("noise: --gain and --read-noise say nothing without each other, and are not used")
        return None
    gain, read_noise, offset = (shown(x) for x in (detector.gain, detector.read_noise, detector.offset))
    said.append(f"noise: gain {gain} e/unit, read noise {read_noise} e, offset {offset}")
    return detector


def stated(frame: Frame, options: Stated, name: str) -> float | NDArray[np.float32] | None:
    """A number of the detector, or a map of it: the option, else the fact of that name in the file."""
    given: float | str | None = getattr(options, name)
    if isinstance(given, str):
        return detector_map(name, given, frame.pixels.shape[1:])
    return given if given is not None else frame.facts.get(name)


def detector_map(name: str, path: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A number of the detector for every pixel of a frame; **all of it is held, 4 bytes a pixel**.

    Raises
    ------
    InputError : it cannot be read, or has another shape.
    """
    image = io.read_image(path).astype(np.float32)
    if image.shape != shape:
        option = "--" + name.replace("_", "-")
        raise InputError(f"{option}: {path} has shape {image.shape}, but the frame has {shape}; give one that fits")
    return image


def shown(number: float | NDArray[Any]) -> str:
    """A number in four digits, or that it is a map."""
    return "(map)" if isinstance(number, np.ndarray) else f"{number:.4g}"


def sky_scatter(frame: Frame, samples: Samples, said: list[str], sources: dict[str, str]) -> tuple[float, ...]:
    """One variance for every pixel of a plane, measured on its sky.

    Raises
    ------
    InputError : a constant image, or one with too few valid pixels.
    """
    from sciresdiff.physics.sky import sky_noise

    sources["noise"] = "sky scatter"

    def noise_of_plane(sample: Sample) -> float:
        empty = frame.planes > 1 and sample.mask.all()  # of which nothing will be asked
        return 1.0 if empty else sky_noise(sample.pixels, sample.mask)

    sigma = np.array([noise_of_plane(samples(i)) for i in range(frame.planes)])
    for i in np.flatnonzero(~(sigma > 0)):
        where = f"plane {i}" if frame.planes > 1 else "the image"
        sample = samples(int(i))
        valid = sample.pixels[~sample.mask]
        why = "is constant" if valid.size and np.ptp(valid) == 0 else f"has too few valid pixels of sky ({valid.size})"
        raise InputError(f"variance: {where} {why}, its noise cannot be measured; give it, for instance by --variance")
    much = f"{sigma.min():.4g}" if frame.planes == 1 else f"{sigma.min():.4g} to {sigma.max():.4g}"
    said.append(f"noise: sky scatter {much} per pixel; photon noise of bright sources is not in it")
    return tuple(map(float, sigma**2))


def inflated(noise: Noise, samples: Samples, said: list[str], sources: dict[str, str]) -> Noise:
    """The variance times the measured correlation of the noise, where that is more than slight."""
    from sciresdiff.physics.sky import noise_correlation

    first = samples(0)
    factor = noise_correlation(first.pixels, first.mask, noise.over(first, 0))
    sources["noise_correlation"] = f"{factor:.3f}"
    if factor <= CORRELATED:
        return noise
    said.append(
        f"noise: neighbouring pixels are correlated (box scatter {factor:.2f} times quadrature); variance inflated"
    )
    return replace(noise, correlation=factor)


def doubted(noise: Noise, frame: Frame, samples: Samples, source: str, said: list[str]) -> Noise:
    """The noise and, squared, what an imperfectly known PSF may get wrong of the light above the sky.

    Without it bright cores, whose noise is small beside that error, force rings on their surroundings.
    """
    share = PSF_DOUBT.get(source, 0.0)
    if not share:
        return noise
    said.append(f"psf: taken as known to {100 * share:g} % of the light above the sky, which the variance now holds")
    levels = tuple(level_of(samples(i)) for i in range(frame.planes))
    return replace(noise, doubt=share, levels=levels)


def level_of(sample: Sample) -> float:
    """Of the sky; 0 where nothing is valid."""
    return 0.0 if sample.mask.all() else float(estimate_sky(sample.pixels, sample.mask)[0])

"""The noise of a frame: what is given, what the file says, else what can be measured."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff import io
from sciresdiff.errors import InputError
from sciresdiff.frame import Frame
from sciresdiff.jobs.options import UpscaleOptions

if TYPE_CHECKING:
    from sciresdiff.physics.detector import Detector

CORRELATED = 1.1
"""Noise correlation above which the variance is inflated and the user warned."""


def variance_of(frame: Frame, options: UpscaleOptions, said: list[str], sources: dict[str, str]) -> NDArray[np.float64]:
    """The variance of every pixel.

    That of ``--variance``, else of ``--gain`` with a read noise, else of a plane of the file, else of the header's
    gain and read noise, else the scatter of the sky.
    """
    plane = frame.variance
    if plane is None or (options.variance is None and options.gain is not None):
        detector = detector_of(frame, options, said, sources)
        if detector is not None:
            return inflated(frame, np.asarray(detector.variance(frame.pixels), np.float64), said, sources)
    if plane is None:
        return sky_scatter(frame, said, sources)
    sources["noise"] = "--variance" if options.variance else "file"
    return inflated(frame, plane.astype(np.float64), said, sources)


def detector_of(frame: Frame, options: UpscaleOptions, said: list[str], sources: dict[str, str]) -> Detector | None:
    """Gain, read noise and offset: options, else the header, else what a camera frame's histogram shows."""
    from sciresdiff.physics import measure
    from sciresdiff.physics.detector import Detector

    found = {name: stated(frame, options, name) for name in ("gain", "read_noise", "offset")}
    known: dict[str, Any] = {name: x for name, x in found.items() if x is not None}
    detector = Detector(**known)
    sources["noise"] = "--gain" if options.gain else "header"
    if frame.kind == "micro" and frame.dtype.kind == "u" and "gain" not in known:
        camera, lines = measure.camera_from_histogram(frame.pixels[0])
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


def stated(frame: Frame, options: UpscaleOptions, name: str) -> float | NDArray[np.float64] | None:
    """A number of the detector, or a map of it: the option, else the fact of that name in the file."""
    given: float | str | None = getattr(options, name)
    if isinstance(given, str):
        return detector_map(name, given, frame.pixels.shape[1:])
    return given if given is not None else frame.facts.get(name)


def detector_map(name: str, path: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """A number of the detector for every pixel of a frame.

    Raises
    ------
    InputError : it cannot be read, or has another shape.
    """
    image = io.read_image(path)
    if image.shape != shape:
        option = "--" + name.replace("_", "-")
        raise InputError(f"{option}: {path} has shape {image.shape}, but the frame has {shape}; give one that fits")
    return image


def shown(number: float | NDArray[Any]) -> str:
    """A number in four digits, or that it is a map."""
    return "(map)" if isinstance(number, np.ndarray) else f"{number:.4g}"


def sky_scatter(frame: Frame, said: list[str], sources: dict[str, str]) -> NDArray[np.float64]:
    """One variance for every pixel of a plane, measured on its sky.

    Raises
    ------
    InputError : a constant image, or one with too few valid pixels.
    """
    from sciresdiff.physics import measure

    sources["noise"] = "sky scatter"
    sigma = np.array([measure.sky_noise(plane.pixels[0], plane.mask[0]) for plane in frame])
    for i in np.flatnonzero(~(sigma > 0)):
        where = f"plane {i}" if frame.planes > 1 else "the image"
        valid = frame.pixels[i][~frame.mask[i]]
        why = "is constant" if valid.size and np.ptp(valid) == 0 else f"has too few valid pixels of sky ({valid.size})"
        raise InputError(f"variance: {where} {why}, its noise cannot be measured; give --variance or --gain")
    much = f"{sigma.min():.4g}" if frame.planes == 1 else f"{sigma.min():.4g} to {sigma.max():.4g}"
    said.append(f"noise: sky scatter {much} per pixel; photon noise of bright sources is not in it")
    return np.asarray(np.broadcast_to(sigma[:, None, None] ** 2, frame.pixels.shape))


def inflated(
    frame: Frame, variance: NDArray[np.float64], said: list[str], sources: dict[str, str]
) -> NDArray[np.float64]:
    """The variance times the measured correlation of the noise, where that is more than slight."""
    from sciresdiff.physics import measure

    factor = measure.noise_correlation(frame.pixels[0], frame.mask[0], variance[0])
    sources["noise_correlation"] = f"{factor:.3f}"
    if factor <= CORRELATED:
        return variance
    said.append(
        f"noise: neighbouring pixels are correlated (box scatter {factor:.2f} times quadrature); variance inflated"
    )
    return variance * factor**2

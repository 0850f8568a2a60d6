"""The noise of a frame: what is given, what the file says, else what can be measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sciresdiff.errors import InputError, UsageError
from sciresdiff.frame import Frame
from sciresdiff.jobs.options import UpscaleOptions

if TYPE_CHECKING:
    from sciresdiff.physics.detector import Detector

CORRELATED = 1.1
"""Noise correlation above which the variance is inflated and the user warned."""


def variance_of(frame: Frame, options: UpscaleOptions, said: list[str], sources: dict[str, str]) -> NDArray[np.float32]:
    """The variance of every pixel: option, plane of the file, gain and read noise, else the scatter of the sky."""
    if frame.variance is not None and options.gain is None:
        sources["noise"] = "--variance" if options.variance else "file"
        return inflated(frame, frame.variance, said, sources)
    detector = detector_of(frame, options, said, sources)
    if detector is None:
        return sky_scatter(frame, said, sources)
    return inflated(frame, np.asarray(detector.variance(frame.pixels), dtype=np.float32), said, sources)


def detector_of(frame: Frame, options: UpscaleOptions, said: list[str], sources: dict[str, str]) -> Detector | None:
    """Gain, read noise and offset: options, else the header, else what a camera frame's histogram shows."""
    from sciresdiff.physics import measure
    from sciresdiff.physics.detector import Detector

    known = {name: options_or_fact(frame, options, name) for name in ("gain", "read_noise", "offset")}
    if (gain := known["gain"]) is not None and gain <= 0:
        raise UsageError(f"--gain {gain}: must be above zero (electrons per unit of the file)")
    if (read_noise := known["read_noise"]) is not None and read_noise < 0:
        raise UsageError(f"--read-noise {read_noise}: must not be negative (electrons)")
    sources["noise"] = "--gain" if options.gain else "header"
    if frame.kind == "micro" and frame.dtype.kind == "u" and gain is None:
        camera, lines = measure.camera_from_histogram(frame.pixels[0])
        said.extend(lines)
        sources["noise"] = "histogram"
        return camera
    if gain is None or read_noise is None:
        return None
    offset = known["offset"] or 0.0
    said.append(f"noise: gain {gain:.4g} e/unit, read noise {read_noise:.4g} e, offset {offset:.4g}")
    return Detector(gain=gain, read_noise=read_noise, offset=offset)


def options_or_fact(frame: Frame, options: UpscaleOptions, name: str) -> float | None:
    """An option, else the fact of that name in the file."""
    given: float | None = getattr(options, name)
    return given if given is not None else frame.facts.get(name)


def sky_scatter(frame: Frame, said: list[str], sources: dict[str, str]) -> NDArray[np.float32]:
    """One variance for every pixel of a plane, measured on its sky.

    Raises
    ------
    InputError : a constant image.
    """
    from sciresdiff.physics import measure

    sources["noise"] = "sky scatter"
    planes = []
    for plane in frame:
        sigma = measure.sky_noise(plane.pixels[0], plane.mask[0])
        if not sigma > 0:
            raise InputError("variance: the image is constant, its noise cannot be measured; give --variance or --gain")
        planes.append(np.full(plane.pixels[0].shape, sigma**2, dtype=np.float32))
        said.append(f"noise: sky scatter {sigma:.4g} per pixel; photon noise of bright sources is not in it")
    return np.stack(planes)


def inflated(
    frame: Frame, variance: NDArray[np.float32], said: list[str], sources: dict[str, str]
) -> NDArray[np.float32]:
    """The variance times the measured correlation of the noise, where that is more than slight."""
    from sciresdiff.physics import measure

    factor = measure.noise_correlation(frame.pixels[0], frame.mask[0], variance[0])
    sources["noise_correlation"] = f"{factor:.3f}"
    if factor <= CORRELATED:
        return variance
    said.append(
        f"noise: neighbouring pixels are correlated (box scatter {factor:.2f} times quadrature); variance inflated"
    )
    return variance * np.float32(factor**2)

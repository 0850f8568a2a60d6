"""The noise of a frame: what is stated, what the file says where the frame bears it out, else what can be measured.

Order of belief: ``--variance``, ``--gain`` with ``--read-noise``, a variance-like plane of the file, gain and read
noise of its header, photon transfer of a camera's frame, the scatter of the sky. Every model is held against the
scatter of the frame: outside `BELIEVED` a header is not believed, and what the user states or a plane is warned of.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sciresdiff.frame import Frame
from sciresdiff.notes import Notes
from sciresdiff.observation.camera import FEW_PLANES, Given, channels, given_detector, measure_detectors, spread
from sciresdiff.observation.noise import Noise
from sciresdiff.observation.options import Stated
from sciresdiff.observation.sample import Sample, Samples
from sciresdiff.physics.detector import Detector
from sciresdiff.physics.sky import NoiseScatter, background_map, estimate_sky, noise_scatter

BELIEVED = 0.7, 1.4
"""Scatter of the frame over the stated noise, between which a header is believed and a statement not warned of."""
CORRELATED = 1.1
"""Noise correlation above which the variance is inflated."""


@dataclass(frozen=True)
class Contradiction:
    """A frame that scatters otherwise than a noise model says."""

    ratio: float
    """Scatter of the frame over that of the model."""

    @classmethod
    def of(cls, scatter: NoiseScatter) -> Contradiction | None:
        """Of a frame in units of the model's noise; None where it bears the model out, or cannot tell.

        Structure makes the scatter of the sky larger and correlation that of the differences smaller, so that the
        smaller of the two speaks against a noise that is stated too small, and the larger against one too large.
        """
        low, high = BELIEVED
        if scatter.least > high:
            return cls(scatter.least)
        return cls(scatter.most) if scatter.most < low else None


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
    given, notes = None, Notes()
    if frame.variance is None or (stated.variance is None and stated.gain is not None):
        given, notes = given_detector(frame, stated)
    if frame.variance is not None and given is None:
        noise, notes = Noise(), notes + Notes(noise="--variance" if stated.variance else "file")
        what = f"--variance {stated.variance}" if stated.variance else "the file's plane"
        checked = measure_scatter(noise, frame, samples)
        notes += warn_of_contradiction(checked, what)
    elif given is not None and given.origin == "--gain":
        noise, notes = Noise((given.detector,)), notes + Notes(noise="--gain")
        checked = measure_scatter(noise, frame, samples)
        notes += warn_of_contradiction(checked, "--gain and --read-noise")
    elif given is not None:
        noise, notes, checked = verify_header(given, notes, frame, samples)
    else:
        detectors, more = measure_detectors(frame, samples, stated)
        noise, notes = Noise(detectors), notes + more
        checked = measure_scatter(noise, frame, samples)
    return inflate(noise, notes, frame, checked, stated)


def checked_planes(frame: Frame) -> list[int]:
    """The planes on which a noise model is held against the frame: all of a few, else some of every channel."""
    if frame.planes <= FEW_PLANES:
        return list(range(frame.planes))
    some = [plane for planes in channels(frame).values() for plane in spread(planes)]
    return some if len(some) <= 4 * FEW_PLANES else spread(some)


def measure_scatter(noise: Noise, frame: Frame, samples: Samples) -> dict[int, NoiseScatter]:
    """Scatter of a frame in units of its noise, of the planes that are checked and have a valid pixel.

    Returns
    -------
    Number of a plane -> its scatter.
    """
    found = {}
    for plane in checked_planes(frame):
        sample = samples(plane)
        variance = noise.variance_of_sample(sample, plane)
        bad = sample.mask | ~np.isfinite(sample.pixels) | ~(variance > 0) | ~np.isfinite(variance)
        if bad.all():
            continue
        level = background_map(sample.pixels, bad)
        units = np.where(bad, 0, (sample.pixels - level) / np.sqrt(np.where(bad, 1, variance)))
        found[plane] = noise_scatter(units, bad, known=True)
    return found


def warn_of_contradiction(checked: dict[int, NoiseScatter], what: str) -> Notes:
    """Warn of stated noise that a frame's own scatter contradicts.

    Parameters
    ----------
    checked : scatter of its planes in units of that noise.
    what : who states it, for the line.
    """
    found = {plane: wrong for plane, scatter in checked.items() if (wrong := Contradiction.of(scatter))}
    if not found:
        return Notes()
    plane, worst = max(found.items(), key=lambda item: abs(np.log(item[1].ratio)))
    where = f", plane {plane}" if len(checked) > 1 else ""
    size = "too small" if worst.ratio > 1 else "too large"
    return Notes(
        f"WARNING noise: {what} makes it {size}: the frame's pixels scatter {worst.ratio:.3g} times as much{where}; "
        "it is used as stated"
    )


def verify_header(
    given: Given, notes: Notes, frame: Frame, samples: Samples
) -> tuple[Noise, Notes, dict[int, NoiseScatter]]:
    """The header's gain and read noise where the frame bears them out; else brought to the frame's own scatter.

    Parameters
    ----------
    given : of the header.
    notes : on that.
    frame, samples : as for `resolve_noise`.
    """
    noise = Noise((given.detector,))
    checked = measure_scatter(noise, frame, samples)
    wrong = {plane: found for plane, scatter in checked.items() if (found := Contradiction.of(scatter))}
    if not wrong:
        return noise, notes + Notes(noise="header"), checked
    middle = float(np.median([found.ratio for found in wrong.values()]))
    detectors = []
    for plane in range(frame.planes):
        is_wrong = plane in wrong or plane not in checked
        detectors.append(correct_detector(given.detector, samples(plane)) if is_wrong else given.detector)
    why = "sky subtracted, or another unit?" if middle > 1 else "averaged frames, or another unit?"
    line = (
        f"noise: not by GAIN and read noise of the header, as the frame's sky scatters {middle:.3g} times as much "
        f"({why}); its own scatter is used"
    )
    noise = Noise(tuple(detectors))
    return noise, Notes(line, noise="sky scatter"), measure_scatter(noise, frame, samples)


def correct_detector(detector: Detector, sample: Sample) -> Detector:
    """The detector whose noise in the sky is that of the frame.

    A frame that scatters less is an average or has another unit: gain and read noise become those of that, N r^2. One
    that scatters more lacks light that was taken off it: the sky's scatter takes the place of the read noise, and the
    gain is that of the light above the sky, or less where the sky itself tells so.

    Parameters
    ----------
    detector : of the header.
    sample : of the plane.
    """
    if sample.mask.all():
        return detector
    level, _ = estimate_sky(sample.pixels, sample.mask)
    variance = noise_scatter(sample.pixels, sample.mask).least ** 2
    ratio = float(np.sqrt(variance / np.median(detector.variance(np.array(level)))))
    if not ratio > 0:
        return detector
    if ratio < 1:
        return replace(detector, gain=detector.gain / ratio**2, read_noise=detector.read_noise / ratio)
    above = level - float(np.median(detector.offset))
    gain = float(np.median(detector.gain))
    if above > 5 * np.sqrt(variance):  # a sky that is there: photons alone make its scatter, at most
        gain = min(gain, above / variance)
    return replace(detector, gain=gain, read_noise=gain * float(np.sqrt(variance)), offset=level)


def inflate(
    noise: Noise, notes: Notes, frame: Frame, checked: dict[int, NoiseScatter], stated: Stated
) -> tuple[Noise, Notes]:
    """The noise times its correlation, where that is stated, or measured in empty sky and more than slight.

    Resampled and filtered frames have noise that neighbours share: the scatter of a sum over b x b pixels is then more
    than b times that of a pixel, and a variance per pixel promises too much of it.

    Parameters
    ----------
    noise : of the frame.
    notes : so far.
    frame : what the file says.
    checked : scatter of its planes in units of the noise.
    stated : ``noise``.
    """
    if stated.noise == "white":
        return noise, notes + Notes("noise: white, as --noise says", noise_correlation="1")
    if stated.noise not in (None, "measured"):
        factor = float(stated.noise)
        line = f"noise: its scatter taken {factor:g} times, as --noise says"
        return replace(noise, correlation=(factor,)), notes + Notes(line, noise_correlation=f"{factor:.3f}")
    found = {plane: scatter.inflation for plane, scatter in checked.items()}
    factor = float(np.median([*found.values()])) if found else 1.0
    notes += Notes(noise_correlation=f"{factor:.3f}")
    each = tuple(factors_of_planes(frame, found))
    if max(each, default=1.0) <= CORRELATED:
        return noise, notes
    low, high = min(each), max(each)
    much = f"{high:.2f}" if high - low < 0.005 else f"{low:.2f} to {high:.2f}"
    line = f"noise: neighbouring pixels are correlated (box scatter {much} times quadrature); variance inflated"
    return replace(noise, correlation=each), notes + Notes(line)


def factors_of_planes(frame: Frame, found: dict[int, float]) -> list[float]:
    """The correlation of every plane: its own where measured, else the middle one of its channel; 1 if slight."""
    factors = []
    for planes in channels(frame).values():
        near = [found[plane] for plane in planes if plane in found] or [1.0]
        middle = float(np.median(near))
        factors += [(plane, found.get(plane, middle)) for plane in planes]
    return [factor if factor > CORRELATED else 1.0 for _, factor in sorted(factors)]

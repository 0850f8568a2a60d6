"""The detectors that a frame was taken with: stated, of its header, or measured on every plane."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff import io
from sciresdiff.errors import InputError
from sciresdiff.frame import Frame
from sciresdiff.notes import Notes
from sciresdiff.observation.options import Stated
from sciresdiff.observation.sample import Sample, Samples
from sciresdiff.physics.detector import Detector, excess_of_multiplication
from sciresdiff.physics.photon_transfer import detector_from_photon_transfer
from sciresdiff.physics.sky import sky_noise

FEW_PLANES = 16
"""Planes that are each measured; of more, `SPREAD` of every channel are, and all of them where these disagree."""
SPREAD = 5
AGREE = 1.3
"""Gains of one channel's planes differ by less than this factor."""


@dataclass(frozen=True)
class Given:
    """What somebody says of the detector."""

    detector: Detector
    origin: str
    """``--gain`` or ``header``."""


def given_detector(frame: Frame, stated: Stated) -> tuple[Given | None, Notes]:
    """Gain, read noise and offset as they are stated, else as the header has them.

    Returns
    -------
    None where gain or read noise stay unknown, and the notes.
    """
    found = {name: detector_value(frame, stated, name) for name in ("gain", "read_noise", "offset")}
    known: dict[str, Any] = {name: x for name, x in found.items() if x is not None}
    asked = stated.gain is not None or stated.read_noise is not None
    if not {"gain", "read_noise"} <= set(known):
        alone = Notes("noise: --gain and --read-noise say nothing without each other, and are not used")
        return None, alone if asked and not _is_camera_frame(frame, stated) else Notes()
    gain, read_noise, offset = (format_value(known.get(name, 0.0)) for name in ("gain", "read_noise", "offset"))
    detector, notes = Detector(**known), Notes(f"noise: gain {gain} e/unit, read noise {read_noise} e, offset {offset}")
    if stated.em_gain is not None:
        detector = multiplied(detector, stated.em_gain)
        notes += Notes(f"noise: behind a gain of {stated.em_gain:g} in the multiplier, excess {detector.excess:.2f}")
    return Given(detector, "--gain" if asked else "header"), notes


def multiplied(detector: Detector, em_gain: float) -> Detector:
    """The detector behind an electron multiplier: gain and read noise in electrons of the image, and the excess.

    Parameters
    ----------
    detector : of the camera as its data sheet has it, without multiplication.
    em_gain : mean multiplication, 1 or more.
    """
    return replace(
        detector,
        gain=detector.gain / em_gain,
        read_noise=detector.read_noise / em_gain,
        excess=excess_of_multiplication(em_gain),
    )


def _is_camera_frame(frame: Frame, stated: Stated) -> bool:
    """Whether the noise may be measured by photon transfer: a microscope's frame whose gain nobody states."""
    return frame.kind == "micro" and stated.gain is None and "gain" not in frame.facts


def measure_detectors(frame: Frame, samples: Samples, stated: Stated) -> tuple[tuple[Detector, ...], Notes]:
    """The detector of every plane, measured: by photon transfer, else by the scatter of its sky.

    Parameters
    ----------
    frame : what the file says.
    samples : of its planes.
    stated : offset and read noise win over measured ones.

    Raises
    ------
    InputError : a constant image, or one with too few valid pixels.
    """
    found: list[Detector | None] = [None] * frame.planes
    notes = Notes()
    if _is_camera_frame(frame, stated):
        names = {n: detector_value(frame, stated, n) for n in ("read_noise", "offset")}
        known: dict[str, Any] = {name: x for name, x in names.items() if x is not None}
        cameras, notes = photon_transfer_of_planes(frame, samples)
        found = [None if camera is None else replace(camera, **known) for camera in cameras]
    missing = [i for i, camera in enumerate(found) if camera is None]
    if missing:
        scatter, more = measure_sky(frame, samples, missing)
        notes += more
        for i, sigma in zip(missing, scatter, strict=True):
            found[i] = Detector(read_noise=sigma, photons=False)
    by = "sky scatter" if len(missing) == frame.planes else "histogram"
    return tuple(camera for camera in found if camera is not None), notes + Notes(noise=by)


def photon_transfer_of_planes(frame: Frame, samples: Samples) -> tuple[list[Detector | None], Notes]:
    """Gain, read noise and offset of every plane by photon transfer; planes of one channel share what they agree on.

    Returns
    -------
    One detector a plane, None where there is no slope; and what was found, a line for each channel.
    """

    def measure(chosen: list[int]) -> dict[int, tuple[Detector | None, Notes]]:
        there = ((plane, samples(plane)) for plane in chosen)
        return {i: detector_from_photon_transfer(s.pixels, s.mask) for i, s in there if not s.mask.all()}

    found: list[Detector | None] = [None] * frame.planes
    notes, several = Notes(), len(channels(frame)) > 1
    for name, planes in channels(frame).items():
        some = planes if frame.planes <= FEW_PLANES else spread(planes)
        each = measure(some)
        pooled = pool([camera for camera, _ in each.values()])
        if pooled is None and len(some) < len(planes):
            each = measure(planes)
        for plane in planes:
            found[plane] = pooled or each.get(plane, (None, Notes()))[0]
        # The lines of one plane stand for all of the channel.
        lines = [lines for camera, lines in each.values() if camera is not None] or [
            lines for _, lines in each.values()
        ]
        first = lines[0] if lines else Notes()
        notes += Notes(*(f"{name}: {line}" if several else line for line in first))
    return found, notes


def channels(frame: Frame) -> dict[str, list[int]]:
    """Planes by their channel: those that differ in time and depth alone were taken with one detector setting.

    Returns
    -------
    ``channel 0`` ... -> numbers of its planes. Planes along axes of an unknown kind are channels of their own.
    """
    letters = [(axis, n) for axis, n in zip(frame.axes, frame.shape, strict=False) if axis not in "YX"]
    lengths = tuple(n for _, n in letters)
    if int(np.prod(lengths)) != frame.planes:
        return {f"plane {i}": [i] for i in range(frame.planes)}
    found: dict[str, list[int]] = {}
    for plane in range(frame.planes):
        place = np.unravel_index(plane, lengths) if lengths else ()
        key = [int(i) for (axis, _), i in zip(letters, place, strict=True) if axis not in "TZ"]
        found.setdefault("channel " + " ".join(map(str, key)), []).append(plane)
    return found


def spread(planes: list[int]) -> list[int]:
    """At most `SPREAD` of the planes, evenly spread."""
    return sorted({planes[round(i)] for i in np.linspace(0, len(planes) - 1, SPREAD)})


def pool(cameras: list[Detector | None]) -> Detector | None:
    """The detector with the middle gain, where all gains agree; None where they do not, or one is not known."""
    known = sorted((c for c in cameras if c is not None), key=lambda camera: float(camera.gain))  # type: ignore[arg-type]
    if not known or len(known) < len(cameras) or not known[-1].gain < AGREE * known[0].gain:  # type: ignore[operator]
        return None
    return known[len(known) // 2]


def measure_sky(frame: Frame, samples: Samples, planes: list[int]) -> tuple[list[float], Notes]:
    """Scatter of the sky of some planes; **photon noise of sources is not in it**.

    Raises
    ------
    InputError : a constant image, or one with too few valid pixels.
    """

    def measure(sample: Sample) -> float:
        empty = frame.planes > 1 and sample.mask.all()  # nothing will be asked of such a plane
        return 1.0 if empty else sky_noise(sample.pixels, sample.mask)

    sigma = [measure(samples(i)) for i in planes]
    for plane in (p for p, s in zip(planes, sigma, strict=True) if not s > 0):
        where = f"plane {plane}" if frame.planes > 1 else "the image"
        sample = samples(plane)
        valid = sample.pixels[~sample.mask]
        why = "is constant" if valid.size and np.ptp(valid) == 0 else f"has too few valid pixels of sky ({valid.size})"
        raise InputError(f"variance: {where} {why}, its noise cannot be measured; give it, for instance by --variance")
    much = f"{sigma[0]:.4g}" if len(sigma) == 1 else f"{min(sigma):.4g} to {max(sigma):.4g}"
    which = "" if len(planes) in (1, frame.planes) else f" of {len(planes)} planes"
    return sigma, Notes(f"noise: sky scatter{which} {much} per pixel; photon noise of bright sources is not in it")


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

"""The PSF of a microscope's channels, from its objective and their wavelengths, by metadata or options."""

from __future__ import annotations

import numpy as np

from sciresdiff.errors import UsageError
from sciresdiff.frame import Frame
from sciresdiff.notes import Notes
from sciresdiff.observation.options import Stated


def channel_of_planes(frame: Frame) -> list[int]:
    """The channel (index on the axis C, else 0) of every plane."""
    if "C" not in frame.axes[:-2] or len(frame.axes) != len(frame.shape):
        return [0] * frame.planes
    lead = [n for axis, n in zip(frame.axes, frame.shape, strict=True) if axis not in "YX"]
    at = [axis for axis in frame.axes if axis not in "YX"].index("C")
    return [int(i) for i in np.indices(lead)[at].ravel()]


def parse_wavelengths(text: str | None, channels: int) -> list[float]:
    """The emission wavelengths of ``--wavelength``, nm, one for each channel; empty where none is stated.

    Raises
    ------
    UsageError
        No numbers of nm, or another number of them than there are channels.
    """
    if text is None:
        return []
    try:
        found = [float(word.strip().removesuffix("nm")) for word in str(text).split(",")]
    except ValueError:
        found = [0.0]
    if not all(100 <= one <= 20000 for one in found):
        raise UsageError(f"--wavelength: {text} is given, but nm from 100 to 20000 are needed, as 525 or 525,610")
    if len(found) not in (1, channels):
        raise UsageError(f"--wavelength: {len(found)} are given for {channels} channels; give one, or one for each")
    return found * channels if len(found) == 1 else found


def optics_of(frame: Frame, stated: Stated) -> tuple[list[str] | None, Notes]:
    """The PSF of every plane as a SPEC, from numerical aperture and emission wavelength.

    A channel without a wavelength takes that of the channel before it, or of the first that has one, with a warning.

    Parameters
    ----------
    frame : Frame
        What the file says.
    stated : Stated
        ``na``, ``ri``, ``wavelength`` and ``pinhole`` win over the file.

    Returns
    -------
    specs : list of str, one for each plane, or None
        None where aperture or wavelength are not known.
    notes : Notes

    Raises
    ------
    UsageError
        Options that do not fit the frame, or that say nothing without others.
    """
    of_plane, facts = channel_of_planes(frame), frame.facts
    channels = max(of_plane) + 1
    given = {"--na": stated.na, "--ri": stated.ri, "--wavelength": stated.wavelength, "--pinhole": stated.pinhole}
    named = [name for name, value in given.items() if value is not None]
    na = stated.na or facts.get("na")
    keys = ["wavelength" if i == 0 else f"wavelength_{i}" for i in range(channels)]
    waves = parse_wavelengths(stated.wavelength, channels) or [facts.get(key, 0.0) for key in keys]
    if na is None or not any(waves):
        if named:
            missing = "--na" if na is None else "--wavelength"
            raise UsageError(f"{named[0]}: says nothing without {missing}, which the file does not state; give it too")
        return None, Notes()
    waves, notes = _fill(waves)
    index, more = _index(na, stated, facts.get("refractive_index"))
    excitations = [facts.get(key.replace("wavelength", "excitation"), 0.0) for key in keys]
    specs = [_spec(na, wave, index, stated.pinhole, ex) for wave, ex in zip(waves, excitations, strict=True)]
    return [specs[i] for i in of_plane], notes + more


def _fill(waves: list[float]) -> tuple[list[float], Notes]:
    """Wavelengths with those that are missing taken from a neighbour."""
    if all(waves):
        return waves, Notes()
    known = [i for i, wave in enumerate(waves) if wave]
    filled = [wave or waves[max((k for k in known if k < i), default=known[0])] for i, wave in enumerate(waves)]
    lines = [
        f"WARNING psf: channel {i} has no emission wavelength; {filled[i]:g} nm is taken, give --wavelength"
        for i, wave in enumerate(waves)
        if not wave
    ]
    return filled, Notes(*lines)


def _index(na: float, stated: Stated, of_file: float | None) -> tuple[float | None, Notes]:
    """Refractive index of the immersion; None for the Airy pattern.

    Raises
    ------
    UsageError
        A stated index that is not above the aperture.
    """
    if stated.ri is not None:
        if stated.ri <= na:
            raise UsageError(
                f"--ri: {stated.ri:g} is not above the numerical aperture {na:g}; give that of the immersion"
            )
        return stated.ri, Notes()
    if of_file is not None and not na < of_file <= 2:
        return None, Notes(f"psf: the file's refractive index {of_file:g} does not go with NA {na:g}, and is not used")
    if of_file is None and stated.pinhole is not None:
        raise UsageError("--pinhole: needs the refractive index of the immersion; give --ri")
    return of_file, Notes()


def _spec(na: float, wave: float, index: float | None, pinhole: float | None, excitation: float) -> str:
    """The SPEC of one channel."""
    if index is None:
        return f"airy:na={na:g},wavelength={wave:g}nm"
    confocal = "" if pinhole is None else f",pinhole={pinhole:g}"
    if confocal and 0 < excitation <= wave:
        confocal += f",excitation={excitation:g}nm"
    return f"vectorial:na={na:g},ri={index:g},wavelength={wave:g}nm{confocal}"

"""FITS: the noise, flags, saturation and kernel that belong to an image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from sciresdiff.errors import InputError
from sciresdiff.frame import Frame
from sciresdiff.io import wcs
from sciresdiff.io.files import split_spec
from sciresdiff.io.fits_open import Source, choose, find, is_image, label, opened, pixels_of, role_of
from sciresdiff.io.planes import DQ_PLANES, NOISE_PLANES, RELATIVE, flagged, settled, siblings, to_variance

Array = NDArray[Any]


def with_planes(frame: Frame, source: Source, variance: str | None, mask: str | None) -> tuple[Frame, set[int]]:
    """Add noise, flags and saturation; also which HDUs were used for that."""
    used = {source.index}
    frame = _flags(frame, source, mask, used)
    frame = _noise(frame, source, variance, used)
    return _kernel(_saturation(frame, source), source, used), used


def _companions(source: Source, names: Sequence[str]) -> list[int]:
    """HDUs of the image's group that bear one of the names, in the order of the names; empty planes are left out."""
    version = source.image.ver
    found = [
        (names.index(role_of(hdu)), i)
        for i, hdu in enumerate(source.hdus)
        if i != source.index and is_image(hdu) and role_of(hdu) in names and hdu.ver == version
    ]
    return [i for _, i in sorted(found)]


def _fitted(frame: Frame, data: Array | None) -> Array | None:
    """A plane in the frame's shape, one plane serving all; None where it does not fit."""
    if data is None or data.shape[-2:] != frame.pixels.shape[1:]:
        return None
    stack = data.reshape(-1, *data.shape[-2:])
    return np.broadcast_to(stack, frame.pixels.shape) if len(stack) in (1, frame.planes) else None


def _flags(frame: Frame, source: Source, spec: str | None, used: set[int]) -> Frame:
    """Mask from the option, else from a quality plane of the file or its triplet."""
    found = _asked(source, spec, used) if spec is not None else _own_flags(source, used)
    if found is None:
        return frame
    name, data, header, simple = found
    plane = _fitted(frame, data)
    if plane is None:
        if spec is not None:
            raise InputError(f"{source.path}: mask {spec} has shape {data.shape}, the image {frame.shape}")
        return frame.say(f"{name}: shape {data.shape} does not fit the image; not used")
    if simple or plane.dtype.kind not in "iu":
        return frame.with_(mask=frame.mask | (np.nan_to_num(plane, nan=1.0) != 0))
    dq = plane.astype(np.int64).astype(np.int32)
    bad, saturated, rule = flagged(dq, source.headers, header)
    frame = frame.with_(mask=frame.mask | bad | saturated, dq=dq, saturated=saturated)
    return frame.say(f"mask: {name}, {rule}; {100 * float((bad | saturated).mean()):.2g} % of the pixels")


def _own_flags(source: Source, used: set[int]) -> tuple[str, Array, fits.Header, bool] | None:
    for i in _companions(source, DQ_PLANES):
        used.add(i)
        return label(source.hdus, i), np.asarray(source.hdus[i].data), source.hdus[i].header, False
    if other := siblings(source.path).get("ood"):
        data, header, _ = _from_file(source, other, None)
        return other.name, data, header, False
    return None


def _from_file(source: Source, path: Path, ext: str | None) -> tuple[Array, fits.Header, str]:
    """An image of another file: the extension asked for, else the one named like ours, else its own choice."""
    with opened(path) as hdus:
        same = [i for i, hdu in enumerate(hdus) if is_image(hdu) and hdu.name == source.image.name]
        index = choose(path, hdus, ext)[0] if ext or not same else same[0]
        data = pixels_of(Source(path, hdus, index))
        return np.array(data), hdus[index].header.copy(), str(hdus[index].name)


def _asked(source: Source, spec: str, used: set[int]) -> tuple[str, Array, fits.Header, bool]:
    """A plane that the user named: a file, a file's extension, or an extension of this file."""
    file, inside = split_spec(spec)
    if file.is_file():
        if file.suffix.lower() in (".fits", ".fit", ".fts", ".fz", ".gz"):
            data, header, name = _from_file(source, file, inside)
            return f"{file.name}[{name}]", data, header, True
        from sciresdiff.io import read_image as read_any

        return file.name, read_any(spec), fits.Header(), True
    if inside is not None or file.suffix:
        raise InputError(f"{file}: no such file, nor an extension of {source.path}")
    index = find(source.path, source.hdus, spec)
    used.add(index)
    hdu = source.hdus[index]
    return label(source.hdus, index), np.asarray(hdu.data), hdu.header, role_of(hdu) not in DQ_PLANES


def _noise(frame: Frame, source: Source, spec: str | None, used: set[int]) -> Frame:
    """Variance from the option, else from a noise plane of the file or its triplet."""
    if spec is not None:
        return _asked_noise(frame, source, spec, used)
    for i in _companions(source, tuple(NOISE_PLANES)):
        hdu = source.hdus[i]
        plane = _fitted(frame, np.asarray(hdu.data))
        if plane is None:
            frame = frame.say(f"{label(source.hdus, i)}: shape {hdu.shape} does not fit the image; not used")
            continue
        used.add(i)
        var, said = _absolute(frame, role_of(hdu), NOISE_PLANES[role_of(hdu)](plane))
        return settled(frame, var).say(f"noise: plane {label(source.hdus, i)}", *said)
    if other := siblings(source.path).get("oow"):
        data, _, _ = _from_file(source, other, None)
        if (plane := _fitted(frame, data)) is not None:
            return settled(frame, NOISE_PLANES["WEIGHT"](plane)).say(f"noise: 1/weight of {other.name}")
    return frame


def _asked_noise(frame: Frame, source: Source, spec: str, used: set[int]) -> Frame:
    name, data, header, _ = _asked(source, spec, used)
    plane = _fitted(frame, data)
    if plane is None:
        raise InputError(f"{source.path}: variance {spec} has shape {data.shape}, the image {frame.shape}")
    role = str(wcs.value(header, "EXTTYPE", "") or wcs.value(header, "EXTNAME", "") or "")
    file = split_spec(spec)[0]
    return settled(frame, to_variance(plane, role, file.name if file.is_file() else name)).say(f"noise: {name}")


def _absolute(frame: Frame, role: str, var: Array) -> tuple[Array, list[str]]:
    """Weights in a unit of their own (exposure time, say) are brought to the noise between neighbouring pixels."""
    steps = np.diff(frame.pixels, axis=2)[~(frame.mask[..., 1:] | frame.mask[..., :-1])]
    seen = np.median(np.abs(steps)) ** 2 * 1.0990 if steps.size else 0.0  # MAD of a difference of two Gaussians
    stated = np.nanmedian(var) if np.isfinite(var).any() else 0.0
    if role not in RELATIVE or not (seen > 0 and stated > 0) or 1 / 30 < stated / seen < 30:
        return var, []
    return var * (seen / stated), [f"noise: {role} is no inverse variance; scaled to the scatter of neighbours"]


def _saturation(frame: Frame, source: Source) -> Frame:
    """Flag pixels at the header's saturation level, unless the level is plainly in another unit."""
    level = frame.facts.get("saturation")
    flags = np.zeros(frame.mask.shape, bool) if frame.saturated is None else frame.saturated
    if level is not None:
        with np.errstate(invalid="ignore"):
            full = frame.pixels >= level
        if full.mean() > 0.5:
            facts = {key: x for key, x in frame.facts.items() if key != "saturation"}
            return frame.with_(facts=facts).say(f"saturation: half of the pixels are above {level:g}; not used")
        flags = flags | full
        if full.any():
            frame = frame.say(f"saturation: {int(full.sum())} pixels at or above the header's {level:g}, masked")
    known = level is not None or frame.saturated is not None
    return frame.with_(saturated=flags if known else None, mask=frame.mask | flags)


def _kernel(frame: Frame, source: Source, used: set[int]) -> Frame:
    """The blur that ``degrade`` wrote: an image, or a SPEC in SRDKERN."""
    scale = next((x for h in source.headers if (x := wcs.number(h, "SRDKSCAL"))), None)
    if scale is None:
        return frame
    spec = next((x for h in source.headers if (x := wcs.value(h, "SRDKERN"))), "none")
    kernel: Any = str(spec)
    for i in _companions(source, ("KERNEL",)):
        used.add(i)
        kernel = np.asarray(source.hdus[i].data).astype(np.float64)
    return frame.with_(kernel=kernel, kernel_scale=round(scale))

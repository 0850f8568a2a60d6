"""FITS: the noise, flags, saturation and kernel that belong to an image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.errors import InputError
from sciresdiff.frame import Frame
from sciresdiff.io import planes as rules
from sciresdiff.io.beside import siblings
from sciresdiff.io.files import split_spec
from sciresdiff.io.fits import wcs
from sciresdiff.io.fits.layer import Layer, in_memory, layer
from sciresdiff.io.fits.open import Chosen, choose, find, is_image, opened, role_of
from sciresdiff.io.fits.parts import Flags, Noise, Parts, Place, framed, variance_of, window_of
from sciresdiff.io.planes import (
    DQ_PLANES,
    NOISE_PLANES,
    RELATIVE,
    STATED,
    flagged,
    stated,
    to_variance,
)

Array = NDArray[Any]


def with_planes(
    frame: Frame, chosen: Chosen, variance: str | None, mask: str | None, stack: ExitStack
) -> tuple[Frame, Parts, set[int]]:
    """Find noise, flags and saturation; also which HDUs are used for that.

    Parameters
    ----------
    frame : Frame
        Without values.
    chosen : Chosen
        The image.
    variance, mask : str or None
        As for ``read``.
    stack : ExitStack
        Holds the files that are opened for it.
    """
    used = {chosen.index}
    parts = Parts(layer(chosen.file, chosen.index))
    frame, parts = _flags(frame, chosen, parts, mask, used, stack)
    frame, parts = _noise(frame, chosen, parts, variance, used, stack)
    frame, parts = _saturation(frame, parts)
    return _kernel(frame, chosen, used), parts, used


def seen(frame: Frame, parts: Parts) -> Iterator[Frame]:
    """What the frame is like: all of it, or windows of a large one."""
    return (framed(frame, parts, place) for place in _places(frame))


def _companions(chosen: Chosen, names: Sequence[str]) -> list[int]:
    """HDUs of the image's group that bear one of the names, in the order of the names; empty planes are left out."""
    version = chosen.image.ver
    found = [
        (names.index(role_of(hdu)), i)
        for i, hdu in enumerate(chosen.hdus)
        if i != chosen.index and is_image(hdu) and role_of(hdu) in names and hdu.ver == version
    ]
    return [i for _, i in sorted(found)]


def _fits(frame: Frame, plane: Layer) -> bool:
    """Whether a plane has the frame's shape; one plane serves all."""
    return plane.shape[-2:] == frame.pixels.shape[1:] and plane.planes in (1, frame.planes)


def _flags(
    frame: Frame, chosen: Chosen, parts: Parts, spec: str | None, used: set[int], stack: ExitStack
) -> tuple[Frame, Parts]:
    """Mask from the option, else from a quality plane of the file or its triplet."""
    found = _asked(chosen, spec, used, stack) if spec is not None else _own_flags(chosen, used, stack)
    if found is None:
        return frame, parts
    plane, simple = found
    if not _fits(frame, plane):
        if spec is not None:
            raise InputError(f"{chosen.path}: mask {spec} has shape {plane.shape}, the image {frame.shape}")
        return frame.say(f"{plane.name}: shape {plane.shape} does not fit the image; not used"), parts
    flags = Flags(plane, simple, chosen.headers)
    parts = replace(parts, flags=flags)
    if not flags.bits:
        return (frame if spec else frame.say(f"mask: {plane.name}, all that is not 0")), parts
    told = [flagged(window_of(plane, place).astype(np.int64), flags.headers, plane.header) for place in _places(frame)]
    share = sum(int((bad | full).sum()) for bad, full, _ in told) / sum(bad.size for bad, _, _ in told)
    return frame.say(f"mask: {plane.name}, {told[0][2]}; {100 * share:.2g} % of the pixels"), parts


def _own_flags(chosen: Chosen, used: set[int], stack: ExitStack) -> tuple[Layer, bool] | None:
    for i in _companions(chosen, DQ_PLANES):
        used.add(i)
        return layer(chosen.file, i), False
    if other := siblings(chosen.path).get("flags"):
        return _from_file(chosen, other[0], None, stack), False
    return None


def _from_file(chosen: Chosen, path: Path, ext: str | None, stack: ExitStack) -> Layer:
    """An image of another file: the extension asked for, else the one named like ours, else its own choice."""
    file = stack.enter_context(opened(path))
    same = [i for i, hdu in enumerate(file.hdus) if is_image(hdu) and hdu.name == chosen.image.name]
    same.sort(key=lambda i: file.hdus[i].ver != chosen.image.ver)
    index = choose(path, file.hdus, ext)[0] if ext or not same else same[0]
    return replace(layer(file, index), name=path.name)


def _asked(chosen: Chosen, spec: str, used: set[int], stack: ExitStack) -> tuple[Layer, bool]:
    """A plane that the user named: a file, a file's extension, or an extension of this file."""
    file, inside = split_spec(spec)
    if file.is_file():
        if file.suffix.lower() in (".fits", ".fit", ".fts", ".fz", ".gz"):
            return _from_file(chosen, file, inside, stack), True
        from sciresdiff.io import read_image as read_any

        return in_memory(file, file.name, read_any(spec)), True
    if inside is not None or file.suffix:
        raise InputError(f"{file}: no such file, nor an extension of {chosen.path}")
    own = f"{spec},{chosen.image.ver}"  # of a file of several chips
    here = (spec.upper(), chosen.image.ver) in [(hdu.name.upper(), hdu.ver) for hdu in chosen.hdus]
    index = find(chosen.path, chosen.hdus, own if here else spec)
    used.add(index)
    return layer(chosen.file, index), role_of(chosen.hdus[index]) not in DQ_PLANES


def _noise(
    frame: Frame, chosen: Chosen, parts: Parts, spec: str | None, used: set[int], stack: ExitStack
) -> tuple[Frame, Parts]:
    """Variance from the option, else from a noise plane of the file or its triplet."""
    if spec is not None:
        kind, spec = stated(spec)
        plane = _asked(chosen, spec, used, stack)[0]
        if not _fits(frame, plane):
            raise InputError(f"{chosen.path}: variance {spec} has shape {plane.shape}, the image {frame.shape}")
        turn = STATED[kind] if kind else _turn(plane, spec)
        return _measured(frame, parts, Noise(plane, turn, (kind or "").upper()), f"{kind} " if kind else "")
    for i in _companions(chosen, tuple(NOISE_PLANES)):
        plane, role = layer(chosen.file, i), role_of(chosen.hdus[i])
        if not _fits(frame, plane):
            frame = frame.say(f"{plane.name}: shape {plane.shape} does not fit the image; not used")
            continue
        used.add(i)
        return _measured(frame, parts, Noise(plane, NOISE_PLANES[role], role))
    if other := siblings(chosen.path).get("noise"):
        return _beside(frame, parts, _from_file(chosen, other[0], None, stack), other[1].upper())
    return frame, parts


def _beside(frame: Frame, parts: Parts, plane: Layer, word: str) -> tuple[Frame, Parts]:
    """Noise from a file beside the image; its name tells what it is."""
    if not _fits(frame, plane):
        return frame.say(f"{plane.name}: shape {plane.shape} does not fit the image; not used"), parts
    turn = NOISE_PLANES.get(word, NOISE_PLANES["WEIGHT"])
    return _measured(frame, parts, Noise(plane, turn, word), "1/weight of " if turn is STATED["ivar"] else "")


def _turn(plane: Layer, spec: str) -> Callable[[Array], Array]:
    """What a plane is that the user named: its extension's name tells, else the file's."""
    role = str(wcs.value(plane.header, "EXTTYPE", "") or wcs.value(plane.header, "EXTNAME", "") or "")
    file = split_spec(spec)[0]
    name = file.name if file.is_file() else plane.name
    return lambda data: to_variance(data, role, name)


def _measured(frame: Frame, parts: Parts, noise: Noise, how: str = "plane ") -> tuple[Frame, Parts]:
    """Settle what depends on the values: the unit of a weight, and the variance of pixels without one."""
    found = [(f, variance_of(noise, place)) for f, place in zip(seen(frame, parts), _places(frame), strict=True)]
    good = [v[np.isfinite(v)] for _, v in found]
    middle = _median(good)
    factor, said = _absolute([f for f, _ in found], noise.role, middle)
    if middle is None:
        middle = _anywhere(frame, noise)
    noise = replace(noise, factor=factor, fill=middle * factor)
    return frame.say(f"noise: {how}{noise.layer.name}", *said), replace(parts, noise=noise)


def _places(frame: Frame) -> list[Place]:
    return rules.patches(frame.pixels.shape)


def _median(arrays: list[Array]) -> float | None:
    values = np.concatenate([a.reshape(-1) for a in arrays])
    return float(np.median(values)) if values.size else None


def _anywhere(frame: Frame, noise: Noise) -> float:
    """The variance of the first rows that have one."""
    planes, h, w = frame.pixels.shape
    for plane in range(planes if noise.layer.planes > 1 else 1):
        for y in range(0, h, rules.SIDE):
            found = noise.turn(window_of(noise.layer, (plane, y, min(y + rules.SIDE, h), 0, w)))
            if np.isfinite(found).any():
                return float(np.median(found[np.isfinite(found)]))
    raise InputError(rules.NO_VARIANCE)


def _absolute(frames: list[Frame], role: str, stated: float | None) -> tuple[float, list[str]]:
    """Weights in a unit of their own (exposure time, say) are brought to the noise between neighbouring pixels."""
    if role not in RELATIVE or not stated:
        return 1.0, []
    steps = _median([np.abs(np.diff(f.pixels, axis=2)[~(f.mask[..., 1:] | f.mask[..., :-1])]) for f in frames])
    scatter = (steps or 0.0) ** 2 * 1.0990  # MAD of a difference of two Gaussians
    if not scatter > 0 or 1 / 30 < stated / scatter < 30:
        return 1.0, []
    return scatter / stated, [f"noise: {role} is no inverse variance; scaled to the scatter of neighbours"]


def _saturation(frame: Frame, parts: Parts) -> tuple[Frame, Parts]:
    """Flag pixels at the header's saturation level, unless the level is plainly in another unit."""
    level = frame.facts.get("saturation")
    if level is None:
        return frame, parts
    bare = Parts(parts.image)
    full = [(int((f.pixels >= level).sum()), f.pixels.size) for f in seen(frame, bare)]
    above, looked = sum(n for n, _ in full), sum(n for _, n in full)
    if above > 0.5 * looked:
        facts = {key: x for key, x in frame.facts.items() if key != "saturation"}
        return frame.with_(facts=facts).say(f"saturation: half of the pixels are above {level:g}; not used"), parts
    if above:
        among = "" if looked == frame.pixels.size else f" of {looked} that were looked at"
        frame = frame.say(f"saturation: {above} pixels{among} at or above the header's {level:g}, masked")
    return frame, replace(parts, level=level)


def _kernel(frame: Frame, chosen: Chosen, used: set[int]) -> Frame:
    """The blur that ``degrade`` wrote: an image, or a SPEC in SRDKERN."""
    scale = next((x for h in chosen.headers if (x := wcs.number(h, "SRDKSCAL"))), None)
    if scale is None:
        return frame
    spec = next((x for h in chosen.headers if (x := wcs.value(h, "SRDKERN"))), "none")
    kernel: Any = str(spec)
    for i in _companions(chosen, ("KERNEL",)):
        used.add(i)
        kernel = layer(chosen.file, i).whole().astype(np.float64)
    return frame.with_(kernel=kernel, kernel_scale=round(scale))

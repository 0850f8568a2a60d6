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
from sciresdiff.io.fits.parts import Flags, Noise, Parts, framed, variance_of, window_of
from sciresdiff.io.planes import (
    DQ_PLANES,
    NOISE_PLANES,
    RELATIVE,
    STATED,
    flagged,
    stated,
    to_variance,
)
from sciresdiff.notes import Notes
from sciresdiff.region import Region

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
    parts = Parts(layer(chosen.file, chosen.index))
    flags, of_flags = _asked(chosen, mask, stack) if mask is not None else _own_flags(chosen, stack)
    frame, parts = _with_flags(frame, chosen, parts, flags, mask)
    frame, parts, of_noise = _noise(frame, chosen, parts, variance, stack)
    frame, parts = _saturation(frame, parts)
    frame, of_kernel = _kernel(frame, chosen)
    return frame, parts, {chosen.index, *of_flags, *of_noise, *of_kernel}


def seen(frame: Frame, parts: Parts) -> Iterator[Frame]:
    """What the frame is like: all of it, or windows of a large one."""
    return (framed(frame, parts, *place) for place in _places(frame))


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


def _with_flags(
    frame: Frame, chosen: Chosen, parts: Parts, found: tuple[Layer, bool] | None, spec: str | None
) -> tuple[Frame, Parts]:
    """Mask from the option ``spec``, else from a quality plane of the file or its triplet."""
    if found is None:
        return frame, parts
    plane, simple = found
    if not _fits(frame, plane):
        if spec is not None:
            raise InputError(f"{chosen.path}: mask {spec} has shape {plane.shape}, the image {frame.shape}")
        return frame.with_notes(_misfit(plane)), parts
    flags = Flags(plane, simple, chosen.headers)
    parts = replace(parts, flags=flags)
    if not flags.bits:
        return (frame if spec else frame.with_notes(Notes(f"mask: {plane.name}, all that is not 0"))), parts
    told = [flagged(window_of(plane, *place).astype(np.int64), flags.headers, plane.header) for place in _places(frame)]
    share = sum(int((bad | full).sum()) for bad, full, _ in told) / sum(bad.size for bad, _, _ in told)
    return frame.with_notes(Notes(f"mask: {plane.name}, {told[0][2]}; {100 * share:.2g} % of the pixels")), parts


def _misfit(plane: Layer) -> Notes:
    return Notes(f"{plane.name}: shape {plane.shape} does not fit the image; not used")


def _own_flags(chosen: Chosen, stack: ExitStack) -> tuple[tuple[Layer, bool] | None, set[int]]:
    for i in _companions(chosen, DQ_PLANES):
        return (layer(chosen.file, i), False), {i}
    if other := siblings(chosen.path).get("flags"):
        return (_from_file(chosen, other[0], None, stack), False), set()
    return None, set()


def _from_file(chosen: Chosen, path: Path, ext: str | None, stack: ExitStack) -> Layer:
    """An image of another file: the extension asked for, else the one named like ours, else its own choice."""
    file = stack.enter_context(opened(path))
    same = [i for i, hdu in enumerate(file.hdus) if is_image(hdu) and hdu.name == chosen.image.name]
    same.sort(key=lambda i: file.hdus[i].ver != chosen.image.ver)
    index = choose(path, file.hdus, ext)[0] if ext or not same else same[0]
    return replace(layer(file, index), name=path.name)


def _asked(chosen: Chosen, spec: str, stack: ExitStack) -> tuple[tuple[Layer, bool], set[int]]:
    """A plane that the user named: a file, a file's extension, or an extension of this file."""
    file, inside = split_spec(spec)
    if file.is_file():
        if file.suffix.lower() in (".fits", ".fit", ".fts", ".fz", ".gz"):
            return (_from_file(chosen, file, inside, stack), True), set()
        from sciresdiff.io import read_image as read_any

        return (in_memory(file, file.name, read_any(spec)), True), set()
    if inside is not None or file.suffix:
        raise InputError(f"{file}: no such file, nor an extension of {chosen.path}")
    own = f"{spec},{chosen.image.ver}"  # of a file of several chips
    here = (spec.upper(), chosen.image.ver) in [(hdu.name.upper(), hdu.ver) for hdu in chosen.hdus]
    index = find(chosen.path, chosen.hdus, own if here else spec)
    return (layer(chosen.file, index), role_of(chosen.hdus[index]) not in DQ_PLANES), {index}


def _noise(
    frame: Frame, chosen: Chosen, parts: Parts, spec: str | None, stack: ExitStack
) -> tuple[Frame, Parts, set[int]]:
    """Variance from the option, else from a noise plane of the file or its triplet; also which HDUs are used."""
    if spec is not None:
        kind, spec = stated(spec)
        (plane, _), used = _asked(chosen, spec, stack)
        if not _fits(frame, plane):
            raise InputError(f"{chosen.path}: variance {spec} has shape {plane.shape}, the image {frame.shape}")
        turn = STATED[kind] if kind else _turn(plane, spec)
        return *_measured(frame, parts, Noise(plane, turn, (kind or "").upper()), f"{kind} " if kind else ""), used
    for i in _companions(chosen, tuple(NOISE_PLANES)):
        plane, role = layer(chosen.file, i), role_of(chosen.hdus[i])
        if not _fits(frame, plane):
            frame = frame.with_notes(_misfit(plane))
            continue
        return *_measured(frame, parts, Noise(plane, NOISE_PLANES[role], role)), {i}
    if other := siblings(chosen.path).get("noise"):
        return *_beside(frame, parts, _from_file(chosen, other[0], None, stack), other[1].upper()), set()
    return frame, parts, set()


def _beside(frame: Frame, parts: Parts, plane: Layer, word: str) -> tuple[Frame, Parts]:
    """Noise from a file beside the image; its name tells what it is."""
    if not _fits(frame, plane):
        return frame.with_notes(_misfit(plane)), parts
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
    found = [(f, variance_of(noise, *place)) for f, place in zip(seen(frame, parts), _places(frame), strict=True)]
    good = [v[np.isfinite(v)] for _, v in found]
    middle = _median(good)
    factor, notes = _absolute([f for f, _ in found], noise.role, middle)
    if middle is None:
        middle = _anywhere(frame, noise)
    noise = replace(noise, factor=factor, fill=middle * factor)
    return frame.with_notes(Notes(f"noise: {how}{noise.layer.name}") + notes), replace(parts, noise=noise)


def _places(frame: Frame) -> list[tuple[int, Region]]:
    return rules.patches(frame.pixels.shape)


def _median(arrays: list[Array]) -> float | None:
    values = np.concatenate([a.reshape(-1) for a in arrays])
    return float(np.median(values)) if values.size else None


def _anywhere(frame: Frame, noise: Noise) -> float:
    """The variance of the first rows that have one."""
    planes, h, w = frame.pixels.shape
    for plane in range(planes if noise.layer.planes > 1 else 1):
        for y in range(0, h, rules.SIDE):
            found = noise.turn(window_of(noise.layer, plane, Region(y, min(y + rules.SIDE, h), 0, w)))
            if np.isfinite(found).any():
                return float(np.median(found[np.isfinite(found)]))
    raise InputError(rules.NO_VARIANCE)


def _absolute(frames: list[Frame], role: str, stated: float | None) -> tuple[float, Notes]:
    """Weights in a unit of their own (exposure time, say) are brought to the noise between neighbouring pixels."""
    if role not in RELATIVE or not stated:
        return 1.0, Notes()
    steps = _median([np.abs(np.diff(f.pixels, axis=2)[~(f.mask[..., 1:] | f.mask[..., :-1])]) for f in frames])
    scatter = (steps or 0.0) ** 2 * 1.0990  # MAD of a difference of two Gaussians
    if not scatter > 0 or 1 / 30 < stated / scatter < 30:
        return 1.0, Notes()
    return scatter / stated, Notes(f"noise: {role} is no inverse variance; scaled to the scatter of neighbours")


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
        notes = Notes(f"saturation: half of the pixels are above {level:g}; not used")
        return frame.with_(facts=facts).with_notes(notes), parts
    if above:
        among = "" if looked == frame.pixels.size else f" of {looked} that were looked at"
        notes = Notes(f"saturation: {above} pixels{among} at or above the header's {level:g}, masked")
        frame = frame.with_notes(notes)
    return frame, replace(parts, level=level)


def _kernel(frame: Frame, chosen: Chosen) -> tuple[Frame, list[int]]:
    """The blur that ``degrade`` wrote: an image, or a SPEC in SRDKERN; also which HDUs are used."""
    scale = next((x for h in chosen.headers if (x := wcs.number(h, "SRDKSCAL"))), None)
    if scale is None:
        return frame, []
    spec = next((x for h in chosen.headers if (x := wcs.value(h, "SRDKERN"))), "none")
    kernel: Any = str(spec)
    used = _companions(chosen, ("KERNEL",))
    for i in used:
        kernel = layer(chosen.file, i).whole().astype(np.float64)
    return frame.with_(kernel=kernel, kernel_scale=round(scale)), used

"""Find the noise, flags, saturation, kernel and PSF that belong to a FITS image."""

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
from sciresdiff.io import read_image, sampling
from sciresdiff.io.companions import find_noise_and_flags
from sciresdiff.io.files import split_spec
from sciresdiff.io.fits.components import Components, Flags, Noise, assemble_frame, read_region, read_variance
from sciresdiff.io.fits.dq import DQ_PLANES, decode_flags, flag_words
from sciresdiff.io.fits.header import card_number, card_value
from sciresdiff.io.fits.image_reader import ImageReader, in_memory, open_image
from sciresdiff.io.fits.open import ImageChoice, choose_image, find_extension, is_image, open_fits
from sciresdiff.io.fits.roles import PSF, hdu_role, hdu_tag
from sciresdiff.io.masks import warn_inverted
from sciresdiff.io.sampling import sample_regions
from sciresdiff.io.saturation import MASKED
from sciresdiff.io.variance import (
    NO_VARIANCE,
    NOISE_PLANES,
    RELATIVE,
    STATED,
    NoVarianceError,
    split_noise_kind,
    to_variance,
)
from sciresdiff.notes import Notes
from sciresdiff.region import Region

Array = NDArray[Any]

FROM_DIFFERENCES = 1.0990
"""Variance of a Gaussian over the squared median of |differences| of two: (1.4826**2) / 2."""

MOST_OFF = 30
"""Factor between an inverse weight and the scatter of neighbours from which on the weight is in another unit."""


def find_planes(
    frame: Frame,
    chosen: ImageChoice,
    variance: str | None,
    mask: str | None,
    stack: ExitStack,
    saturated: bool = True,
) -> tuple[Frame, Components, set[int]]:
    """Find noise, flags, saturation, kernel and PSF of an image.

    Parameters
    ----------
    frame : Frame
        Without values.
    chosen : ImageChoice
        The image.
    variance, mask : str or None
        As in `sciresdiff.io.read`.
    stack : ExitStack
        Holds the files that are opened.
    saturated : bool
        Whether the header's level of saturation is used.

    Returns
    -------
    frame : Frame
        With notes, facts, kernel and PSF.
    parts : Components
        Where the values of a region come from.
    used : set of int
        Numbers of the HDUs that are used.

    Raises
    ------
    InputError
        A plane that the user named does not exist or does not fit.
    """
    parts = Components(open_image(chosen.file, chosen.index, chosen.axes))
    flags, of_flags = _named_plane(chosen, mask, stack) if mask is not None else _own_flags(chosen, stack)
    frame, parts = _with_flags(frame, chosen, parts, flags, mask)
    frame, parts, of_noise = _find_noise(frame, chosen, parts, variance, stack)
    if saturated:
        frame, parts = _find_saturation(frame, parts)
    frame, of_kernel = _find_kernel(frame, chosen)
    frame, of_psf = _find_psf(frame, chosen)
    return frame, parts, {chosen.index, *of_flags, *of_noise, *of_kernel, *of_psf}


def sample_frames(frame: Frame, parts: Components) -> Iterator[Frame]:
    """Read what is measured on: the whole frame, or regions of a large one (`sampling.sample_regions`)."""
    return (assemble_frame(frame, parts, *place) for place in _regions(frame))


def _group_extensions(chosen: ImageChoice, names: Sequence[str]) -> list[int]:
    """Images of the same EXTVER that have one of the names and belong to the image, in the order of the names.

    Those with the image's tag (``VIS_RMS`` of ``VIS_FLUX``) go before those without one, and exclude those of others.
    """
    tag, version = hdu_tag(chosen.image), chosen.image.ver
    found = [
        (hdu_tag(hdu) != tag, names.index(hdu_role(hdu)), i)
        for i, hdu in enumerate(chosen.hdus)
        if i != chosen.index and is_image(hdu) and hdu_role(hdu) in names and hdu.ver == version
        if hdu_tag(hdu) in (tag, "")
    ]
    return [i for *_, i in sorted(found)]


def _fits_frame(frame: Frame, plane: ImageReader) -> bool:
    """Whether a plane has the frame's shape; a single plane serves all."""
    return plane.plane_shape == frame.pixels.shape[1:] and plane.planes in (1, frame.planes)


def _with_flags(
    frame: Frame, chosen: ImageChoice, parts: Components, found: tuple[ImageReader, bool] | None, spec: str | None
) -> tuple[Frame, Components]:
    """Add the mask of the option ``spec``, else the data-quality plane of the file or beside it."""
    if found is None:
        return frame, parts
    plane, simple = found
    if not _fits_frame(frame, plane):
        if spec is not None:
            raise InputError(f"{chosen.path}: mask {spec} has shape {plane.shape}, the image {frame.shape}")
        return frame.with_notes(_misfit(plane)), parts
    found_values = [read_region(plane, *place) for place in _regions(frame)]
    flags = Flags(plane, not simple and _are_whole(found_values), chosen.headers)
    decoded = [flags.bad(values) for values in found_values]
    windows = [assemble_frame(frame, parts, *place) for place in _regions(frame)]
    masked = [(window, bad | full) for window, (bad, full) in zip(windows, decoded, strict=True)]
    notes = warn_inverted(plane.name, masked, sampling.is_whole(frame.pixels.shape))
    if spec is None or flags.bits:
        share = sum(int((bad | full).sum()) for bad, full in decoded) / sum(bad.size for bad, _ in decoded)
        notes = _describe_flags(flags, found_values, share) + notes
    return frame.with_notes(notes), replace(parts, flags=flags)


def _are_whole(values: list[Array]) -> bool:
    """Whether all values are integers, of an integer type or not; NaN counts as one."""
    return all(v.dtype.kind in "iu" or bool((np.nan_to_num(v) == np.rint(np.nan_to_num(v))).all()) for v in values)


def _describe_flags(flags: Flags, values: list[Array], share: float) -> Notes:
    """Note the convention by which flags are read, and the share of pixels that it masks."""
    name = flags.layer.name
    if not flags.bits:
        return Notes(f"mask: {name}, all that is not 0")
    rule = decode_flags(flag_words(values[0][..., :1, :1]), flags.headers, flags.layer.header)[2]
    notes = Notes(f"mask: {name}, {rule}; {float(f'{100 * share:.2g}'):g} % of the pixels")
    if any((flag_words(v).view(np.uint64) >> np.uint64(32)).any() for v in values if v.dtype.itemsize > 4):
        notes += Notes(f"mask: {name} has flags above bit 31, which are bit 30 in the output's DQ")
    return notes


def _misfit(plane: ImageReader) -> Notes:
    """Note that a plane is not used."""
    return Notes(f"{plane.name}: shape {plane.shape} does not fit the image; not used")


def _empty_plane(plane: ImageReader) -> Notes:
    """Note that a noise plane says nothing."""
    return Notes(f"noise: {plane.name} has no value above 0 anywhere; not used")


def _own_flags(chosen: ImageChoice, stack: ExitStack) -> tuple[tuple[ImageReader, bool] | None, set[int]]:
    """Data-quality plane of the file, else of the file beside it; whether every value is bad; HDUs used."""
    for i in _group_extensions(chosen, DQ_PLANES):
        return (open_image(chosen.file, i, chosen.axes), False), {i}
    if other := find_noise_and_flags(chosen.path).get("flags"):
        return (_from_file(chosen, other[0], None, stack), False), set()
    return None, set()


def _from_file(chosen: ImageChoice, path: Path, ext: str | None, stack: ExitStack) -> ImageReader:
    """Image of another file: the extension asked for, else the one of our name, else that file's own choice."""
    file = stack.enter_context(open_fits(path))
    same = [i for i, hdu in enumerate(file.hdus) if is_image(hdu) and hdu.name == chosen.image.name]
    same.sort(key=lambda i: file.hdus[i].ver != chosen.image.ver)
    index = choose_image(path, file.hdus, ext)[0] if ext or not same else same[0]
    return replace(open_image(file, index, chosen.axes), name=path.name)


def _named_plane(chosen: ImageChoice, spec: str, stack: ExitStack) -> tuple[tuple[ImageReader, bool], set[int]]:
    """A plane that the user named: a file, an extension of a file, or an extension of this file.

    Returns the plane and whether every value other than 0 is bad, and the HDUs used.
    """
    file, inside = split_spec(spec)
    if file.is_file():
        if file.suffix.lower() in (".fits", ".fit", ".fts", ".fz", ".gz"):
            return (_from_file(chosen, file, inside, stack), True), set()
        return (in_memory(file, file.name, read_image(spec)), True), set()
    if inside is not None or file.suffix:
        raise InputError(f"{file}: no such file, nor an extension of {chosen.path}")
    own = f"{spec},{chosen.image.ver}"  # in a file of several chips, the plane of the same chip
    here = (spec.upper(), chosen.image.ver) in [(hdu.name.upper(), hdu.ver) for hdu in chosen.hdus]
    index = find_extension(chosen.path, chosen.hdus, own if here else spec)
    return (open_image(chosen.file, index, chosen.axes), hdu_role(chosen.hdus[index]) not in DQ_PLANES), {index}


def _find_noise(
    frame: Frame, chosen: ImageChoice, parts: Components, spec: str | None, stack: ExitStack
) -> tuple[Frame, Components, set[int]]:
    """Variance of the option, else of a noise plane of the file or beside it; also the HDUs used."""
    if spec is not None:
        kind, spec = split_noise_kind(spec)
        (plane, _), used = _named_plane(chosen, spec, stack)
        if not _fits_frame(frame, plane):
            raise InputError(f"{chosen.path}: variance {spec} has shape {plane.shape}, the image {frame.shape}")
        noise = Noise(plane, STATED[kind] if kind else _noise_conversion(plane, spec), (kind or "").upper())
        return *_calibrate_noise(frame, parts, noise, f"{kind} " if kind else ""), used
    empty: set[int] = set()
    for i in _group_extensions(chosen, tuple(NOISE_PLANES)):
        plane, role = open_image(chosen.file, i, chosen.axes), hdu_role(chosen.hdus[i])
        if not _fits_frame(frame, plane):
            frame = frame.with_notes(_misfit(plane))
            continue
        try:
            return *_calibrate_noise(frame, parts, Noise(plane, NOISE_PLANES[role], role)), {i}
        except NoVarianceError:
            frame, empty = frame.with_notes(_empty_plane(plane)), empty | {i}
    if other := find_noise_and_flags(chosen.path).get("noise"):
        plane = _from_file(chosen, other[0], None, stack)
        try:
            return *_companion_noise(frame, parts, plane, other[1].upper()), empty
        except NoVarianceError:
            frame = frame.with_notes(_empty_plane(plane))
    return frame, parts, empty


def _companion_noise(frame: Frame, parts: Components, plane: ImageReader, word: str) -> tuple[Frame, Components]:
    """Noise from a file beside the image; its name tells what it is."""
    if not _fits_frame(frame, plane):
        return frame.with_notes(_misfit(plane)), parts
    turn = NOISE_PLANES.get(word, NOISE_PLANES["WEIGHT"])
    return _calibrate_noise(frame, parts, Noise(plane, turn, word), "1/weight of " if turn is STATED["ivar"] else "")


def _noise_conversion(plane: ImageReader, spec: str) -> Callable[[Array], Array]:
    """Conversion of a plane that the user named: the extension's name tells, else the file's."""
    role = str(card_value(plane.header, "EXTTYPE", "") or card_value(plane.header, "EXTNAME", "") or "")
    file = split_spec(spec)[0]
    name = file.name if file.is_file() else plane.name
    return lambda data: to_variance(data, role, name)


def _calibrate_noise(frame: Frame, parts: Components, noise: Noise, how: str = "plane ") -> tuple[Frame, Components]:
    """Measure what depends on the values: the unit of a weight, and the variance of pixels without one."""
    windows = list(sample_frames(frame, parts))
    variances = [read_variance(noise, *place) for place in _regions(frame)]
    typical = _median([v[np.isfinite(v)] for v in variances])
    factor, notes = _weight_scale(windows, noise.role, typical)
    if typical is None:
        typical = _first_variance(frame, noise)
    noise = replace(noise, factor=factor, fill=typical * factor)
    return frame.with_notes(Notes(f"noise: {how}{noise.layer.name}") + notes), replace(parts, noise=noise)


def _regions(frame: Frame) -> list[tuple[int, Region]]:
    return sample_regions(frame.pixels.shape)


def _median(arrays: list[Array]) -> float | None:
    values = np.concatenate([a.reshape(-1) for a in arrays])
    return float(np.median(values)) if values.size else None


def _first_variance(frame: Frame, noise: Noise) -> float:
    """Median variance of the first rows that have one."""
    planes, h, w = frame.pixels.shape
    for plane in range(planes if noise.layer.planes > 1 else 1):
        for y in range(0, h, sampling.SIDE):
            found = noise.turn(read_region(noise.layer, plane, Region(y, min(y + sampling.SIDE, h), 0, w)))
            if np.isfinite(found).any():
                return float(np.median(found[np.isfinite(found)]))
    raise NoVarianceError(NO_VARIANCE)


def _weight_scale(frames: list[Frame], role: str, stated: float | None) -> tuple[float, Notes]:
    """Factor from the inverse of a weight to a variance, where the weight is in another unit (exposure time, say).

    The scatter of differences of neighbours is the reference; a weight within `MOST_OFF` of it is an inverse variance.
    """
    if role not in RELATIVE or not stated:
        return 1.0, Notes()
    steps = _median([np.abs(np.diff(f.pixels, axis=2)[~(f.mask[..., 1:] | f.mask[..., :-1])]) for f in frames])
    scatter = (steps or 0.0) ** 2 * FROM_DIFFERENCES
    if not scatter > 0 or 1 / MOST_OFF < stated / scatter < MOST_OFF:
        return 1.0, Notes()
    return scatter / stated, Notes(f"noise: {role} is no inverse variance; scaled to the scatter of neighbours")


def _find_saturation(frame: Frame, parts: Components) -> tuple[Frame, Components]:
    """Use the header's saturation level, unless it is clearly in another unit."""
    level = frame.facts.get("saturation")
    if level is None:
        return frame, parts
    # flags and noise do not matter here
    full = [(int((f.pixels >= level).sum()), f.pixels.size) for f in sample_frames(frame, Components(parts.image))]
    above, looked = sum(n for n, _ in full), sum(n for _, n in full)
    if above > 0.5 * looked:
        facts = {key: x for key, x in frame.facts.items() if key != "saturation"}
        notes = Notes(f"saturation: half of the pixels are above {level:g}; not used")
        return frame.with_(facts=facts).with_notes(notes), parts
    if above:
        among = "" if looked == frame.pixels.size else f" of {looked} that were looked at"
        notes = Notes(f"saturation: {above} pixels{among} at or above the header's {level:g}, {MASKED}")
        frame = frame.with_notes(notes)
    return frame, replace(parts, level=level)


def _find_kernel(frame: Frame, chosen: ImageChoice) -> tuple[Frame, list[int]]:
    """Blur that ``degrade`` wrote, an image or a SPEC in SRDKERN; also the HDUs used."""
    scale = next((x for h in chosen.headers if (x := card_number(h, "SRDKSCAL"))), None)
    if scale is None:
        return frame, []
    spec = next((x for h in chosen.headers if (x := card_value(h, "SRDKERN"))), "none")
    kernel: Any = str(spec)
    used = _group_extensions(chosen, ("KERNEL",))
    for i in used:
        kernel = open_image(chosen.file, i).whole().astype(np.float64)
    return frame.with_(kernel=kernel, kernel_scale=round(scale)), used


def _find_psf(frame: Frame, chosen: ImageChoice) -> tuple[Frame, list[int]]:
    """PSF plane of the image, as the SPEC of an extension of its file or of the file beside it; also the HDU used."""
    for i in _group_extensions(chosen, (PSF,)):
        hdu = chosen.hdus[i]
        return frame.with_(psf=f"{chosen.path}[{hdu.name}{f',{hdu.ver}' if hdu.ver != 1 else ''}]"), [i]
    if other := find_noise_and_flags(chosen.path).get("psf"):
        return frame.with_(psf=str(other[0])), []
    return frame, []

"""The files that an evaluation looks at, opened and brought together: image, data, truth, noise, blur and planes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff import io
from sciresdiff.checks.evidence import Evidence
from sciresdiff.errors import InputError, UsageError
from sciresdiff.frame import Frame, Kind, Quantity
from sciresdiff.io.files import split_spec
from sciresdiff.io.source import Source, in_memory
from sciresdiff.jobs.evaluate.options import EvaluateOptions
from sciresdiff.jobs.evaluate.overlap import differ_in_pixel_size, refuse_separate_fields
from sciresdiff.jobs.evaluate.pieces import WHOLE, describe_place, plan_pieces, windows
from sciresdiff.jobs.evaluate.register import register_truth
from sciresdiff.jobs.evaluate.rerun import Rerun, make_rerun
from sciresdiff.notes import Notes
from sciresdiff.observation.exposure import Exposure
from sciresdiff.observation.grid import Grid, upsample_nearest
from sciresdiff.observation.noise import Noise, resolve_noise, with_psf_error
from sciresdiff.observation.observation import Observation
from sciresdiff.observation.options import Stated
from sciresdiff.observation.psf import psf_of_header, resolve_psf
from sciresdiff.observation.sample import Samples, samples_of_frame, samples_of_source
from sciresdiff.region import Region
from sciresdiff.report.images import block_means
from sciresdiff.report.overview import SIDE, Overview
from sciresdiff.tiling import Tile

PLANES = ("ERR", "SUPPORT", "TRUST")
"""Planes of an output that are judged, or judged by."""

STRIP = 2**22
"""Pixels that are read at a time for the overview."""

Layer = Callable[[int, slice, slice], NDArray[Any]]
"""(plane, rows, columns) -> (h, w), or (K, h, w) of draws."""


@dataclass(frozen=True)
class Given:
    """The files that belong together, open."""

    high: Source
    truth: Source | None
    observation: Observation | None
    """The data; None without."""
    quantity: Quantity
    has_noise: bool = False
    """Whether the data's noise is known."""
    has_psf: bool = False
    """Whether their PSF is."""
    tiles: tuple[Tile, ...] = ()
    """The pieces that every plane is judged in, coarse px; one where it is judged whole."""
    planes: Mapping[str, Layer] = field(default_factory=dict)
    """ERR, SUPPORT and TRUST of the output."""
    draws: Layer | None = None
    again: Rerun | None = None
    """Makes the image of other data, where the user wants probes."""
    target_fwhm: float | None = None
    registered: Mapping[str, Any] = field(default_factory=dict)
    """Of a truth by another instrument: zero points, PSFs and shift."""

    @property
    def scale(self) -> int:
        """Pixels of the image per pixel of the data and axis; 1 without data."""
        return 1 if self.observation is None else self.observation.scale

    @property
    def low(self) -> Source | None:
        """The data as they were read."""
        return None if self.observation is None else self.observation.exposure.image


@contextmanager
def gather(
    high: str | Path, low: str | Path | None, truth: str | Path | None, told: EvaluateOptions
) -> Iterator[tuple[Given, Notes]]:
    """Open the files, and resolve scale, quantity, noise, PSF and pieces.

    Parameters
    ----------
    high, low, truth : the image that is judged, the data that it was made from, and what it should be.
    told : what the user states.

    Yields
    ------
    The open files, and what was read, measured and assumed.

    Raises
    ------
    InputError : files that do not fit each other, or that show different places of the sky; a truth on other pixels
        of an image that is too large for one piece.
    UsageError : probes without a sidecar, or of such an image.
    """
    with ExitStack() as stack:
        image = open_source(stack, high, quantity=told.quantity)
        record = read_sidecar(high, low)
        stated = merge_stated(record, told)
        of_data = {"variance": stated.variance, "mask": stated.mask, "axes": stated.axes}
        data = None if low is None else open_source(stack, low, **of_data)
        scale = 1 if data is None else scale_between(high, image.frame, low, data.frame)
        known = told.quantity or record.get("quantity") or (data.frame.quantity if data else None)
        quantity, notes = image.frame.quantity_or_usual(known)
        true, registered = None, dict[str, Any]()
        if truth is not None:
            true, registered, more = resolve_truth(open_source(stack, truth), truth, image, high, scale)
            notes += more
        for name, other in ((low, data), (truth, true)):
            if name is not None and other is not None:
                refuse_separate_fields(high, image.frame, name, other.frame)
        notes += note_odd_planes({"image": image, "data": data, "truth": true})
        given = Given(image, true, None, quantity)
        if data is not None and low is not None:
            given, more = with_data(given, low, data, stated, scale, record, told)
            notes += more
        h, w = (image if data is None else data).frame.pixels.shape[1:]
        tiles = plan_pieces((h, w), given.observation)
        if told.probe and len(tiles) > 1:
            raise UsageError(
                f"--probe: {high} is judged in {len(tiles)} pieces, and a frame is restored anew as a whole; cut it "
                f"to {WHOLE} px a side"
            )
        again, more = make_rerun(high, low, record, scale, told.device) if told.probe else (None, Notes())
        given = replace(
            given,
            tiles=tiles,
            planes={name: layer for name in PLANES if (layer := beside(stack, high, name, image.frame))},
            draws=draws_beside(stack, high, image.frame),
            again=again,
            target_fwhm=stated.target_fwhm or record.get("target_fwhm_px"),
            registered=registered,
        )
        yield given, notes + more


def with_data(
    given: Given,
    low: str | Path,
    data: Source,
    stated: Stated,
    scale: int,
    record: Mapping[str, Any],
    told: EvaluateOptions,
) -> tuple[Given, Notes]:
    """The files with the observation that the data are, as the restoration took it where its record says so.

    Parameters
    ----------
    low, data : the data's file, for messages, and the same, open.
    stated : what is stated of them, by the record or now.
    scale : pixels of the image per pixel of the data.
    record : the sidecar of the image; empty where there is none.
    """
    samples, frame = samples_of_data(data), data.frame
    noise, notes = resolve_data_noise(frame, samples, stated, record, told)
    has_psf = bool(stated.kernel or stated.psf or record or frame.kernel is not None or psf_of_header(frame))
    psf = None
    if has_psf:
        psf, _, more = resolve_psf(low, frame, samples, stated, scale)
        notes += more
    else:
        notes += Notes("psf: not known; give --kernel or --psf for the checks against the data and for Richardson-Lucy")
    grid = Grid((frame.pixels.shape[1], frame.pixels.shape[2]), frame.pixel_size)
    exposure = Exposure(data, grid, noise or Noise(), psf, given.quantity)
    observation = Observation([exposure], grid.finer(scale))
    return replace(given, observation=observation, has_noise=noise is not None, has_psf=has_psf), notes


def open_source(stack: ExitStack, path: str | Path, **options: Any) -> Source:
    """A file; a small one is read."""
    source = stack.enter_context(io.opened(path, **options))
    return in_memory(source.whole()) if source.frame.pixels.size <= WHOLE**2 else source


def samples_of_data(data: Source) -> Samples:
    """What is measured on the data: all of a small frame, windows of a large one."""
    return samples_of_frame(data.whole()) if data.frame.pixels.size <= WHOLE**2 else samples_of_source(data)


def resolve_truth(
    true: Source, truth: str | Path, image: Source, high: str | Path, scale: int
) -> tuple[Source | None, dict[str, Any], Notes]:
    """The truth; of one by another instrument, on other pixels, how the two are registered."""
    if differ_in_pixel_size(image.frame, true.frame):
        for name, one in ((high, image), (truth, true)):
            if one.frame.pixels.size > WHOLE**2:
                raise InputError(
                    f"{truth}: has pixels of another size than {high}, and {name} is too large to be registered: "
                    f"cut it to {WHOLE} px a side"
                )
        notes = Notes(
            f"WARNING truth: {truth} has pixels of another size: it is registered, and nothing is scored by it"
        )
        registered, more = register_truth(image.whole(), true.whole())
        return None, registered, notes + more
    frame, notes = crop_truth(true.frame, truth, image.frame, high, scale)
    return replace(true, frame=frame), {}, notes


def note_odd_planes(sources: Mapping[str, Source | None]) -> Notes:
    """Note planes that are all masked or constant, and a truth without light above zero."""
    notes = Notes()
    for name, source in sources.items():
        for i in range(0 if source is None else source.frame.planes):
            assert source is not None
            count, low, high, total = _extent(source, i)
            where = f"{name}, plane {i}" if source.frame.planes > 1 else name
            if not count:
                notes += Notes(f"WARNING {where}: every pixel is masked; nothing of it is judged")
            elif high == low:
                notes += Notes(f"WARNING {where}: constant ({low:g}); most checks have nothing to measure")
            elif name == "truth" and total < 0:
                notes += Notes(
                    f"WARNING {where}: its mean is negative ({total / count:.4g}); fluxes are above the sky only"
                )
    return notes


def _extent(source: Source, plane: int) -> tuple[int, float, float, float]:
    """Count, least, greatest and sum of a plane's valid values."""
    count, low, high, total = 0, np.inf, -np.inf, 0.0
    for rows, columns in windows(source.frame.pixels.shape[1:]):
        part = source.window(plane, Region(rows.start, rows.stop, columns.start, columns.stop))
        values = part.pixels[0][~part.mask[0] & np.isfinite(part.pixels[0])]
        if values.size:
            low, high = min(low, float(values.min())), max(high, float(values.max()))
            count, total = count + values.size, total + float(values.sum(dtype=np.float64))
    return count, low, high, total


def read_sidecar(high: str | Path, low: str | Path | None) -> dict[str, Any]:
    """What ``upscale`` has noted of this image; empty where there is no note, or it is of another input."""
    file = split_spec(high)[0]
    path = file.with_name(file.name + ".json")
    try:
        note = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(note, dict) or low is None:
        return {}
    same = Path(str(note.get("input", ""))).name == Path(str(low)).name
    return note if same and isinstance(note.get("options"), dict) else {}


def merge_stated(record: Mapping[str, Any], told: EvaluateOptions) -> Stated:
    """What was stated when the image was restored, as far as it speaks of the data; what is told now wins."""
    before = record.get("options", {})
    names = ("gain", "read_noise", "offset", "variance", "mask", "axes", "target_fwhm", "psf", "kernel")
    stated = Stated(**{name: before.get(name) for name in names})
    if told.psf or told.kernel:
        stated = replace(stated, psf=told.psf, kernel=told.kernel)
    return replace(
        stated,
        variance=told.variance or stated.variance,
        target_fwhm=told.target_fwhm or stated.target_fwhm,
    )


def scale_between(high: str | Path, image: Frame, low: str | Path | None, data: Frame) -> int:
    """Fine pixels per coarse pixel."""
    (H, W), (h, w) = image.pixels.shape[1:], data.pixels.shape[1:]
    if H % h or W % w or H // h != W // w:
        raise InputError(f"{high}: {H} x {W} px are no whole multiple of the {h} x {w} px of {low}")
    if image.planes != data.planes:
        raise InputError(f"{high}: {image.planes} planes, but {low} has {data.planes}")
    return H // h


def crop_truth(truth: Frame, name: str | Path, image: Frame, high: str | Path, scale: int) -> tuple[Frame, Notes]:
    """The truth on the image's pixels, from its first one on.

    Parameters
    ----------
    truth, name : the true image and its file.
    image, high : the image that is judged, and its file.
    scale : fewer pixels than that, or than 8, the truth may be larger by.

    Raises
    ------
    InputError : it does not fit.
    """
    (T, U), (H, W) = truth.pixels.shape[1:], image.pixels.shape[1:]
    spare = max(scale, 8) if scale > 1 else 8
    if truth.planes != image.planes:
        raise InputError(f"{name}: {truth.planes} planes, but {high} has {image.planes}")
    if not (0 <= T - H < spare and 0 <= U - W < spare):
        raise InputError(f"{name}: {T} x {U} px do not fit the {H} x {W} px of {high}; give the truth on its pixels")
    if (T, U) == (H, W):
        return truth, Notes()
    cropped = truth.with_(
        pixels=truth.pixels[:, :H, :W], mask=truth.mask[:, :H, :W], variance=None, saturated=None, dq=None
    )
    return cropped, Notes(f"truth: {T} x {U} px cropped to the image's {H} x {W}")


def resolve_data_noise(
    data: Frame, samples: Samples, stated: Stated, record: Mapping[str, Any], told: EvaluateOptions
) -> tuple[Noise | None, Notes]:
    """The data's noise: as the restoration took it where there is a record, else the plane as it is, else measured.

    Returns
    -------
    None where it is not known, and the notes.
    """
    if not record and data.variance is not None and (stated.variance or stated.gain is None):
        return Noise(), Notes()
    try:
        noise, notes = resolve_noise(data, samples, stated)
    except InputError as problem:
        return None, Notes(f"{problem}; checks in units of the noise are left out")
    origin = "" if told.psf or told.kernel else str(record.get("sources", {}).get("psf", ""))
    noise, more = with_psf_error(noise, data, samples, origin)
    return noise, notes + more


def beside(stack: ExitStack, high: str | Path, name: str, image: Frame) -> Layer | None:
    """A plane of the output: an extension, or for TIFF a file beside it; None where there is none of its shape."""
    found = _stacked(stack, high, name, image)
    if found is None or found[0] != image.pixels.shape:
        return None
    _, cut = found
    return lambda plane, rows, columns: cut(slice(plane, plane + 1), rows, columns)[0]


def draws_beside(stack: ExitStack, high: str | Path, image: Frame) -> Layer | None:
    """DRAWS of the output, or None."""
    found = _stacked(stack, high, "DRAWS", image)
    if found is None:
        return None
    (layers, *size), cut = found
    if tuple(size) != image.pixels.shape[1:] or not layers or layers % image.planes:
        return None
    k = layers // image.planes

    def draws(plane: int, rows: slice, columns: slice) -> NDArray[np.float32]:
        return np.asarray(cut(slice(k * plane, k * (plane + 1)), rows, columns), np.float32)

    return draws


Stacked = tuple[tuple[int, ...], Callable[[slice, slice, slice], NDArray[Any]]]
"""Shape (n, Y, X) of a stack, and its parts."""


def _stacked(stack: ExitStack, high: str | Path, name: str, image: Frame) -> Stacked | None:
    """What is written of that name, not read where the image is large; None where there is nothing."""
    file = split_spec(high)[0]
    kind = io.format_of(file)
    path = file.with_name(f"{io.stem(file)}_{name.lower()}.tif") if kind == "tiff" else f"{file}[{name}]"
    try:
        if image.pixels.size > WHOLE**2:
            return _parts(stack.enter_context(io.opened(path)))
        found = io.read_image(path)
    except InputError:
        return None
    found = found.reshape(-1, *found.shape[-2:])
    return found.shape, lambda layers, rows, columns: found[layers, rows, columns]


def _parts(source: Source) -> Stacked:
    def cut(layers: slice, rows: slice, columns: slice) -> NDArray[Any]:
        here = Region(rows.start, rows.stop, columns.start, columns.stop)
        return np.concatenate([source.window(i, here).pixels for i in range(layers.start, layers.stop)])

    return source.frame.pixels.shape, cut


def kind_of(given: Given) -> Kind:
    """``astro`` or ``micro``: the data's, else the image's."""
    return (given.high if given.low is None else given.low).frame.kind


def evidence_of(given: Given, plane: int, tile: Tile | None = None, span: float | None = None) -> Evidence:
    """One plane of the files as evidence, or a piece of it.

    Parameters
    ----------
    tile : core and window, coarse px; the first piece, which is all of a small plane, without it.
    span : range of the truth over all pieces.
    """
    tile, s = tile or given.tiles[0], given.scale
    fine = tile.window.scaled(s).slices
    window = None if given.observation is None else given.observation.window(plane, tile)
    low = None if window is None else window.exposure
    high, truth = _window(given.high, plane, fine), None if given.truth is None else _window(given.truth, plane, fine)
    planes = {name: np.asarray(layer(plane, *fine), np.float64) for name, layer in given.planes.items()}
    return Evidence(
        high=np.asarray(high.pixels[0], np.float64),
        scale=s,
        low=None if low is None else np.asarray(low.pixels, np.float64),
        variance=np.asarray(low.variance, np.float64) if low is not None and given.has_noise else None,
        truth=None if truth is None else np.asarray(truth.pixels[0], np.float64),
        mask_high=_masked(high, None if low is None else low.plane, truth, s),
        mask_low=None if low is None else low.mask,
        operator=None if window is None or not given.has_psf else window.operator(),
        err=planes.get("ERR"),
        support=planes.get("SUPPORT"),
        trust=planes.get("TRUST"),
        draws=None if given.draws is None else given.draws(plane, *fine),
        again=None if given.again is None else partial(given.again, plane),
        kind=kind_of(given),
        quantity=given.quantity,
        target_fwhm_px=given.target_fwhm,
        core=None if len(given.tiles) == 1 else tile.core.within(tile.window).scaled(s),
        span=span,
    )


def _window(source: Source, plane: int, at: tuple[slice, slice]) -> Frame:
    rows, columns = at
    return source.window(plane, Region(rows.start, rows.stop, columns.start, columns.stop))


def _masked(high: Frame, low: Frame | None, truth: Frame | None, scale: int) -> NDArray[np.bool_]:
    """Fine pixels that are masked in any of the files."""
    mask = high.mask[0].copy()
    if low is not None:
        mask |= upsample_nearest(low.mask[0], scale)
    if truth is not None:
        mask |= truth.mask[0]
    return mask


def span_of(given: Given, plane: int) -> float | None:
    """The truth's range over all pixels that are judged; None without a truth."""
    if given.truth is None:
        return None
    least, most = np.inf, -np.inf
    for tile in given.tiles:
        fine = tile.core.scaled(given.scale).slices
        low = None if given.low is None else _window(given.low, plane, tile.core.slices)
        high, truth = (_window(source, plane, fine) for source in (given.high, given.truth))
        good = ~_masked(high, low, truth, given.scale) & np.isfinite(high.pixels[0]) & np.isfinite(truth.pixels[0])
        values = truth.pixels[0][good]
        if values.size:
            least, most = min(least, float(values.min())), max(most, float(values.max()))
    return most - least if most > least else None


def overview(given: Given, shown: int) -> Overview:
    """The first plane of the image, thinned, and where its pieces lie."""
    _, h, w = given.high.frame.pixels.shape
    n = max(1, -(-max(h, w) // SIDE))
    rows = n * max(1, STRIP // (n * w))
    strips = (_window(given.high, 0, (slice(y, min(y + rows, h)), slice(0, w))) for y in range(0, h, rows))
    thin = [block_means(np.where(strip.mask[0], np.nan, strip.pixels[0]), n) for strip in strips]
    cores = tuple(tile.core.scaled(given.scale) for tile in given.tiles)
    return Overview(np.concatenate(thin), n, (h, w), cores, shown, describe_place(given.tiles[shown], given.scale))

"""The files that an evaluation looks at, opened and brought together: image, data, truth, noise, blur and planes."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
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
from sciresdiff.jobs.evaluate import register as registration
from sciresdiff.jobs.evaluate.pieces import WHOLE, describe_place, plan_pieces, windows
from sciresdiff.jobs.evaluate.rerun import Again, again_of
from sciresdiff.jobs.upscale.inputs import kernel_of, stated_psf
from sciresdiff.jobs.upscale.job import finer
from sciresdiff.jobs.upscale.options import UpscaleOptions
from sciresdiff.observation.noise import doubted, noise_of
from sciresdiff.observation.sample import Samples, of_frame, samples_of
from sciresdiff.report.images import means
from sciresdiff.report.overview import SIDE, Overview
from sciresdiff.tiling import Tile

PLANES = ("ERR", "SUPPORT", "TRUST")
"""Planes of an output that are judged, or judged by."""

STRIP = 2**22
"""Pixels that are read at a time for the overview."""

Layer = Callable[[int, slice, slice], NDArray[Any]]
"""(plane, rows, columns) -> (h, w), or (K, h, w) of draws."""
Variance = Callable[[Frame, int, int, int], NDArray[np.floating[Any]]]
"""(window of the data, its plane, first row, first column) -> (h, w)."""


@dataclass(frozen=True)
class Given:
    """The files that belong together, open."""

    high: Source
    low: Source | None
    truth: Source | None
    scale: int
    quantity: Quantity
    variance: Variance | None
    operator: Callable[[tuple[int, int]], Any] | None
    """(h, w) of a coarse window -> its measurement; None where the blur is not known."""
    tiles: tuple[Tile, ...] = ()
    """The pieces that every plane is judged in, coarse px; one where it is judged whole."""
    planes: Mapping[str, Layer] = field(default_factory=dict)
    """ERR, SUPPORT and TRUST of the output."""
    draws: Layer | None = None
    again: Again | None = None
    """Makes the image of other data, where the user wants probes."""
    target_fwhm: float | None = None
    registered: Mapping[str, Any] = field(default_factory=dict)
    """Of a truth by another instrument: zero points, PSFs and shift."""


@dataclass(frozen=True)
class Told:
    """What the user says of blur, noise and unit, and whether probes are wanted."""

    psf: str | None
    kernel: str | None
    target_fwhm: float | None
    variance: str | None
    quantity: Quantity | None
    probe: bool = False
    device: str = "auto"


@contextmanager
def gather(
    high: str | Path, low: str | Path | None, truth: str | Path | None, told: Told, said: list[str]
) -> Iterator[Given]:
    """Open the files, and settle scale, quantity, noise, blur and pieces.

    Raises
    ------
    InputError : files that do not fit each other, or that show different places of the sky; a truth on other pixels
        of an image that is too large for one piece.
    UsageError : probes without a sidecar, or of such an image.
    """
    with ExitStack() as stack:
        image = _opened(stack, high, quantity=told.quantity)
        note = sidecar(high, low)
        options = _options(note, told)
        of_data = {"variance": options.variance, "mask": options.mask, "axes": options.axes}
        data = None if low is None else _opened(stack, low, **of_data)
        scale = 1 if data is None else _scale(high, image.frame, low, data.frame)
        quantity = _quantity(told, note, None if data is None else data.frame, image.frame, said)
        true, registered = None, dict[str, Any]()
        if truth is not None:
            true, registered = _truth(_opened(stack, truth), truth, image, high, scale, said)
        for name, other in ((low, data), (truth, true)):
            if name is not None and other is not None:
                refuse_elsewhere(high, image.frame, name, other.frame)
        say_odd({"image": image, "data": data, "truth": true}, said)
        samples = None if data is None else _samples(data)
        noise = None if data is None or samples is None else _variance(data.frame, samples, options, note, told, said)
        kernel, known = None, False
        if data is not None and low is not None and samples is not None:
            kernel, known = _kernel(low, data.frame, samples, options, scale, bool(note), said)
        size = image.frame.pixels.shape[1:] if data is None else data.frame.pixels.shape[1:]
        tiles = plan_pieces((size[0], size[1]), scale, kernel)
        if told.probe and len(tiles) > 1:
            raise UsageError(
                f"--probe: {high} is judged in {len(tiles)} pieces, and a frame is restored anew as a whole; cut it "
                f"to {WHOLE} px a side"
            )
        yield Given(
            image,
            data,
            true,
            scale,
            quantity,
            noise,
            lru_cache(4)(partial(_operator, kernel=kernel, scale=scale, quantity=quantity)) if known else None,
            tiles,
            {name: layer for name in PLANES if (layer := beside(stack, high, name, image.frame))},
            draws_beside(stack, high, image.frame),
            again_of(high, low, note, scale, said, told.device) if told.probe else None,
            options.target_fwhm or note.get("target_fwhm_px"),
            registered,
        )


def _opened(stack: ExitStack, path: str | Path, **options: Any) -> Source:
    """A file; a small one is read."""
    source = stack.enter_context(io.opened(path, **options))
    return in_memory(source.whole()) if source.frame.pixels.size <= WHOLE**2 else source


def _samples(data: Source) -> Samples:
    """What is measured on the data: all of a small frame, windows of a large one."""
    return of_frame(data.whole()) if data.frame.pixels.size <= WHOLE**2 else samples_of(data)


def _truth(
    true: Source, truth: str | Path, image: Source, high: str | Path, scale: int, said: list[str]
) -> tuple[Source | None, dict[str, Any]]:
    """The truth; of one by another instrument, on other pixels, how the two are registered."""
    if registration.other_grid(image.frame, true.frame):
        for name, one in ((high, image), (truth, true)):
            if one.frame.pixels.size > WHOLE**2:
                raise InputError(
                    f"{truth}: has pixels of another size than {high}, and {name} is too large to be registered: "
                    f"cut it to {WHOLE} px a side"
                )
        said.append(f"WARNING truth: {truth} has pixels of another size: it is registered, and nothing is scored by it")
        return None, registration.measured(image.whole(), true.whole(), said)
    return replace(true, frame=_cropped(true.frame, truth, image.frame, high, scale, said)), {}


def refuse_elsewhere(high: str | Path, image: Frame, name: str | Path, other: Frame) -> None:
    """Two frames of which the header says that they show different places.

    Raises
    ------
    InputError : the centres are farther apart than the image's diagonal.
    """
    headers = [_sky_header(frame) for frame in (image, other)]
    if None in headers:
        return
    try:
        apart, size = _apart(headers, image, other)
    except Exception:  # a WCS that astropy cannot use says nothing of the place
        return
    if apart > size:
        raise InputError(
            f"{name}: its centre is {apart:.4g} degrees from that of {high}, whose diagonal is {size:.4g}, by their "
            "WCS; give the file of the same field"
        )


def _sky_header(frame: Frame) -> Any:
    """The header of a frame with celestial coordinates, else None."""
    from sciresdiff.io.fits.wcs import has_wcs

    header = getattr(frame.header, "image", None)
    return header if header is not None and has_wcs(header) else None


def _apart(headers: list[Any], image: Frame, other: Frame) -> tuple[float, float]:
    """Distance between the centres of two frames and the diagonal of the first, degrees."""
    from astropy.wcs import WCS

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what astropy mends in a header
        first, second = (WCS(header, naxis=2) for header in headers)
        (h, w), (k, m) = image.pixels.shape[1:], other.pixels.shape[1:]
        centre, there = first.pixel_to_world((w - 1) / 2, (h - 1) / 2), second.pixel_to_world((m - 1) / 2, (k - 1) / 2)
        corner = first.pixel_to_world(-0.5, -0.5)
        return float(centre.separation(there).deg), 2 * float(centre.separation(corner).deg)


def say_odd(sources: Mapping[str, Source | None], said: list[str]) -> None:
    """Note planes that are all masked or constant, and a truth without light above zero."""
    for name, source in sources.items():
        for i in range(0 if source is None else source.frame.planes):
            assert source is not None
            count, low, high, total = _extent(source, i)
            where = f"{name}, plane {i}" if source.frame.planes > 1 else name
            if not count:
                said.append(f"WARNING {where}: every pixel is masked; nothing of it is judged")
            elif high == low:
                said.append(f"WARNING {where}: constant ({low:g}); most checks have nothing to measure")
            elif name == "truth" and total < 0:
                said.append(
                    f"WARNING {where}: its mean is negative ({total / count:.4g}); fluxes are above the sky only"
                )


def _extent(source: Source, plane: int) -> tuple[int, float, float, float]:
    """Count, least, greatest and sum of a plane's valid values."""
    count, low, high, total = 0, np.inf, -np.inf, 0.0
    for rows, columns in windows(source.frame.pixels.shape[1:]):
        part = source.window(plane, rows.start, rows.stop, columns.start, columns.stop)
        values = part.pixels[0][~part.mask[0] & np.isfinite(part.pixels[0])]
        if values.size:
            low, high = min(low, float(values.min())), max(high, float(values.max()))
            count, total = count + values.size, total + float(values.sum(dtype=np.float64))
    return count, low, high, total


def sidecar(high: str | Path, low: str | Path | None) -> dict[str, Any]:
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


def _options(note: Mapping[str, Any], told: Told) -> UpscaleOptions:
    """The options of the restoration as far as they speak of the data; what is told now wins."""
    noted = note.get("options", {})
    names = ("gain", "read_noise", "offset", "variance", "mask", "axes", "target_fwhm", "psf", "kernel")
    options = UpscaleOptions(**{name: noted.get(name) for name in names})
    if told.psf or told.kernel:
        options = replace(options, psf=told.psf, kernel=told.kernel)
    return replace(
        options,
        variance=told.variance or options.variance,
        target_fwhm=told.target_fwhm or options.target_fwhm,
    )


def _scale(high: str | Path, image: Frame, low: str | Path | None, data: Frame) -> int:
    """Fine pixels per coarse pixel."""
    (H, W), (h, w) = image.pixels.shape[1:], data.pixels.shape[1:]
    if H % h or W % w or H // h != W // w:
        raise InputError(f"{high}: {H} x {W} px are no whole multiple of the {h} x {w} px of {low}")
    if image.planes != data.planes:
        raise InputError(f"{high}: {image.planes} planes, but {low} has {data.planes}")
    return H // h


def _quantity(told: Told, note: Mapping[str, Any], data: Frame | None, image: Frame, said: list[str]) -> Quantity:
    """``sum`` or ``mean``: option, note, the frames' units, else by kind."""
    known = told.quantity or note.get("quantity") or (data.quantity if data else None) or image.quantity
    return image.quantity_or_usual(known, said)


def _cropped(truth: Frame, name: str | Path, image: Frame, high: str | Path, scale: int, said: list[str]) -> Frame:
    """The truth on the image's pixels, from its first one on."""
    (T, U), (H, W) = truth.pixels.shape[1:], image.pixels.shape[1:]
    spare = max(scale, 8) if scale > 1 else 8
    if truth.planes != image.planes:
        raise InputError(f"{name}: {truth.planes} planes, but {high} has {image.planes}")
    if not (0 <= T - H < spare and 0 <= U - W < spare):
        raise InputError(f"{name}: {T} x {U} px do not fit the {H} x {W} px of {high}; give the truth on its pixels")
    if (T, U) == (H, W):
        return truth
    said.append(f"truth: {T} x {U} px cropped to the image's {H} x {W}")
    return truth.with_(
        pixels=truth.pixels[:, :H, :W], mask=truth.mask[:, :H, :W], variance=None, saturated=None, dq=None
    )


def _variance(
    data: Frame, samples: Samples, options: UpscaleOptions, note: Mapping[str, Any], told: Told, said: list[str]
) -> Variance | None:
    """The data's variance: as the restoration took it where there is a note, else the plane as it is, else measured."""
    if not note and data.variance is not None and (options.variance or options.gain is None):
        return _as_it_is
    try:
        found = noise_of(data, samples, options, said, {})
    except InputError as problem:
        said.append(f"{problem}; checks in units of the noise are left out")
        return None
    source = "" if told.psf or told.kernel else str(note.get("sources", {}).get("psf", ""))
    return doubted(found, data, samples, source, said).of


def _as_it_is(window: Frame, plane: int, y0: int, x0: int) -> NDArray[np.floating[Any]]:
    """The file's own plane."""
    assert window.variance is not None
    return window.variance[0]


def _kernel(
    low: str | Path, data: Frame, samples: Samples, options: UpscaleOptions, scale: int, noted: bool, said: list[str]
) -> tuple[NDArray[np.float64] | None, bool]:
    """The blur on the fine grid, and whether it is known."""
    if not (options.kernel or options.psf or noted or data.kernel is not None or stated_psf(data)):
        said.append("psf: not known; give --kernel or --psf for the checks against the data and for Richardson-Lucy")
        return None, False
    kernel, _ = kernel_of(low, data, samples, options, scale, said, {})
    return kernel, True


def _operator(shape: tuple[int, int], kernel: NDArray[np.float64] | None, scale: int, quantity: Quantity) -> Any:
    """The measurement of a window, in float64."""
    import torch

    from sciresdiff.physics.operators import Operator

    return Operator(shape, scale, kernel, quantity, dtype=torch.float64)


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
        here = (rows.start, rows.stop, columns.start, columns.stop)
        return np.concatenate([source.window(i, *here).pixels for i in range(layers.start, layers.stop)])

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
    coarse, fine = tile.window.slices, tile.window.scaled(s).slices
    low = None if given.low is None else _window(given.low, plane, coarse)
    high, truth = _window(given.high, plane, fine), None if given.truth is None else _window(given.truth, plane, fine)
    planes = {name: np.asarray(layer(plane, *fine), np.float64) for name, layer in given.planes.items()}
    variance = None
    if low is not None and given.variance is not None:
        variance = np.asarray(given.variance(low, plane, tile.window.y0, tile.window.x0), np.float64)
    return Evidence(
        high=np.asarray(high.pixels[0], np.float64),
        scale=s,
        low=None if low is None else np.asarray(low.pixels[0], np.float64),
        variance=variance,
        truth=None if truth is None else np.asarray(truth.pixels[0], np.float64),
        mask_high=_masked(high, low, truth, s),
        mask_low=None if low is None else low.mask[0],
        operator=None if given.operator is None else given.operator(tile.window.shape),
        err=planes.get("ERR"),
        support=planes.get("SUPPORT"),
        trust=planes.get("TRUST"),
        draws=None if given.draws is None else given.draws(plane, *fine),
        again=None if given.again is None else partial(given.again, plane),
        kind=kind_of(given),
        quantity=given.quantity,
        target_fwhm_px=given.target_fwhm,
        core=None if len(given.tiles) == 1 else tile.inside(s),
        span=span,
    )


def _window(source: Source, plane: int, at: tuple[slice, slice]) -> Frame:
    rows, columns = at
    return source.window(plane, rows.start, rows.stop, columns.start, columns.stop)


def _masked(high: Frame, low: Frame | None, truth: Frame | None, scale: int) -> NDArray[np.bool_]:
    """Fine pixels that are masked in any of the files."""
    mask = high.mask[0].copy()
    if low is not None:
        mask |= finer(low.mask[0], scale)
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
    thin = [means(np.where(strip.mask[0], np.nan, strip.pixels[0]), n) for strip in strips]
    cores = [tile.core.scaled(given.scale) for tile in given.tiles]
    places = tuple((core.y0, core.y1, core.x0, core.x1) for core in cores)
    return Overview(np.concatenate(thin), n, (h, w), places, shown, describe_place(given.tiles[shown], given.scale))

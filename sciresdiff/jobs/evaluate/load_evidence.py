"""The files of an evaluation, open and on pixels that fit each other, and the evidence that is read from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
from sciresdiff.io.source import Source, in_memory
from sciresdiff.jobs.evaluate.options import EvaluateOptions
from sciresdiff.jobs.evaluate.output_planes import ReadPlane, open_draws, open_planes
from sciresdiff.jobs.evaluate.overlap import differ_in_pixel_size, refuse_separate_fields
from sciresdiff.jobs.evaluate.pieces import WHOLE, describe_place, fits_in_memory, plan_pieces, windows
from sciresdiff.jobs.evaluate.register import register_truth
from sciresdiff.jobs.evaluate.rerun import Rerun, make_rerun
from sciresdiff.jobs.evaluate.sidecar import Sidecar
from sciresdiff.notes import Notes
from sciresdiff.observation.exposure import Exposure
from sciresdiff.observation.grid import Grid, upsample_nearest
from sciresdiff.observation.noise import Noise
from sciresdiff.observation.observation import Observation
from sciresdiff.observation.options import Stated
from sciresdiff.observation.psf import psf_of_header, resolve_psf
from sciresdiff.observation.psf_error import resolve_psf_error
from sciresdiff.observation.resolve_noise import resolve_noise
from sciresdiff.observation.sample import Samples
from sciresdiff.observation.screening import describe_defects, observed_source, screen, screen_with_psf
from sciresdiff.physics.psf.field import PSF
from sciresdiff.region import Region
from sciresdiff.report.images import block_means
from sciresdiff.report.overview import SIDE, Overview
from sciresdiff.restoration.kernel_width import correct_width
from sciresdiff.tiling import Tile

STRIP = 2**22
"""Pixels that are read at a time for the overview."""


@dataclass(frozen=True)
class EvidenceFiles:
    """The open files of one evaluation, on pixels that fit each other."""

    high: Source
    """The image that is judged."""
    truth: Source | None
    """On the pixels of the image."""
    observation: Observation | None
    """The data; None without."""
    quantity: Quantity
    has_noise: bool = False
    """Whether the data's noise is known."""
    has_psf: bool = False
    """Whether their PSF is."""
    tiles: tuple[Tile, ...] = ()
    """The pieces that every plane is judged in, coarse px; one where it is judged whole."""
    planes: Mapping[str, ReadPlane] = field(default_factory=dict)
    """ERR, SUPPORT and TRUST of the image, those that there are."""
    draws: ReadPlane | None = None
    """Posterior samples."""
    rerun: Rerun | None = None
    """Makes the image of other data, where the user wants probes."""
    target_fwhm: float | None = None
    """FWHM of the PSF that the image is meant to have, fine px."""
    registration: Mapping[str, Any] = field(default_factory=dict)
    """Of a truth by another instrument: flux ratio, PSFs and shift, as `register.register_truth` returns them."""

    @property
    def scale(self) -> int:
        """Pixels of the image per pixel of the data and axis; 1 without data."""
        return 1 if self.observation is None else self.observation.scale

    @property
    def low(self) -> Source | None:
        """The data as they were read."""
        return None if self.observation is None else self.observation.exposure.image


@contextmanager
def open_evidence(
    high: str | Path, low: str | Path | None, truth: str | Path | None, options: EvaluateOptions
) -> Iterator[tuple[EvidenceFiles, Notes]]:
    """Open the files, and resolve scale, quantity, noise, PSF and pieces.

    Parameters
    ----------
    high : str or Path
        The image that is judged.
    low : str, Path or None
        The data that it was made from.
    truth : str, Path or None
        The true image.
    options : EvaluateOptions
        What the user states; what is not stated is read from the image's sidecar or the data, else measured.

    Yields
    ------
    files : EvidenceFiles
    notes : Notes
        What was read, measured and assumed.

    Raises
    ------
    InputError
        Files that do not fit each other, or that show different parts of the sky; a truth on other pixels of an image
        that is too large for one piece.
    UsageError
        Probes without a sidecar, or of such an image.
    """
    with ExitStack() as stack:
        image = open_source(stack, high, quantity=options.quantity)
        sidecar = Sidecar.read(high, low)
        stated = sidecar.merge(options.stated)
        of_data = {name: getattr(stated, name) for name in ("variance", "mask", "axes", "saturated")}
        of_data |= {"outside": stated.allow_outside}
        data = None if low is None else open_source(stack, low, **of_data)
        scale = 1 if data is None else scale_between(high, image.frame, low, data.frame)
        known = options.quantity or sidecar.quantity or (data.frame.quantity if data else None)
        quantity, notes = image.frame.quantity_or_usual(known)
        true, registration = None, dict[str, Any]()
        if truth is not None:
            true, registration, more = fit_truth(open_source(stack, truth), truth, image, high, scale)
            notes += more
        for name, other in ((low, data), (truth, true)):
            if name is not None and other is not None:
                refuse_separate_fields(high, image.frame, name, other.frame)
        notes += note_degenerate_planes({"image": image, "data": data, "truth": true})
        files = EvidenceFiles(image, true, None, quantity, registration=registration)
        if data is not None and low is not None:
            files, more = add_observation(files, low, data, scale, sidecar, options.stated)
            notes += more
        h, w = (image if data is None else data).frame.pixels.shape[1:]
        tiles = plan_pieces((h, w), files.observation)
        if options.probe and len(tiles) > 1:
            raise UsageError(
                f"--probe: {high} is judged in {len(tiles)} pieces, and a frame is restored anew as a whole; cut it "
                f"to {WHOLE} px a side"
            )
        probe = make_rerun(high, low, sidecar.record, scale, options.device) if options.probe else (None, Notes())
        files = replace(
            files,
            tiles=tiles,
            planes=open_planes(stack, high, image.frame),
            draws=open_draws(stack, high, image.frame),
            rerun=probe[0],
            target_fwhm=stated.target_fwhm or sidecar.target_fwhm,
        )
        yield files, notes + probe[1]


def add_observation(
    files: EvidenceFiles, low: str | Path, data: Source, scale: int, sidecar: Sidecar, stated: Stated
) -> tuple[EvidenceFiles, Notes]:
    """Add the observation that the data are; with a sidecar, noise and PSF as the restoration took them.

    Parameters
    ----------
    files : EvidenceFiles
        Without an observation.
    low : str or Path
        The data's file, for messages.
    data : Source
        The same, open.
    scale : int
        Pixels of the image per pixel of the data and axis.
    sidecar : Sidecar
        Of the image.
    stated : Stated
        What the user states of the data; wins over the sidecar.
    """
    merged, frame = sidecar.merge(stated), data.frame
    found = screen(data, merged)
    samples = found.samples
    noise, notes = resolve_data_noise(frame, samples, merged, bool(sidecar))
    has_psf = bool(
        merged.kernel or merged.psf or merged.na or sidecar or frame.kernel is not None or psf_of_header(frame)
    )
    psfs: tuple[PSF | None, ...] = (None,)
    target: float | None = None
    if has_psf:
        psfs, target, more = resolve_psf(low, frame, samples, merged, scale)
        notes += more
        if noise is not None:
            psfs, noise, more = resolve_psf_error(psfs, noise, merged, scale, target, more.origins["psf"])
            notes += more
        found, more = screen_with_psf(found, merged, psfs, scale, noise)
        notes += more
    else:
        notes += describe_defects(found.defects, samples)
        notes += Notes("psf: not known; give --kernel or --psf for the checks against the data and for Richardson-Lucy")
    grid = Grid((frame.pixels.shape[1], frame.pixels.shape[2]), frame.pixel_size)
    # without a noise the exposure has that of its file; `has_noise` keeps the checks from using it
    image = observed_source(None, found, merged)
    own = psfs if len(psfs) > 1 else ()
    exposure = Exposure(image, grid, noise or Noise(), psfs[0], files.quantity, psfs=own)
    observation = correct_width(Observation([exposure], grid.refine(scale), notes=notes), found.samples, target)
    notes = observation.notes
    return replace(files, observation=observation, has_noise=noise is not None, has_psf=has_psf), notes


def open_source(stack: ExitStack, path: str | Path, **options: Any) -> Source:
    """Open a file; a small one is read.

    Parameters
    ----------
    stack : ExitStack
        Closes the file.
    path : str or Path
    **options
        As for `io.open_source`.
    """
    source = stack.enter_context(io.open_source(path, **options))
    return in_memory(source.whole()) if fits_in_memory(source.frame) else source


def fit_truth(
    true: Source, truth: str | Path, image: Source, high: str | Path, scale: int
) -> tuple[Source | None, dict[str, Any], Notes]:
    """Crop the truth to the image's pixels; a truth by another instrument, on other pixels, is registered instead.

    Parameters
    ----------
    true, truth : Source, str or Path
        The truth and its file.
    image, high : Source, str or Path
        The image that is judged and its file.
    scale : int
        Pixels of the image per pixel of the data and axis.

    Returns
    -------
    truth : Source or None
        None for a truth on other pixels.
    registration : dict
        See `register.register_truth`; empty for a truth on the image's pixels.
    notes : Notes

    Raises
    ------
    InputError
        A truth that does not fit, or files that are too large to be registered.
    """
    if differ_in_pixel_size(image.frame, true.frame):
        for name, one in ((high, image), (truth, true)):
            if not fits_in_memory(one.frame):
                raise InputError(
                    f"{truth}: has pixels of another size than {high}, and {name} is too large to be registered: "
                    f"cut it to {WHOLE} px a side"
                )
        notes = Notes(
            f"WARNING truth: {truth} has pixels of another size: it is registered, and nothing is scored by it"
        )
        registration, more = register_truth(image.whole(), true.whole())
        return None, registration, notes + more
    frame, notes = crop_truth(true.frame, truth, image.frame, high, scale)
    return replace(true, frame=frame), {}, notes


def note_degenerate_planes(sources: Mapping[str, Source | None]) -> Notes:
    """Note planes that are all masked or constant, and a truth whose mean is below zero.

    Parameters
    ----------
    sources : mapping
        ``image``, ``data``, ``truth`` -> the open file.
    """
    notes = Notes()
    for name, source in sources.items():
        if source is None:
            continue
        for i in range(source.frame.planes):
            count, low, high, total = _measure_range(source, i)
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


def _measure_range(source: Source, plane: int) -> tuple[int, float, float, float]:
    """Count, least, greatest and sum of a plane's valid values."""
    count, low, high, total = 0, np.inf, -np.inf, 0.0
    for region in windows(source.frame.pixels.shape[1:]):
        part = source.window(plane, region)
        values = part.pixels[0][~part.mask[0] & np.isfinite(part.pixels[0])]
        if values.size:
            low, high = min(low, float(values.min())), max(high, float(values.max()))
            count, total = count + values.size, total + float(values.sum(dtype=np.float64))
    return count, low, high, total


def scale_between(high: str | Path, image: Frame, low: str | Path | None, data: Frame) -> int:
    """Fine pixels per coarse pixel and axis, from the shapes of image and data.

    Parameters
    ----------
    high, image : str or Path, Frame
        The image's file and frame.
    low, data : str or Path, Frame
        The data's.

    Raises
    ------
    InputError
        No whole ratio, or other planes.
    """
    (H, W), (h, w) = image.pixels.shape[1:], data.pixels.shape[1:]
    if H % h or W % w or H // h != W // w:
        raise InputError(f"{high}: {H} x {W} px are no whole multiple of the {h} x {w} px of {low}")
    if image.planes != data.planes:
        raise InputError(f"{high}: {image.planes} planes, but {low} has {data.planes}")
    return H // h


def crop_truth(truth: Frame, name: str | Path, image: Frame, high: str | Path, scale: int) -> tuple[Frame, Notes]:
    """Crop the truth at its far borders to the image's pixels.

    Parameters
    ----------
    truth, name : Frame, str or Path
        The true image and its file.
    image, high : Frame, str or Path
        The image that is judged, and its file.
    scale : int
        Pixels of the image per pixel of the data; the truth may be larger by fewer pixels than that, or than 8.

    Raises
    ------
    InputError
        Other planes, a smaller truth, or one that is larger by more.
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


def resolve_data_noise(data: Frame, samples: Samples, stated: Stated, restored: bool) -> tuple[Noise | None, Notes]:
    """Find the data's noise: as the restoration took it where there is a record, else the file's plane, else measured.

    Parameters
    ----------
    data : Frame
        What the file says; its values are not used.
    samples : Samples
        What the noise is measured on.
    stated : Stated
        By the user, or by the record.
    restored : bool
        Whether there is a record of the restoration.

    Returns
    -------
    noise : Noise or None
        None where it cannot be measured.
    notes : Notes
    """
    if not restored and data.variance is not None and (stated.variance or stated.gain is None):
        return Noise(), Notes()
    try:
        noise, notes = resolve_noise(data, samples, stated)
    except InputError as problem:
        return None, Notes(f"{problem}; checks in units of the noise are left out")
    return noise, notes


def kind_of(files: EvidenceFiles) -> Kind:
    """``astro`` or ``micro``: the data's, else the image's."""
    return (files.high if files.low is None else files.low).frame.kind


def evidence_of(files: EvidenceFiles, plane: int, tile: Tile | None = None, span: float | None = None) -> Evidence:
    """Read one plane of the files, or a piece of it, as evidence for the checks.

    Parameters
    ----------
    files : EvidenceFiles
    plane : int
        Number of the plane, from 0.
    tile : Tile or None
        Core and window, coarse px; None: the first piece, which is all of a small plane.
    span : float or None
        Range of the truth over all pieces.
    """
    tile, s = tile or files.tiles[0], files.scale
    fine = tile.window.scaled(s)
    window = None if files.observation is None else files.observation.window(plane, tile)
    low = None if window is None else window.exposure
    high, truth = files.high.window(plane, fine), None if files.truth is None else files.truth.window(plane, fine)
    planes = {name: np.asarray(read(plane, fine), np.float64) for name, read in files.planes.items()}
    return Evidence(
        high=np.asarray(high.pixels[0], np.float64),
        scale=s,
        low=None if low is None else np.asarray(low.pixels, np.float64),
        variance=np.asarray(low.variance, np.float64) if low is not None and files.has_noise else None,
        truth=None if truth is None else np.asarray(truth.pixels[0], np.float64),
        mask_high=_join_masks(high, None if low is None else low.plane, truth, s),
        mask_low=None if low is None else low.mask,
        operator=None if window is None or not files.has_psf else window.operator(),
        err=planes.get("ERR"),
        support=planes.get("SUPPORT"),
        trust=planes.get("TRUST"),
        draws=None if files.draws is None else files.draws(plane, fine),
        again=None if files.rerun is None else partial(files.rerun, plane),
        kind=kind_of(files),
        quantity=files.quantity,
        target_fwhm_px=files.target_fwhm,
        core=None if len(files.tiles) == 1 else tile.core.within(tile.window).scaled(s),
        span=span,
    )


def _join_masks(high: Frame, low: Frame | None, truth: Frame | None, scale: int) -> NDArray[np.bool_]:
    """Fine pixels (Y, X) that are masked in any of the files."""
    mask = high.mask[0].copy()
    if low is not None:
        mask |= upsample_nearest(low.mask[0], scale)
    if truth is not None:
        mask |= truth.mask[0]
    return mask


def span_of(files: EvidenceFiles, plane: int) -> float | None:
    """The truth's range over all pixels of a plane that are judged; None without a truth."""
    if files.truth is None:
        return None
    least, most = np.inf, -np.inf
    for tile in files.tiles:
        fine = tile.core.scaled(files.scale)
        low = None if files.low is None else files.low.window(plane, tile.core)
        high, truth = files.high.window(plane, fine), files.truth.window(plane, fine)
        good = ~_join_masks(high, low, truth, files.scale) & np.isfinite(high.pixels[0]) & np.isfinite(truth.pixels[0])
        values = truth.pixels[0][good]
        if values.size:
            least, most = min(least, float(values.min())), max(most, float(values.max()))
    return most - least if most > least else None


def overview(files: EvidenceFiles, shown: int) -> Overview:
    """The first plane of the image, made small by block means, and where its pieces lie.

    Parameters
    ----------
    files : EvidenceFiles
    shown : int
        Number of the piece that the report shows.
    """
    _, h, w = files.high.frame.pixels.shape
    n = max(1, -(-max(h, w) // SIDE))
    rows = n * max(1, STRIP // (n * w))
    strips = (files.high.window(0, Region(y, min(y + rows, h), 0, w)) for y in range(0, h, rows))
    thin = [block_means(np.where(strip.mask[0], np.nan, strip.pixels[0]), n) for strip in strips]
    cores = tuple(tile.core.scaled(files.scale) for tile in files.tiles)
    place = describe_place(files.tiles[shown], files.scale)
    return Overview(np.concatenate(thin), n, (h, w), cores, shown, place)

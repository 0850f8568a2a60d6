"""``sciresdiff.evaluate``: is a restored image faithful to its data, and to the truth where that is known?"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from sciresdiff import checks
from sciresdiff.api.image import Array, Image, Plane, is_name, make_options, open_image, warn_of
from sciresdiff.api.restored import Restored
from sciresdiff.errors import InputError, UsageError
from sciresdiff.frame import Kind
from sciresdiff.io.source import Source, in_memory
from sciresdiff.jobs.evaluate.job import Evaluation as Judging
from sciresdiff.jobs.evaluate.job import parse_baselines, refuse_report, run
from sciresdiff.jobs.evaluate.judge import Piece, Request, judge_piece
from sciresdiff.jobs.evaluate.load_evidence import (
    EvidenceFiles,
    add_observation,
    crop_truth,
    evidence_of,
    note_degenerate_planes,
    scale_between,
    span_of,
)
from sciresdiff.jobs.evaluate.options import EvaluateOptions
from sciresdiff.jobs.evaluate.output_planes import ReadPlane
from sciresdiff.jobs.evaluate.pieces import plan_pieces
from sciresdiff.jobs.evaluate.sidecar import Sidecar
from sciresdiff.notes import Notes
from sciresdiff.region import Region


@dataclass(frozen=True)
class Evaluation:
    """What the checks found."""

    verdict: str
    """``pass``, ``warn`` or ``fail``."""
    results: tuple[Mapping[str, Any], ...]
    """One entry a figure: ``name value unit region limit passed meaning``; ``value`` is None where it could not be
    measured, and ``meaning`` says why."""
    baselines: Mapping[str, tuple[Mapping[str, Any], ...]]
    """The same of bicubic interpolation, Richardson-Lucy ..., on the same data."""
    notes: Notes
    """What was read, measured and assumed."""
    record: Mapping[str, Any] = field(repr=False)
    """All of it as the command line writes it with ``--json``."""

    def value(self, name: str, region: str | None = None) -> float | None:
        """A figure by its name, in a region (``all``, ``sources``, ``sky`` ...) or in the first one that has it.

        Raises
        ------
        KeyError : no check of that name, or not in that region.
        """
        for result in self.results:
            if result["name"] == name and region in (None, result["region"]):
                value = result["value"]
                return None if value is None else float(value)
        known = ", ".join(dict.fromkeys(result["name"] for result in self.results))
        raise KeyError(f"{name}: no such figure; there are {known}")

    @property
    def failures(self) -> tuple[Mapping[str, Any], ...]:
        """The results beyond their limits."""
        return tuple(result for result in self.results if result["passed"] is False)


def evaluate(
    high: Image | Restored,
    low: Image | None = None,
    truth: Image | None = None,
    *,
    psf: str | Path | None = None,
    kernel: str | Path | None = None,
    variance: Plane | None = None,
    mask: Plane | None = None,
    kind: Kind = "astro",
    report: str | Path | None = None,
    options: EvaluateOptions | None = None,
    **settings: Any,
) -> Evaluation:
    """Judge a restored image against its data, and against the truth where it is known.

    Parameters
    ----------
    high : what `restore` returned, an array (Y, X) or (planes, Y, X), or a file, whose planes and sidecar are used.
    low : the data: an array, a file, or what `degrade` returned.  What `restore` returned knows its own.
    truth : the true image on the same pixels as ``high``.
    psf, kernel : SPEC of the data's PSF, or of the blur on the fine grid, where ``high`` or ``low`` do not know it.
    variance, mask : of the data; arrays of their shape, or for a file what `io.read` takes.
    kind : ``astro`` or ``micro``, of images that are no files.
    report : write an HTML page, or a PNG picture, by its ending.
    options : further options; those that are given by name win.
    settings : any other option of ``sciresdiff evaluate`` by its name in Python: ``baselines``, ``quantity``,
        ``limits``, ``target_fwhm``, ``probe`` (files only).

    Returns
    -------
    Evaluation

    Raises
    ------
    UsageError, InputError : the sentences of the command line.

    Examples
    --------
    >>> found = sciresdiff.evaluate(restored, truth=truth)
    >>> found.verdict, found.value("psnr"), found.value("chi2")
    """
    by_name = {"psf": psf, "kernel": kernel, "variance": variance if is_name(variance) else None, **settings}
    chosen = make_options(EvaluateOptions, options, {n: v for n, v in by_name.items() if v is not None})
    names = [None if one is None else str(one) if isinstance(one, str | Path) else "" for one in (high, low, truth)]
    arrays = not (variance is None or is_name(variance)) or mask is not None
    refuse_of_data(high, low, {"psf": psf, "kernel": kernel, "variance": variance, "mask": mask})
    if not isinstance(report, str | Path | None):
        raise UsageError(f"--report: {report!r} is given, but the name of a file is needed")
    if "" not in names and not arrays:
        record = run(str(high), low=names[1], truth=names[2], report=report, options=chosen)
        return make_evaluation(record)
    if chosen.probe:
        raise UsageError("--probe: makes the image again as its sidecar says; give files")
    refuse_report(report, chosen.overwrite)
    methods = tuple(parse_baselines(chosen.baselines))
    limits = checks.read_limits(chosen.limits, checks.RESULTS) if chosen.limits else {}
    with ExitStack() as stack:
        given, notes = gather_images(stack, high, low, truth, chosen, variance, mask, kind)
        first, *others = ("image" if name == "" else name for name in names)
        request = Request(str(first), others[0], others[1], chosen, methods, limits, uuid.uuid4().hex)
        return make_evaluation(judge(request, given, notes, report))


def refuse_of_data(high: Image | Restored, low: Image | None, given: Mapping[str, Any]) -> None:
    """Refuse what describes data that are not given, or that are known already.

    Parameters
    ----------
    given : PSF, kernel, variance and mask as the user gave them.

    Raises
    ------
    UsageError
    """
    for name in (name for name, value in given.items() if value is not None):
        if isinstance(high, Restored):
            raise UsageError(f"{name}: what restore returned knows that of its data; leave {name} out")
        if low is None and not is_name(high):
            raise UsageError(f"{name}: is of the data, which are not given; give low too")


def judge(request: Request, given: EvidenceFiles, notes: Notes, report: str | Path | None) -> dict[str, Any]:
    """The record of images that are open, as `jobs.evaluate.job.run` makes it of files."""
    planes, tiles = range(given.high.frame.planes), given.tiles
    spans = tuple(span_of(given, plane) for plane in planes) if len(tiles) > 1 else ()
    request = replace(request, tiles=tiles, spans=spans)
    pieces, judged = [Piece(plane, tile) for plane in planes for tile in tiles], []
    for piece in pieces:
        span = spans[piece.plane] if spans else None
        evidence = evidence_of(given, piece.plane, piece.tile if spans else None, span)
        judged.append(judge_piece(request, bool(report) and len(pieces) == 1, piece, evidence))
    only = judged[0] if len(judged) == 1 else None
    return Judging(request, given, notes, pieces, report, None, only).make_record([one.sums for one in judged], Notes())


def gather_images(
    stack: ExitStack,
    high: Image | Restored,
    low: Image | None,
    truth: Image | None,
    options: EvaluateOptions,
    variance: Plane | None,
    mask: Plane | None,
    kind: Kind,
) -> tuple[EvidenceFiles, Notes]:
    """The images that belong together as sources of evidence, and what was measured and assumed."""
    restored = high if isinstance(high, Restored) else None
    if restored is not None:
        kind = restored.frame.kind

    def read(image: Image, name: str, **more: Any) -> Source:
        source = stack.enter_context(open_image(image, kind, name=name, **more))[1]
        return in_memory(source.whole())

    image = read(high, "high")
    data = None if low is None else read(low, "low", variance=variance, mask=mask)
    known = options.quantity or (restored.observation.quantity if restored else None)
    quantity, notes = image.frame.quantity_or_usual(known or (data.frame.quantity if data else None))
    true = None if truth is None else read(truth, "truth")
    scale = 1 if data is None else scale_between("image", image.whole(), "the data", data.frame)
    if true is not None:
        spare = restored.scale if restored else scale
        frame, more = crop_truth(true.whole(), "truth", image.frame, "the image", spare)
        true, notes = in_memory(frame), notes + more
    notes += note_degenerate_planes({"image": image, "data": data, "truth": true})
    given = EvidenceFiles(image, true, None, quantity, target_fwhm=options.target_fwhm)
    if restored is not None:
        if low is not None:
            raise InputError("low: what restore returned knows its data; leave low out, or give high as an array")
        given = replace(
            given,
            observation=restored.observation,
            has_noise=True,
            has_psf=True,
            planes={name: layer_of(plane) for name, plane in planes_of(restored).items()},
            draws=None if restored.draws is None else draws_of(restored.draws),
            target_fwhm=options.target_fwhm or restored.observation.target_fwhm,
        )
    elif data is not None:
        given, more = add_observation(given, "the data", data, scale, Sidecar({}), options.stated)
        notes += more
    h, w = (image.frame if given.observation is None else given.observation.exposure.image.frame).pixels.shape[1:]
    return replace(given, tiles=plan_pieces((h, w), given.observation)), notes


def planes_of(restored: Restored) -> dict[str, Array]:
    """ERR, SUPPORT and TRUST, each (planes, Y, X)."""
    named = {"ERR": restored.err, "SUPPORT": restored.support, "TRUST": restored.trust}
    return {name: plane.reshape(-1, *plane.shape[-2:]) for name, plane in named.items() if plane is not None}


def layer_of(stack: Array) -> ReadPlane:
    """Windows of (planes, Y, X)."""
    return lambda plane, region: stack[(plane, *region.slices)]


def draws_of(draws: Array) -> ReadPlane:
    """Windows of the samples of one plane (K, Y, X), or of several (planes, K, Y, X)."""
    stack = draws if draws.ndim == 4 else draws[None]

    def read(plane: int, region: Region) -> Array:
        return np.asarray(stack[(plane, slice(None), *region.slices)], np.float32)

    return read


def make_evaluation(record: Mapping[str, Any]) -> Evaluation:
    """A record as an `Evaluation`."""
    return Evaluation(
        verdict=record["verdict"],
        results=tuple(record["results"]),
        baselines={name: tuple(results) for name, results in record["baselines"].items()},
        notes=warn_of(Notes(*record["said"])),
        record=record,
    )

"""Evaluating restored images: bring image, data and truth together, run the checks, and the baselines beside them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from sciresdiff import __version__, checks, io
from sciresdiff.checks import pooling
from sciresdiff.checks.evidence import Evidence
from sciresdiff.checks.result import Range, Result, not_computed
from sciresdiff.errors import UsageError
from sciresdiff.io.files import split_spec
from sciresdiff.io.jsonable import jsonable
from sciresdiff.io.sink import Sink
from sciresdiff.jobs.evaluate.exposure import JudgedExposure, judge_exposure
from sciresdiff.jobs.evaluate.judge import (
    Judgement,
    Piece,
    Request,
    journal_target,
    judge_piece,
    limit_by_bicubic,
    open_request,
    parse_part,
    parse_results,
    read_piece,
)
from sciresdiff.jobs.evaluate.load_evidence import EvidenceFiles, evidence_of, kind_of, overview, span_of
from sciresdiff.jobs.evaluate.options import EvaluateOptions
from sciresdiff.jobs.evaluate.output_planes import PLANES
from sciresdiff.jobs.evaluate.pieces import describe_place
from sciresdiff.jobs.identity import NO_BYTES, describe_machine, describe_value, find_companions
from sciresdiff.notes import Notes
from sciresdiff.report import record as records
from sciresdiff.report.overview import Overview
from sciresdiff.run import executor
from sciresdiff.run.executor import Sums
from sciresdiff.run.journal import Journal
from sciresdiff.run.progress import Progress, no_progress
from sciresdiff.run.shards import Shard
from sciresdiff.run.sink import Arrays

REPORTS = (".html", ".htm", ".png")
"""Endings of a report's name."""
SAID_ELSEWHERE = (*NO_BYTES, "baselines", "limits")
"""Options that do not change a record, or whose content is part of the identity by itself."""


def run(
    high: str | Path,
    *,
    low: str | Path | None = None,
    truth: str | Path | None = None,
    report: str | Path | None = None,
    options: EvaluateOptions | None = None,
    progress: Progress = no_progress,
    shard: Shard | None = None,
    scheduler: str | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Evaluate one restored image; planes of more than 4096 px a side in pieces, whose results are pooled.

    The planes of a stack and the pieces of a large plane are evaluated one by one; an interrupted evaluation of several
    is resumed.

    Parameters
    ----------
    high : str or Path
        The image; its ERR, SUPPORT, TRUST and DRAWS (extensions, or ``{stem}_err.tif`` and so on) are used, and what
        its sidecar ``{high}.json`` says of the blur and the noise where the options do not.
    low : str or Path, optional
        The frame that it was made from.
    truth : str or Path, optional
        The true image; up to one coarse pixel larger than ``high``, it is cropped at its far borders.
    report : str or Path, optional
        HTML page to write, or PNG file to draw one picture into, by its ending.
    options : EvaluateOptions, optional
        What is stated of the low frame, and which checks are run. Where nothing states a blur, the checks that need it
        are left out; baselines need ``low``; probes restore other data as the sidecar says.
    progress : Progress
        Told how many planes or pieces are done.
    shard : Shard, optional
        The share of the planes and pieces that this run does.
    scheduler : str, optional
        What evaluates them if not this process: a name that `sciresdiff.run.engines.get_engine` takes.
    **settings
        Fields of `EvaluateOptions`, in place of those of ``options``.

    Returns
    -------
    dict
        The record: ``schema``, ``high``, ``low``, ``truth``, ``scale``, ``verdict``, ``results``, ``baselines``,
        ``said``. Values that are not finite are None. With several planes every region has its plane's number behind
        it. Of an image in pieces there is ``pieces`` too, and a page shows the one that is farthest from the data. A
        shard that leaves the record to others returns one with ``status`` ``waiting``.

    Raises
    ------
    UsageError
        An unknown baseline, limits that cannot be read, a report that is neither page nor PNG, or exists, probes
        without a sidecar, or of an image that is judged in pieces.
    InputError
        A file that cannot be read, or files that do not fit each other.
    """
    options = replace(options or EvaluateOptions(), **settings)
    methods = parse_baselines(options.baselines)
    own = checks.read_limits(options.limits, checks.RESULTS) if options.limits else {}
    refuse_report(report, options.overwrite)
    names = [None if name is None else str(name) for name in (high, low, truth)]
    exposure = None if low is None else judge_exposure(high, low, options)
    if exposure is not None:
        names[1] = None  # its pixels are no parts of those of the image: it is judged by itself
    request = Request(str(high), names[1], names[2], options, tuple(methods), own, uuid.uuid4().hex)
    with open_request(request) as (given, notes):
        planes, tiles = range(given.high.frame.planes), given.tiles
        spans = tuple(span_of(given, plane) for plane in planes) if len(tiles) > 1 else ()
        request = replace(request, tiles=tiles, spans=spans)
        pieces = [Piece(plane, tile) for plane in planes for tile in tiles]
        make_output = partial(Evaluation, request, given, notes, pieces, report, exposure)
        record = executor.execute(make_job(request, pieces, make_output), progress, shard, scheduler)
    return record if "high" in record else {"high": str(high), **record}  # a shard that waits has no record yet


def make_job(request: Request, pieces: Sequence[Piece], make_output: Any) -> executor.Job:
    """The evaluation as the executor runs it.

    Parameters
    ----------
    request : Request
        What is judged, and by what.
    pieces : sequence of Piece
        All planes, or the pieces of each.
    make_output : callable
        First judgement, or None -> `Evaluation`.
    """
    several = len(pieces) > 1  # of a single piece no journal is kept, and nothing has to be known of the files
    return executor.Job(
        source=request.high,
        target=journal_target(request.high),
        pieces=pieces,
        read=partial(read_piece, request),
        do=partial(judge_piece, request, not several),
        output=make_output,
        needs_first=not several,  # a report shows what was judged
        writes=False,
        identity=identify_request(request) if several else {},
        identify=partial(identify_request, request) if several else dict,
        plan={"pieces": str(len(pieces))},
        machine=describe_machine(request.options.device) if several else {},
        overwrite=True,  # the journal of another evaluation is of no use to anybody
        label="evaluate",
    )


def identify_request(request: Request) -> dict[str, str]:
    """Everything that an evaluation depends on, by name."""
    known = {"version": __version__, "baselines": ",".join(request.methods), "limits": repr(request.limits)}
    for name in ("high", "low", "truth"):
        path = getattr(request, name)
        if path is not None:
            known[name] = describe_value(path)
            known |= {f"{name} ({kind})": describe_value(str(f)) for kind, f in _find_planes(path).items()}
    options = {f.name: getattr(request.options, f.name) for f in fields(EvaluateOptions)}
    stated = {name: value for name, value in options.items() if name not in SAID_ELSEWHERE and value is not None}
    return known | {f"--{name.replace('_', '-')}": describe_value(value) for name, value in stated.items()}


def _find_planes(path: str) -> dict[str, Path]:
    """Files beside an image that an evaluation may read: noise and flags, planes of the output, and its sidecar."""
    file = split_spec(path)[0]
    beside = {name: file.with_name(f"{io.stem(file)}_{name.lower()}.tif") for name in (*PLANES, "DRAWS")}
    beside["sidecar"] = file.with_name(file.name + ".json")
    return find_companions(file) | {name: other for name, other in beside.items() if other.is_file()}


@dataclass(frozen=True)
class Evaluation:
    """The record of an evaluation, and its report; an `executor.Output`."""

    request: Request
    given: EvidenceFiles
    notes: Notes
    """What was assumed when the files were opened."""
    pieces: Sequence[Piece]
    report: str | Path | None
    exposure: JudgedExposure | None
    """Of an image that was made of several."""
    only: Judgement | None
    """The only judgement; None where there are several."""

    def open(self, part: Path | None) -> AbstractContextManager[Sink]:
        """There is no output to open."""
        raise NotImplementedError("an evaluation writes no image")

    def split(self, judgement: Judgement) -> tuple[Arrays, Sums]:
        """No arrays; all that a piece shows goes into the record."""
        return (), judgement.sums

    def finish(self, journal: Journal, sums: Sequence[Sums]) -> dict[str, Any]:
        """Pool the pieces, write the report, and return the record."""
        return self.make_record(sums, journal.notes)

    def make_record(self, sums: Sequence[Sums], run_notes: Notes) -> dict[str, Any]:
        """Pool what every piece shows, write the report, and return the record.

        Parameters
        ----------
        sums : sequence of mapping
            Of every piece.
        run_notes : Notes
            On how the run went.
        """
        request, given = self.request, self.given
        found, others = (pool_pieces if request.in_pieces else collect_planes)(request, given, self.pieces, sums)
        cut, shown, said = {}, find_worst(self.pieces, sums), list[str]()
        low = request.low
        if self.exposure is not None:
            low, said = self.exposure.path, list(self.exposure.notes)
            theirs = {result.name for result in self.exposure.results}
            found = [*self.exposure.results, *(result for result in found if result.name not in theirs)]
        if request.in_pieces:
            many, size = len(given.tiles), list(given.high.frame.pixels.shape[1:])
            said += [f"pieces: judged in {many}, and pooled; fid, and fluxes by magnitude, are left out"]
            place = describe_place(given.tiles[shown], given.scale)
            cut = {"pieces": {"count": many, "shape": size, "shown": place}}
        said += [line for one in sums for line in one.get("said", ())]
        record = {
            "schema": records.SCHEMA,
            "high": request.high,
            "low": low,
            "truth": request.truth,
            "scale": given.scale if request.low is not None else None,
            "quantity": given.quantity,
            **cut,
            "verdict": checks.verdict(found, request.limits, kind_of(given)),
            "results": records.as_data(found),
            "baselines": {name: records.as_data(results) for name, results in others.items()},
            "said": list(dict.fromkeys([*self.notes, *said, *run_notes])),
            **({"registration": jsonable(given.registration)} if given.registration else {}),
        }
        if self.report:
            view = overview(given, shown) if request.in_pieces else None
            _draw(
                record,
                self.evidence(shown),
                self.report,
                given.high.frame.unit,
                request.limits,
                request.options.overwrite,
                view,
            )
        return record

    def evidence(self, shown: int) -> Evidence:
        """What a report shows: piece ``shown`` of the first plane, or all of it."""
        from sciresdiff.checks.baselines import BASELINES

        if self.only is not None and self.only.evidence is not None:
            return self.only.evidence
        if self.request.in_pieces:
            return evidence_of(self.given, 0, self.given.tiles[shown], self.request.spans[0])
        evidence, name = evidence_of(self.given, 0), "richardson-lucy"
        if name in self.request.methods and evidence.operator is not None and evidence.good_high.any():
            evidence.shared[name] = BASELINES[name](evidence)
        return evidence


def collect_planes(
    request: Request, given: EvidenceFiles, pieces: Sequence[Piece], sums: Sequence[Sums]
) -> tuple[list[Result], dict[str, list[Result]]]:
    """The results of planes that were judged whole: of the image, and of every baseline.

    Parameters
    ----------
    request, given
        What was judged.
    pieces, sums
        The planes, and what each shows.
    """
    found: list[Result] = []
    others: dict[str, list[Result]] = {}
    for piece, one in zip(pieces, sums, strict=True):
        where = f", plane {piece.plane}" if len(pieces) > 1 else ""
        if not one["judged"]:
            found += _place([not_computed(name, "every pixel is masked") for name in checks.CHECKS], where)
            continue
        found += _place(parse_results(one["results"]), where)
        for name, rival in one["rivals"].items():
            others.setdefault(name, []).extend(_place(parse_results(rival["results"]), where))
    return found, others


def pool_pieces(
    request: Request, given: EvidenceFiles, pieces: Sequence[Piece], sums: Sequence[Sums]
) -> tuple[list[Result], dict[str, list[Result]]]:
    """The results of planes that were judged in pieces, pooled (`checks.pooling`): of the image, and of every baseline.

    Parameters
    ----------
    request, given
        What was judged.
    pieces, sums
        The pieces of all planes, and what each shows.
    """
    found: list[Result] = []
    others: dict[str, list[Result]] = {}
    count, limits, kind = given.high.frame.planes, request.limits, kind_of(given)
    for plane in range(count):
        where = f", plane {plane}" if count > 1 else ""
        mine = [one for piece, one in zip(pieces, sums, strict=True) if piece.plane == plane and one["judged"]]
        if not mine:
            found += _place([not_computed(name, "every pixel is masked") for name in checks.CHECKS], where)
            continue
        rivals: dict[str, list[pooling.Piece]] = {}
        for one in mine:
            for name, rival in one["rivals"].items():
                rivals.setdefault(name, []).append(parse_part(rival, one["place"]))
        parts = [parse_part(one, one["place"]) for one in mine]
        beside = {name: pooling.pool_pieces(theirs, checks.RESULTS, limits, kind) for name, theirs in rivals.items()}
        results = limit_by_bicubic(pooling.pool_pieces(parts, checks.RESULTS, limits, kind), beside, limits)
        found += _place(results, where)
        for name, theirs in beside.items():
            others.setdefault(name, []).extend(_place([r for r in theirs if r.value is not None], where))
    return found, others


def find_worst(pieces: Sequence[Piece], sums: Sequence[Sums]) -> int:
    """The piece of the first plane that is farthest from the data, else from the truth; the first of equals."""
    first = [one for piece, one in zip(pieces, sums, strict=True) if piece.plane == 0]
    distances = [pooling.misfit(one["sums"]) if one.get("sums") else -1.0 for one in first]
    return max(range(len(first)), key=lambda number: (distances[number], -number))


def _draw(
    record: Mapping[str, Any],
    first: Evidence,
    report: str | Path,
    unit: str | None,
    own: Mapping[str, Range],
    overwrite: bool,
    view: Overview | None,
) -> None:
    """Write the page, or draw the picture, of the first plane or one piece of it.

    Parameters
    ----------
    record : mapping
        The record of the evaluation.
    first : Evidence
        What is shown.
    report : str or Path
        Name of the page (.html) or picture (.png).
    unit : str or None
        Unit of the pixels.
    own : mapping
        Limits of the user's own.
    overwrite : bool
        Whether a report that exists is replaced.
    view : Overview or None
        The whole frame, of which ``first`` is a piece.
    """
    if Path(report).suffix.lower() == ".png":
        from sciresdiff.report.figures import write_panel

        part = f", the piece from {view.place}" if view else ""
        write_panel(first, report, unit, f"{Path(record['high']).name}: {record['verdict']}{part}", overwrite)
    else:
        from sciresdiff.report.html import write_page

        write_page(record, first, report, unit, own, overwrite, view)


def parse_baselines(baselines: Sequence[str] | str) -> list[str]:
    """The names of baselines, each once; UsageError for one that is unknown."""
    from sciresdiff.checks.baselines import BASELINES

    names = [n.strip() for n in (baselines.split(",") if isinstance(baselines, str) else baselines)]
    names = [name for name in names if name and name != "none"]
    for name in names:
        if name not in BASELINES:
            raise UsageError(f"--baselines: {name!r} is unknown; choose from {', '.join(BASELINES)}, or none")
    return list(dict.fromkeys(names))


def refuse_report(report: str | Path | None, overwrite: bool) -> None:
    """Refuse a report of an unknown ending, or that exists."""
    if report is None:
        return
    if Path(report).suffix.lower() not in REPORTS:
        raise UsageError(f"--report: {report} is neither page nor picture; give a name that ends in .html or .png")
    if Path(report).exists() and not overwrite:
        raise UsageError(f"--report: {report} exists; give --overwrite or another name")


def _place(results: list[Result], where: str) -> list[Result]:
    """The results with the plane's number behind their region."""
    return [replace(result, region=result.region + where) for result in results] if where else results


def pairs(highs: Sequence[str | Path], others: Sequence[str | Path] | None, option: str) -> list[Path | None]:
    """The file that belongs to every image: by stem (``a_x4.fits`` to ``a.fits``), else by order.

    Parameters
    ----------
    highs : sequence of str or Path
        The images.
    others : sequence of str or Path, or None
        The files, in any order.
    option : str
        The option that named them.

    Raises
    ------
    UsageError
        Neither way finds one for each image.
    """
    if not others:
        return [None] * len(highs)
    by_stem = [_by_stem(high, others) for high in highs]
    if len(others) > 1 and all(by_stem) and len(set(by_stem)) == len(highs):
        return by_stem
    if len(others) != len(highs):
        raise UsageError(f"{option}: {len(others)} files for {len(highs)} images; give one for each, in their order")
    return [Path(other) for other in others]


def _by_stem(high: str | Path, others: Sequence[str | Path]) -> Path | None:
    """The file whose stem this image's begins with, the longest one if there are several."""
    name = io.stem(high)
    fits = [Path(o) for o in others if name == io.stem(o) or name.startswith(f"{io.stem(o)}_")]
    return max(fits, key=lambda path: len(io.stem(path)), default=None)

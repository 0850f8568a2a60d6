"""Judging restored files: bring image, data and truth together, run the checks, and the baselines beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sciresdiff import checks, io
from sciresdiff.checks import pooling
from sciresdiff.checks.arrays import Array
from sciresdiff.checks.check import missing_inputs
from sciresdiff.checks.evidence import Evidence
from sciresdiff.checks.result import Range, Result, not_computed
from sciresdiff.errors import UsageError
from sciresdiff.io.jsonable import plain
from sciresdiff.jobs.evaluate.load_evidence import Given, evidence_of, gather, kind_of, overview, span_of
from sciresdiff.jobs.evaluate.options import EvaluateOptions
from sciresdiff.jobs.evaluate.pieces import named
from sciresdiff.report import record as records
from sciresdiff.report.overview import Overview
from sciresdiff.run.batch import Progress, no_progress

REPORTS = (".html", ".htm", ".png")
"""Endings of a report's name."""
BEST = "richardson-lucy-best"
"""Richardson-Lucy at its best stopping point, which only the truth can tell."""


def run(
    high: str | Path,
    *,
    low: str | Path | None = None,
    truth: str | Path | None = None,
    report: str | Path | None = None,
    options: EvaluateOptions | None = None,
    progress: Progress = no_progress,
    **settings: Any,
) -> dict[str, Any]:
    """Judge one restored file; planes of more than 4096 px a side in pieces, whose results are pooled.

    Parameters
    ----------
    high : the image; its ERR, SUPPORT, TRUST and DRAWS (extensions, or ``{stem}_err.tif`` and so on) are used, and what
        its sidecar ``{high}.json`` says of the blur and the noise where the options do not.
    low : the frame that it was made from.
    truth : the true image; up to one coarse pixel larger than ``high``, it is cropped at its far borders.
    report : HTML page to write, or PNG file to draw one picture into, by its ending.
    options : what is known of the low frame, and which checks are run. Where nobody states a blur, the checks that
        need it are left out; baselines need ``low``; probes make the image again, as its sidecar says.
    progress : is called with (done, total, label).
    **settings : fields of `EvaluateOptions`, in place of those of ``options``.

    Returns
    -------
    The record: ``schema``, ``high``, ``low``, ``truth``, ``scale``, ``verdict``, ``results``, ``baselines``, ``said``.
    Values that are not finite are None. With several planes every region has its plane's number behind it. Of an image
    that was judged in pieces there is ``pieces`` too, and a page shows the one that is farthest from the data.

    Raises
    ------
    UsageError : an unknown baseline, limits that cannot be read, a report that is neither page nor PNG, or exists,
        probes without a sidecar, or of an image that is judged in pieces.
    InputError : a file that cannot be read, or files that do not fit each other.
    """
    options = replace(options or EvaluateOptions(), **settings)
    methods = _methods(options.baselines)
    own = checks.read_limits(options.limits, checks.RESULTS) if options.limits else {}
    _refuse_report(report, options.overwrite)
    with gather(high, low, truth, options) as (given, notes):
        said = list(notes)
        judge = judged_in_pieces if len(given.tiles) > 1 else judged_whole
        done = judge(given, methods, own, said, progress)
        files = {"high": high, "low": low, "truth": truth}
        record = {
            "schema": records.SCHEMA,
            **{name: None if path is None else str(path) for name, path in files.items()},
            "scale": given.scale if low is not None else None,
            "quantity": given.quantity,
            **done.told,
            "verdict": checks.verdict(done.found, own, kind_of(given)),
            "results": records.as_data(done.found),
            "baselines": {name: records.as_data(results) for name, results in done.others.items()},
            "said": list(dict.fromkeys(said)),
            **({"registration": plain(given.registered)} if given.registered else {}),
        }
        if report:
            view = overview(given, done.shown) if len(given.tiles) > 1 else None
            _draw(record, done.first(), report, given.high.frame.unit, own, options.overwrite, view)
    return record


def _draw(
    record: Mapping[str, Any],
    first: Evidence,
    report: str | Path,
    unit: str | None,
    own: Mapping[str, Range],
    overwrite: bool,
    view: Overview | None,
) -> None:
    """The page, or the picture, of the first plane, or of one piece of it."""
    if Path(report).suffix.lower() == ".png":
        from sciresdiff.report.figures import write_panel

        part = f", the piece from {view.place}" if view else ""
        write_panel(first, report, unit, f"{Path(record['high']).name}: {record['verdict']}{part}", overwrite)
    else:
        from sciresdiff.report.html import write_page

        write_page(record, first, report, unit, own, overwrite, view)


def _methods(baselines: Sequence[str] | str) -> list[str]:
    from sciresdiff.checks.baselines import BASELINES

    names = [n.strip() for n in (baselines.split(",") if isinstance(baselines, str) else baselines)]
    names = [name for name in names if name and name != "none"]
    for name in names:
        if name not in BASELINES:
            raise UsageError(f"--baselines: {name!r} is unknown; choose from {', '.join(BASELINES)}, or none")
    return list(dict.fromkeys(names))


def _refuse_report(report: str | Path | None, overwrite: bool) -> None:
    if report is None:
        return
    if Path(report).suffix.lower() not in REPORTS:
        raise UsageError(f"--report: {report} is neither page nor picture; give a name that ends in .html or .png")
    if Path(report).exists() and not overwrite:
        raise UsageError(f"--report: {report} exists; give --overwrite or another name")


@dataclass(frozen=True)
class Judged:
    """What was found of all planes."""

    found: list[Result]
    others: dict[str, list[Result]]
    first: Callable[[], Evidence]
    """What a report shows."""
    shown: int = 0
    """The piece that this is."""
    told: Mapping[str, Any] = field(default_factory=dict)
    """For the record."""


def judged_whole(
    given: Given, methods: list[str], own: Mapping[str, Range], said: list[str], progress: Progress
) -> Judged:
    """Results of the image and of every baseline, all planes."""
    found: list[Result] = []
    others: dict[str, list[Result]] = {}
    count = given.high.frame.planes
    first = evidence_of(given, 0)
    for i in range(count):
        progress(i, count, "evaluate")
        evidence = evidence_of(given, i) if i else first
        where = f", plane {i}" if count > 1 else ""
        if not evidence.good_high.any():
            found += _placed([not_computed(name, "every pixel is masked") for name in checks.CHECKS], where)
            continue
        rivals = _rivals(evidence, methods, own, said)
        found += _placed(_beside_bicubic(checks.check(evidence, own), rivals, own), where)
        for name, results in rivals.items():
            others.setdefault(name, []).extend(_placed(results, where))
    progress(count, count, "evaluate")
    return Judged(found, others, lambda: first)


def judged_in_pieces(
    given: Given, methods: list[str], own: Mapping[str, Range], said: list[str], progress: Progress
) -> Judged:
    """The same of planes that are too large for one piece; what the pieces say is pooled, see `checks.pooling`."""
    found: list[Result] = []
    others: dict[str, list[Result]] = {}
    count, many, kind = given.high.frame.planes, len(given.tiles), kind_of(given)
    said.append(f"pieces: judged in {many}, and pooled; fid, and fluxes by magnitude, are left out")
    shown = 0
    for i in range(count):
        where = f", plane {i}" if count > 1 else ""
        pieces, rivals, worst = _pieces(given, i, methods, own, said, progress)
        shown = shown if i else worst
        if not pieces:
            found += _placed([not_computed(name, "every pixel is masked") for name in checks.CHECKS], where)
            continue
        beside = {name: pooling.pool_pieces(parts, checks.RESULTS, own, kind) for name, parts in rivals.items()}
        found += _placed(_beside_bicubic(pooling.pool_pieces(pieces, checks.RESULTS, own, kind), beside, own), where)
        for name, results in beside.items():
            others.setdefault(name, []).extend(_placed([r for r in results if r.value is not None], where))
    tile = given.tiles[shown]
    size = list(given.high.frame.pixels.shape[1:])
    told = {"pieces": {"count": many, "shape": size, "shown": named(tile, given.scale)}}
    return Judged(found, others, lambda: evidence_of(given, 0, tile, span_of(given, 0)), shown, told)


def _pieces(
    given: Given, plane: int, methods: list[str], own: Mapping[str, Range], said: list[str], progress: Progress
) -> tuple[list[pooling.Piece], dict[str, list[pooling.Piece]], int]:
    """What every piece of a plane says, of the image and of the baselines, and which is farthest from data or truth."""
    found: list[pooling.Piece] = []
    rivals: dict[str, list[pooling.Piece]] = {}
    many, span, worst = len(given.tiles), span_of(given, plane), (-1.0, 0)
    for k, tile in enumerate(given.tiles):
        progress(plane * many + k, given.high.frame.planes * many, "evaluate")
        evidence = evidence_of(given, plane, tile, span)
        if not evidence.good_high.any():
            continue
        where = named(tile, given.scale)
        names = [
            name for name, line in checks.CHECKS.items() if name not in pooling.SUMMED or missing_inputs(line, evidence)
        ]
        found.append(pooling.Piece(checks.check(evidence, own, names), pooling.piece_sums(evidence), where))
        worst = max(worst, (pooling.misfit(found[-1].sums), -k))
        for name, image in _images(evidence, methods, said):
            other = evidence.with_image(image)
            results = checks.check_rival(other, own, pooling.SUMMED)
            rivals.setdefault(name, []).append(pooling.Piece(results, pooling.piece_sums(other), where))
    progress((plane + 1) * many, given.high.frame.planes * many, "evaluate")
    return found, rivals, -worst[1]


def _rivals(
    evidence: Evidence, methods: list[str], own: Mapping[str, Range], said: list[str]
) -> dict[str, list[Result]]:
    """The baselines' results on one plane."""
    images = _images(evidence, methods, said)
    return {name: checks.check_rival(evidence.with_image(image), own) for name, image in images}


def _images(evidence: Evidence, methods: list[str], said: list[str]) -> Iterator[tuple[str, Array]]:
    """The baselines' images of one plane, or of a piece."""
    from sciresdiff.checks.baselines import BASELINES, NEED_KERNEL, best_richardson_lucy

    if evidence.low is None:
        return
    if evidence.operator is None:
        methods = [name for name in methods if name not in NEED_KERNEL]
    for name in methods:
        image = BASELINES[name](evidence)
        if name == "richardson-lucy":
            evidence.shared[name] = image  # the report shows it
        yield name, image
    if "richardson-lucy" in methods and evidence.truth is not None:
        n, image = best_richardson_lucy(evidence)
        told = f"{n} iterations" if evidence.core is None else "as many iterations as suit each piece"
        said.append(f"{BEST}: {told}, nearest to the truth of 1 to 60, which only the truth can tell")
        yield BEST, image


def _beside_bicubic(
    results: list[Result], rivals: Mapping[str, list[Result]], own: Mapping[str, Range]
) -> list[Result]:
    """The results, with bicubic's PSNR as the least that is accepted."""
    least = {r.region: r.value for r in rivals.get("bicubic", []) if r.name == "psnr"}
    if "psnr" in own:
        return results
    return [
        checks.judge(replace(r, limit=(least[r.region], None)), own) if r.name == "psnr" and r.region in least else r
        for r in results
    ]


def _placed(results: list[Result], where: str) -> list[Result]:
    """The results with the plane's number behind their region."""
    return [replace(result, region=result.region + where) for result in results] if where else results


def pairs(highs: Sequence[str | Path], others: Sequence[str | Path] | None, option: str) -> list[Path | None]:
    """The file that belongs to every image: by stem (``a_x4.fits`` to ``a.fits``), else by order.

    Raises
    ------
    UsageError : neither finds one for each; ``option`` is named.
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

"""Judging one plane, or one piece of a large one: the checks on the image, and on the baselines beside it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sciresdiff import checks
from sciresdiff.checks import pooling
from sciresdiff.checks.arrays import Array
from sciresdiff.checks.check import missing_inputs
from sciresdiff.checks.evidence import Evidence
from sciresdiff.checks.result import Range, Result
from sciresdiff.io.files import split_spec
from sciresdiff.jobs.evaluate.load_evidence import EvidenceFiles, evidence_of, open_evidence
from sciresdiff.jobs.evaluate.options import EvaluateOptions
from sciresdiff.jobs.evaluate.pieces import describe_place
from sciresdiff.notes import Notes
from sciresdiff.tiling import Tile

BEST = "richardson-lucy-best"
"""Richardson-Lucy at its best stopping point, which only the truth can tell."""


@dataclass(frozen=True)
class Request:
    """What is judged, and by what; it pickles."""

    high: str
    low: str | None
    truth: str | None
    options: EvaluateOptions
    """What the user states, and which checks are run."""
    methods: tuple[str, ...]
    """The baselines."""
    limits: Mapping[str, Range]
    """Limits of the user's own, by the result's name."""
    run: str
    """A name that no other run has; no two share open files."""
    tiles: tuple[Tile, ...] = ()
    """The pieces of every plane, coarse px; one where planes are judged whole."""
    spans: tuple[float | None, ...] = ()
    """Range of the truth in every plane; empty where planes are judged whole."""

    @property
    def in_pieces(self) -> bool:
        """Whether planes are cut into pieces."""
        return len(self.tiles) > 1


@dataclass(frozen=True)
class Piece:
    """A plane, or a part of it that is judged by itself."""

    plane: int
    tile: Tile
    """Core and window, coarse px."""


@dataclass(frozen=True)
class Judgement:
    """What a piece shows."""

    sums: dict[str, Any]
    """Results and sums of the image and of every baseline, in JSON's types."""
    evidence: Evidence | None = None
    """What was judged, for a report; None where it is not kept."""


@dataclass
class _Opened:
    """The open files of a request."""

    given: EvidenceFiles
    notes: Notes
    stack: ExitStack
    users: int = 0


_open: dict[str, _Opened] = {}
_lock = threading.Lock()


@contextmanager
def open_request(request: Request) -> Iterator[tuple[EvidenceFiles, Notes]]:
    """Open the files of a request inside this context, and measure what the checks need."""
    opened = _find_opened(request)
    opened.users += 1
    try:
        yield opened.given, opened.notes
    finally:
        opened.users -= 1
        with _lock:
            _close_unused()


def _find_opened(request: Request) -> _Opened:
    """The open files of a request. A worker opens them once for all pieces, and closes them with the next request."""
    with _lock:
        if request.run not in _open:
            _close_unused()
            with ExitStack() as stack:
                gathered = open_evidence(request.high, request.low, request.truth, request.options)
                _open[request.run] = _Opened(*stack.enter_context(gathered), stack.pop_all())
        return _open[request.run]


def _close_unused() -> None:
    for run in [run for run, opened in _open.items() if not opened.users]:
        _open.pop(run).stack.close()


def read_piece(request: Request, piece: Piece) -> Evidence:
    """Read a piece of all files of a request."""
    given = replace(_find_opened(request).given, tiles=request.tiles)
    if request.in_pieces:
        return evidence_of(given, piece.plane, piece.tile, request.spans[piece.plane])
    return evidence_of(given, piece.plane)


def judge_piece(request: Request, keep: bool, piece: Piece, evidence: Evidence) -> Judgement:
    """Judge a plane, or a piece of one.

    Parameters
    ----------
    request : Request
        What is judged, and by what.
    keep : bool
        Whether the evidence is part of the judgement.
    piece : Piece
        The part.
    evidence : Evidence
        As `read_piece` reads it.
    """
    if not evidence.good_high.any():
        sums: dict[str, Any] = {"judged": False}
    elif request.in_pieces:
        sums = _judge_part(request, evidence, describe_place(piece.tile, evidence.scale))
    else:
        sums = _judge_plane(request, evidence)
    return Judgement(sums, evidence if keep else None)


def _judge_plane(request: Request, evidence: Evidence) -> dict[str, Any]:
    """All checks on a whole plane."""
    notes, rivals = Notes(), dict[str, list[Result]]()
    for name, image, more in run_baselines(evidence, request.methods):
        rivals[name] = checks.check_rival(evidence.with_image(image), request.limits)
        notes += more
    results = limit_by_bicubic(checks.check(evidence, request.limits), rivals, request.limits)
    return {
        "judged": True,
        "results": _to_json(results),
        "rivals": {name: {"results": _to_json(found)} for name, found in rivals.items()},
        "said": list(notes),
    }


def _judge_part(request: Request, evidence: Evidence, place: str) -> dict[str, Any]:
    """The checks on a piece of a plane, and the sums that the pieces add up to the others."""
    notes, rivals = Notes(), dict[str, Any]()
    names = [
        name for name, line in checks.CHECKS.items() if name not in pooling.SUMMED or missing_inputs(line, evidence)
    ]
    results = checks.check(evidence, request.limits, names)
    sums = pooling.piece_sums(evidence)
    for name, image, more in run_baselines(evidence, request.methods):
        other = evidence.with_image(image)
        found = checks.check_rival(other, request.limits, pooling.SUMMED)
        rivals[name] = {"results": _to_json(found), "sums": _to_json(pooling.piece_sums(other))}
        notes += more
    return {
        "judged": True,
        "place": place,
        "results": _to_json(results),
        "sums": _to_json(sums),
        "rivals": rivals,
        "said": list(notes),
    }


def run_baselines(evidence: Evidence, methods: Sequence[str]) -> Iterator[tuple[str, Array, Notes]]:
    """The baselines' images of a plane or a piece, (Y, X), with their names; none without data.

    Where there is a truth, Richardson-Lucy at its best stopping point is one of them.
    """
    from sciresdiff.checks.baselines import BASELINES, NEED_KERNEL, best_richardson_lucy

    if evidence.low is None:
        return
    if evidence.operator is None:
        methods = [name for name in methods if name not in NEED_KERNEL]
    for name in methods:
        image = BASELINES[name](evidence)
        if name == "richardson-lucy":
            evidence.shared[name] = image  # the report shows it
        yield name, image, Notes()
    if "richardson-lucy" in methods and evidence.truth is not None:
        n, image = best_richardson_lucy(evidence)
        count = f"{n} iterations" if evidence.core is None else "as many iterations as suit each piece"
        line = f"{BEST}: {count}, nearest to the truth of 1 to 60, which only the truth can tell"
        yield BEST, image, Notes(line)


def limit_by_bicubic(
    results: list[Result], rivals: Mapping[str, list[Result]], limits: Mapping[str, Range]
) -> list[Result]:
    """The results, with the PSNR of bicubic as the least that is accepted, unless the user has a limit for it.

    Parameters
    ----------
    results : list of Result
        Those of the image.
    rivals : mapping
        Those of every baseline.
    limits : mapping
        Limits of the user's own.
    """
    least = {r.region: r.value for r in rivals.get("bicubic", []) if r.name == "psnr"}
    if "psnr" in limits:
        return results
    return [
        checks.judge(replace(r, limit=(least[r.region], None)), limits) if r.name == "psnr" and r.region in least else r
        for r in results
    ]


def parse_results(found: Sequence[Mapping[str, Any]]) -> list[Result]:
    """Results out of a journal."""
    return [Result(**{**one, "limit": one["limit"] if one["limit"] is None else tuple(one["limit"])}) for one in found]


def parse_part(found: Mapping[str, Any], place: str) -> pooling.Piece:
    """What a piece says, out of a journal."""
    return pooling.Piece(parse_results(found["results"]), found["sums"], place)


def _to_json(value: Any) -> Any:
    """The value in JSON's types; unlike in a record, NaN and infinity stay, because what is pooled needs them."""
    if isinstance(value, Result):
        return _to_json(asdict(value))
    if isinstance(value, Mapping):
        return {name: _to_json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def journal_target(high: str) -> Path:
    """The name beside the image that the journal of its evaluation is called after."""
    file, part = split_spec(high)
    part = "" if part is None else "." + "".join(filter(str.isalnum, part))
    return file.with_name(f"{file.name}{part}.evaluate")

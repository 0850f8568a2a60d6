"""The executor: runs a job of numbered pieces, here or on a cluster, whole or in shards, and resumes it.

A job says how a piece is read and worked on (pure functions that pickle), how its result becomes arrays for the output
and sums for the record, and how the output is finished. All the rest is the same for every job: which pieces a shard
takes, where they are computed, writing one piece while the next is computed, the journal that an interrupted run is
resumed from, the locks between processes, signals, and the refusal of an input that changes under the work. As a piece
depends on nothing but its number, output and record are the same, byte for byte, whatever the engine, the shards and
the interruptions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from sciresdiff.errors import InputError
from sciresdiff.notes import Notes
from sciresdiff.run import signals
from sciresdiff.run.checksums import differences
from sciresdiff.run.engines import get_engine, write_behind
from sciresdiff.run.journal import Journal, open_journal
from sciresdiff.run.progress import Progress, no_progress
from sciresdiff.run.shards import Shard
from sciresdiff.run.sink import Arrays, Sink

Sums = Mapping[str, Any]
"""What a piece adds to the record, in JSON's own types."""


class Output(Protocol):
    """What becomes of the results of a job."""

    def open(self, part: Path | None) -> AbstractContextManager[Sink]:
        """Open the output; the unfinished file lies at ``part``, and with None nothing unfinished is left behind."""

    def split(self, result: Any) -> tuple[Arrays, Sums]:
        """The arrays that a result writes, and what it adds to the record."""

    def finish(self, journal: Journal, sums: Sequence[Sums]) -> dict[str, Any]:
        """Finish the output and return its record.

        Parameters
        ----------
        journal : Journal
            With the open sink, and notes on how the run went.
        sums : sequence of mapping
            What every piece adds to the record, in the order of the pieces.
        """


@dataclass(frozen=True)
class Job:
    """Work that falls into numbered pieces."""

    source: str
    """The input, as the user named it."""
    target: Path
    """The output, which the journal is called after; a job that does not write a file may take any free name."""
    pieces: Sequence[Any]
    """Each pickles."""
    read: Callable[[Any], Any]
    """Piece -> what it needs of the input. Pure, and pickles."""
    do: Callable[..., Any]
    """(piece, what was read) -> result. Pure, and pickles, as the result does."""
    output: Callable[[Any], Output]
    """First result, or None -> the output."""
    needs_first: bool = False
    """Whether the output is known only when the first piece is done: which planes it has, of which type."""
    writes: bool = True
    """Whether there is an output to open; False where all that pieces find goes into the record."""
    identity: Mapping[str, str] = field(default_factory=dict)
    """Everything that the output depends on, by name, as it was before anything was read."""
    identify: Callable[[], Mapping[str, str]] = dict
    """The same as it is now."""
    plan: Mapping[str, str] = field(default_factory=dict)
    """What the pieces depend on beside: how many they are, what was measured on the whole input."""
    machine: Mapping[str, str] = field(default_factory=dict)
    """What only the last digits depend on."""
    digest: Callable[[int], str] | None = None
    """Number of a piece -> digest of all that it reads, which its sums have as ``seen``."""
    overwrite: bool = False
    threads: int | None = None
    """Threads of every worker; its own number by default."""
    steps: int = 0
    """Steps of which ``do`` tells a keyword ``progress``; 0 where it takes none."""
    label: str = "blocks"
    """What progress counts."""


def execute(
    job: Job, progress: Progress = no_progress, shard: Shard | None = None, scheduler: str | None = None
) -> dict[str, Any]:
    """Do the pieces of a job that are not done yet, and finish its output.

    Of a job with a single piece no journal is kept. With more, a signal is heeded when the piece in hand is on the
    disk, and the same call resumes the job.

    Parameters
    ----------
    job : Job
        What is to be done.
    progress : Progress
        Told how far it is.
    shard : Shard, optional
        The share of the pieces that this run does; the shard that comes last finishes the output.
    scheduler : str, optional
        What computes the pieces if not this process, as `sciresdiff.run.engines.get_engine` takes it.

    Returns
    -------
    dict
        The record of the output. A shard that leaves the output to others returns one with ``status`` ``waiting``.

    Raises
    ------
    UsageError
        The output exists, is written by another process, or was begun by another job.
    InputError
        The input changed under the work.
    """
    count = len(job.pieces)
    if shard and not shard.share(job.pieces):
        return _wait(job, Notes(f"shard {shard}: no block is left for it (of {count} in all)"))
    compute = partial(_compute, job, progress, scheduler if count > 1 else None)
    first = dict(_compute(job, progress, None, [0], 0)) if job.needs_first else {}
    output = job.output(first.get(0))

    def results(numbers: Sequence[int]) -> Iterator[tuple[int, Any]]:
        rest = [number for number in numbers if number not in first]
        yield from ((number, first[number]) for number in numbers if number in first)
        yield from compute(rest, count - len(rest))

    with open_journal(
        job.target,
        output.open if job.writes else None,
        count,
        {**job.identity, **job.plan},
        job.machine,
        overwrite=job.overwrite,
        shard=shard,
        digest=job.digest,
        source=job.source,
    ) as journal:
        sums = process_blocks(journal, results, output.split)
        if sums is None:
            return _wait(job, journal.notes)
        _refuse_changes(job)
        return output.finish(journal, sums)


def process_blocks(
    journal: Journal,
    results: Callable[[Sequence[int]], Iterable[tuple[int, Any]]],
    split: Callable[[Any], tuple[Arrays, Sums]],
) -> list[Sums] | None:
    """Compute the blocks that remain, and write each while the next one is computed.

    Parameters
    ----------
    journal : Journal
        Of an output that is open.
    results : callable
        Numbers of blocks -> (number, result) of each, in any order.
    split : callable
        Result -> its arrays and its sums, as `Journal.put` takes them.

    Returns
    -------
    list or None
        The sums of all blocks by their numbers; None where another shard finishes the output. A stop that is requested
        meanwhile is raised when the block in hand is on the disk.
    """
    while remaining := journal.remaining():
        with write_behind() as submit:
            for number, result in results(remaining):
                submit(journal.put, number, *split(result))
    signals.raise_if_stopped()
    if not journal.is_last:
        then = "finishes the file" if journal.record_of is None else "has the record"
        journal.notes += Notes(f"shard {journal.shard}: its blocks are done; the shard that comes last {then}")
    return journal.sums()


def _compute(
    job: Job, progress: Progress, scheduler: str | None, numbers: Sequence[int], before: int
) -> Iterator[tuple[int, Any]]:
    """(number, result) of pieces; ``before`` were done before."""
    count, steps, done = len(job.pieces), max(job.steps, 1), before

    def tell(step: int, total: int, label: str) -> None:
        progress(done * total + step, count * total, label)

    do = partial(job.do, progress=tell) if job.steps and not scheduler else job.do
    pieces = [(number, job.pieces[number]) for number in numbers]
    found = get_engine(scheduler or "serial")(partial(_do, do), pieces, partial(_read, job.read), threads=job.threads)
    for (number, _), result in found:
        done += 1
        yield number, result
        progress(done * steps, count * steps, job.label)


def _read(read: Callable[[Any], Any], item: tuple[int, Any]) -> Any:
    """Read a numbered piece."""
    return read(item[1])


def _do(do: Callable[..., Any], item: tuple[int, Any], seen: Any) -> Any:
    """Work on a numbered piece."""
    return do(item[1], seen)


def _refuse_changes(job: Job) -> None:
    """Refuse a result of an input that was written to while it was read: it may be of both."""
    if names := differences(job.identity, job.identify()):
        raise InputError(f"{job.source}: changed while it was read ({', '.join(names)}); give the same command again")


def _wait(job: Job, notes: Notes) -> dict[str, Any]:
    """The record of a shard that leaves the output to others."""
    output = {"output": str(job.target)} if job.writes else {}
    return {"input": job.source, **output, "status": "waiting", "said": list(notes)}

"""What is done of an output, block by block, beside it on the disk: a run that was stopped goes on from there.

Beside ``out.fits`` lie ``.out.fits.part``, the unfinished file, and ``.out.fits.journal``: JSON lines, first the key of
the job, then a line for every finished block, which is written when the block's data are on the disk. Shards have a
journal each, ``.out.fits.2-of-4.journal``, and one part file. All of them are gone when the output has its name.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from sciresdiff.errors import UsageError
from sciresdiff.io.files import remove
from sciresdiff.io.sink import Sink
from sciresdiff.run import locks, signals
from sciresdiff.run.engines import behind
from sciresdiff.run.entries import FORMAT, Entry, Found, Window, checksum, holds, read, union
from sciresdiff.run.identity import differing
from sciresdiff.run.locks import Locks, beside, part_of, parts_of
from sciresdiff.run.shards import Shard

Arrays = Iterable[tuple[str, int, int, int, NDArray[Any]]]
"""(name, plane, y0, x0, values), as a sink takes them."""
Make = Callable[[Path | None], AbstractContextManager[Sink]]
"""Place of the unfinished file -> `sciresdiff.io.open_sink`; with None nothing unfinished is left."""


@dataclass
class Journal:
    """An output that this run writes, and perhaps other shards with it."""

    target: Path
    count: int
    """Blocks of the output."""
    sink: Sink
    key: Mapping[str, str] = field(default_factory=dict)
    locks: Locks | None = None
    """None where nothing can be gone on with."""
    shard: Shard | None = None
    entries: dict[int, Entry] = field(default_factory=dict)
    """The blocks that are done, and hold."""
    last: bool = True
    """Whether this run finishes the file; of shards, the one that finds all blocks done."""
    said: tuple[str, ...] = ()

    @property
    def resumable(self) -> bool:
        """Whether a run that is stopped can be gone on with."""
        return self.locks is not None and self.sink.get is not None

    def todo(self) -> list[int]:
        """Numbers of the blocks that this run has to do; to be asked again when they are done, until there are none.

        The shard that finds all blocks done takes the others' up, and does again those that do not hold.
        """
        left = self._left()
        if left or self.last or self.locks is None:
            return left
        self.locks.take_turn()
        self._join()
        return self._left()

    def _left(self) -> list[int]:
        numbers = range(self.count)
        mine = self.shard.share(numbers) if self.shard and not self.last else numbers
        return [number for number in mine if number not in self.entries]

    def _join(self) -> None:
        """Take up what the other shards did, if that is all there is."""
        assert self.locks is not None
        if not self.locks.linked():
            return  # another shard has finished the file
        journals = [journal for path in beside(self.target) if (journal := read(path)).head]
        found = union(journal for journal in journals if ours(journal, self.key)) | self.entries
        self.last = len(found) == self.count
        if self.last:
            self.entries = {n: entry for n, entry in found.items() if holds(self.sink, entry)}

    def put(self, number: int, arrays: Arrays, sums: Mapping[str, Any]) -> None:
        """Write a block, and note that it is done when it is on the disk.

        ``sums`` are what `done` gives back, with ``clipped``: the pixels that an integer type could not hold.
        """
        windows, clipped = [], 0
        for name, plane, y0, x0, values in arrays:
            clipped += self.sink.put(name, plane, y0, x0, values) or 0
            h, w = values.shape[-2:]
            windows.append(Window(name, plane, y0, y0 + h, x0, x0 + w))
        entry = Entry(number, tuple(windows), json.loads(json.dumps({**sums, "clipped": clipped})), "")
        if self.locks is not None and self.resumable:
            self.sink.sync()
            entry = Entry(number, entry.windows, entry.sums, checksum(self.sink, windows, entry.sums))
            self.locks.append(entry.line())
        self.entries[number] = entry

    def restate(self, numbers: Iterable[int]) -> None:
        """Note what blocks hold after a change of what they wrote."""
        for entry in [self.entries[number] for number in numbers if self.resumable]:
            assert self.locks is not None
            self.entries[entry.number] = replace(entry, checksum=checksum(self.sink, entry.windows, entry.sums))
            self.locks.append(self.entries[entry.number].line())

    def done(self) -> list[Mapping[str, Any]] | None:
        """The sums of all blocks by their numbers; None where the file is left to another shard."""
        if not self.last:
            return None
        return [self.entries[number].sums for number in range(self.count)]


def filled(
    journal: Journal,
    results: Callable[[Sequence[int]], Iterable[tuple[int, Any]]],
    parts: Callable[[Any], tuple[Arrays, Mapping[str, Any]]],
) -> list[Mapping[str, Any]] | None:
    """Do the blocks that are left, and write each while the next is worked on.

    Parameters
    ----------
    journal
        Of an output that is open.
    results
        Numbers of blocks -> (number, result) of each, in any order.
    parts
        A result -> its arrays and its sums, as `Journal.put` takes them.

    Returns
    -------
    The sums of all blocks by their numbers; None where the file is left to another shard. A signal that arrives in
    between is heeded when the block in hand is on the disk.
    """
    while todo := journal.todo():
        with behind() as later:
            for number, result in results(todo):
                later(journal.put, number, *parts(result))
    signals.heed()
    if not journal.last:
        journal.said += (f"shard {journal.shard}: its blocks are done; the shard that comes last finishes the file",)
    return journal.done()


@contextmanager
def opened(
    target: Path,
    make: Make,
    count: int,
    key: Mapping[str, str],
    here: Mapping[str, str] | None = None,
    *,
    overwrite: bool = False,
    shard: Shard | None = None,
    seen: Callable[[int], str] | None = None,
) -> Iterator[Journal]:
    """An output to be written block by block, or gone on with.

    Parameters
    ----------
    target
        Name of the output.
    make
        Opens the sink.
    count
        Blocks of the output. Of a single one no journal is kept, and nothing is left behind.
    key
        What the output depends on (`sciresdiff.run.identity`), with the plan of the blocks. The same key goes on.
    here
        What only the last digits depend on; where it is another than before, the run goes on and says so.
    overwrite
        Begin anew where the journal is of another job.
    shard
        The part of the blocks that this run does.
    seen
        Number of a block -> digest of all that it reads of the input, which ``sums`` have as ``seen``. With it a run
        also goes on where the input alone is another, as after the mending of a damaged file: with the blocks that
        would read the same.

    Raises
    ------
    UsageError
        Another process writes this output; the journal is of another job or version; a place that cannot be written.
    """
    if count == 1:
        with make(None) as sink:
            yield Journal(target, count, sink)
        return
    with signals.patient(), locks.held(target, shard) as held:
        found = settled(target, key, count, overwrite, held, seen)
        try:
            with make(part_of(target)) as sink:
                journal = begun(Journal(target, count, sink, key, held, shard), found, here or {})
                yield journal
        except BaseException as problem:
            kept(problem, target, count, held, shard)
            raise
        if journal.last:
            held.clear()


def settled(
    target: Path,
    key: Mapping[str, str],
    count: int,
    overwrite: bool,
    held: Locks,
    seen: Callable[[int], str] | None = None,
) -> list[Found]:
    """The journals beside a target, once it is sure that they are of this very job."""
    found = [journal for path in beside(target) if (journal := read(path)).head]
    found = [mended(journal, key, seen) if seen else journal for journal in found]
    foreign = [journal for journal in found if not ours(journal, key)]
    if foreign and (not overwrite or held.alive()):
        raise UsageError(another(target, foreign[0], key))
    for journal in foreign:
        os.truncate(journal.path, 0)
    found = [journal for journal in found if journal not in foreign]
    part = part_of(target)
    if len(union(found)) == count and target.exists() and not part.exists():
        os.replace(target, part)  # it had its name, and the run was stopped before its record was written
    if target.exists() and not overwrite:
        raise UsageError(f"--output: {target} exists; use --overwrite to replace it, or give another name")
    for orphan in () if found else parts_of(target):
        remove(orphan)
    return found


def mended(journal: Found, key: Mapping[str, str], seen: Callable[[int], str]) -> Found:
    """A journal of this job but for its input, with the blocks that would read the same of this one."""
    if differing(journal.head["key"], key) != ["input"]:
        return journal
    same = {number: entry for number, entry in journal.entries.items() if entry.sums.get("seen") == seen(number)}
    return replace(journal, head={**journal.head, "key": dict(key)}, entries=same, whole=0)


def begun(journal: Journal, found: list[Found], here: Mapping[str, str]) -> Journal:
    """A journal with the blocks that are done and hold, its first line written, its torn end cut off."""
    held, shard = journal.locks, journal.shard
    assert held is not None
    if shard and journal.sink.get is None:
        raise UsageError(f"--shard: {journal.target.name} is of a format that is written in one go; give .fits or .tif")
    own = next((one for one in found if one.path == held.path), Found(held.path, {}, {}, 0))
    held.cut(own.whole)
    if not own.whole:
        head = {"journal": FORMAT, "key": dict(journal.key), "here": dict(own.head.get("here", here))}
        held.append("\n".join([json.dumps(head), *(entry.line() for entry in own.entries.values())]))
    mine = shard.share(range(journal.count)) if shard else range(journal.count)
    there = {n: entry for n, entry in union(found).items() if n in mine}
    journal.entries = {n: entry for n, entry in there.items() if holds(journal.sink, entry)}
    journal.last = shard is None
    journal.said = tuple(resumed(journal, len(mine), [one for one in found if one.entries], here)) if there else ()
    held.pass_turn()
    return journal


def ours(journal: Found, key: Mapping[str, str]) -> bool:
    """Whether a journal is of this job."""
    return journal.head["journal"] == FORMAT and journal.head["key"] == dict(key)


def another(target: Path, journal: Found, key: Mapping[str, str]) -> str:
    """What is said of a journal that is not of this job."""
    if journal.head["journal"] != FORMAT:
        return (
            f"--output: {target} was begun by another version of sciresdiff; finish it with that one, or give "
            "--overwrite to begin anew"
        )
    names = ", ".join(differing(journal.head["key"], key))
    return (
        f"--output: {target} was begun by another job (not the same: {names}); give its command to go on with it, "
        "--overwrite to begin anew, or another name"
    )


def resumed(journal: Journal, count: int, found: list[Found], here: Mapping[str, str]) -> list[str]:
    """What is said of a run that goes on."""
    said = [f"resumed: {len(journal.entries)} of {count} blocks were done before"]
    for other in (one.head.get("here", {}) for one in found):
        if names := differing(other, here):
            before = ", ".join(f"{name} {other.get(name)}" for name in names)
            said.append(f"WARNING resumed: blocks were done with {before}; the last digits of the others may differ")
            break
    return said


def kept(problem: BaseException, target: Path, count: int, held: Locks, shard: Shard | None) -> None:
    """After a problem: keep what can be gone on with and say so, or leave nothing behind."""
    if shard and not alone(held):
        problem.add_note(f"{target.name} is left to the other shards; the same command goes on from there")
        return
    found = [read(path) for path in beside(target)]
    done = len(union(found))
    part = part_of(target)
    if done == count and target.exists() and not part.exists():
        os.replace(target, part)  # an image without its record is half an output
    if done:
        problem.add_note(f"{done} of {count} blocks of {target.name} are kept; the same command goes on from there")
    elif held.alive() or len(found) > 1:
        held.path.unlink(missing_ok=True)
    else:
        held.clear()


def alone(held: Locks) -> bool:
    """Whether no other shard begins or ends, and none will as long as this one has the turn."""
    try:
        held.take_turn(wait=0)
    except BlockingIOError:
        return False
    return True

"""The finished blocks of an output, written down beside it, so that an interrupted run is resumed.

Beside ``out.fits`` lie ``.out.fits.part``, the unfinished file, and ``.out.fits.journal``: JSON lines, first the key of
the job, then a line for each finished block, which is written when the block's data are on the disk. Every shard has a
journal of its own, ``.out.fits.2-of-4.journal``, and all share one part file. When the output has its name, all of them
are removed. A job whose result is a record has no part file: the lines of its journal hold all that its blocks found.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sciresdiff.errors import InputError, UsageError
from sciresdiff.files import open_plain, remove
from sciresdiff.notes import Notes
from sciresdiff.run import locks, signals
from sciresdiff.run.checksums import differences
from sciresdiff.run.entries import FORMAT, Entry, Found, Window, checksum, is_intact, merge, read_journal
from sciresdiff.run.locks import Locks, find_journals, find_parts, part_path
from sciresdiff.run.shards import Shard
from sciresdiff.run.sink import Arrays, Sink

OpenSink = Callable[[Path | None], AbstractContextManager[Sink]]
"""Path of the unfinished file -> the open output; with None nothing unfinished is left behind."""


@dataclass
class Journal:
    """An output that this run writes, alone or together with other shards."""

    target: Path
    count: int
    """Number of blocks of the whole output."""
    key: Mapping[str, str] = field(default_factory=dict)
    """Everything that the output depends on."""
    record_of: str | None = None
    """The file that a record is made of, where no output is written and the journal alone is called ``target``."""
    sink: Sink | None = None
    """The open output."""
    locks: Locks | None = None
    """None where no journal is kept."""
    shard: Shard | None = None
    entries: dict[int, Entry] = field(default_factory=dict)
    """The finished blocks whose data are intact."""
    is_last: bool = True
    """Whether this run finishes the output; of several shards, the one that finds all blocks done."""
    notes: Notes = field(default_factory=Notes)

    @property
    def subject(self) -> str:
        """How messages begin."""
        return f"--output: {self.target}" if self.record_of is None else f"{self.record_of}: its journal"

    @property
    def name(self) -> str:
        """How messages call the output."""
        return Path(self.record_of or self.target).name

    @property
    def is_resumable(self) -> bool:
        """Whether an interrupted run can be resumed."""
        return self.locks is not None and (self.sink is None or self.sink.get is not None)

    def remaining(self) -> list[int]:
        """Numbers of the blocks that this run has to do; ask again when they are done, until there are none.

        The shard that finds all blocks done takes over those of the others, and repeats the ones that are not intact.
        """
        left = self._remaining()
        if left or self.is_last or self.locks is None:
            return left
        self.locks.take_turn()
        self._join_shards()
        return self._remaining()

    def _remaining(self) -> list[int]:
        numbers = range(self.count)
        mine = self.shard.share(numbers) if self.shard and not self.is_last else numbers
        return [number for number in mine if number not in self.entries]

    def _join_shards(self) -> None:
        """Take over the blocks of the other shards, if together they are all there are."""
        assert self.locks is not None
        if not self.locks.is_linked():
            return  # another shard has finished the output
        journals = [journal for path in find_journals(self.target) if (journal := read_journal(path)).head]
        found = merge(journal for journal in journals if is_same_job(journal, self.key)) | self.entries
        self.is_last = len(found) == self.count
        if self.is_last:
            self.entries = {n: entry for n, entry in found.items() if is_intact(self.sink, entry)}

    def put(self, number: int, arrays: Arrays, sums: Mapping[str, Any]) -> None:
        """Write a block, and note that it is done once its data are on the disk.

        Parameters
        ----------
        number : int
            Number of the block.
        arrays : iterable of (name, plane, y0, x0, values)
            What it writes; values of shape (..., h, w).
        sums : mapping
            What it adds to the record, in JSON's types. `sums` returns it with ``clipped``, the number of values that
            an integer type could not hold.
        """
        windows, clipped = [], 0
        for name, plane, y0, x0, values in arrays:
            assert self.sink is not None
            clipped += self.sink.put(name, plane, y0, x0, values) or 0
            h, w = values.shape[-2:]
            windows.append(Window(name, plane, y0, y0 + h, x0, x0 + w))
        # as JSON gives them back, so that a run has the same numbers whether it was resumed or not
        entry = Entry(number, tuple(windows), json.loads(json.dumps({**sums, "clipped": clipped})), "")
        if self.locks is not None and self.is_resumable:
            if self.sink is not None:
                self.sink.sync()
            entry = replace(entry, checksum=checksum(self.sink, windows, entry.sums))
            self.locks.append(entry.to_line())
        self.entries[number] = entry

    def update_checksums(self, numbers: Iterable[int]) -> None:
        """Note what these blocks hold after their data in the output were changed."""
        for entry in [self.entries[number] for number in numbers if self.is_resumable]:
            assert self.locks is not None
            self.entries[entry.number] = replace(entry, checksum=checksum(self.sink, entry.windows, entry.sums))
            self.locks.append(self.entries[entry.number].to_line())

    def sums(self) -> list[Mapping[str, Any]] | None:
        """The sums of all blocks in their order; None where another shard finishes the output."""
        if not self.is_last:
            return None
        return [self.entries[number].sums for number in range(self.count)]


@contextmanager
def open_journal(
    target: Path,
    open_sink: OpenSink | None,
    count: int,
    key: Mapping[str, str],
    here: Mapping[str, str] | None = None,
    *,
    overwrite: bool = False,
    shard: Shard | None = None,
    digest: Callable[[int], str] | None = None,
    source: str = "",
) -> Iterator[Journal]:
    """Open an output that is written block by block, or resume it.

    Parameters
    ----------
    target : Path
        Name of the output. Without a sink no such file is written, and only the journal is called after it.
    open_sink : callable or None
        Opens the output; None where blocks add to a record, and write no arrays.
    count : int
        Number of blocks. Of a single one no journal is kept, and nothing is left behind.
    key : mapping
        Everything that the output depends on (`sciresdiff.jobs.identity`), with the plan of the blocks. A journal with
        the same key is resumed.
    here : mapping, optional
        What only the last digits depend on; a run that differs in it is resumed with a warning.
    overwrite : bool
        Whether to begin anew where the journal is that of another job.
    shard : Shard, optional
        The share of the blocks that this run does.
    digest : callable, optional
        Number of a block -> digest of all that it reads of the input, which its sums hold as ``seen``. Where the
        input alone differs, as after the repair of a damaged file, the blocks that read the same are kept.
    source : str
        How messages call a job without an output.

    Yields
    ------
    Journal
        With the blocks that are already done.

    Raises
    ------
    UsageError
        Another process writes this output, the journal is that of another job or version, or the folder cannot be
        written.
    """
    journal = Journal(target, count, key, None if open_sink else source, shard=shard)
    if count == 1 or (open_sink is None and shard is None and not locks.can_begin(target)):
        if count > 1:
            journal.notes = Notes(f"journal: none is kept; {target.parent} cannot be written, or a process uses it now")
        with open_sink(None) if open_sink else nullcontext() as journal.sink:
            yield journal
        return
    with signals.defer_stops(), locks.hold_locks(target, shard, journal.subject) as journal.locks:
        found = load_journals(journal, overwrite, digest)
        try:
            with open_sink(part_path(target)) if open_sink else nullcontext() as journal.sink:
                resume(journal, found, here or {})
                yield journal
        except BaseException as problem:
            keep_or_clean(journal, problem)
            raise
        if journal.is_last:
            locks.remove_leftovers(target)


def load_journals(journal: Journal, overwrite: bool, digest: Callable[[int], str] | None) -> list[Found]:
    """Read the journals of this very job that exist; those of other jobs are emptied.

    Parameters
    ----------
    journal : Journal
        Of this run, locked.
    overwrite : bool
        Whether journals of other jobs, and the output, may be replaced.
    digest : callable, optional
        As of `open_journal`.

    Raises
    ------
    UsageError
        A journal is that of another job, or the output exists, and ``overwrite`` is off.
    """
    target, key, held = journal.target, journal.key, journal.locks
    assert held is not None
    found = [one for path in find_journals(target) if (one := read_journal(path)).head]
    found = [adopt_repaired_input(one, key, digest) if digest else one for one in found]
    foreign = [one for one in found if not is_same_job(one, key)]
    if foreign and (not overwrite or held.find_active()):
        raise UsageError(describe_conflict(journal.subject, foreign[0], key))
    for one in foreign:
        os.close(open_plain(one.path, os.O_RDWR | os.O_TRUNC))
    found = [one for one in found if one not in foreign]
    if journal.record_of is not None:
        return found
    if len(merge(found)) == journal.count:
        _unname_unfinished(target)
    if target.exists() and not overwrite:
        raise UsageError(f"{journal.subject} exists; use --overwrite to replace it, or give another name")
    for orphan in () if found else find_parts(target):
        remove(orphan)
    return found


def _unname_unfinished(target: Path) -> None:
    """Turn an output back into the part file where its run was stopped between its naming and its record."""
    if target.exists() and not part_path(target).exists():
        os.replace(target, part_path(target))  # an image without its record is half an output


def adopt_repaired_input(journal: Found, key: Mapping[str, str], digest: Callable[[int], str]) -> Found:
    """The journal of a job that differs in its inputs alone, with the blocks that read the same of these inputs.

    Any other journal is returned as it is.
    """
    if not differs_in_inputs(journal.head["key"], key):
        return journal
    same = {number: entry for number, entry in journal.entries.items() if entry.sums.get("seen") == digest(number)}
    return replace(journal, head={**journal.head, "key": dict(key)}, entries=same, size=0)


def differs_in_inputs(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Whether two jobs differ, and in nothing but their ``input``, or the several that are numbered."""
    names = differences(one, other)
    return bool(names) and all(name.split()[0] == "input" for name in names)


def resume(journal: Journal, found: list[Found], here: Mapping[str, str]) -> None:
    """Load the intact blocks into a journal, cut off its torn end and write its first line.

    Parameters
    ----------
    journal : Journal
        Of this run, open and locked.
    found : list of Found
        The journals of this job on the disk.
    here : mapping
        What only the last digits depend on.

    Raises
    ------
    UsageError
        A shard of a format that is written in one go.
    """
    held, shard = journal.locks, journal.shard
    assert held is not None
    if shard and not journal.is_resumable:
        raise UsageError(f"--shard: {journal.target.name} is of a format that is written in one go; give .fits or .tif")
    own = next((one for one in found if one.path == held.path), Found(held.path, {}, {}, 0))
    held.truncate(own.size)
    if not own.size:
        head = {"journal": FORMAT, "key": dict(journal.key), "here": dict(own.head.get("here", here))}
        held.append("\n".join([json.dumps(head), *(entry.to_line() for entry in own.entries.values())]))
    mine = shard.share(range(journal.count)) if shard else range(journal.count)
    there = {n: entry for n, entry in merge(found).items() if n in mine}
    journal.entries = {n: entry for n, entry in there.items() if is_intact(journal.sink, entry)}
    journal.is_last = shard is None
    if there:
        journal.notes += describe_resumption(journal, len(mine), [one for one in found if one.entries], here)
    held.pass_turn()


def is_same_job(journal: Found, key: Mapping[str, str]) -> bool:
    """Whether a journal is that of the job with this key, in the format of this version."""
    return journal.head["journal"] == FORMAT and journal.head["key"] == dict(key)


def refuse_other_jobs(target: Path, key: Mapping[str, str]) -> None:
    """Refuse an output that another job began, before anything is looked for; `open_journal` refuses the rest.

    A job whose inputs alone are other ones may go on with blocks that read the same of them (`adopt_repaired_input`).

    Parameters
    ----------
    target : Path
        The output.
    key : mapping
        What is known of this job's key: all but what is measured on its input.

    Raises
    ------
    UsageError
    """
    for path in find_journals(target):
        found = read_journal(path)
        if not found.head:
            continue
        wanted, old = {**found.head["key"], **key}, found.head["journal"] != FORMAT
        if old or (wanted != found.head["key"] and not differs_in_inputs(found.head["key"], wanted)):
            raise UsageError(describe_conflict(f"--output: {target}", found, wanted))


def describe_conflict(subject: str, journal: Found, key: Mapping[str, str]) -> str:
    """The message that refuses a journal of another job.

    Parameters
    ----------
    subject : str
        How messages call the output.
    journal : Found
        The journal that is refused.
    key : mapping
        What this job depends on.
    """
    if journal.head["journal"] != FORMAT:
        return (
            f"{subject} was begun by another version of sciresdiff; finish it with that one, or give "
            "--overwrite to begin anew"
        )
    names = ", ".join(differences(journal.head["key"], key))
    return (
        f"{subject} was begun by another job (not the same: {names}); give its command to go on with it, "
        "--overwrite to begin anew, or another name"
    )


def describe_resumption(journal: Journal, count: int, found: list[Found], here: Mapping[str, str]) -> Notes:
    """How much was done before, and whether on another machine.

    Parameters
    ----------
    journal : Journal
        With the intact blocks.
    count : int
        Number of blocks that this run is to do.
    found : list of Found
        The journals that have entries.
    here : mapping
        What the last digits depend on in this run.
    """
    notes = Notes(f"resumed: {len(journal.entries)} of {count} blocks were done before")
    for other in (one.head.get("here", {}) for one in found):
        if names := differences(other, here):
            before = ", ".join(f"{name} {other.get(name)}" for name in names)
            line = f"WARNING resumed: blocks were done with {before}; the last digits of the others may differ"
            return notes + Notes(line)
    return notes


def keep_or_clean(journal: Journal, problem: BaseException) -> None:
    """After a problem, keep what can be resumed and add a note to it that says so, or leave nothing behind."""
    target, held = journal.target, journal.locks
    assert held is not None
    if journal.shard and not _has_turn(held):
        problem.add_note(f"{journal.name} is left to the other shards; the same command goes on from there")
        return
    found = [read_journal(path) for path in find_journals(target)]
    done = len(merge(found))
    if done == journal.count and journal.record_of is None:
        _unname_unfinished(target)
    if done:
        kept = f"{done} of {journal.count} blocks of {journal.name} are kept"
        problem.add_note(f"{kept}; the same command goes on from there")
    elif held.find_active() or len(found) > 1:
        held.path.unlink(missing_ok=True)
    elif isinstance(problem, UsageError | InputError):
        locks.remove_leftovers(target)
    else:
        locks.remove_leftovers(target, findings=False)


def _has_turn(held: Locks) -> bool:
    """Whether no other shard begins or ends; none will until this run ends."""
    try:
        held.take_turn(wait=0)
    except BlockingIOError:
        return False
    return True

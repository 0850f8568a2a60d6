"""Many inputs, one job each: find the files, name the outputs, run, and collect what went wrong."""

from __future__ import annotations

import errno
import glob
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from sciresdiff.errors import InputError, ResourceError, SciresdiffError, UsageError
from sciresdiff.run.locks import beside
from sciresdiff.run.memory import ran_out
from sciresdiff.run.shards import Shard

WRITTEN_AS = {".fits.fz": ".fits", ".fits.gz": ".fits", ".fit.gz": ".fit", ".companion.ome": ".ome.tif"}
"""Input that is compressed or in several files -> ending of the output, which is one plain file."""

NOT_INPUTS = re.compile(r"_(err|support|gate|trust|dq|var|draws|kernel)\.tiff?$")
"""Planes that stand beside a TIFF: part of an image, not one of their own."""

BUG = 1


class Progress(Protocol):
    """Told now and then how far a job is."""

    def __call__(self, done: int, total: int, label: str) -> None:
        """``done`` of ``total`` steps are behind us, and ``label`` says what is being done."""


def no_progress(done: int, total: int, label: str) -> None:
    """The progress of a job that nobody watches."""


@dataclass(frozen=True)
class Found:
    """An input file, and where it lies below the folder that was named."""

    path: Path
    below: Path = Path()


@dataclass(frozen=True)
class Task:
    """One input and the output that it becomes."""

    source: Path
    target: Path | None = None
    """None where nothing is written for a single input."""


def is_image(path: Path) -> bool:
    """Whether a folder's file is one that we read."""
    from sciresdiff.io import FORMATS, is_store, suffix

    hidden = path.name.startswith(".") or NOT_INPUTS.search(path.name.lower())
    return (path.is_file() or is_store(path)) and not hidden and suffix(path).lower() in FORMATS


def has_files(path: Path) -> bool:
    """Whether a path is a folder, and no image that is one (OME-Zarr)."""
    from sciresdiff.io import is_store

    return path.is_dir() and not is_store(path)


def find_inputs(
    specs: Sequence[str], recursive: bool = False, stdin: Iterable[str] = (), skip: Path | None = None
) -> list[Found]:
    """Expand files, folders, globs, ``@list.txt``, ``-`` and ``FILE[NAME,*]`` (all chips of a FITS file) into inputs.

    Parameters
    ----------
    specs
        What the user named, in order.
    recursive
        Walk folders to the bottom; otherwise only their own files are taken.
    stdin
        Lines that ``-`` stands for; empty lines and lines that start with ``#`` are left out.
    skip
        An output folder, whose files are never inputs.

    Raises
    ------
    InputError
        A list that is missing, a pattern or folder without an image, or nothing at all.
    """
    found: dict[Path, Found] = {}
    for spec in specs:
        for item in _expand(spec, recursive, stdin):
            if skip is None or skip.resolve() not in item.path.resolve().parents or spec == str(item.path):
                found.setdefault(item.path, item)
    if not found:
        raise InputError(f"{' '.join(specs) or 'inputs'}: no image to work on")
    return list(found.values())


def _expand(spec: str, recursive: bool, stdin: Iterable[str]) -> Iterator[Found]:
    """The files that one word of the command line stands for."""
    if spec == "-":
        yield from _listed(stdin, recursive)
    elif spec.startswith("@"):
        yield from _listed(_lines(Path(spec[1:])), recursive)
    elif has_files(Path(spec)):
        yield from _in_folder(Path(spec), recursive)
    elif not file_of(Path(spec)).exists() and glob.has_magic(spec):
        matches = sorted(glob.glob(spec, recursive=recursive))
        if not matches:
            raise InputError(f"{spec}: no file matches this pattern")
        yield from (Found(Path(match)) for match in matches if is_image(Path(match)))
    else:
        yield from (Found(Path(one)) for one in _chips(spec))


def _chips(spec: str) -> list[str]:
    """The images that ``FILE[NAME,*]`` stands for."""
    if not spec.endswith("*]"):
        return [spec]
    from sciresdiff.io.fits.open import expand_chips

    return expand_chips(spec) or [spec]


def file_of(path: Path) -> Path:
    """The file of ``file.fits[EXT]``."""
    from sciresdiff.io.files import split_spec

    return split_spec(path)[0]


def _listed(lines: Iterable[str], recursive: bool) -> Iterator[Found]:
    """Inputs from a list, one to a line."""
    for line in map(str.strip, lines):
        if line and not line.startswith("#"):
            yield from _expand(line, recursive, ())


def _lines(path: Path) -> list[str]:
    """The lines of a list file."""
    try:
        return path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise InputError(f"@{path}: the list of inputs cannot be read ({reason(problem)})") from problem


def _in_folder(folder: Path, recursive: bool) -> Iterator[Found]:
    """The images of a folder, in the order of their names, without what is another's noise, flags or part."""
    from sciresdiff.io.companions import find_companions
    from sciresdiff.io.tiff.ome_set import members

    paths = sorted(p for p in (folder.rglob("*") if recursive else folder.iterdir()) if is_image(p))
    theirs = {other for p in paths for other, _ in find_companions(p).values()}
    theirs |= {other for p in paths if p.name.lower().endswith(".companion.ome") for other in members(p)}
    paths = [p for p in paths if p not in theirs]
    if not paths:
        hint = "" if recursive else "; --recursive looks into its folders too"
        raise InputError(f"{folder}: no FITS, TIFF, HDF5 or OME-Zarr image in this folder{hint}")
    yield from (Found(path, path.parent.relative_to(folder)) for path in paths)


def is_folder(output: Path, specs: Sequence[str], count: int) -> bool:
    """Whether ``output`` names a folder: it is one, ends in a slash, or has to hold more than one file."""
    several = (spec == "-" or spec.startswith("@") or spec.endswith("*]") or has_files(Path(spec)) for spec in specs)
    many = count > 1 or any(several)
    return many or has_files(output)


def place(
    found: Sequence[Found],
    output: str,
    specs: Sequence[str],
    scale_of: Callable[[Path], int | None],
    shard: Shard | None = None,
) -> list[Task]:
    """Name the output of every input, or of those of a shard.

    One input goes to ``output`` itself; several go into the folder ``output`` as ``{stem}_x{scale}{suffix}``, below
    the same folders as the inputs.

    Raises
    ------
    UsageError
        Two inputs that would get the same output, an output that is its own input, or a folder name that a file has.
    """
    folder, mine = Path(output), shard.share(found) if shard else found
    if not (output.endswith("/") or is_folder(folder, specs, len(found))):
        return [_checked(Task(item.path, folder)) for item in mine]
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--output: {output} is a file, but {len(found)} inputs need a folder; give a folder's name")
    tasks = [_checked(Task(item.path, folder / item.below / _named(item.path, scale_of))) for item in mine]
    _refuse_twins(tasks)
    return tasks


def _named(path: Path, scale_of: Callable[[Path], int | None]) -> str:
    """``{stem}_x{scale}{suffix}``; ``{stem}_{EXT}_x{scale}{suffix}`` of an extension."""
    from sciresdiff.io import stem, suffix
    from sciresdiff.io.files import split_spec

    scale = scale_of(path)
    end, part = suffix(path), re.sub(r"\W+", "", split_spec(path)[1] or "")
    words = [stem(path), *([part] if part else []), *([] if scale is None else [f"x{scale}"])]
    return "_".join(words) + WRITTEN_AS.get(end.lower(), end)


def _checked(task: Task) -> Task:
    """The task, unless it would write over its own input."""
    if task.target and task.target.resolve() == file_of(task.source).resolve():
        raise UsageError(f"--output: {task.target} is the input itself; give another name")
    return task


def _refuse_twins(tasks: Sequence[Task]) -> None:
    """Refuse two inputs for one output, or for planes beside their outputs that have one name."""
    seen: dict[Path | None, Path] = {}
    for task in tasks:
        written = _in_several(task.target)
        if written in seen:
            raise UsageError(
                f"--output: {seen[written]} and {task.source} would both become {task.target}, or share a file beside"
                " it; use --recursive on their common folder, or run them apart"
            )
        seen[written] = task.source


def _in_several(target: Path | None) -> Path | None:
    """What the names of an output's files have in common: TIFF has its planes in ``{stem}_err.tif`` and so on."""
    from sciresdiff.io import FORMATS, stem, suffix

    several = target is not None and FORMATS.get(suffix(target).lower()) == "tiff"
    return target.with_name(stem(target)) if target and several else target


def check_target(target: Path, overwrite: bool, option: str = "--output") -> None:
    """Refuse an output that exists, or that cannot be made where it is wanted.

    Raises
    ------
    UsageError
        The output exists and ``overwrite`` is off, or is a folder, or lies below a file.
    """
    if has_files(target):
        raise UsageError(f"{option}: {target} is a folder; give a file's name")
    if target.exists() and not overwrite and not beside(target):  # a run that goes on knows what is its own
        raise UsageError(f"{option}: {target} exists; use --overwrite to replace it, or give another name")
    above = next(folder for folder in target.absolute().parents if folder.exists())
    if not above.is_dir():
        raise UsageError(f"{option}: {target} cannot be written, because {above} is a file; give another name")


@contextmanager
def folder_for(target: Path) -> Iterator[None]:
    """Make the folders above ``target``; take those that were made away again if the work inside fails."""
    missing = [folder for folder in target.absolute().parents if not folder.exists()]
    try:
        target.absolute().parent.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise UsageError(f"--output: {target} cannot be written ({reason(problem)}); give another name") from problem
    try:
        yield
    except BaseException:
        for folder in missing:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        raise


def reason(problem: BaseException) -> str:
    """What went wrong, in a few words on one line."""
    told = problem.strerror if isinstance(problem, OSError) and problem.strerror else str(problem)
    return " ".join(told.split()) or type(problem).__name__


def as_error(problem: BaseException) -> SciresdiffError | None:
    """The error that a user can mend, or None where the fault is ours."""
    if isinstance(problem, SciresdiffError):
        return problem
    if ran_out(problem):
        return ResourceError(f"memory ran out ({reason(problem)}); try a smaller --tile, or a part of the frame")
    if isinstance(problem, OSError):
        where = problem.filename or "a file"
        if problem.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return ResourceError(f"{where}: the disk is full ({reason(problem)})")
        if problem.filename:
            return InputError(f"{where}: {reason(problem)}")
    return None


def exit_code(problem: BaseException) -> int:
    """The code that this problem ends the program with."""
    error = as_error(problem)
    return BUG if error is None else error.exit_code


def worst(codes: Iterable[int]) -> int:
    """The code of many: a bug before all, else the highest."""
    codes = list(codes)
    return BUG if BUG in codes else max(codes, default=0)


Outcome = Mapping[str, Any] | Exception
Each = Callable[[Callable[[Task], Outcome], Iterable[Task]], Iterable[tuple[Task, Outcome]]]
"""(what is done, tasks) -> every task with what came of it, in any order."""


def in_turn(attempt: Callable[[Task], Outcome], tasks: Iterable[Task]) -> Iterator[tuple[Task, Outcome]]:
    """One task after the other, in this process."""
    return ((task, attempt(task)) for task in tasks)


def run(
    tasks: Sequence[Task],
    work: Callable[[Task], Mapping[str, Any]],
    done: Callable[[Task, Mapping[str, Any]], int | None],
    failed: Callable[[Task, Exception], None],
    overwrite: bool = False,
    writes: bool = True,
    stands: Callable[[Task], bool] = lambda task: False,
    skipped: Callable[[Task], None] = lambda task: None,
    each: Each = in_turn,
) -> int:
    """Do every task, the good ones also after a bad one.

    Parameters
    ----------
    work
        Does one task and returns its record.
    done
        Told each record; may return an exit code that the record deserves.
    failed
        Told each failure.
    overwrite
        Whether an output that exists may be replaced.
    writes
        Whether the work writes its target; off for a plan.
    stands
        Whether a target that exists is what this task would write; it is left as it is, unless ``overwrite`` is on.
    skipped
        Told each of those.
    each
        Where and in which order they are done.

    Returns
    -------
    int
        The worst exit code.
    """
    codes: list[int] = []

    def told(task: Task, problem: Exception) -> None:  # the others are done all the same
        failed(task, problem)
        codes.append(exit_code(problem))

    def left() -> Iterator[Task]:
        for task in tasks:
            try:
                if to_do(task, overwrite, stands):
                    yield task
                else:
                    skipped(task)
            except Exception as problem:
                told(task, problem)

    for task, outcome in each(partial(attempted, work, writes), left()):
        if isinstance(outcome, Exception):
            told(task, outcome)
        else:
            codes.append(done(task, outcome) or 0)
    return worst(codes)


def to_do(task: Task, overwrite: bool, stands: Callable[[Task], bool]) -> bool:
    """Whether a task has to be done; False where its output is there.

    Raises
    ------
    InputError, UsageError
        It cannot be done.
    """
    check_source(task.source)
    if task.target and not overwrite and task.target.exists() and stands(task):
        return False
    if task.target:
        check_target(task.target, overwrite)
    return True


def attempted(work: Callable[[Task], Mapping[str, Any]], writes: bool, task: Task) -> Outcome:
    """The record of a task, or why there is none."""
    try:
        with folder_for(task.target) if task.target and writes else nullcontext():
            return work(task)
    except Exception as problem:
        return problem


def check_source(path: Path) -> None:
    """Refuse an input that is not there."""
    if not file_of(path).exists():
        raise InputError(f"{path}: no such file")

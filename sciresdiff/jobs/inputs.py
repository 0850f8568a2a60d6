"""Input files and the names of their outputs: what the words of a command line mean."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sciresdiff.errors import InputError, UsageError
from sciresdiff.run.batch import Task, reason
from sciresdiff.run.locks import find_journals
from sciresdiff.run.shards import Shard

WRITTEN_AS = {".fits.fz": ".fits", ".fits.gz": ".fits", ".fit.gz": ".fit", ".companion.ome": ".ome.tif"}
"""Ending of an input that is compressed or in several files -> ending of the output, which is one plain file."""

NOT_INPUTS = re.compile(r"_(err|support|gate|trust|dq|var|draws|kernel)\.tiff?$")
"""Planes beside a TIFF, which are part of an image and none of their own."""


@dataclass(frozen=True)
class Found:
    """An input file."""

    path: Path
    below: Path = Path()
    """Its folder, relative to the folder that the user named."""


def is_image(path: Path) -> bool:
    """Whether a file of a folder is an image of a known format, and not a plane of another one."""
    from sciresdiff.io import FORMATS, is_store, suffix

    hidden = path.name.startswith(".") or NOT_INPUTS.search(path.name.lower())
    return (path.is_file() or is_store(path)) and not hidden and suffix(path).lower() in FORMATS


def holds_images(path: Path) -> bool:
    """Whether a path is a folder of images; an OME-Zarr store is a folder, but one image."""
    from sciresdiff.io import is_store

    return path.is_dir() and not is_store(path)


def find_inputs(
    specs: Sequence[str], recursive: bool = False, stdin: Iterable[str] = (), skip: Path | None = None
) -> list[Found]:
    """Expand files, folders, globs, ``@list.txt``, ``-`` and ``FILE[NAME,*]`` (all chips of a FITS file) into inputs.

    Parameters
    ----------
    specs : sequence of str
        What the user named, in order.
    recursive : bool
        Whether folders below the named ones are searched too.
    stdin : iterable of str
        Lines that ``-`` stands for; empty lines and lines that start with ``#`` are ignored.
    skip : Path, optional
        An output folder, whose files are never inputs.

    Returns
    -------
    list of Found
        Every file once, in the order of the words.

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
        yield from _expand_lines(stdin, recursive)
    elif spec.startswith("@"):
        yield from _expand_lines(_read_list(Path(spec[1:])), recursive)
    elif holds_images(Path(spec)):
        yield from _find_in_folder(Path(spec), recursive)
    elif not file_of(Path(spec)).exists() and glob.has_magic(spec):
        matches = sorted(glob.glob(spec, recursive=recursive))
        if not matches:
            raise InputError(f"{spec}: no file matches this pattern")
        yield from (Found(Path(match)) for match in matches if is_image(Path(match)))
    else:
        yield from (Found(Path(one)) for one in _expand_chips(spec))


def _expand_chips(spec: str) -> list[str]:
    """The images that ``FILE[NAME,*]`` stands for."""
    if not spec.endswith("*]"):
        return [spec]
    from sciresdiff.io.fits.open import expand_chips

    return expand_chips(spec) or [spec]


def file_of(path: Path) -> Path:
    """``file.fits`` of ``file.fits[EXT]``."""
    from sciresdiff.io.files import split_spec

    return split_spec(path)[0]


def _expand_lines(lines: Iterable[str], recursive: bool) -> Iterator[Found]:
    """Inputs from a list, one to a line."""
    for line in map(str.strip, lines):
        if line and not line.startswith("#"):
            yield from _expand(line, recursive, ())


def _read_list(path: Path) -> list[str]:
    """The lines of a list file."""
    try:
        return os.fsdecode(path.read_bytes()).splitlines()
    except OSError as problem:
        raise InputError(f"@{path}: the list of inputs cannot be read ({reason(problem)})") from problem


def _find_in_folder(folder: Path, recursive: bool) -> Iterator[Found]:
    """The images of a folder by name, without files that are the noise, flags, PSF or a part of another one."""
    from sciresdiff.io.companions import find_noise_and_flags
    from sciresdiff.io.tiff.ome_set import members

    paths = sorted(p for p in (folder.rglob("*") if recursive else folder.iterdir()) if is_image(p))
    theirs = {other for p in paths for other, _ in find_noise_and_flags(p).values()}
    theirs |= {other for p in paths if p.name.lower().endswith(".companion.ome") for other in members(p)}
    paths = [p for p in paths if p not in theirs]
    if not paths:
        hint = "" if recursive else "; --recursive looks into its folders too"
        raise InputError(f"{folder}: no FITS, TIFF, HDF5 or OME-Zarr image in this folder{hint}")
    yield from (Found(path, path.parent.relative_to(folder)) for path in paths)


def is_folder(output: Path, specs: Sequence[str], count: int) -> bool:
    """Whether ``output`` names a folder: it is one, ends in a slash, or has to hold more than one file."""
    several = (spec == "-" or spec.startswith("@") or spec.endswith("*]") or holds_images(Path(spec)) for spec in specs)
    many = count > 1 or any(several)
    return many or holds_images(output)


def name_outputs(
    found: Sequence[Found],
    output: str,
    specs: Sequence[str],
    scale_of: Callable[[Path], int | None],
    shard: Shard | None = None,
) -> list[Task]:
    """Name the output of every input, or of those of a shard.

    One input goes to ``output`` itself; several go into the folder ``output`` as ``{stem}_x{scale}{suffix}``, in the
    same folders as the inputs.

    Parameters
    ----------
    found : sequence of Found
        All inputs.
    output : str
        What the user gave as ``--output``; a name that ends in a slash is a folder.
    specs : sequence of str
        What the user named as inputs.
    scale_of : callable
        Input -> scale in the output's name, or None.
    shard : Shard, optional
        The share of the inputs whose outputs are named.

    Raises
    ------
    UsageError
        Two inputs have the same output, an output is its own input, or a file has the name of the folder.
    """
    folder, mine = Path(output), shard.share(found) if shard else found
    if not (output.endswith("/") or is_folder(folder, specs, len(found))):
        return [_not_its_input(Task(item.path, folder)) for item in mine]
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--output: {output} is a file, but {len(found)} inputs need a folder; give a folder's name")
    tasks = [_not_its_input(Task(item.path, folder / item.below / _output_name(item.path, scale_of))) for item in mine]
    _refuse_twins(tasks)
    return tasks


def _output_name(path: Path, scale_of: Callable[[Path], int | None]) -> str:
    """``{stem}_x{scale}{suffix}``; ``{stem}_{EXT}_x{scale}{suffix}`` of an extension."""
    from sciresdiff.io import stem, suffix
    from sciresdiff.io.files import split_spec

    scale = scale_of(path)
    end, part = suffix(path), re.sub(r"\W+", "", split_spec(path)[1] or "")
    words = [stem(path), *([part] if part else []), *([] if scale is None else [f"x{scale}"])]
    return "_".join(words) + WRITTEN_AS.get(end.lower(), end)


def _not_its_input(task: Task) -> Task:
    """The task, unless it would write over its own input."""
    if task.target and task.target.resolve() == file_of(task.source).resolve():
        raise UsageError(f"--output: {task.target} is the input itself; give another name")
    return task


def _refuse_twins(tasks: Sequence[Task]) -> None:
    """Refuse two inputs for one output, or for planes beside their outputs that have one name."""
    seen: dict[Path | None, Path] = {}
    for task in tasks:
        written = _shared_name(task.target)
        if written in seen:
            raise UsageError(
                f"--output: {seen[written]} and {task.source} would both become {task.target}, or share a file beside"
                " it; use --recursive on their common folder, or run them apart"
            )
        seen[written] = task.source


def _shared_name(target: Path | None) -> Path | None:
    """What all files of an output begin with: TIFF has its planes beside it, in ``{stem}_err.tif`` and so on."""
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
    if holds_images(target):
        raise UsageError(f"{option}: {target} is a folder; give a file's name")
    if target.exists() and not overwrite and not find_journals(target):  # the journal decides whose output it is
        raise UsageError(f"{option}: {target} exists; use --overwrite to replace it, or give another name")
    above = next(folder for folder in target.absolute().parents if folder.exists())
    if not above.is_dir():
        raise UsageError(f"{option}: {target} cannot be written, because {above} is a file; give another name")


def is_due(task: Task, overwrite: bool, is_done: Callable[[Task], bool]) -> bool:
    """Whether a task has to be done; False where its output exists and ``is_done`` says that it is this task's.

    Raises
    ------
    InputError
        The input does not exist.
    UsageError
        The output exists and is another one, or cannot be written.
    """
    check_source(task.source)
    if task.target and not overwrite and task.target.exists() and is_done(task):
        return False
    if task.target:
        check_target(task.target, overwrite)
    return True


def check_source(path: Path) -> None:
    """Refuse an input that does not exist."""
    if not file_of(path).exists():
        raise InputError(f"{path}: no such file")

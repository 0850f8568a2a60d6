"""What an output depends on: its input's bytes, the options that matter, the model, the version."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import fields
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

from sciresdiff import __version__
from sciresdiff.errors import InputError
from sciresdiff.io import is_store, stem
from sciresdiff.io.beside import siblings
from sciresdiff.io.files import split_spec

NO_BYTES = frozenset({"overwrite", "device", "threads", "shard", "scheduler", "workers", "pairs"})
"""Options that do not change what is computed. Device and threads may change its last digits; see `machine`."""
CHUNK = 1 << 22


def identity(path: str | Path, options: Any, models: Iterable[Path] = ()) -> dict[str, str]:
    """What an output is made from, by name: equal exactly where the same output is wanted.

    Parameters
    ----------
    path
        The input; the content of its file counts, and its name, which an output may tell.
    options
        A dataclass; options that name a file count by that file's name and content, those in ``NO_BYTES`` not at all.
    models
        Files of the models that may be used.

    Returns
    -------
    dict
        ``version``, ``input``, noise and flags ``beside`` it, ``model``, and each option that is not at its default.
    """
    known = {"version": __version__, "input": told(str(path))}
    known |= {f"beside ({kind})": told(str(file)) for kind, file in belonging(split_spec(path)[0]).items()}
    if used := ",".join(told(str(model)) for model in models):
        known["model"] = used
    for option in fields(options):
        value = getattr(options, option.name)
        if option.name not in NO_BYTES and value != option.default:
            known["--" + option.name.replace("_", "-")] = told(value)
    return known


def belonging(path: Path) -> dict[str, Path]:
    """Files beside an image that may be read with it: its noise and flags, by their names, and parts of an OME set."""
    from sciresdiff.io.tiff.set import members

    found = {kind: file for kind, (file, _) in siblings(path).items()}
    if path.name.lower().endswith(".companion.ome"):
        found |= {f"part {i}": file for i, file in enumerate(members(path)) if file.is_file()}
    variance = path.with_name(f"{stem(path)}_var.tif")  # of a TIFF that degrade wrote
    return found | ({"variance": variance} if variance.is_file() else {})


def told(value: Any) -> str:
    """A value in words; a file by its name and the hash of its content."""
    if not isinstance(value, str):
        return str(value)
    for text in (value, value.partition(":")[2]):  # rms:FILE
        file, part = split_spec(text)
        if file.is_file() or is_store(file) and file.is_dir():
            return f"{value.removesuffix(text)}{file.name}{f'[{part}]' if part else ''}:{hash_of(file)}"
    return value


def hash_of(path: Path) -> str:
    """blake2b of a file's content; remembered as long as the file's size and time stay. Of a folder, of all in it."""
    if path.is_dir():
        inside = sorted(other for other in path.rglob("*") if other.is_file())
        told = "".join(f"{other.relative_to(path).as_posix()}:{hash_of(other)}\n" for other in inside)
        return blake2b(told.encode(), digest_size=16).hexdigest()
    facts = path.stat()
    return _hashed(str(path), facts.st_size, facts.st_mtime_ns, facts.st_ino)


@lru_cache(256)
def _hashed(path: str, size: int, time: int, inode: int) -> str:
    digest = blake2b(digest_size=16)
    with open(path, "rb", buffering=0) as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def checksums(files: Iterable[str | Path]) -> dict[str, str]:
    """Name -> blake2b of each file; what the record says of an output."""
    return {os.path.basename(file): hash_of(Path(file)) for file in files}


def machine(device: str) -> dict[str, str]:
    """What the last digits of an output depend on beside its identity."""
    import torch

    from sciresdiff.restoration.model import device_of

    return {"torch": torch.__version__, "device": device_of(device).type, "threads": str(torch.get_num_threads())}


def differing(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """Names under which two identities are not equal."""
    return sorted(name for name in {*one, *other} if one.get(name) != other.get(name))


def known_by(path: str | Path, options: Any) -> dict[str, str]:
    """`identity`, with the files of the models that the options may mean."""
    return identity(path, options, sorted(_model_files(options)))


def _model_files(options: Any) -> set[Path]:
    """Without ``--model`` the kind of the image decides among those that are shipped, so all of them count."""
    from sciresdiff.restoration import model

    name, then = getattr(options, "model", "physics"), getattr(options, "then", None)
    shipped = Path(__file__).parents[1] / "models"
    found = set(shipped.glob("*.safetensors")) if name is None else set()
    return found | {model.locate(one) for one in (name, then) if one and one != "physics"}


def unchanged(path: str | Path, options: Any, known: Mapping[str, str]) -> None:
    """Refuse a result of an input that was written to while it was read: it may be of both.

    Parameters
    ----------
    known
        `known_by` before anything was read.

    Raises
    ------
    InputError
        The input is another, or a file that belongs to it, or the model.
    """
    if names := differing(known, known_by(path, options)):
        raise InputError(f"{path}: changed while it was read ({', '.join(names)}); give the same command again")


def stands(record: Mapping[str, Any], target: Path, known: Mapping[str, str]) -> bool:
    """Whether a record tells of this very job, and its files are as it left them."""
    sums = record.get("checksums")
    if record.get("identity") != dict(known) or not isinstance(sums, dict) or target.name not in sums:
        return False
    files = {target.with_name(name): told for name, told in sums.items()}
    return all(file.exists() for file in files) and all(hash_of(file) == told for file, told in files.items())

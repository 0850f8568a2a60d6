"""What an output depends on: the bytes of its input, the options that matter, the model, the version."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

from sciresdiff import __version__
from sciresdiff.io import is_store, stem
from sciresdiff.io.companions import find_noise_and_flags
from sciresdiff.io.files import split_spec
from sciresdiff.run.checksums import hash_path

NO_BYTES = frozenset(
    {"overwrite", "allow_outside", "device", "threads", "shard", "scheduler", "workers", "pairs", "strict"}
)
"""Options that do not change what is computed. Device and threads may change its last digits; see `describe_machine`.
"""


def identify(path: str | Path, options: Any, models: Iterable[Path] = ()) -> dict[str, str]:
    """What an output is made from, by name: two identities are equal exactly where the same output is wanted.

    Parameters
    ----------
    path : str or Path
        The input. The content of its file counts, and its name, which an output may state.
    options : dataclass
        Options that name a file count by that file's name and content, those in `NO_BYTES` not at all.
    models : iterable of Path
        Files of the models that may be used.

    Returns
    -------
    dict
        ``version``, ``input``, noise, flags and PSF ``beside`` it, ``model``, and each option that is not at its
        default.
    """
    known = {"version": __version__, "input": describe_value(str(path))}
    beside = find_companions(split_spec(path)[0])
    known |= {f"beside ({kind})": describe_value(str(file)) for kind, file in beside.items()}
    if used := ",".join(describe_value(str(model)) for model in models):
        known["model"] = used
    for option in fields(options):
        value = getattr(options, option.name)
        if option.name not in NO_BYTES and value != option.default:
            known["--" + option.name.replace("_", "-")] = describe_value(value)
    return known


def identify_with_models(path: str | Path, options: Any) -> dict[str, str]:
    """`identify`, with the files of the models that the options may mean."""
    return identify(path, options, sorted(_find_models(options)))


def find_companions(path: Path) -> dict[str, Path]:
    """Files beside an image that may be read with it: noise, flags and PSF, by their names, and parts of an OME set."""
    from sciresdiff.io.tiff.ome_set import members

    found = {kind: file for kind, (file, _) in find_noise_and_flags(path).items()}
    if path.name.lower().endswith(".companion.ome"):
        found |= {f"part {i}": file for i, file in enumerate(members(path)) if file.is_file()}
    variance = path.with_name(f"{stem(path)}_var.tif")  # of a TIFF that degrade wrote
    return found | ({"variance": variance} if variance.is_file() else {})


def describe_value(value: Any) -> str:
    """A value in words; a file by its name and the hash of its content."""
    if not isinstance(value, str):
        return str(value)
    if ";" in value and not split_spec(value)[0].is_file():  # a PSF for each channel
        return ";".join(describe_value(part.strip()) for part in value.split(";"))
    name, comma, more = value.partition(",")  # FILE,oversample=4
    if comma and split_spec(name)[0].is_file():
        return f"{describe_value(name)},{more}"
    for text in (value, value.partition(":")[2]):  # rms:FILE
        file, part = split_spec(text)
        if file.is_file() or is_store(file) and file.is_dir():
            return f"{value.removesuffix(text)}{file.name}{f'[{part}]' if part else ''}:{hash_path(file)}"
    return value


def describe_machine(device: str) -> dict[str, str]:
    """What the last digits of an output depend on beside its identity."""
    import torch

    from sciresdiff.restoration.model import device_of

    return {"torch": torch.__version__, "device": device_of(device).type, "threads": str(torch.get_num_threads())}


def _find_models(options: Any) -> set[Path]:
    """Files of the named models; without ``--model`` the kind of the image decides, so all shipped ones count."""
    from sciresdiff.restoration import model

    name, then = getattr(options, "model", "physics"), getattr(options, "then", None)
    shipped = Path(__file__).parents[1] / "models"
    found = set(shipped.glob("*.safetensors")) if name is None else set()
    return found | {model.locate(one) for one in (name, then) if one and one != "physics"}

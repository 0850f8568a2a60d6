"""A model on the disk: one ``.safetensors`` file of tensors with a JSON card and a checksum inside; it runs no code.

A single flipped bit of a weight can put an image two peaks off while it still explains the data (chi2 0.8), so that no
look at the image finds it. The checksum does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from sciresdiff.errors import InputError
from sciresdiff.files import write_synced
from sciresdiff.io.atomic import write_atomic
from sciresdiff.parse import parse_json

CARD, CHECKSUM = "sciresdiff", "checksum"
"""Key of the card in the file's metadata, and of the checksum in the card."""
UNCHECKED = (CHECKSUM, "name", "trained")
"""Entries of a card on which no image depends."""
LARGEST = 1e6
"""Weights beyond this are damage: those of trained networks are below 1, statistics of norms below some thousand."""
SIZES = 1024
"""A card may state any number up to this, for instance of iterations; a larger one has to be a size of its tensors."""
LONGEST_HEADER = 100_000_000
"""Bytes of a header, as the format allows."""


def is_safetensors(path: Path) -> bool:
    """Whether a file is a safetensors file: by its first bytes, and by its name where these are of no known kind."""
    with path.open("rb") as stream:
        start = stream.read(9)
    if start[8:] == b"{" and int.from_bytes(start[:8], "little") <= LONGEST_HEADER:
        return True
    is_pickle = start.startswith((b"PK\x03\x04", b"\x80"))  # what torch.save writes, today and before 1.6
    return path.suffix == ".safetensors" and not is_pickle


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata of a safetensors file, without its tensors.

    Read here, as the library opens no file whose name is no UTF-8: eight bytes of length, then a JSON object.

    Raises
    ------
    InputError : not a safetensors file, or a damaged one.
    """
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 2 <= length <= min(LONGEST_HEADER, path.stat().st_size - 8):
                raise ValueError(f"its header is said to have {length} bytes")
            found = parse_json(stream.read(length))["__metadata__"]
    except KeyError:
        return {}
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"--model: {path} is not a readable .safetensors file ({error}); train or name another"
        ) from None
    return found if isinstance(found, dict) else {}


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name.

    Raises
    ------
    InputError : a damaged file, or a weight that no training leaves: not finite, or beyond `LARGEST`.
    """
    try:
        weights: dict[str, Tensor] = load(path.read_bytes())
    except (SafetensorError, OSError, ValueError, RuntimeError, LookupError) as error:
        raise InputError(f"--model: the tensors in {path} cannot be read ({error}); fetch or train it again") from None
    for name, values in weights.items():
        if (damage := describe_damage(values)) is not None:
            raise InputError(f"--model: the weights in {path} are damaged ({name}: {damage}); fetch or train it again")
    return weights


def describe_damage(values: Tensor) -> str | None:
    """What no training leaves in a tensor of any shape, in words; None for a sound one."""
    if not values.is_floating_point() or not values.numel():
        return None
    if not bool(torch.isfinite(values.float()).all()):
        return "not finite"
    largest = float(values.float().abs().amax())
    return f"{largest:.3g} is no weight" if largest > LARGEST else None


def checksum(card: Mapping[str, Any], weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of all that an image made with a model depends on, 64 digits.

    It is of name, type, shape and bytes of every tensor, by name, and of the card without `UNCHECKED`: a training that
    took longer, or a model that was given another name, has the same one.

    Parameters
    ----------
    card : of JSON's own types.
    weights : on the CPU, by name.
    """
    digest = hashlib.sha256()
    for name in sorted(weights):
        values = weights[name].contiguous()
        digest.update(json.dumps([name, str(values.dtype), list(values.shape)]).encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    facts = {key: value for key, value in card.items() if key not in UNCHECKED}
    digest.update(json.dumps(facts, sort_keys=True).encode())
    return digest.hexdigest()


def write_model(path: Path, card: Mapping[str, Any], weights: dict[str, Tensor]) -> None:
    """Write tensors and their card with the checksum of both, whole or not at all, with the umask's mode.

    Parameters
    ----------
    path : its folders are made.
    card : JSON-able; a checksum in it is replaced.
    weights : contiguous, on the CPU, by name.

    Raises
    ------
    UsageError, ResourceError : as `sciresdiff.io.atomic.write_atomic`.
    """
    facts: dict[str, Any] = json.loads(json.dumps(card))  # as it will be read
    facts[CHECKSUM] = checksum(facts, weights)
    content = save(weights, metadata={CARD: json.dumps(facts, sort_keys=True)})
    write_atomic({path: lambda part: write_synced(part, content)}, overwrite=True)


def parse_card(path: Path, text: str) -> dict[str, Any]:
    """The card of a model in the file's metadata.

    Raises
    ------
    InputError : it is damaged.
    """
    try:
        card = parse_json(text)
    except ValueError as error:
        raise InputError(f"--model: the card of {path} is damaged ({error}); fetch or train it again") from None
    if not isinstance(card, dict):
        raise InputError(f"--model: the card of {path} is damaged (no table); fetch or train it again")
    return card


def verify(path: Path, card: Mapping[str, Any], weights: Mapping[str, Tensor]) -> tuple[str, bool]:
    """The checksum of a model that was read, and whether its card states the same one; False where it states none.

    Raises
    ------
    InputError : another one; or, where there is none, a number in the card that does not go with the tensors.
    """
    found, stated = checksum(card, weights), card.get(CHECKSUM)
    if stated is not None and stated != found:
        raise InputError(
            f"--model: the weights or the card in {path} are not those that were saved (checksum {found[:12]}, "
            f"stated {str(stated)[:12]}); fetch or train it again"
        )
    if stated is None:
        most = max([SIZES, len(weights), *(side for values in weights.values() for side in values.shape)])
        parts = card.get("prior"), card.get("refiner")
        if wrong := next((number for number in _numbers(parts) if abs(number) > most), None):
            raise InputError(f"--model: the card of {path} states {wrong}, which does not go with its tensors")
    return found, stated is not None


def _numbers(value: Any) -> Iterator[float]:
    """All numbers in a value of lists and mappings."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from _numbers(item)
    elif isinstance(value, int | float):
        yield value

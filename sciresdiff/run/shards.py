"""One of several runs that share a job: every n-th file, or every n-th piece of one file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from sciresdiff.errors import UsageError

Item = TypeVar("Item")


@dataclass(frozen=True)
class Shard:
    """Run number ``number`` of ``of``, counted from 1."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """The items of this shard: each item is in exactly one shard, and shares differ by one item at most."""
        return items[self.number - 1 :: self.of]


def parse_shard(text: str | None) -> Shard | None:
    """Parse ``2/4`` as a shard; None stands for the whole job.

    Raises
    ------
    UsageError
        Not two whole numbers, or the first is not in 1 ... the second.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise UsageError(
            f"--shard: {text} is given, but i/n with i from 1 to n is needed, for instance 1/{_probable_count(text)}"
        )
    return Shard(int(match[1]), int(match[2]))


def _probable_count(text: str) -> int:
    """The n that was probably meant; 4 where nothing tells."""
    last = text.rpartition("/")[2].strip()
    return int(last) if last.isdecimal() and int(last) > 0 else 4

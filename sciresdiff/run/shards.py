"""One of several runs that share a job: every n-th file, or every n-th block of one frame."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from sciresdiff.errors import UsageError

Item = TypeVar("Item")


@dataclass(frozen=True)
class Shard:
    """Number ``number`` of ``of``, from 1."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """The items of this shard: every item is in exactly one, and their numbers differ by one at most."""
        return items[self.number - 1 :: self.of]


def shard_of(text: str | None) -> Shard | None:
    """``2/4`` as a shard; None of None.

    Raises
    ------
    UsageError
        Not two whole numbers, or the first is not in 1 ... the second.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise UsageError(f"--shard: {text} is given, but i/n with i from 1 to n is needed, for instance 1/{_of(text)}")
    return Shard(int(match[1]), int(match[2]))


def _of(text: str) -> int:
    """The n that was perhaps meant."""
    last = text.rpartition("/")[2].strip()
    return int(last) if last.isdecimal() and int(last) > 0 else 4

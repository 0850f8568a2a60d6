"""What a journal asks of an output that is written part by part; `sciresdiff.io.sink.Sink` is one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from numpy.typing import NDArray

from sciresdiff.region import Region

Arrays = Iterable[tuple[str, int, int, int, NDArray[Any]]]
"""(name, plane, y0, x0, values) of every array that a piece writes: values (..., h, w)."""


class Sink(Protocol):
    """An unfinished output."""

    @property
    def put(self) -> Callable[[str, int, int, int, NDArray[Any]], int | None]:
        """(name, plane, y0, x0, values) -> how many values the output's type could not hold; None: not yet known."""

    @property
    def get(self) -> Callable[[str, int, Region], NDArray[Any]] | None:
        """(name, plane, region) -> what is stored there; None where the output is written in one go."""

    @property
    def sync(self) -> Callable[[], None]:
        """Returns when everything put so far is on the disk."""

    @property
    def dtype(self) -> Any:
        """Of the image's pixels in the output."""

    @property
    def finish(self) -> Callable[[Mapping[str, object]], dict[str, Any]]:
        """(values that were not known before) -> report; the output then has its name."""

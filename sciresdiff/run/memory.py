"""When memory runs out: the same result with smaller tiles."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from sciresdiff.errors import ResourceError
from sciresdiff.notes import Notes

Result = TypeVar("Result")

LEAST_TILE = 32
"""Smallest tile, coarse px; a smaller one is mostly halo, and saves nothing."""

_limits: dict[str, int] = {}
"""Field of the settings -> the largest value that memory was found to hold, for the blocks that follow."""


def is_out_of_memory(problem: BaseException) -> bool:
    """Whether an exception says that memory ran out: numpy's, a device's, or the RuntimeError of torch on a CPU."""
    if isinstance(problem, MemoryError) or type(problem).__name__ == "OutOfMemoryError":
        return True
    words = ("DefaultCPUAllocator", "out of memory", "ALLOC_FAILED")
    return isinstance(problem, RuntimeError) and any(word in str(problem) for word in words)


def retry_with_smaller_tiles(
    attempt: Callable[[Any], Result], settings: Any, side: int, exact: bool = True
) -> tuple[Result, Notes]:
    """Call ``attempt(settings)``; as long as memory runs out, halve the tile and try again.

    Parameters
    ----------
    attempt : callable
        Settings -> result. **The result must not depend on** ``tile`` **of the settings**, but for the rounding of
        convolutions of another size.
    settings : dataclass
        With a field ``tile``, coarse px (0: all).
    side : int
        The longer side of what is restored, coarse px.
    exact : bool
        Whether the output of the networks does not depend on the tile.

    Returns
    -------
    result, notes
        What ``attempt`` returned, and a warning for every smaller tile.

    Raises
    ------
    ResourceError
        Memory ran out with the smallest tile, or with any tile where the networks are not ``exact``.
    """
    notes = Notes()
    if largest := _limits.get("tile"):
        settings = replace(settings, tile=min(largest, settings.tile or largest))
    while True:
        try:
            return attempt(settings), notes
        except Exception as problem:
            if not is_out_of_memory(problem):
                raise
            reason = str(problem).strip().split("\n")[0][:120] or type(problem).__name__
        tile = _halve(settings, side, exact, reason)  # outside of the handler, whose traceback holds the tensors
        _limits["tile"] = tile
        settings = replace(settings, tile=tile)
        _release()
        notes += Notes(f"WARNING memory ran out; going on with --tile {tile}")


def _halve(settings: Any, side: int, exact: bool, reason: str) -> int:
    """Half of the tile; ResourceError where that is too small, or changes the result."""
    tile = min(settings.tile or side, side)
    if not exact:
        raise ResourceError(
            f"memory ran out ({reason}), and the network sees beyond a tile, so that a smaller one gives another "
            f"image; try --tile {max(tile // 2, LEAST_TILE)} if that may be, or another --device"
        )
    if tile // 2 < LEAST_TILE:
        raise ResourceError(
            f"memory ran out with --tile {tile} ({reason}); end other programs, or try --device cpu, a model that is "
            "smaller, or --model physics"
        )
    return tile // 2


def _release() -> None:
    """Return unused memory to the system and the device."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()

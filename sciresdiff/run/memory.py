"""When memory runs out: fewer draws at once, then smaller network tiles, and the same result."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from sciresdiff.errors import ResourceError

Result = TypeVar("Result")

LEAST_TILE = 32
"""Coarse pixels; below it a tile is mostly halo, and saves nothing."""

_found: dict[str, int] = {}
"""Field of the settings -> the most that memory was found to hold, for the blocks that follow."""


def ran_out(problem: BaseException) -> bool:
    """Whether memory ran out: numpy's, a device's, or main memory in torch, which tells it by a plain RuntimeError."""
    if isinstance(problem, MemoryError) or type(problem).__name__ == "OutOfMemoryError":
        return True
    words = ("DefaultCPUAllocator", "out of memory", "ALLOC_FAILED")
    return isinstance(problem, RuntimeError) and any(word in str(problem) for word in words)


def sparing(
    attempt: Callable[[Any], Result], settings: Any, side: int, say: Callable[[str], None], exact: bool = True
) -> Result:
    """Do it, with less at once if memory runs out.

    Parameters
    ----------
    attempt
        Settings -> result. **The result must not depend on** ``tile`` **of the settings**, but for
        the rounding of convolutions of another size.
    settings
        A dataclass with ``tile``, coarse pixels (0: all).
    side
        The longer side of what is restored, coarse pixels.
    say
        Told once what memory holds.
    exact
        Whether the networks' answers do not depend on the tile.

    Raises
    ------
    ResourceError
        Memory ran out with the least that is possible.
    """
    if most := _found.get("tile"):
        settings = replace(settings, tile=min(most, settings.tile or most))
    while True:
        try:
            return attempt(settings)
        except Exception as problem:
            if not ran_out(problem):
                raise
            reason = str(problem).strip().split("\n")[0][:120] or type(problem).__name__
        less = _less(settings, side, exact, reason)  # outside of the handler, whose traceback holds the tensors
        _found["tile"] = less
        settings = replace(settings, tile=less)
        _release()
        say(f"WARNING memory ran out; going on with --tile {less}")


def _less(settings: Any, side: int, exact: bool, reason: str) -> int:
    """The tile that is tried next: half."""
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
    """Give back what is not used."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()

"""What an image of whole numbers loses of what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROUNDED = 0.1
"""Share of pixels with an error below 1 from which on rounding is told."""


def count_small_errors(err: NDArray[np.float32]) -> dict[str, int]:
    """How many of the errors that are known are below 1, where an integer type would hide what they say.

    Parameters
    ----------
    err : (..., Y, X), NaN where it is not known.
    """
    return {"below_one": int((err < 1).sum()), "errors": int(np.isfinite(err).sum())}


def describe_integers(dtype: Any, clipped: int, sums: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is lost in an image of whole numbers.

    Parameters
    ----------
    dtype : of the image's file.
    clipped : pixels that it could not hold.
    sums : with `count_small_errors` of every block.
    """
    lines, kind = [], np.dtype(dtype)
    small, known = (sum(one[name] for one in sums) for name in ("below_one", "errors"))
    if kind.kind in "iu" and small > ROUNDED * known:
        lines.append(
            f"WARNING dtype: ERR is below 1 in {100 * small / known:.0f} % of the pixels, and {kind.name} rounds to"
            " whole numbers; --dtype float32 keeps what was measured"
        )
    if clipped:
        lines.append(f"WARNING dtype: {clipped} pixels are beyond {kind.name} and clipped; --dtype float32 keeps them")
    return lines

"""Memory that was freed stays with the process, so that it need not be zeroed and mapped page by page again."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from functools import cache

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of glibc's mallopt(3)."""
LARGEST = 40 << 20
"""Bytes of what is kept: images of a block and activations of a tile; whole large frames go back to the system."""
MOST = 1 << 30
"""Free bytes at the end of the heap above which they go back."""


@cache
def keep_freed() -> bool:
    """Ask the C library to keep what is freed; a process that allocates images in turn gains up to a fifth of its time.

    Of a frame that is restored as a whole, peak memory is not raised; less of it goes back between images.

    Returns
    -------
    True where that was done: with glibc, unless the environment has settings of its own (``MALLOC_*``).
    """
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return False
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        return bool(mallopt(M_MMAP_THRESHOLD, LARGEST)) and bool(mallopt(M_TRIM_THRESHOLD, MOST))
    return False

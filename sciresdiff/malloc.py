"""Settings of the C library: freed memory stays with the process, so that it is not mapped page by page again."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from functools import cache

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt(3)."""
LARGEST = 40 << 20
"""Largest array that is kept, bytes: images of a block and activations of a tile; large frames are returned."""
MOST = 1 << 30
"""Free bytes at the end of the heap above which they are returned to the system."""


@cache
def keep_freed() -> bool:
    """Ask the C library to keep freed memory; a process that allocates images in turn gains up to a fifth of its time.

    The peak of memory is not raised; less of it is returned between images.

    Returns
    -------
    bool
        True where that was done: with glibc, unless the environment has settings of its own (``MALLOC_*``).
    """
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return False
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        return bool(mallopt(M_MMAP_THRESHOLD, LARGEST)) and bool(mallopt(M_TRIM_THRESHOLD, MOST))
    return False

"""sciresdiff: super-resolution of science images that can be defended in a paper."""

from __future__ import annotations

from sciresdiff.lazy import on_first_use

__version__ = "0.1.0"

PUBLIC = {
    "Frame": "sciresdiff.frame:Frame",
    "read": "sciresdiff.io:read",
    "write": "sciresdiff.io:write",
    "degrade": "sciresdiff.jobs.degrade.job:run",
    "upscale": "sciresdiff.jobs.upscale.job:run",
    "evaluate": "sciresdiff.jobs.evaluate.job:run",
}
"""Public name -> where it is defined."""

__all__ = ["PUBLIC", "__version__"]
__getattr__ = on_first_use(__name__, PUBLIC)


def __dir__() -> list[str]:
    """Everything public."""
    return sorted([*globals(), *PUBLIC])

"""sciresdiff: super-resolution of science images that can be defended in a paper."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

VERBS = {
    "Frame": ("sciresdiff.frame", "Frame"),
    "read": ("sciresdiff.io", "read"),
    "write": ("sciresdiff.io", "write"),
    "degrade": ("sciresdiff.jobs.degrade", "run"),
    "upscale": ("sciresdiff.jobs.upscale", "run"),
    "evaluate": ("sciresdiff.jobs.evaluate", "run"),
}
"""Public name -> (module, attribute); looked up on first use, so that importing the package costs nothing."""

__all__ = ["VERBS", "__version__"]


def __getattr__(name: str) -> Any:
    """Import a public verb when it is first asked for."""
    if name not in VERBS:
        raise AttributeError(f"module 'sciresdiff' has no attribute {name!r}")
    module, attribute = VERBS[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    """Everything public, the lazy verbs included."""
    return sorted([*globals(), *VERBS])

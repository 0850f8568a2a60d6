"""``sciresdiff evaluate``."""

from __future__ import annotations
from sciresdiff.cli import options as o


def evaluate(inputs: o.Inputs) -> None:
    """Stub."""

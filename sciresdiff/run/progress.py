"""How far a job is: what tells it, and what listens."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """A listener that is told from time to time how far a job is."""

    def __call__(self, done: int, total: int, label: str) -> None:
        """Report that ``done`` of ``total`` steps are complete; ``label`` names what is being done."""


def no_progress(done: int, total: int, label: str) -> None:
    """Ignore the report: the progress of a job that nobody watches."""

"""What a step reports beside its result: the assumptions it made, and where each setting came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Notes:
    """Lines for the user, and the origin of every setting; a value that functions return and callers add up.

    ``Notes("psf: measured from 12 sources", psf="measured") + Notes("noise: ...")``
    """

    lines: tuple[str, ...] = ()
    """One sentence each, the subject first; what may spoil a result begins with ``WARNING``."""
    origins: Mapping[str, str] = field(default_factory=dict)
    """Setting -> where it came from: an option, ``file``, ``header``, ``measured``, ``assumed``."""

    def __init__(self, *lines: str, **origins: str) -> None:
        """Take lines and origins as they are written down."""
        object.__setattr__(self, "lines", lines)
        object.__setattr__(self, "origins", origins)

    def __add__(self, other: Notes) -> Notes:
        """Both, in order; an origin that both have is the later one's."""
        return Notes(*self.lines, *other.lines, **{**self.origins, **other.origins})

    def __iter__(self) -> Iterator[str]:
        """The lines."""
        return iter(self.lines)

    def __bool__(self) -> bool:
        """Whether there is anything to tell."""
        return bool(self.lines or self.origins)

    @property
    def warnings(self) -> tuple[str, ...]:
        """The lines that warn."""
        return tuple(line for line in self.lines if line.startswith("WARNING"))

    def unique(self) -> Notes:
        """Without a line that was written down before."""
        return Notes(*dict.fromkeys(self.lines), **self.origins)

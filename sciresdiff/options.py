"""Options: dataclass fields that carry their own help, limits and spelling on the command line.

One definition serves both interfaces: Python fills the dataclass, `sciresdiff.cli.parameters` makes command-line
options of its fields.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from typing import Any

from sciresdiff.errors import UsageError

INPUT, OUTPUT, MODEL, TRAINING = "Input", "Output", "Model", "Training"
PHYSICS, NOISE = "Blur and units", "Noise and bad pixels"
SAMPLING, CHECKS, RUN = "Sampling", "Checks", "Run"
PANELS = (INPUT, OUTPUT, MODEL, TRAINING, PHYSICS, NOISE, SAMPLING, CHECKS, RUN)
"""Headings that the help groups options under, in this order."""

KEY = "option"
"""Key of the `Option` in a field's metadata."""


@dataclass(frozen=True)
class Option:
    """What the help shows of a field, and which values it may have."""

    help: str
    panel: str = RUN
    metavar: str | None = None
    """Placeholder for the value in the help; by default the choices of a ``Literal``, else the type."""
    names: tuple[str, ...] = ()
    """Spellings, ``("--output", "-o")``; by default the field's name with two dashes."""
    argument: bool = False
    """Whether it is an argument without dashes."""
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    finite: bool = False
    """Whether a number has to be finite; with limits it always has."""
    check: Callable[[Any], object] | None = None
    """A further check, which raises UsageError."""

    @classmethod
    def of(cls, owner: type[Any], name: str) -> Option:
        """The option of a dataclass's field."""
        return next(option for field, option in options_of(owner) if field.name == name)

    def checked(self, name: str, value: Any) -> Any:
        """Return a value that lies within the limits; with limits, text that is a number becomes one.

        Parameters
        ----------
        name : the option as the user writes it, for the error.
        value : what was given; None and the name of a file (a map of numbers) have no limits.

        Raises
        ------
        UsageError : a number outside the limits.
        """
        number = _number(value) if self._limits or self.finite else None
        if number is not None and not self._allows(number):
            raise UsageError(f"{name}: {value} is given, but {self._needed()}")
        if self.check is not None and value is not None:
            self.check(value)
        return number if isinstance(value, str) and number is not None else value

    @property
    def _limits(self) -> bool:
        """Whether there are any."""
        return (self.at_least, self.above, self.at_most) != (None, None, None)

    def _allows(self, value: float) -> bool:
        """Whether a number is finite and within the limits."""
        low = (self.at_least is None or value >= self.at_least) and (self.above is None or value > self.above)
        return math.isfinite(value) and low and (self.at_most is None or value <= self.at_most)

    def _needed(self) -> str:
        """The limits in words."""
        if self.at_most is not None:
            return f"{self.at_least:g} to {self.at_most:g} are allowed"
        if self.at_least is not None:
            return f"a finite number of {self.at_least:g} or more is needed"
        return f"a finite number{'' if self.above is None else f' above {self.above:g}'} is needed"


def _number(value: Any) -> float | None:
    """A number, or text that is one."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def option(text: str, default: Any = MISSING, **how: Any) -> Any:
    """Define a dataclass field that is an option.

    Parameters
    ----------
    text : the help, one or two sentences with the unit of the value.
    default : the default; an option without one is required.
    **how : further fields of `Option`.
    """
    return field(default=default, metadata={KEY: Option(text, **how)})


def same_as(owner: type[Any], name: str, **changes: Any) -> Any:
    """Define a field by the option ``name`` of another dataclass.

    ``changes`` replace its default or fields of its `Option`.
    """
    default = changes.pop("default", owner.__dataclass_fields__[name].default)
    return field(default=default, metadata={KEY: replace(Option.of(owner, name), **changes)})


def options_of(owner: type[Any]) -> list[tuple[Field[Any], Option]]:
    """The fields of a dataclass that are options."""
    return [(each, each.metadata[KEY]) for each in fields(owner) if KEY in each.metadata]

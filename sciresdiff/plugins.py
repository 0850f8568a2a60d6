"""Parts that are imported only when they are named: entries of registries, and public names of packages.

The product needs one network and one diffusion method.  Whatever serves the comparison of methods alone lives in
`sciresdiff.lab`, and nothing outside imports it: a registry holds ``"module:attribute"``, like an entry point, and
imports the module when an entry is looked up.  So the core reads without the laboratory, a restoration with a shipped
model loads none of it, and the names can be listed where importing torch would be too slow (the help of a command).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from functools import reduce
from typing import Any, Generic, TypeVar

T = TypeVar("T")


def load(entry: str) -> Any:
    """Import ``"module:attribute"`` or ``"module:Class.method"`` and return what it names.

    Raises
    ------
    ImportError, AttributeError : there is no such module, or nothing of that name in it.
    """
    module, _, attribute = entry.partition(":")
    return reduce(getattr, attribute.split("."), importlib.import_module(module))


class Registry(Mapping[str, T], Generic[T]):
    """Names and what they stand for, each imported when it is looked up; iterating over the names imports nothing."""

    def __init__(self, entries: Mapping[str, str]) -> None:
        """``entries``: name -> ``"module:attribute"``, in the order in which names are listed."""
        self.entries = dict(entries)

    def __getitem__(self, name: str) -> T:
        """What a name stands for.

        Raises
        ------
        KeyError : no such name.
        """
        found: T = load(self.entries[name])
        return found

    def __iter__(self) -> Iterator[str]:
        """The names."""
        return iter(self.entries)

    def __len__(self) -> int:
        """Number of names."""
        return len(self.entries)

    def __contains__(self, name: object) -> bool:
        """Whether a name is there, without importing what it stands for."""
        return name in self.entries


def on_first_use(package: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """Make the ``__getattr__`` of a package, so that importing it costs next to nothing.

    Parameters
    ----------
    package : its ``__name__``.
    names : public name -> ``"module:attribute"``.
    """

    def find(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return load(names[name])

    return find

"""One method run by a network that another one trained: which start, solver, hooks and path it may have then.

A network sees the state without its anchor, a x_0 + s w eps, and the level (a, s).  It can be asked at every level that
it has learned, whatever schedule leads there (DDNM, SDEdit and DiffBIR train nothing of their own).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from sciresdiff.diffusion.method import Method
from sciresdiff.diffusion.path import Path
from sciresdiff.errors import UsageError

APART = 0.01
"""Largest relative difference of a, at one ratio s / a, between two paths whose levels are taken to be the same."""


def borrow(trained: Method, asked: Method) -> Method:
    """The method ``asked`` on a network that was trained with the method ``trained``.

    Anchor, path, start, hooks and solver are those asked for; what the network sees stays as it was trained.

    Raises
    ------
    UsageError : the network has not learned what the method asks of it; it says what differs.
    """
    for what, theirs, ours in _differences(trained, asked):
        raise UsageError(
            f"--method {asked.name}: {what} is {ours}, but the model was trained with {theirs} ({trained.name}); train "
            "a refiner with this method, or take a method that agrees in that"
        )
    kept = ("space", "space_params", "conditions", "augment", "backbone", "loss")
    return replace(asked, **{name: getattr(trained, name) for name in kept})


def _differences(trained: Method, asked: Method) -> Iterator[tuple[str, str, str]]:
    """(what, the trained, the asked) wherever the network would be asked for what it has not learned."""
    for what, theirs, ours in (
        ("the prediction", trained.prediction, asked.prediction),
        ("the space", _space(trained), _space(asked)),
        ("the weight", _describe(trained.weight, trained.weight_params), _describe(asked.weight, asked.weight_params)),
        ("the distillation", trained.distil or "none", asked.distil or "none"),
    ):
        if theirs != ours:
            yield what, theirs, ours
    if (trained.schedule, trained.params) == (asked.schedule, asked.params):
        return
    one, two = trained.training_path(), asked.training_path()
    if trained.prediction == "edm" and one.sd != two.sd:
        yield "sd", f"{one.sd:g}", f"{two.sd:g}"
    if not covers(one, two):
        yield "the path", _describe(trained.schedule, trained.params), _describe(asked.schedule, asked.params)


def _space(method: Method) -> str:
    """The space and its numbers; both of pixels are one, as the network is told both on the coarse grid."""
    return _describe("pixel" if method.space == "pixel-unshuffle" else method.space, method.space_params)


def _describe(name: str, numbers: object) -> str:
    """A name and its numbers, as text."""
    found = sorted(dict(numbers).items())  # type: ignore[call-overload]
    return f"{name} ({', '.join(f'{k} = {v}' for k, v in found)})" if found else name


def covers(one: Path, two: Path) -> bool:
    """Whether every noisy level of the path ``two`` lies, within `APART`, among those of the path ``one``.

    Levels are compared by a at equal s / a: a network that is told (a, s) has seen them, whatever the index was.
    """
    if min(two.a[1:].min(), two.s[1:].min()) <= 0:
        return False  # s / a is not finite there, and levels cannot be compared
    usable = (one.a > 0) & (one.s > 0)
    at, wanted = np.log(one.s[usable] / one.a[usable]), np.log(two.s[1:] / two.a[1:])
    if not usable.any() or wanted.min() < at[0] - APART or wanted.max() > at[-1] + APART:
        return False
    return bool(np.abs(np.interp(wanted, at, np.log(one.a[usable])) - np.log(two.a[1:])).max() < APART)

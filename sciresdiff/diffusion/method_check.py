"""What does not go together in a method: only the whole of it can tell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sciresdiff.diffusion.path import Path
from sciresdiff.diffusion.solvers import NEEDS_DISTIL
from sciresdiff.diffusion.weight import DYNAMIC
from sciresdiff.errors import UsageError

if TYPE_CHECKING:
    from sciresdiff.diffusion.method import Method


def check_together(m: Method, source: str) -> None:
    """What only the whole can tell: the path is usable, and everything goes with it.

    Raises
    ------
    UsageError : it names the file, the value, and what it needs.
    """
    path = _made(m, source)
    if m.steps is not None and m.steps > path.T:
        raise UsageError(f"{source}: [solver] steps = {m.steps}; the path allows 1 to {path.T}")
    noisy = path.s[1:] > 0
    if m.grid != "time" and not noisy.any():
        raise UsageError(f"{source}: [solver] grid = {m.grid!r}; a path without noise allows only time")
    if m.grid != "time" and path.a[-1] == 0:
        raise UsageError(
            f"{source}: [solver] grid = {m.grid!r}; the path ends with nothing of the image left (a = 0), where the "
            "log-SNR is minus infinity; it allows only time"
        )
    for key, value, possible, needs in _needs(m, path):
        if not possible:
            raise UsageError(f"{source}: {key} = {value!r} needs {needs}")


def _made(m: Method, source: str) -> Path:
    """The path, or what is wrong with its numbers."""
    try:
        with np.errstate(all="ignore"):
            return m.training_path()
    except (ValueError, ArithmeticError) as error:
        raise UsageError(f"{source}: [path] {dict(m.params)} gives no {m.schedule} path: {error}") from None


def _needs(m: Method, path: Path) -> list[tuple[str, Any, bool, str]]:
    """(key, its value, whether it is possible, what it needs) of what depends on other values."""
    kept = f"a path whose last index keeps some of the image; schedule {m.schedule} allows x0"
    preserved = bool(np.allclose(path.a**2 + path.s**2, 1, atol=1e-9))
    straight = bool(np.allclose(path.a + path.s, 1, atol=1e-9))
    predictions = {
        "eps": (path.a[-1] > 0, kept),
        "eps_scale": (path.a[-1] > 0, kept),
        "v": (preserved, "a variance-preserving path, a^2 + s^2 = 1"),
        "flow": (straight, "a straight path, a + s = 1"),
        "bridge": (m.schedule == "bridge", "schedule bridge"),
        "edm": (not path.b.any(), "a path without an anchor, b = 0"),
    }
    possible, needs = predictions.get(m.prediction, (True, ""))
    wanted = NEEDS_DISTIL.get(m.solver)
    noisy = bool(path.s[-1] > 0)
    t0 = m.start_params.get("t0", 1.0)
    return [
        ("prediction", m.prediction, bool(possible), needs),
        ("start", m.start, m.start != "anchor" or not noisy, "a path that ends without noise; take noise"),
        ("start", m.start, m.start != "sdedit" or noisy, "a path with noise at its end; take anchor"),
        ("[start] t0", t0, 0 < t0 <= 1, "a share of the path, above 0 up to 1"),
        (
            "[solver] name",
            m.solver,
            wanted in (None, m.distil),
            f'a distilled model; add [distil] kind = "{wanted}", or take ddim',
        ),
        (
            "conditions",
            "augmentation",
            "augmentation" not in m.conditions or bool(m.augment),
            "the levels to tell; add [augment] sigma = [0.1, 1.0]",
        ),
        (
            "[weight] name",
            m.weight,
            m.weight not in DYNAMIC or m.prediction in ("x0", "residual"),
            "prediction x0 or residual, because the weight changes on the way",
        ),
    ]

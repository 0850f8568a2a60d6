"""A method: one value for each of the concepts that a diffusion is made of, read from a TOML file."""

from __future__ import annotations

import inspect
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from importlib import resources
from pathlib import Path as File
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from sciresdiff.diffusion.path import SCHEDULES, Grid, Path, marginal, subset
from sciresdiff.diffusion.prediction import LOSSES, PREDICTIONS
from sciresdiff.diffusion.solvers import ETAS, SOLVERS, Denoise, Hook, Noise
from sciresdiff.diffusion.weight import WEIGHTS
from sciresdiff.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

SPACES = ("pixel", "pixel-unshuffle")
ANCHORS = ("zero", "up", "prior")
STARTS = ("noise", "anchor")
HOOKS = ("consistency",)
TABLES: dict[str, tuple[str, ...]] = {
    "path": ("schedule", "params"),
    "weight": ("weight", "weight_params"),
    "solver": ("solver", "steps", "eta", "grid"),
}
"""Tables of a method file, and the fields of `Method` that they hold."""
HEADS = {"path": "schedule", "weight": "name", "solver": "name"}
"""The key of a table that names the function."""


@dataclass(frozen=True)
class Method:
    """A diffusion method; checked when it is read, see `from_dict`."""

    name: str
    about: str = ""
    """One line: whose method, and what differs from the paper."""
    space: str = "pixel-unshuffle"
    """What the network sees: ``pixel``, or ``pixel-unshuffle`` (fine pixels as channels of the coarse grid)."""
    anchor: str = "prior"
    """mu: ``zero``, the interpolated frame (``up``) or the ``prior``'s mean."""
    prediction: str = "x0"
    start: str = "noise"
    """``noise``: (a + b) mu + s w eps at the last index; ``anchor``: the same without noise."""
    hooks: tuple[str, ...] = ()
    """What is done to every estimate of the clean image, in order; the physics supplies it."""
    loss: str = "mse"
    schedule: str = "resshift"
    params: Mapping[str, float] = field(default_factory=dict)
    """Arguments of the schedule."""
    weight: str = "scale"
    weight_params: Mapping[str, float] = field(default_factory=dict)
    solver: str = "ancestral"
    steps: int | None = None
    """Steps taken unless others are asked for; None for all of the path."""
    eta: float = 1.0
    grid: str = "time"
    """Which indices of the path fewer steps use, see `path.subset`."""

    def training_path(self) -> Path:
        """The whole path, whose every index the network learns."""
        return SCHEDULES[self.schedule](**self.params)

    def path(self, steps: int | None = None) -> Path:
        """The path on the indices that sampling uses: ``steps`` of them, or the method's own number.

        Raises
        ------
        UsageError : more steps than the path has.
        """
        whole = self.training_path()
        steps = self.steps if steps is None else steps
        return whole if steps in (None, whole.T) else subset(whole, steps, self.grid)  # type: ignore[arg-type]

    def weigh(self, prior: Tensor, scale: Tensor, up: Tensor) -> Tensor:
        """w of the prior's mean, its scale and the interpolated frame, all (..., Y, X)."""
        return WEIGHTS[self.weight](prior, scale, up, **self.weight_params)

    def anchored(self, prior: Tensor, up: Tensor) -> Tensor:
        """mu of the prior's mean and the interpolated frame, both (..., Y, X)."""
        return {"zero": 0 * prior, "up": up, "prior": prior}[self.anchor]

    def to_dict(self) -> dict[str, Any]:
        """Nested like the file; JSON-able."""
        grouped = {name for names in TABLES.values() for name in names}
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in grouped}
        plain["hooks"] = list(self.hooks)
        solver = {"name": self.solver, "steps": self.steps, "eta": self.eta, "grid": self.grid}
        return {
            **plain,
            "path": {"schedule": self.schedule, **self.params},
            "weight": {"name": self.weight, **self.weight_params},
            "solver": {key: value for key, value in solver.items() if value is not None},
        }

    @staticmethod
    def from_dict(record: Mapping[str, Any], source: str = "method") -> Method:
        """A method from a nested record, checked.

        Parameters
        ----------
        source : the file, for messages.

        Raises
        ------
        UsageError : an unknown key or value, or values that do not go together; it names the file, the key and what is
            allowed.
        """
        _known(source, "key", record, [*(f.name for f in fields(Method) if not _grouped(f.name)), *TABLES])
        tables = {name: _table(source, name, record.get(name, {})) for name in TABLES}
        solver = tables["solver"]
        _known(source, "[solver] key", solver, ["name", "steps", "eta", "grid"])
        name = solver.get("name", "ancestral")
        _one_of(source, "[solver] name", name, SOLVERS)
        plain = {key: value for key, value in record.items() if key not in TABLES}
        method = Method(
            **{"name": source, **plain, "hooks": _listed(source, record)},
            schedule=tables["path"].pop("schedule", "resshift"),
            params=tables["path"],
            weight=tables["weight"].pop("name", "scale"),
            weight_params=tables["weight"],
            solver=name,
            steps=solver.get("steps"),
            eta=solver.get("eta", ETAS[name][0]),
            grid=solver.get("grid", "time"),
        )
        _check_names(method, source)
        _check_together(method, source)
        return method


def _grouped(name: str) -> bool:
    """Whether a field lives in a table of the file."""
    return any(name in names for names in TABLES.values())


def _table(source: str, name: str, value: Any) -> dict[str, Any]:
    """A copy of a table of the file."""
    if not isinstance(value, Mapping):
        raise UsageError(f"{source}: {name} = {value!r} is not a table; write [{name}], then {HEADS[name]} = ...")
    return dict(value)


def _listed(source: str, record: Mapping[str, Any]) -> tuple[str, ...]:
    """The hooks, which have to be a list."""
    hooks = record.get("hooks", [])
    if isinstance(hooks, str) or not isinstance(hooks, Sequence):
        raise UsageError(f"{source}: hooks = {hooks!r} is not a list; write hooks = [\"consistency\"] or []")
    return tuple(hooks)


def _known(source: str, what: str, given: Mapping[str, Any], allowed: Sequence[str]) -> None:
    """Refuse keys that nothing reads."""
    for key in given:
        if key not in allowed:
            raise UsageError(f"{source}: unknown {what} {key!r}; allowed are {', '.join(allowed)}")


def _one_of(source: str, key: str, value: Any, allowed: Any) -> None:
    """Refuse a name that stands for nothing."""
    if not isinstance(value, str) or value not in allowed:
        raise UsageError(f"{source}: {key} = {value!r}; allowed are {', '.join(allowed)}")


def _number(source: str, key: str, value: Any, whole: bool = False) -> None:
    """Refuse what is not a finite number, or not a whole one where that is needed."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value)
    if not number or (whole and (not isinstance(value, int) or value < 1)):
        raise UsageError(f"{source}: {key} = {value!r}; allowed is a {'whole number from 1' if whole else 'number'}")


def _arguments(source: str, key: str, function: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """Refuse arguments that a schedule or weight does not have."""
    names = [n for n, p in inspect.signature(function).parameters.items() if p.default is not inspect.Parameter.empty]
    _known(source, f"{key} key", given, names or ["none but its name"])
    for name, value in given.items():
        _number(source, f"{key} {name}", value, whole=name == "T")


def _check_names(m: Method, source: str) -> None:
    """Every value by itself."""
    allowed: dict[str, Any] = {
        "space": SPACES, "anchor": ANCHORS, "prediction": PREDICTIONS, "start": STARTS, "loss": LOSSES,
    }
    for key, values in allowed.items():
        _one_of(source, key, getattr(m, key), values)
    for hook in m.hooks:
        _one_of(source, "hooks", hook, HOOKS)
    _one_of(source, "[path] schedule", m.schedule, SCHEDULES)
    _one_of(source, "[weight] name", m.weight, WEIGHTS)
    _one_of(source, "[solver] grid", m.grid, get_args(Grid))
    _arguments(source, "[path]", SCHEDULES[m.schedule], m.params)
    _arguments(source, "[weight]", WEIGHTS[m.weight], m.weight_params)
    if m.steps is not None:
        _number(source, "[solver] steps", m.steps, whole=True)
    _number(source, "[solver] eta", m.eta)
    low, high = ETAS[m.solver]
    if not low <= m.eta <= high:
        some = f"{low:g}" if low == high else f"{low:g} to {high:g}"
        raise UsageError(f"{source}: [solver] eta = {m.eta}; allowed for {m.solver} is {some}")


def _check_together(m: Method, source: str) -> None:
    """What only the whole can tell: the path is usable, and the prediction can be undone on it."""
    try:
        with np.errstate(all="ignore"):
            path = m.training_path()
    except (ValueError, ArithmeticError) as error:
        raise UsageError(f"{source}: [path] {dict(m.params)} gives no {m.schedule} path: {error}") from None
    if m.steps is not None and m.steps > path.T:
        raise UsageError(f"{source}: [solver] steps = {m.steps}; the path allows 1 to {path.T}")
    if m.grid != "time" and not (path.s[1:] * path.a[1:] > 0).any():
        raise UsageError(f"{source}: [solver] grid = {m.grid!r}; a path without noise allows only time")
    reasons = {
        "eps": (path.a[-1] > 0, "a path whose last index keeps some of the image"),
        "eps_scale": (path.a[-1] > 0, "a path whose last index keeps some of the image"),
        "v": (np.allclose(path.a**2 + path.s**2, 1, atol=1e-9), "a variance-preserving path, a^2 + s^2 = 1"),
        "flow": (np.allclose(path.a + path.s, 1, atol=1e-9), "a straight path, a + s = 1"),
        "bridge": (m.schedule == "bridge", "schedule bridge"),
        "edm": (not path.b.any(), "a path without an anchor, b = 0"),
    }
    possible, needs = reasons.get(m.prediction, (True, ""))
    if not possible:
        raise UsageError(f"{source}: prediction = {m.prediction!r} needs {needs}; schedule {m.schedule} allows x0")


def _folder() -> Any:
    """Where the method files of the package are."""
    return resources.files("sciresdiff") / "diffusion" / "methods"


def names() -> list[str]:
    """Names of the methods that the package carries, the default first."""
    found = sorted(entry.name.removesuffix(".toml") for entry in _folder().iterdir() if entry.name.endswith(".toml"))
    return sorted(found, key=lambda name: name != "sciresdiff")


def load(name_or_path: str | File) -> Method:
    """A method by its name or from a TOML file.

    Raises
    ------
    UsageError : no such name or file, not TOML, or a value that is not allowed.
    """
    text = str(name_or_path)
    inside = text in names()
    file = _folder() / f"{text}.toml" if inside else File(text)
    if not file.is_file():
        raise UsageError(f"--method: no method or file {text!r}; methods are {', '.join(names())}, or a .toml file")
    try:
        record = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--method: {text} is not a TOML file: {error}") from None
    method = Method.from_dict({"name": file.name.removesuffix(".toml"), **record}, f"{text}.toml" if inside else text)
    return method if inside else replace(method, name=record.get("name", File(text).stem))


def sample(
    method: Method, denoise: Denoise, mu: Tensor, w: Tensor, noise: Noise, steps: int | None = None,
    hooks: Sequence[Hook] = (),
) -> Tensor:
    """One draw: start, solver and hooks of a method put together.

    Parameters
    ----------
    denoise : (x_t, t) -> estimate of x_0, with t an index of ``method.path(steps)``.
    mu, w : (B, C, Y, X), the anchor and the scale of the noise.
    noise : (t) -> unit noise of that shape which enters the state at index t; a pure function of t.
    hooks : what the method's hooks stand for, unless ``denoise`` applies them itself.

    Returns
    -------
    (B, C, Y, X), the last estimate of x_0.

    Raises
    ------
    UsageError : more steps than the path has.
    """
    path = method.path(steps)
    p = path.at(path.T)
    x = (p.a + p.b) * mu
    if method.start == "noise" and p.s > 0:
        x = x + p.s * (w * noise(path.T))
    times = range(path.T, -1, -1)
    return SOLVERS[method.solver](path, denoise, x, mu, w, noise, times=times, eta=method.eta, hooks=hooks)


def train_pair(
    method: Method, x0: Tensor, mu: Tensor, w: Tensor, t: int | Tensor, eps: Tensor
) -> tuple[Tensor, Tensor, Any]:
    """What a network sees in training, what it should answer, and the weight of its squared error.

    Parameters
    ----------
    x0, mu, w, eps : (B, C, Y, X) truth, anchor, scale of the noise, unit noise.
    t : index of ``method.training_path()``, 1 to T; one, or (B,).

    Returns
    -------
    x_t, target : (B, C, Y, X). weight : a number, or (B, 1, 1, 1).
    """
    path = method.training_path()
    p = path.at(t) if isinstance(t, int) else path.at(t, x0)
    asked = PREDICTIONS[method.prediction]
    return marginal(path, t, x0, mu, w, eps), asked.target(p, x0, eps, mu, w), asked.weight(p)

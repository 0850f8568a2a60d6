"""The grammar of a method file: its tables, the names and numbers that they may hold, and what does not go together."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from sciresdiff.diffusion.losses import PIXELWISE
from sciresdiff.diffusion.path import Grid, Path
from sciresdiff.diffusion.prediction import PREDICTIONS
from sciresdiff.diffusion.schedule import SCHEDULES
from sciresdiff.diffusion.solvers import ETAS, NEEDS_DISTIL, SOLVERS
from sciresdiff.diffusion.weight import DYNAMIC, WEIGHTS
from sciresdiff.errors import UsageError

if TYPE_CHECKING:
    from sciresdiff.diffusion.method import Method

Numbers = dict[str, Any]

SPACES: dict[str, Numbers] = {
    "pixel": {},
    "pixel-unshuffle": {},
    "residual": {"base": "up", "gain": 2.0, "clip": 1.0},
    "latent": {"channels": 4, "factor": 2},
    "vector": {"length": 256},
}
"""What is diffused, with the numbers of each and what they are unless given.

``pixel``, ``pixel-unshuffle`` (fine pixels as channels of the coarse grid), ``residual`` (gain times the difference
to a base image, cut at clip), ``latent`` (an autoencoder's code) or ``vector`` (a code of the whole patch).
"""
ANCHORS = ("zero", "up", "prior")
STARTS: dict[str, Numbers] = {"noise": {}, "anchor": {}, "sdedit": {"t0": 0.5}}
"""Where the way back begins, with numbers: t0 is the share of the path, above 0 up to 1."""
HOOKS: dict[str, Numbers] = {
    "consistency": {},
    "clip": {"clip_limit": 10.0},
    "project": {},
    "project-noise": {},
    "guide-prior": {"prior_strength": 0.5},
    "guide-frequency": {"frequency_strength": 0.1},
    "low-frequency": {"low_levels": 3},
}
"""What may be done to an estimate of the clean image, with the numbers of [hook]; the physics supplies how."""
CONDITIONS = ("frequency", "snr")
"""What a network may see beside what all of them see."""
DISTILS: dict[str, Numbers] = {
    "one-step": {"inverse": 1.0, "truth": 1.0, "knob": 0.0},
    "consistency": {"skip": 20, "huber": 0.001},
}
"""How a student is taught, with numbers: weights of two losses beside the teacher's (SinSR), and the share of pairs
that learn the way between fidelity and realism (above 0 the student has ``--realism``); indices between the two states
that have to agree, and the width of the pseudo-Huber loss (LCM)."""
WORDS: dict[str, Sequence[str]] = {"base": ("up", "prior")}
"""Keys whose value is one of a few words, not a number."""
TABLES = ("space", "start", "hook", "path", "weight", "solver", "distil")
"""Tables of a method file."""
PLAIN = ("name", "about", "anchor", "prediction", "loss", "hooks", "backbone", "conditions")
"""Keys outside tables."""
HEADS = {"path": "schedule", "distil": "kind"}
"""The key of a table that names the function; elsewhere ``name``."""
SOLVER_KEYS = ("name", "steps", "eta", "grid")


def read(record: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The fields of a `Method` from a nested record, every value checked by itself.

    Parameters
    ----------
    source : the file, for messages.

    Raises
    ------
    UsageError : an unknown key or value; it names the file, the key and what is allowed.
    """
    known(source, "key", record, [*PLAIN, *TABLES])
    tables = {name: _table(source, name, record.get(name, {})) for name in TABLES}
    plain = {key: value for key, value in record.items() if key in PLAIN}
    for key in ("hooks", "conditions"):
        plain[key] = _listed(source, key, record.get(key, []))
    _check_plain(plain, source)
    return {
        "name": source,
        **plain,
        **_named(source, "space", tables["space"], SPACES, "pixel-unshuffle"),
        **_named(source, "start", tables["start"], STARTS, "noise"),
        **_named(source, "distil", tables["distil"], DISTILS, ""),
        "hook_params": _hook(source, tables["hook"], plain["hooks"]),
        **_function(source, "path", "schedule", "params", tables["path"], SCHEDULES, "resshift"),
        **_function(source, "weight", "weight", "weight_params", tables["weight"], WEIGHTS, "scale"),
        **_solver(source, tables["solver"]),
    }


def record_of(m: Method) -> dict[str, Any]:
    """The nested record that `read` reads; JSON-able."""
    solver = {"name": m.solver, "steps": m.steps, "eta": m.eta, "grid": m.grid, **m.solver_params}
    record = {
        **{key: getattr(m, key) for key in PLAIN},
        "hooks": list(m.hooks),
        "conditions": list(m.conditions),
        "space": {"name": m.space, **m.space_params},
        "start": {"name": m.start, **m.start_params},
        "hook": dict(m.hook_params),
        "path": {"schedule": m.schedule, **m.params},
        "weight": {"name": m.weight, **m.weight_params},
        "solver": {key: value for key, value in solver.items() if value is not None},
    }
    return {**record, "distil": {"kind": m.distil, **m.distil_params}} if m.distil else record


def nearest(value: object, allowed: Iterable[str]) -> str:
    """``; nearest is 'heun'``, or nothing where no name is near."""
    found = difflib.get_close_matches(str(value), list(allowed), n=2, cutoff=0.6)
    return f"; nearest: {' or '.join(found)}" if found else ""


def known(source: str, what: str, given: Iterable[str], allowed: Sequence[str]) -> None:
    """Refuse keys that nothing reads."""
    for key in given:
        if key not in allowed:
            some = ", ".join(allowed) or "none but its name"
            raise UsageError(f"{source}: unknown {what} {key!r}; allowed are {some}{nearest(key, allowed)}")


def one_of(source: str, key: str, value: Any, allowed: Iterable[str]) -> None:
    """Refuse a name that stands for nothing."""
    names = list(allowed)
    if not isinstance(value, str) or value not in names:
        raise UsageError(f"{source}: {key} = {value!r}; allowed are {', '.join(names)}{nearest(value, names)}")


def _table(source: str, name: str, value: Any) -> dict[str, Any]:
    """A copy of a table of the file; a plain string is the name of a space or start."""
    if name in ("space", "start") and not isinstance(value, Mapping):
        return {"name": value}
    if not isinstance(value, Mapping):
        key = {"hook": "a number"}.get(name, HEADS.get(name, "name") + " = ...")
        raise UsageError(f"{source}: {name} = {value!r} is not a table; write [{name}], then {key}")
    return dict(value)


def _listed(source: str, key: str, value: Any) -> tuple[str, ...]:
    """Hooks or conditions, which have to be a list of different names."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise UsageError(f'{source}: {key} = {value!r} is not a list; write {key} = ["..."] or []')
    for name in value:
        one_of(source, key, name, HOOKS if key == "hooks" else CONDITIONS)
    if len(set(value)) < len(value):
        raise UsageError(f"{source}: {key} = {list(value)} names one twice; name each once")
    return tuple(value)


def _check_plain(plain: Mapping[str, Any], source: str) -> None:
    """Every value outside tables by itself; a backbone's name is looked up when the network is made."""
    for key, allowed in (("anchor", ANCHORS), ("prediction", PREDICTIONS), ("loss", PIXELWISE)):
        if key in plain:
            one_of(source, key, plain[key], allowed)
    for key in ("name", "about", "backbone"):
        if not isinstance(plain.get(key, ""), str):
            raise UsageError(f"{source}: {key} = {plain[key]!r}; allowed is a text")


def _named(source: str, table: str, given: dict[str, Any], allowed: Mapping[str, Numbers], usual: str) -> Numbers:
    """The two fields of a table that holds a name and its numbers."""
    head = HEADS.get(table, "name")
    if table == "distil" and not given:
        return {"distil": "", "distil_params": {}}
    name = given.pop(head, usual)
    one_of(source, table if table in ("space", "start") else f"[{table}] {head}", name, allowed)
    return {table: name, f"{table}_params": _filled(source, f"[{table}]", given, allowed[name])}


def _filled(source: str, where: str, given: Mapping[str, Any], usual: Numbers) -> Numbers:
    """Given numbers, and the usual ones where none is given."""
    known(source, f"{where} key", given, list(usual))
    for key, value in given.items():
        if key in WORDS:
            one_of(source, f"{where} {key}", value, WORDS[key])
        else:
            number(source, f"{where} {key}", value, whole=isinstance(usual[key], int))
    return {**usual, **given}


def _hook(source: str, given: dict[str, Any], hooks: Sequence[str]) -> Numbers:
    """The numbers of all hooks that are asked for."""
    usual = {key: value for hook in hooks for key, value in HOOKS[hook].items()}
    return _filled(source, "[hook]", given, usual)


def _function(
    source: str, table: str, field: str, params: str, given: dict[str, Any], registry: Mapping[str, Any], usual: str
) -> Numbers:
    """The name and the arguments of a schedule or weight."""
    head = HEADS.get(table, "name")
    name = given.pop(head, usual)
    one_of(source, f"[{table}] {head}", name, registry)
    _arguments(source, f"[{table}]", registry[name], given)
    return {field: name, params: given}


def _solver(source: str, given: dict[str, Any]) -> Numbers:
    """The fields of [solver]."""
    name = given.get("name", "ancestral")
    one_of(source, "[solver] name", name, SOLVERS)
    own = {key: value for key, value in given.items() if key not in SOLVER_KEYS}
    takes = _takes(SOLVERS[name])
    known(source, "[solver] key", own, [*SOLVER_KEYS, *takes])
    _arguments(source, "[solver]", SOLVERS[name], own)
    eta = given.get("eta", ETAS[name][0])
    one_of(source, "[solver] grid", given.get("grid", "time"), get_args(Grid))
    if "steps" in given:
        number(source, "[solver] steps", given["steps"], whole=True)
    number(source, "[solver] eta", eta)
    low, high = ETAS[name]
    if not low <= eta <= high:
        some = f"{low:g}" if low == high else f"{low:g} to {high:g}"
        raise UsageError(f"{source}: [solver] eta = {eta}; allowed for {name} is {some}")
    shared = {"steps": given.get("steps"), "eta": eta, "grid": given.get("grid", "time")}
    return {"solver": name, "solver_params": own, **shared}


def number(source: str, key: str, value: Any, whole: bool = False) -> None:
    """Refuse what is not a finite number, or not a whole one from 1 where that is needed."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value)
    if not usable or (whole and (not isinstance(value, int) or value < 1)):
        raise UsageError(f"{source}: {key} = {value!r}; allowed is a {'whole number from 1' if whole else 'number'}")


def _takes(function: Callable[..., Any]) -> dict[str, Any]:
    """Names and usual values of the numbers that a function takes; a solver's own ones, without what all have."""
    found = {n: p.default for n, p in inspect.signature(function).parameters.items() if p.default is not p.empty}
    return {name: value for name, value in found.items() if name not in ("eta", "hooks")}


def _arguments(source: str, where: str, function: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """Refuse arguments that a function does not have, and values that are not the numbers it takes."""
    takes = _takes(function)
    known(source, f"{where} key", given, list(takes))
    for name, value in given.items():
        number(source, f"{where} {name}", value, whole=isinstance(takes[name], int))


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
            "[weight] name",
            m.weight,
            m.weight not in DYNAMIC or m.prediction in ("x0", "residual"),
            "prediction x0 or residual, because the weight changes on the way",
        ),
    ]

"""The grammar of a method file: its tables, and the names and numbers that they may hold.

Not pydantic or cattrs: which numbers a table may hold depends on the name in it (those of a solver are the parameters
of its function), most rules are between tables, and a message names the file, the table and the nearest name.
Classes for a schema would come on top of these rules and not in their place.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, get_args

import numpy as np

from sciresdiff.diffusion.losses import PIXELWISE
from sciresdiff.diffusion.path import Grid
from sciresdiff.diffusion.prediction import PREDICTIONS
from sciresdiff.diffusion.schedule import SCHEDULES
from sciresdiff.diffusion.solvers import ETAS, SOLVERS
from sciresdiff.diffusion.weight import WEIGHTS
from sciresdiff.errors import UsageError

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
CONDITIONS = ("frequency", "snr", "augmentation")
"""What a network may see beside what all of them see."""
DISTILS: dict[str, Numbers] = {
    "one-step": {"inverse": 1.0, "truth": 1.0, "knob": 0.0},
    "consistency": {"skip": 20, "huber": 0.001},
}
"""How a student is taught, with numbers: weights of two losses beside the teacher's (SinSR), and the share of pairs
that learn the way between fidelity and realism (above 0 the student has ``--realism``); indices between the two states
that have to agree, and the width of the pseudo-Huber loss (LCM)."""
AUGMENT: Numbers = {"sigma": [0.1, 1.0], "use": 0.5}
"""The noise of a coarse image that an earlier stage made, in units of that stage's error: the range that training draws
from, and the level that is used."""
LARGEST_USE = 0.7
"""Below 1 / sqrt(2), beyond which more noise is added than a draw of the stage before has by itself."""
WORDS: dict[str, Sequence[str]] = {"base": ("up", "prior")}
"""Keys whose value is one of a few words, not a number."""
TABLES = ("space", "start", "hook", "path", "weight", "solver", "distil", "augment")
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
    check_keys(source, "key", record, [*PLAIN, *TABLES])
    tables = {name: _table(source, name, record.get(name, {})) for name in TABLES}
    plain = {key: value for key, value in record.items() if key in PLAIN}
    for key in ("hooks", "conditions"):
        plain[key] = _name_list(source, key, record.get(key, []))
    _check_plain(plain, source)
    return {
        "name": source,
        **plain,
        **_choice(source, "space", tables["space"], SPACES, "pixel-unshuffle"),
        **_choice(source, "start", tables["start"], STARTS, "noise"),
        **_choice(source, "distil", tables["distil"], DISTILS, ""),
        "augment": _augment(source, tables["augment"]),
        "hook_params": _hook(source, tables["hook"], plain["hooks"]),
        **_function(source, "path", "schedule", "params", tables["path"], SCHEDULES, "resshift"),
        **_function(source, "weight", "weight", "weight_params", tables["weight"], WEIGHTS, "scale"),
        **_solver(source, tables["solver"]),
    }


def record_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The nested record that `read` reads, from the fields of a method by name; JSON-able."""
    f = fields
    solver = {"name": f["solver"], "steps": f["steps"], "eta": f["eta"], "grid": f["grid"], **f["solver_params"]}
    record = {
        **{key: f[key] for key in PLAIN},
        "hooks": list(f["hooks"]),
        "conditions": list(f["conditions"]),
        "space": {"name": f["space"], **f["space_params"]},
        "start": {"name": f["start"], **f["start_params"]},
        "hook": dict(f["hook_params"]),
        "path": {"schedule": f["schedule"], **f["params"]},
        "weight": {"name": f["weight"], **f["weight_params"]},
        "solver": {key: value for key, value in solver.items() if value is not None},
    }
    record |= {"distil": {"kind": f["distil"], **f["distil_params"]}} if f["distil"] else {}
    return record | ({"augment": {**f["augment"], "sigma": list(f["augment"]["sigma"])}} if f["augment"] else {})


def nearest(value: object, allowed: Iterable[str]) -> str:
    """``; nearest is 'heun'``, or nothing where no name is near."""
    found = difflib.get_close_matches(str(value), list(allowed), n=2, cutoff=0.6)
    return f"; nearest: {' or '.join(found)}" if found else ""


def check_keys(source: str, what: str, given: Iterable[str], allowed: Sequence[str]) -> None:
    """Refuse keys that nothing reads."""
    for key in given:
        if key not in allowed:
            some = ", ".join(allowed) or "none but its name"
            raise UsageError(f"{source}: unknown {what} {key!r}; allowed are {some}{nearest(key, allowed)}")


def check_choice(source: str, key: str, value: Any, allowed: Iterable[str]) -> None:
    """Refuse a name that stands for nothing."""
    names = list(allowed)
    if not isinstance(value, str) or value not in names:
        raise UsageError(f"{source}: {key} = {value!r}; allowed are {', '.join(names)}{nearest(value, names)}")


def _table(source: str, name: str, value: Any) -> dict[str, Any]:
    """A copy of a table of the file; a plain string is the name of a space or start."""
    if name in ("space", "start") and not isinstance(value, Mapping):
        return {"name": value}
    if not isinstance(value, Mapping):
        key = {"hook": "a number", "augment": "sigma = [0.1, 1.0]"}.get(name, HEADS.get(name, "name") + " = ...")
        raise UsageError(f"{source}: {name} = {value!r} is not a table; write [{name}], then {key}")
    return dict(value)


def _name_list(source: str, key: str, value: Any) -> tuple[str, ...]:
    """Hooks or conditions, which have to be a list of different names."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise UsageError(f'{source}: {key} = {value!r} is not a list; write {key} = ["..."] or []')
    for name in value:
        check_choice(source, key, name, HOOKS if key == "hooks" else CONDITIONS)
    if len(set(value)) < len(value):
        raise UsageError(f"{source}: {key} = {list(value)} names one twice; name each once")
    return tuple(value)


def _check_plain(plain: Mapping[str, Any], source: str) -> None:
    """Every value outside tables by itself; a backbone's name is looked up when the network is made."""
    for key, allowed in (("anchor", ANCHORS), ("prediction", PREDICTIONS), ("loss", PIXELWISE)):
        if key in plain:
            check_choice(source, key, plain[key], allowed)
    for key in ("name", "about", "backbone"):
        if not isinstance(plain.get(key, ""), str):
            raise UsageError(f"{source}: {key} = {plain[key]!r}; allowed is a text")


def _choice(source: str, table: str, given: dict[str, Any], allowed: Mapping[str, Numbers], usual: str) -> Numbers:
    """The two fields of a table that holds a name and its numbers."""
    head = HEADS.get(table, "name")
    if table == "distil" and not given:
        return {"distil": "", "distil_params": {}}
    name = given.pop(head, usual)
    check_choice(source, table if table in ("space", "start") else f"[{table}] {head}", name, allowed)
    return {table: name, f"{table}_params": _with_defaults(source, f"[{table}]", given, allowed[name])}


def _with_defaults(source: str, where: str, given: Mapping[str, Any], usual: Numbers) -> Numbers:
    """Given numbers, and the usual ones where none is given."""
    check_keys(source, f"{where} key", given, list(usual))
    for key, value in given.items():
        if key in WORDS:
            check_choice(source, f"{where} {key}", value, WORDS[key])
        else:
            check_number(source, f"{where} {key}", value, whole=isinstance(usual[key], int))
    return {**usual, **given}


def _hook(source: str, given: dict[str, Any], hooks: Sequence[str]) -> Numbers:
    """The numbers of all hooks that are asked for."""
    usual = {key: value for hook in hooks for key, value in HOOKS[hook].items()}
    return _with_defaults(source, "[hook]", given, usual)


def _augment(source: str, given: dict[str, Any]) -> Numbers:
    """The numbers of [augment]; none without the table."""
    if not given:
        return {}
    check_keys(source, "[augment] key", given, list(AUGMENT))
    numbers = {**AUGMENT, **given}
    span, use = numbers["sigma"], numbers["use"]
    check_number(source, "[augment] use", use)
    if not isinstance(span, Sequence) or isinstance(span, str) or len(span) != 2:
        raise UsageError(f"{source}: [augment] sigma = {span!r}; allowed are two numbers, as sigma = [0.1, 1.0]")
    for value in span:
        check_number(source, "[augment] sigma", value)
    if not 0 < span[0] <= span[1] <= 1:
        raise UsageError(
            f"{source}: [augment] sigma = {list(span)}; allowed are two numbers above 0, up to 1, in order"
        )
    if not (span[0] <= use <= span[1] and use <= LARGEST_USE):
        most = min(span[1], LARGEST_USE)
        raise UsageError(f"{source}: [augment] use = {use}; allowed is {span[0]:g} to {most:g}, within sigma")
    return {"sigma": (float(span[0]), float(span[1])), "use": float(use)}


def _function(
    source: str, table: str, field: str, params: str, given: dict[str, Any], registry: Mapping[str, Any], usual: str
) -> Numbers:
    """The name and the arguments of a schedule or weight."""
    head = HEADS.get(table, "name")
    name = given.pop(head, usual)
    check_choice(source, f"[{table}] {head}", name, registry)
    _check_arguments(source, f"[{table}]", registry[name], given)
    return {field: name, params: given}


def _solver(source: str, given: dict[str, Any]) -> Numbers:
    """The fields of [solver]."""
    name = given.get("name", "ancestral")
    check_choice(source, "[solver] name", name, SOLVERS)
    own = {key: value for key, value in given.items() if key not in SOLVER_KEYS}
    takes = _parameters(SOLVERS[name])
    check_keys(source, "[solver] key", own, [*SOLVER_KEYS, *takes])
    _check_arguments(source, "[solver]", SOLVERS[name], own)
    eta = given.get("eta", ETAS[name][0])
    check_choice(source, "[solver] grid", given.get("grid", "time"), get_args(Grid))
    if "steps" in given:
        check_number(source, "[solver] steps", given["steps"], whole=True)
    check_number(source, "[solver] eta", eta)
    low, high = ETAS[name]
    if not low <= eta <= high:
        some = f"{low:g}" if low == high else f"{low:g} to {high:g}"
        raise UsageError(f"{source}: [solver] eta = {eta}; allowed for {name} is {some}")
    shared = {"steps": given.get("steps"), "eta": eta, "grid": given.get("grid", "time")}
    return {"solver": name, "solver_params": own, **shared}


def check_number(source: str, key: str, value: Any, whole: bool = False) -> None:
    """Refuse what is not a finite number, or not a whole one from 1 where that is needed."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value)
    if not usable or (whole and (not isinstance(value, int) or value < 1)):
        raise UsageError(f"{source}: {key} = {value!r}; allowed is a {'whole number from 1' if whole else 'number'}")


def _parameters(function: Callable[..., Any]) -> dict[str, Any]:
    """Names and usual values of the numbers that a function takes; a solver's own ones, without what all have."""
    found = {n: p.default for n, p in inspect.signature(function).parameters.items() if p.default is not p.empty}
    return {name: value for name, value in found.items() if name not in ("eta", "hooks")}


def _check_arguments(source: str, where: str, function: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """Refuse arguments that a function does not have, and values that are not the numbers it takes."""
    takes = _parameters(function)
    check_keys(source, f"{where} key", given, list(takes))
    for name, value in given.items():
        check_number(source, f"{where} {name}", value, whole=isinstance(takes[name], int))

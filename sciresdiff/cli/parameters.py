"""Typer commands from dataclasses: every field made by `sciresdiff.options.option` becomes a command-line option.

A command is a function that takes filled dataclasses::

    @command()
    def upscale(options: UpscaleOptions, files: FileOptions) -> None:
        \"""Restore frames on a finer grid.\"""
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import typer

from sciresdiff.errors import UsageError
from sciresdiff.options import PANELS, Option, options_of
from sciresdiff.parse import read_toml

CONFIG = "config"
"""The option whose file gives the defaults of a run."""
Options = TypeVar("Options")
Callback = Callable[[typer.Context, typer.CallbackParam, Any], Any]


def command(*without: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a command of a function whose parameters are dataclasses of options.

    An option that several of them have is one on the command line; those named in ``without`` keep their defaults.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        kinds: dict[str, type[Any]] = get_type_hints(function)
        del kinds["return"]
        parameters = [parameter for name, parameter in _parameters(kinds.values()).items() if name not in without]

        def run(**values: Any) -> None:
            function(**{name: fill(kind, values) for name, kind in kinds.items()})

        # Typer looks at names, annotations and signature only.
        run.__name__, run.__module__, run.__doc__ = function.__name__, function.__module__, function.__doc__
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return run

    return decorate


def fill(kind: type[Options], values: Mapping[str, Any]) -> Options:
    """Make a dataclass of the values of a command line; several values become a tuple."""
    given = {field.name: values[field.name] for field, _ in options_of(kind) if values.get(field.name) is not None}
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in given.items()})


def _parameters(kinds: Iterable[type[Any]]) -> dict[str, inspect.Parameter]:
    """The parameters of several dataclasses by name, in the order of the help.

    Arguments come first, then panel by panel what is required before what is not.
    """
    found: dict[str, tuple[Field[Any], Option, Any]] = {}
    for kind in kinds:
        hints = get_type_hints(kind)
        for field, option in options_of(kind):
            found.setdefault(field.name, (field, option, hints[field.name]))

    def order(one: tuple[Field[Any], Option, Any]) -> tuple[bool, int, bool]:
        field, option, _ = one
        return not option.argument, PANELS.index(option.panel), field.default is not MISSING

    return {one[0].name: _parameter(*one) for one in sorted(found.values(), key=order)}


def _parameter(field: Field[Any], option: Option, hint: Any) -> inspect.Parameter:
    """The parameter that Typer makes an option of."""
    metavar, is_config = option.metavar or _choices(hint), field.name == CONFIG
    if option.argument:
        given: Any = typer.Argument(metavar=metavar, help=option.help)
    else:
        given = typer.Option(
            *_names(field, option),
            metavar=metavar,
            help=option.help,
            rich_help_panel=option.panel,
            is_eager=is_config,
            callback=_read_config if is_config else _check(option),
        )
    default = None if field.default == () else field.default
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if default is MISSING else default,
        annotation=Annotated[_parsed(hint), given],  # type: ignore[valid-type]
    )


def _names(field: Field[Any], option: Option) -> tuple[str, ...]:
    """The spellings of an option; one that is on by default can be switched off."""
    long = "--" + field.name.replace("_", "-")
    if option.names:
        return option.names
    return (f"{long}/--no-{long[2:]}",) if field.default is True else (long,)


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """The types of a union, without None."""
    union = get_origin(hint) in (Union, UnionType)
    return tuple(each for each in get_args(hint) if each is not type(None)) if union else (hint,)


def _choices(hint: Any) -> str | None:
    """``sum|mean`` of a ``Literal``."""
    first, *_ = _alternatives(hint)
    return "|".join(get_args(first)) if get_origin(first) is Literal else None


def _parsed(hint: Any) -> Any:
    """The type that Typer parses: text where text is one of several, a list for several values."""
    kinds = _alternatives(hint)
    if get_origin(kinds[0]) is tuple:
        return list[str]
    kind = str if str in kinds else kinds[0]
    return kind | None if type(None) in get_args(hint) else kind


def _check(option: Option) -> Callback:
    """A callback that checks a value."""

    def check(ctx: typer.Context, param: typer.CallbackParam, value: Any) -> Any:
        return option.checked(param.opts[0], value)

    return check


def _read_config(ctx: typer.Context, param: typer.CallbackParam, value: str | None) -> str | None:
    """Take the defaults of this run from a TOML file; what stands on the command line wins.

    Raises
    ------
    UsageError : a file that cannot be read, or a key that is no option of this command.
    """
    if value is None or ctx.resilient_parsing:
        return value
    known = _switches(ctx)
    settings = {}
    for key, item in _toml(value).items():
        flag = key.replace("_", "-")
        if flag not in known:
            raise UsageError(f"--config: {value}: unknown key {key!r}; allowed are {', '.join(sorted(known))}")
        name, switches_off = known[flag]
        settings[name] = (not item) if switches_off else item
    ctx.default_map = settings
    return value


def _switches(ctx: typer.Context) -> dict[str, tuple[str, bool]]:
    """Long option without its dashes -> (parameter, whether it switches that parameter off)."""
    known = {}
    for parameter in ctx.command.params:
        if parameter.name and parameter.name not in (CONFIG, "help"):
            for flags, off in ((parameter.opts, False), (parameter.secondary_opts, True)):
                known.update({flag[2:]: (parameter.name, off) for flag in flags if flag.startswith("--")})
    return known


def _toml(path: str) -> dict[str, Any]:
    """The settings in a TOML file."""
    try:
        return read_toml(Path(path))
    except OSError as problem:
        raise UsageError(f"--config: {path}: {problem.strerror or problem}") from problem
    except ValueError as problem:
        raise UsageError(f"--config: {path}: not a TOML file ({problem})") from problem

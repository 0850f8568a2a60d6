"""Options that commands share: the same flag means the same thing everywhere."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import typer

from sciresdiff.cli.voice import Voice
from sciresdiff.errors import UsageError
from sciresdiff.run.engines import get_engine

INPUT, PHYSICS, NOISE = "Input", "Blur and units", "Noise and bad pixels"
MODEL, SAMPLING, TRAINING, CHECKS = "Model", "Sampling", "Training", "Checks"
OUTPUT, RUN = "Output", "Run"
MOST_THREADS = 1024
"""Above some thousand threads torch brings the process down."""

Options = TypeVar("Options")


@dataclass(frozen=True)
class Shared:
    """What every command that works on files takes."""

    output: str
    overwrite: bool
    dry_run: bool
    recursive: bool
    quiet: bool
    verbose: bool
    json: bool
    manifest: str | None = None
    shard: str | None = None
    scheduler: str | None = None
    threads: int | None = None

    @property
    def voice(self) -> Voice:
        """How much this run says."""
        return Voice(self.quiet, self.verbose, self.json)


def pick(kind: type[Options], values: Mapping[str, Any], **more: Any) -> Options:
    """Fill a dataclass of options from a command's parameters; lists become tuples."""
    values = {**values, **more}
    chosen = {field.name: values[field.name] for field in fields(kind) if field.name in values}  # type: ignore[arg-type]
    return kind(**{name: tuple(v) if isinstance(v, list) else v for name, v in chosen.items()})


def number(option: str, value: str | None, low: float | None = 0.0) -> float | str | None:
    """A number, or the name of a file that holds one for every pixel.

    Raises
    ------
    UsageError
        A number below ``low``, or not finite.
    """
    if value is None:
        return None
    try:
        given = float(value)
    except ValueError:
        return value
    if given != given or abs(given) == float("inf") or (low is not None and given < low):
        raise UsageError(f"{option}: {value} is given, but {_range(low)} is needed")
    return given


def _range(low: float | None) -> str:
    """The numbers that are allowed, in words."""
    return "a finite number" if low is None else f"a finite number of {low:g} or more"


def threads_allowed(ctx: typer.Context, param: typer.CallbackParam, value: int | None) -> int | None:
    """A check that ``--threads`` is a number that a machine can start."""
    if value is not None and not 1 <= value <= MOST_THREADS:
        raise UsageError(f"--threads: {value} is given, but 1 to {MOST_THREADS} are allowed")
    return value


def scheduler_allowed(ctx: typer.Context, param: typer.CallbackParam, value: str | None) -> str | None:
    """A check that ``--scheduler`` is an address, or ``local``."""
    if value is not None:
        get_engine(value)
    return value


def at_least(low: float) -> Callable[[typer.Context, typer.CallbackParam, Any], Any]:
    """A check that an option is not below ``low``."""

    def check(ctx: typer.Context, param: typer.CallbackParam, value: Any) -> Any:
        if value is not None and not low <= value < float("inf"):
            raise UsageError(f"{param.opts[0]}: {value} is given, but {_range(low)} is needed")
        return value

    return check


def above_zero(ctx: typer.Context, param: typer.CallbackParam, value: float | None) -> float | None:
    """A check that an option is more than zero."""
    if value is not None and not 0 < value < float("inf"):
        raise UsageError(f"{param.opts[0]}: {value} is given, but a finite number above 0 is needed")
    return value


def read_config(ctx: typer.Context, value: str | None) -> str | None:
    """Take the defaults of this run from a TOML file; what stands on the command line wins.

    Raises
    ------
    UsageError
        A file that cannot be read, or a key that is no option of this command.
    """
    if value is None or ctx.resilient_parsing:
        return value
    known = _switches(ctx)
    settings = {}
    for key, item in _toml(value).items():
        flag = key.replace("_", "-")
        if flag not in known:
            raise UsageError(f"--config: {value}: unknown key {key!r}; allowed are {', '.join(sorted(known))}")
        name, switched_off = known[flag]
        settings[name] = (not item) if switched_off else item
    ctx.default_map = settings
    return value


def _switches(ctx: typer.Context) -> dict[str, tuple[str, bool]]:
    """Long option without its dashes -> (parameter, whether it switches that parameter off)."""
    known = {}
    for parameter in ctx.command.params:
        if parameter.name and parameter.name not in ("config", "help"):
            for flags, off in ((parameter.opts, False), (parameter.secondary_opts, True)):
                known.update({flag[2:]: (parameter.name, off) for flag in flags if flag.startswith("--")})
    return known


def _toml(path: str) -> dict[str, Any]:
    """The settings in a TOML file."""
    try:
        return tomllib.loads(Path(path).read_text())
    except OSError as problem:
        raise UsageError(f"--config: {path}: {problem.strerror or problem}") from problem
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise UsageError(f"--config: {path}: not a TOML file ({problem})") from problem


# Input and output
Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT...", help="Files, FILE[EXT], FILE[EXT,*] (all chips), folders, globs, @list.txt, or - for stdin."
    ),
]
Output = Annotated[
    str,
    typer.Option(
        "--output", "-o", metavar="PATH", rich_help_panel=OUTPUT, help="A file, or a folder for several inputs."
    ),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", rich_help_panel=OUTPUT, help="Replace an output that exists (else an error).")
]
Recursive = Annotated[
    bool, typer.Option("--recursive", rich_help_panel=INPUT, help="Walk folders and mirror their tree in the output.")
]
Axes = Annotated[
    str | None, typer.Option(metavar="AXES", rich_help_panel=INPUT, help="Axes of a TIFF, for instance ZCYX.")
]
PixelSize = Annotated[
    str | None,
    typer.Option(metavar="SIZE", rich_help_panel=INPUT, help="Side of a pixel, for instance 0.065um or 0.05arcsec."),
]
Quantity = Annotated[
    Literal["sum", "mean"] | None,
    typer.Option(
        metavar="sum|mean",
        rich_help_panel=PHYSICS,
        help="What a block of pixels does: add up (counts) or average (brightness). Default: BUNIT, else sum for FITS"
        " and mean for TIFF.",
    ),
]

# Physics
Scale = Annotated[
    int,
    typer.Option(metavar="N", callback=at_least(1), rich_help_panel=PHYSICS, help="Fine pixels per pixel, each axis."),
]
Psf = Annotated[
    str | None,
    typer.Option(
        metavar="SPEC",
        rich_help_panel=PHYSICS,
        help="Whole PSF of the input: gaussian:fwhm=2.1px, moffat:fwhm=0.8arcsec,beta=3, airy:na=1.4,wavelength=525nm,"
        " none, measure, or a file.",
    ),
]
Kernel = Annotated[
    str | None,
    typer.Option(
        metavar="SPEC",
        rich_help_panel=PHYSICS,
        help="Blur between the image wanted and the coarse one, in fine pixels, for instance gaussian:sigma=1.2px; wins"
        " over --psf.",
    ),
]

TargetFwhm = Annotated[
    float | None,
    typer.Option(
        metavar="PX",
        callback=above_zero,
        rich_help_panel=PHYSICS,
        help="FWHM of the Gaussian PSF of the fine image, in fine pixels.",
    ),
]

# Noise
Gain = Annotated[
    str | None,
    typer.Option(metavar="E_PER_ADU", rich_help_panel=NOISE, help="Electrons per unit of the file: a number or a map."),
]
ReadNoise = Annotated[
    str | None,
    typer.Option(metavar="E", rich_help_panel=NOISE, help="Read noise in electrons per pixel: a number or a map."),
]
Variance = Annotated[
    str | None,
    typer.Option(
        metavar="EXT|FILE",
        rich_help_panel=NOISE,
        help="Noise of every input pixel: an extension or a file. Its name tells whether it is a variance, an error or "
        "a weight; FITS: rms:EXT|FILE, sigma:, variance:, ivar: and weight: say it.",
    ),
]

# Training
Data = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[DATA]...",
        help="HDF5 sets, folders of pairs (HR and LR/X4, X1 and X4), frames, pictures: they join the simulated scenes.",
    ),
]
Kind = Annotated[
    Literal["astro", "micro"] | None,
    typer.Option(
        metavar="astro|micro",
        rich_help_panel=TRAINING,
        help="Which simulated scenes to train on; default: the recipe's, else astro.",
    ),
]
TrainingRecipe = Annotated[
    str | None,
    typer.Option(metavar="FILE.toml", rich_help_panel=TRAINING, help="What to train on and how: a TOML file."),
]
Preset = Annotated[
    Literal["tiny", "small", "base"],
    typer.Option(metavar="tiny|small|base", rich_help_panel=TRAINING, help="Size of the network."),
]
Minutes = Annotated[
    float | None,
    typer.Option(
        metavar="M", callback=above_zero, rich_help_panel=TRAINING, help="Stop after this many minutes in all."
    ),
]
Images = Annotated[
    int | None,
    typer.Option(
        metavar="N", callback=at_least(1), rich_help_panel=TRAINING, help="Stop after this many patches in all."
    ),
]
Resume = Annotated[
    bool,
    typer.Option("--resume/--no-resume", rich_help_panel=TRAINING, help="Go on from an earlier run, or start afresh."),
]

# The run
Manifest = Annotated[
    str | None,
    typer.Option(
        metavar="FILE.jsonl",
        rich_help_panel=OUTPUT,
        help="Add a JSON line for every file: status, model, seconds, checksums, error.",
    ),
]
Shard = Annotated[
    str | None,
    typer.Option(
        metavar="I/N",
        rich_help_panel=RUN,
        help="Do the I-th of N shares: of the files, or of the blocks of a single frame, into one output.",
    ),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS|local[:N]",
        callback=scheduler_allowed,
        rich_help_panel=RUN,
        help="Work on a Dask cluster, or on N processes here: by files, or by the blocks of a single frame.",
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", rich_help_panel=RUN, help="Print the resolved plan and stop; nothing is written.")
]
Seed = Annotated[
    int, typer.Option(metavar="INT", callback=at_least(0), rich_help_panel=RUN, help="Seed; 0 is one too.")
]
Device = Annotated[
    str,
    typer.Option(metavar="auto|cpu|cuda|cuda:N", rich_help_panel=RUN, help="Where the networks and the physics run."),
]
Threads = Annotated[
    int | None,
    typer.Option(metavar="N", callback=threads_allowed, rich_help_panel=RUN, help="CPU threads; default: all."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", rich_help_panel=RUN, help="Say nothing but errors.")]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", rich_help_panel=RUN, help="Say more; a traceback where the fault is ours.")
]
Json = Annotated[
    bool, typer.Option("--json", rich_help_panel=RUN, help="One JSON record per input on stdout, nothing else there.")
]
Config = Annotated[
    str | None,
    typer.Option(
        metavar="FILE.toml",
        is_eager=True,
        callback=read_config,
        rich_help_panel=RUN,
        help="Settings by the options' names; an option on the command line wins.",
    ),
]

"""The application: its commands, and how errors and signals become one line and an exit code."""

from __future__ import annotations

import io
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Annotated, Any, TextIO

import typer
from typer.core import TyperGroup

from sciresdiff import __version__
from sciresdiff.cli import degrade, evaluate, show, train, upscale
from sciresdiff.cli.console import Console, discard_stdout, guard_stdout
from sciresdiff.cli.messages import describe
from sciresdiff.errors import ResourceError
from sciresdiff.run import batch, signals

INTERRUPTED, USAGE = 130, 2
SPINS = "1000"
"""How often a thread asks for another one's result before it sleeps: a few microseconds.

OpenMP's own number, some milliseconds, holds a core that the other thread needs where a second program computes.
"""
HELP = ("-h", "--help")

COMMANDS: dict[str, Callable[..., None]] = {
    "degrade": degrade.degrade,
    "train-prior": train.train_prior,
    "train-refiner": train.train_refiner,
    "upscale": upscale.upscale,
    "evaluate": evaluate.evaluate,
    "models": show.models,
    "methods": show.methods,
    "info": show.info,
}


class Signalled(BaseException):
    """A signal arrived; like KeyboardInterrupt it passes everything that cleans up, and the parser too."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.code = 128 + number


class CommandGroup(TyperGroup):
    """The group of all commands: whatever happens inside ends in one line and an exit code."""

    def main(  # type: ignore[override]  # the keywords that are left out go through ``extra``
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command; exit with its code, or return it where ``standalone_mode`` is off."""
        words = list(sys.argv[1:] if args is None else args)
        verbose = any(w == "--verbose" or (w[:1] == "-" and w[:2] != "--" and "v" in w) for w in words)
        quiet = "-q" in words or "--quiet" in words
        with heed_signals(quiet), plain_warnings(quiet):
            code = flush_stdout(self._run(words or ["--help"], verbose, **extra))
        if standalone_mode:
            sys.exit(code)
        return code

    def _run(self, words: list[str], verbose: bool, **extra: Any) -> int:
        """Run a command, report its problems, and return its exit code."""
        try:
            if self._shows_help(words):
                return 0
            return super().main(words, "sciresdiff", standalone_mode=False, **extra) or 0
        except typer.Exit as end:
            return end.exit_code
        except (KeyboardInterrupt, typer.Abort):
            return INTERRUPTED
        except Signalled as end:
            for line in getattr(end, "__notes__", ()):  # what is kept
                Console().error(line)
            return end.code
        except SystemExit as end:  # how the parser ends where the reader of our output went away
            return 0 if isinstance(end.__context__, BrokenPipeError) else int(end.code or 0)
        except BrokenPipeError:  # the reader of our output went away, which is its right
            return 0
        except Exception as problem:
            return report_problem(problem, verbose)

    def _shows_help(self, words: list[str]) -> bool:
        """Print the help if that is all that is wanted; parsing first would cost more than the help does."""
        if words[-1] not in HELP or len(words) > 2 or (len(words) == 2 and words[0] not in self.commands):
            return False
        shown: Any = self
        root = context = typer.Context(self, info_name="sciresdiff")
        if len(words) == 2:
            shown = self.commands[words[0]]
            context = typer.Context(shown, info_name=words[0], parent=root)
        with guard_stdout():
            shown.format_help(context, context.make_formatter())
        return True


def flush_stdout(code: int) -> int:
    """Write what is still to be printed; the exit code afterwards."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        discard_stdout()
    except OSError as problem:
        discard_stdout()
        Console().error(f"stdout: {batch.reason(problem)}; what was to be printed is lost")
        return code or ResourceError.exit_code
    return code


def guard_streams() -> None:
    """Make the three standard streams safe to use, whatever the caller left of them.

    The number of a closed one would be given to the next file that is opened, and what a library prints would land in
    it. Names that are no UTF-8 come in by stdin as they do from the disk.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding=sys.getfilesystemencoding(), errors="surrogateescape")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def report_problem(problem: Exception, verbose: bool) -> int:
    """Print what went wrong in one line and return the exit code."""
    if hasattr(problem, "format_message"):
        Console().error(usage_line(problem))
        return USAGE
    Console().error(describe(problem, verbose))
    return batch.exit_code(problem)


def usage_line(problem: Any) -> str:
    """The parser's complaint, with the option first and the way to the help last."""
    line = problem.format_message().replace("Value error, ", "").rstrip(".")
    wrong = getattr(problem.__cause__ or problem.__context__, "errors", None)
    if wrong is not None:  # of pydantic, which says what is needed, and not what was given
        found, names = wrong()[0], getattr(getattr(problem, "param", None), "opts", ())
        needed = found["msg"].partition(", ")[0].replace("Input should be", "should be")
        line = f"{names[0] if names else 'an argument'}: {found['input']!r} is given, but {needed}"
    path = getattr(getattr(problem, "ctx", None), "command_path", "sciresdiff")
    return f"{line}; see '{path} --help'"


@contextmanager
def heed_signals(quiet: bool) -> Iterator[None]:
    """Turn SIGTERM and SIGINT into exceptions, so that half-written files are cleaned up.

    Work that can be resumed ends its block first; a second signal stops it at once.
    """

    def stop_it(number: int, frame: FrameType | None) -> None:
        try:
            signals.request_stop(Signalled(number))
        except Signalled:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            raise
        if not quiet:
            os.write(2, b"stopping when this block is done; a second signal stops at once\n")

    with ExitStack() as stack:
        for number in (signal.SIGTERM, signal.SIGINT):
            before = signal.getsignal(number)
            if number == signal.SIGINT and before is not signal.default_int_handler:  # ignored in the background
                continue
            try:
                signal.signal(number, stop_it)
            except ValueError:  # not in the main thread, where no signal arrives
                break
            stack.callback(signal.signal, number, before)
        yield


@contextmanager
def plain_warnings(quiet: bool) -> Iterator[None]:
    """Show a library's warning as one line on stderr."""

    def show_one(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if not quiet:
            Console().error(f"warning: {message}")

    with warnings.catch_warnings():
        warnings.showwarning = show_one
        yield


def version(value: bool) -> None:
    """Print the version and stop."""
    if value:
        print(f"sciresdiff {__version__}")
        raise typer.Exit


app = typer.Typer(
    cls=CommandGroup,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": list(HELP)},
)
for _name, _command in COMMANDS.items():
    app.command(_name)(_command)


@app.callback()
def root(
    show_version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=version, help="Print the version and stop.")
    ] = False,
) -> None:
    """Super-resolve FITS and TIFF science images, with an error plane and a verdict.

    Example: sciresdiff upscale low.fits -o high.fits --scale 4 --psf gaussian:fwhm=2.1px
    """


def main() -> None:
    """The console script."""
    guard_streams()
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # is read when torch is loaded
    app()

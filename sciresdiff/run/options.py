"""Options of runs: where numbers are computed, what is printed, which files are read and written."""

from __future__ import annotations

from dataclasses import dataclass

from sciresdiff.options import INPUT, OUTPUT, option, same_as
from sciresdiff.run.engines import get_engine

MOST_THREADS = 1024
"""With some thousand threads torch brings the process down."""


@dataclass(frozen=True)
class ComputeOptions:
    """What the numbers of an output may depend on, besides the job's own options."""

    seed: int = option("Random seed, 0 included.", 0, metavar="INT", at_least=0)
    device: str = option("Where networks and physics run.", "auto", metavar="auto|cpu|cuda|cuda:N")
    threads: int | None = option("CPU threads; default: all.", None, metavar="N", at_least=1, at_most=MOST_THREADS)


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options of every command that computes something."""

    overwrite: bool = option("Replace an output that exists (else an error).", False, panel=OUTPUT)
    dry_run: bool = option("Print the resolved plan and stop; nothing is written.", False)
    threads: int | None = same_as(ComputeOptions, "threads")
    quiet: bool = option("Print errors only.", False, names=("--quiet", "-q"))
    verbose: bool = option("Print more, with the traceback of an internal error.", False, names=("--verbose", "-v"))
    json: bool = option("One JSON record per input on stdout, nothing else there.", False)
    config: str | None = option(
        "Settings by the options' names; an option on the command line wins.", None, metavar="FILE.toml"
    )


@dataclass(frozen=True, kw_only=True)
class BatchOptions(RunOptions):
    """Options of the commands over many files."""

    inputs: tuple[str, ...] = option(
        "Files, FILE[EXT], FILE[EXT,*] (all chips), folders, globs, @list.txt, or - for stdin.",
        metavar="INPUT",
        argument=True,
    )
    recursive: bool = option("Walk folders and mirror their tree in the output.", False, panel=INPUT)
    shard: str | None = option(
        "Do the I-th of N shares: of the files, or of the blocks of a single frame, into one output.",
        None,
        metavar="I/N",
    )
    scheduler: str | None = option(
        "Work on a Dask cluster, or on N processes here: by files, or by the blocks of a single frame.",
        None,
        metavar="ADDRESS|local[:N]",
        check=get_engine,
    )


@dataclass(frozen=True, kw_only=True)
class FileOptions(BatchOptions):
    """Options of the commands that write one image for each input."""

    output: str = option(
        "A file, or a folder for several inputs.", panel=OUTPUT, metavar="PATH", names=("--output", "-o")
    )
    manifest: str | None = option(
        "Add a JSON line for every file: status, model, seconds, checksums, error.",
        None,
        panel=OUTPUT,
        metavar="FILE.jsonl",
    )

"""``sciresdiff models``, ``sciresdiff methods`` and ``sciresdiff info``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from sciresdiff.cli.console import Console, in_cell, print_lines, print_tables
from sciresdiff.cli.messages import format_record, report_failure
from sciresdiff.cli.parameters import command
from sciresdiff.cli.run import finish
from sciresdiff.observation.options import Stated
from sciresdiff.options import RUN, option, same_as
from sciresdiff.run import batch
from sciresdiff.run.options import RunOptions

MADE_FOR = {"astro": "stars, galaxies, nebulae", "micro": "fluorescence of cells and tissue"}
"""Kind of a model -> the images that it was trained on."""


@dataclass(frozen=True)
class ModelsOptions:
    """Which models are shown, and how."""

    names: tuple[str, ...] = option(
        "Models to show in detail: names or files. Default: a table of all.", (), metavar="NAME", argument=True
    )
    json: bool = option("One JSON record per model on stdout.", False)


@dataclass(frozen=True)
class MethodsOptions:
    """How methods are shown."""

    json: bool = option("One JSON record per method on stdout.", False)


@dataclass(frozen=True)
class InfoOptions:
    """Which files are described, and how."""

    files: tuple[str, ...] = option("FITS, TIFF, HDF5 or OME-Zarr images.", metavar="FILE", argument=True)
    allow_outside: bool = same_as(Stated, "allow_outside", panel=RUN)
    json: bool = same_as(RunOptions, "json")


@command()
def models(options: ModelsOptions) -> None:
    """List the models that come with the package, or show the card of one.

    Example: sciresdiff models astro-x4
    """
    from sciresdiff.restoration.model import locate, read_card, shipped_cards

    found = [locate(name) for name in options.names or (card["name"] for card in shipped_cards())]
    cards = [read_card(path) for path in found]
    if not cards:
        Console().info("no model is shipped; --model physics needs none")
    elif options.names or options.json:
        _print_records(cards if options.json else [_tables_last(card) for card in cards], options.json)
    else:
        print_tables(_model_table(cards, found))


@command()
def methods(options: MethodsOptions) -> None:
    """List the diffusion methods that a refiner can be trained with.

    Example: sciresdiff methods
    """
    from sciresdiff.diffusion import method

    found = [_public(method.load(name)) for name in method.names()]
    _print_records(found if options.json else [{one["name"]: one.get("about")} for one in found], options.json, gap="")


@command()
def info(options: InfoOptions) -> None:
    """Describe what is understood of a file, and what would be assumed: planes, quantity, unit, noise, PSF, WCS.

    Example: sciresdiff info frame.fits
    """
    from sciresdiff.io import info

    console = Console(json=options.json)
    tasks = [batch.Task(Path(path)) for path in options.files]

    def describe(task: batch.Task) -> dict[str, Any]:
        return info.describe(task.source, outside=options.allow_outside)

    def report(task: batch.Task, record: Mapping[str, Any]) -> None:
        _print_record(console, record, gap="\n" if task is not tasks[0] else "")

    finish(batch.run(tasks, describe, report, report_failure(console, len(tasks))))


def _model_table(cards: list[dict[str, Any]], paths: list[Path]) -> Table:
    """One line a model."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in ("name", "kind", "scale", "size", "method", "made for"):
        table.add_column(head, justify="right" if head in ("scale", "size") else "left", no_wrap=head != "made for")
    for card, path in zip(cards, paths, strict=True):
        method, kind = card["method"], card["kind"]
        size = f"{path.stat().st_size / 1e6:.1f} MB"
        row = card["name"], kind, f"x{card['scale']}", size, method["name"] if method else "-", MADE_FOR.get(kind, "")
        table.add_row(*map(in_cell, row))
    return table


def _tables_last(card: Mapping[str, Any]) -> dict[str, Any]:
    """A card with its single values first."""
    return dict(sorted(card.items(), key=lambda item: isinstance(item[1], Mapping)))


def _public(value: Any) -> dict[str, Any]:
    """The public fields of a record, whatever holds them."""
    found = value if isinstance(value, Mapping) else vars(value)
    return {name: item for name, item in found.items() if not name.startswith("_")}


def _print_records(records: list[dict[str, Any]], json: bool, gap: str = "\n") -> None:
    """Print records as JSON lines, or as blocks of ``name: value``."""
    for number, record in enumerate(records):
        _print_record(Console(json=json), record, gap * (number > 0))


def _print_record(console: Console, record: Mapping[str, Any], gap: str) -> None:
    """Print one record as a JSON line, or as a block behind a gap."""
    if console.json:
        console.record(record)
    else:
        print_lines([*gap.splitlines(), *format_record(record)])

"""``sciresdiff models``, ``sciresdiff methods`` and ``sciresdiff info``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from sciresdiff.cli import options as o
from sciresdiff.cli.run import finish, format_record, report_failure
from sciresdiff.cli.voice import Voice
from sciresdiff.run import batch


def models(json: o.Json = False) -> None:
    """List the models that are there, with their cards.

    Example: sciresdiff models
    """
    from sciresdiff.restoration.model import shipped

    _list(shipped(), json, empty="no model is shipped; --model physics needs none")


def methods(json: o.Json = False) -> None:
    """List the diffusion methods that a refiner can be trained with.

    Example: sciresdiff methods
    """
    from sciresdiff.diffusion import method

    found = [_fields(method.load(name)) for name in method.names()]
    shown = found if json else [{one["name"]: one.get("about")} for one in found]
    _list(shown, json, empty="no method", gap="")


def info(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="FITS, TIFF, HDF5 or OME-Zarr images.")],
    json: o.Json = False,
) -> None:
    """Say what is understood of a file, and what would be assumed: planes, quantity, unit, noise, PSF, WCS.

    Example: sciresdiff info frame.fits
    """
    from sciresdiff.io import info

    voice = Voice(json=json)
    tasks = [batch.Task(Path(path)) for path in files]

    def tell(task: batch.Task, record: Mapping[str, Any]) -> None:
        _show(voice, record, gap="\n" if task is not tasks[0] else "")

    finish(batch.run(tasks, lambda task: info.describe(task.source), tell, report_failure(voice, len(tasks))))


def _fields(value: Any) -> dict[str, Any]:
    """The public fields of a record, whatever holds them."""
    found = value if isinstance(value, Mapping) else vars(value)
    return {name: item for name, item in found.items() if not name.startswith("_")}


def _list(records: list[dict[str, Any]], json: bool, empty: str, gap: str = "\n") -> None:
    """Print records as JSON lines, or as blocks of ``name: value``."""
    voice = Voice(json=json)
    if not records:
        voice.say(empty)
    for i, record in enumerate(records):
        _show(voice, record, gap * (i > 0))


def _show(voice: Voice, record: Mapping[str, Any], gap: str) -> None:
    """One record as a JSON line, or as a block behind a gap."""
    if voice.json:
        voice.record(record)
    else:
        print(gap + "\n".join(format_record(record)))

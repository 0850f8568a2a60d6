"""``sciresdiff train-prior`` and ``sciresdiff train-refiner``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from sciresdiff.cli import options as o
from sciresdiff.cli.run import lines
from sciresdiff.cli.voice import Voice
from sciresdiff.errors import UsageError
from sciresdiff.jobs import batch

Backbone = Annotated[str, typer.Option(metavar="NAME", rich_help_panel=o.TRAINING, help="The network of every stage.")]
Stages = Annotated[
    int | None,
    typer.Option(
        metavar="K", callback=o.at_least(1), rich_help_panel=o.TRAINING, help="Unrolled stages; default: the preset's."
    ),
]
PriorPath = Annotated[
    str,
    typer.Option(
        "--prior",
        metavar="PRIOR",
        rich_help_panel=o.TRAINING,
        help="The prior that it refines: a model of train-prior, or published weights (.pth, .safetensors) of ESRGAN,"
        " SwinIR, EDSR.",
    ),
]
Method = Annotated[
    str,
    typer.Option(metavar="NAME|FILE.toml", rich_help_panel=o.TRAINING, help="The diffusion: see 'sciresdiff methods'."),
]


def train_prior(
    output: o.Output,
    data: o.Data = None,
    scale: o.Scale = 4,
    kind: o.Kind = None,
    backbone: Backbone = "resnet",
    stages: Stages = None,
    recipe: o.TrainingRecipe = None,
    minutes: o.Minutes = None,
    images: o.Images = None,
    preset: o.Preset = "base",
    resume: o.Resume = True,
    overwrite: o.Overwrite = False,
    dry_run: o.DryRun = False,
    seed: o.Seed = 0,
    device: o.Device = "auto",
    threads: o.Threads = None,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
    json: o.Json = False,
    config: o.Config = None,
) -> None:
    """Train the prior of a model: network and physics unrolled together, on simulated scenes and your data.

    Example: sciresdiff train-prior set.h5 -o my-prior.safetensors --scale 4 --minutes 60

    The same command run again goes on where it stopped. A log of one JSON line per interval lies beside the model.
    """
    values = dict(locals())
    from sciresdiff.training import prior as job

    _train(values, job.TrainOptions, job.train)


def train_refiner(
    output: o.Output,
    prior: PriorPath,
    data: o.Data = None,
    method: Method = "sciresdiff",
    backbone: Backbone = "resnet",
    recipe: o.TrainingRecipe = None,
    minutes: o.Minutes = None,
    images: o.Images = None,
    preset: o.Preset = "base",
    resume: o.Resume = True,
    overwrite: o.Overwrite = False,
    dry_run: o.DryRun = False,
    seed: o.Seed = 0,
    device: o.Device = "auto",
    threads: o.Threads = None,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
    json: o.Json = False,
    config: o.Config = None,
) -> None:
    """Train the refiner of a model: residual diffusion around a trained prior.

    Example: sciresdiff train-refiner set.h5 --prior my-prior.safetensors -o my-model.safetensors --minutes 40

    The same command run again goes on where it stopped. A log of one JSON line per interval lies beside the model.
    """
    values = dict(locals())
    from sciresdiff.training import prior as settings
    from sciresdiff.training import refiner as job
    from sciresdiff.training.published import scale_of

    values.update(scale=scale_of(prior))
    _train(values, settings.TrainOptions, job.train)


def _train(values: dict[str, Any], kind: type[Any], train: Callable[..., Any]) -> None:
    """Fill the options, train, and say where the model is."""
    from sciresdiff.training.prior import state_file

    found = batch.find_inputs(values["data"]) if values["data"] else []
    options = o.pick(kind, values, data=tuple(str(item.path) for item in found))
    voice = Voice(values["quiet"], values["verbose"], values["json"])
    if values["dry_run"]:
        voice.record(options) if voice.json else print("\n".join(lines(options)))
        return
    state = state_file(Path(options.output))
    check_model(Path(options.output), goes_on=options.resume and state.exists(), overwrite=values["overwrite"])
    if not options.resume:
        state.unlink(missing_ok=True)
    path = train(options, voice.say)
    if voice.json:
        voice.record({"model": path})
    voice.say(f"model: {path}")


def check_model(output: Path, goes_on: bool, overwrite: bool) -> None:
    """Refuse to replace a model that this run does not go on from.

    Raises
    ------
    UsageError
        The model exists, and neither ``--resume`` nor ``--overwrite`` allows to write over it.
    """
    if output.exists() and not (goes_on or overwrite):
        raise UsageError(f"--output: {output} exists and is no run to resume; use --overwrite, or give another name")

"""``sciresdiff train-prior`` and ``sciresdiff train-refiner``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from sciresdiff.cli import options as o
from sciresdiff.cli.run import finish
from sciresdiff.cli.voice import Voice

Backbone = Annotated[str, typer.Option(metavar="NAME", rich_help_panel=o.TRAINING, help="The network of every stage.")]
Stages = Annotated[
    int | None,
    typer.Option(
        metavar="K", callback=o.at_least(1), rich_help_panel=o.TRAINING, help="Unrolled stages; default: the preset's."
    ),
]
PriorPath = Annotated[
    str, typer.Option("--prior", metavar="PRIOR", rich_help_panel=o.TRAINING, help="The prior that it refines.")
]
Method = Annotated[
    str,
    typer.Option(metavar="NAME|FILE.toml", rich_help_panel=o.TRAINING, help="The diffusion: see 'sciresdiff methods'."),
]


def train_prior(
    output: o.Output,
    data: o.Data = None,
    scale: o.Scale = 4,
    kind: o.Kind = "astro",
    backbone: Backbone = "resnet",
    stages: Stages = None,
    recipe: o.Recipe = None,
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

    Example: sciresdiff train-prior set.h5 -o my-prior --scale 4 --minutes 60

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
    kind: o.Kind = "astro",
    recipe: o.Recipe = None,
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

    Example: sciresdiff train-refiner set.h5 --prior my-prior -o my-model --minutes 40

    The same command run again goes on where it stopped. A log of one JSON line per interval lies beside the model.
    """
    values = dict(locals())
    from sciresdiff.training import prior as settings
    from sciresdiff.training import refiner as job

    _train(values, settings.TrainOptions, job.train)


def _train(values: dict[str, Any], kind: type[Any], train: Callable[..., Any]) -> None:
    """Fill the options, train, and say where the model is."""
    options = o.pick(kind, values, data=tuple(values["data"] or ()))
    voice = Voice(values["quiet"], values["verbose"], values["json"])
    if values["dry_run"]:
        _show(options, values["json"], voice)
        finish(0)
    path = train(options, voice.say)
    if voice.json:
        voice.record({"model": path})
    voice.say(f"model: {path}")


def _show(options: Any, as_json: bool, voice: Voice) -> None:
    """The resolved options."""
    if as_json:
        voice.record(options)
        return
    for name, value in vars(options).items():
        print(f"{name} = {value}")

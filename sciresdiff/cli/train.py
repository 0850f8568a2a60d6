"""``sciresdiff train-prior`` and ``sciresdiff train-refiner``."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from sciresdiff.cli import options as o
from sciresdiff.cli.run import format_record
from sciresdiff.cli.voice import Voice
from sciresdiff.errors import UsageError
from sciresdiff.jobs.inputs import find_inputs


def _names(package: str, registry: str) -> list[str]:
    """The keys of a registry, read from its source: importing it would bring torch."""
    source = (Path(__file__).parent.parent / package / "__init__.py").read_text(encoding="utf-8")
    found = (node for node in ast.parse(source).body if isinstance(node, ast.AnnAssign))
    (value,) = (node.value for node in found if isinstance(node.target, ast.Name) and node.target.id == registry)
    assert isinstance(value, ast.Dict)
    return [str(key.value) for key in value.keys if isinstance(key, ast.Constant)]


Backbone = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        rich_help_panel=o.TRAINING,
        help=f"The network: {', '.join(_names('nets', 'BACKBONES'))}. Default: the method's own, else resnet.",
    ),
]
Stages = Annotated[
    int | None,
    typer.Option(
        metavar="K", callback=o.at_least(1), rich_help_panel=o.TRAINING, help="Unrolled stages; default: the preset's."
    ),
]
PriorPath = Annotated[
    str | None,
    typer.Option(
        "--prior",
        metavar="PRIOR",
        rich_help_panel=o.TRAINING,
        help="The prior that it refines: a model of train-prior, or published weights (.pth, .safetensors) of ESRGAN,"
        " SwinIR, EDSR.",
    ),
]
Method = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE.toml",
        rich_help_panel=o.TRAINING,
        help="The diffusion: see 'sciresdiff methods'. Default: sciresdiff, with --distil sinsr.",
    ),
]
Distil = Annotated[
    str | None,
    typer.Option(
        metavar="TEACHER",
        rich_help_panel=o.TRAINING,
        help="Teach a student that needs fewer steps, by a model with a refiner; it keeps the teacher's prior.",
    ),
]
Calibrate = Annotated[
    bool,
    typer.Option(
        "--calibrate/--no-calibrate",
        rich_help_panel=o.TRAINING,
        help="End with the calibration of ERR and TRUST on simulated frames, or leave it.",
    ),
]


def train_prior(
    output: o.Output,
    data: o.Data = None,
    scale: o.Scale = 4,
    kind: o.Kind = None,
    backbone: Backbone = None,
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
    from sciresdiff.training import options as settings
    from sciresdiff.training import prior as job

    job.backbone_of(backbone)
    settings.losses_of(recipe)
    _train(values, settings.TrainOptions, job.train)


def train_refiner(
    output: o.Output,
    prior: PriorPath = None,
    data: o.Data = None,
    method: Method = None,
    distil: Distil = None,
    backbone: Backbone = None,
    recipe: o.TrainingRecipe = None,
    minutes: o.Minutes = None,
    images: o.Images = None,
    preset: o.Preset = "base",
    calibrate: Calibrate = True,
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

    With --distil a student of a trained model learns to draw in one step (sinsr) or in a few (lcm).

    The same command run again goes on where it stopped. A log of one JSON line per interval lies beside the model.
    """
    values = dict(locals())
    if not prior and not distil:
        raise UsageError("--prior: a refiner needs the prior that it refines; give the file that train-prior wrote")
    from sciresdiff.diffusion import method as methods
    from sciresdiff.training import distil as teaching
    from sciresdiff.training import options as settings
    from sciresdiff.training import refiner as job

    values.update(method=method or ("sinsr" if distil else "sciresdiff"), scale=_scale_of(distil, prior))
    asked = methods.load(values["method"])
    asked.network(backbone or "")
    if asked.distil and not distil:
        raise UsageError(f"--method: {asked.name} needs a teacher; give --distil with a model of train-refiner")
    _train(values, settings.TrainOptions, teaching.train if distil else job.train)


def _scale_of(distil: str | None, prior: str | None) -> int:
    """The scale of the teacher, else of the prior.

    Raises
    ------
    InputError
        The file cannot be read, or holds nothing that is known.
    """
    from sciresdiff.training import distil as teaching
    from sciresdiff.training.published import scale_of

    return teaching.teacher_of(distil).scale if distil else scale_of(str(prior))


def _data(specs: list[str]) -> tuple[str, ...]:
    """Files in the order named; folders of pairs or of pictures stay whole."""
    from sciresdiff.training.folders import is_ours

    named = [[spec] if is_ours(Path(spec)) else [str(i.path) for i in find_inputs([spec])] for spec in specs]
    return tuple(dict.fromkeys(path for paths in named for path in paths))


def _train(values: dict[str, Any], kind: type[Any], train: Callable[..., Any]) -> None:
    """Fill the options, train, and say where the model is."""
    from sciresdiff.training.prior import state_file
    from sciresdiff.training.world import joined, world

    here = world()
    options = o.pick(kind, values, data=_data(values["data"] or []))
    voice = Voice(values["quiet"] or not here.first, values["verbose"], values["json"] and here.first)
    if values["dry_run"]:
        if here.first:
            voice.record(options) if voice.json else print("\n".join(format_record(options)))
        return
    with joined(here):
        if here.first:
            goes_on = options.resume and state_file(Path(options.output)).exists()
            check_model(Path(options.output), goes_on=goes_on, overwrite=values["overwrite"])
        path = train(options, voice.say, here)
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

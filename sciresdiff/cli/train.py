"""``sciresdiff train-prior`` and ``sciresdiff train-refiner``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sciresdiff import plugins
from sciresdiff.cli.console import Console, print_lines
from sciresdiff.cli.messages import format_record
from sciresdiff.cli.parameters import command
from sciresdiff.errors import UsageError
from sciresdiff.jobs.inputs import find_inputs
from sciresdiff.run.options import RunOptions
from sciresdiff.training.options import TrainOptions


@command("prior", "distil", "method", "calibrate")
def train_prior(options: TrainOptions, run: RunOptions) -> None:
    """Train the prior of a model: network and physics unrolled together, on simulated scenes and your data.

    Example: sciresdiff train-prior set.h5 -o my-prior.safetensors --scale 4 --minutes 60

    The same command run again resumes the training. A log of one JSON line per interval lies beside the model.
    """
    from sciresdiff.training import prior as job
    from sciresdiff.training.recipe import read_losses

    job.check_backbone(options.backbone)
    read_losses(options.recipe)
    _train(options, run, job.check, job.train)


@command("scale", "kind", "stages")
def train_refiner(options: TrainOptions, run: RunOptions) -> None:
    """Train the refiner of a model: residual diffusion around a trained prior.

    Example: sciresdiff train-refiner set.h5 --prior my-prior.safetensors -o my-model.safetensors --minutes 40

    With --distil a student of a trained model learns to sample in one step (sinsr) or in a few (lcm).

    The same command run again resumes the training. A log of one JSON line per interval lies beside the model.
    """
    if not options.prior and not options.distil:
        raise UsageError("--prior: a refiner needs the prior that it refines; give the file that train-prior wrote")
    from sciresdiff.diffusion import method as methods
    from sciresdiff.training import refiner as job

    options = replace(options, method=options.method_name, scale=_scale_of(options))
    method = methods.load(options.method_name)
    method.network(options.backbone or "")
    if method.distil and not options.distil:
        raise UsageError(f"--method: {method.name} needs a teacher; give --distil with a model of train-refiner")
    check, train = job.check, job.train
    if options.distil:
        check, train = (plugins.load(f"sciresdiff.lab.distillation.train:{name}") for name in ("check", "train"))
    _train(options, run, check, train)


def _scale_of(options: TrainOptions) -> int:
    """The scale of the teacher, else of the prior.

    Raises
    ------
    InputError : the file cannot be read, or holds no known model.
    """
    from sciresdiff.training.refiner import prior_scale

    if options.distil:
        return int(plugins.load("sciresdiff.lab.distillation.train:load_teacher")(options.distil).scale)
    return prior_scale(str(options.prior))


def find_data(specs: Sequence[str]) -> tuple[str, ...]:
    """Files in the order named; folders of pairs or of pictures stay whole."""
    from sciresdiff.training.folders import is_data_folder

    named = [[spec] if is_data_folder(Path(spec)) else [str(i.path) for i in find_inputs([spec])] for spec in specs]
    return tuple(dict.fromkeys(path for paths in named for path in paths))


def _train(options: TrainOptions, run: RunOptions, check: Callable[..., None], train: Callable[..., Any]) -> None:
    """Train, alone or with the other processes of a launcher, and report where the model is; a dry run only checks."""
    from sciresdiff.training.process_group import ProcessGroup, connect

    group = ProcessGroup.from_environment()
    options = replace(options, data=find_data(options.data))
    console = Console(run.quiet or not group.first, run.verbose, run.json and group.first)
    if run.dry_run:
        if group.first:
            _check_output(options, run)
            check(options, console.info)
            console.record(options) if console.json else print_lines(format_record(options))
        return
    with connect(group):
        if group.first:
            _check_output(options, run)
        path = train(options, console.info, group)
    if console.json:
        console.record({"model": path})
    console.info(f"model: {path}")


def _check_output(options: TrainOptions, run: RunOptions) -> None:
    """Refuse an output that cannot be written, see `check_model`."""
    from sciresdiff.training.prepare import state_file

    resumes = options.resume and state_file(Path(options.output)).exists()
    check_model(Path(options.output), resumes, run.overwrite)


def check_model(output: Path, resumes: bool, overwrite: bool) -> None:
    """Refuse to replace a model that this run does not resume.

    Raises
    ------
    UsageError : the model exists, and neither ``--resume`` nor ``--overwrite`` allows to write over it.
    """
    if output.is_dir():
        raise UsageError(f"--output: {output} is a folder; give the name of a file in it")
    if output.exists() and not (resumes or overwrite):
        raise UsageError(f"--output: {output} exists and is no run to resume; use --overwrite, or give another name")

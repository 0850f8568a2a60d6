"""What every training does around its loop: the device and seeds, the run and its state file, the record of both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from sciresdiff.training.data import Pairs
from sciresdiff.training.folders import UserData
from sciresdiff.training.loop import LoopOptions, Run, Say, State
from sciresdiff.training.options import TrainOptions
from sciresdiff.training.process_group import SINGLE, ProcessGroup
from sciresdiff.training.recipe import DataRecipe

VALIDATION, CALIBRATION, TRUST = 7_919, 15_859, 23_788
"""Added to the seed: streams of pairs and frames that training never draws, nor one from another."""


def set_up(options: TrainOptions, group: ProcessGroup = SINGLE) -> torch.device:
    """Set the number of threads and the seed of fresh weights; return the device of this process.

    Raises
    ------
    UsageError : a device that is not there.
    """
    device = group.device(options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    return device


def state_file(output: Path) -> Path:
    """Where the state of a run lies: beside the model, under its name without ``.safetensors``."""
    return output.with_name(f"{output.name.removesuffix('.safetensors')}.state")


def check_state(module: nn.Module, options: TrainOptions, loop: LoopOptions, device: torch.device) -> None:
    """Refuse a state that a run would refuse; nothing is written.

    Raises
    ------
    InputError : a state that is damaged, or of another training.
    """
    state = state_file(Path(options.output))
    if options.resume and state.exists():
        Run(module, state, loop, device)


def open_data(recipe: DataRecipe, seed: int, options: TrainOptions, say: Say) -> Pairs:
    """Pairs of the simulated scenes and of the user's data; what is found of these is told.

    Parameters
    ----------
    recipe : what is drawn.
    seed : of the stream of pairs.
    options : name the data.
    say : takes one line for the user.

    Raises
    ------
    UsageError, InputError : keys of the recipe, or data, that do not fit.
    """
    pairs = Pairs(recipe, seed, UserData(options.data))
    for line in pairs.notes:
        say(line)
    return pairs


def resume(
    module: nn.Module, options: TrainOptions, loop: LoopOptions, device: torch.device, group: ProcessGroup = SINGLE
) -> Run:
    """Begin a run, or resume it where the same command was stopped, unless ``--no-resume`` discards that.

    Parameters
    ----------
    module : what is trained, in place.
    options : name the output, beside which the state lies.
    loop : budget and rates.
    device : where the module is trained.
    group : the processes that share the work.
    """
    state = state_file(Path(options.output))
    if group.first:
        state.parent.mkdir(parents=True, exist_ok=True)
        if not options.resume:
            state.unlink(missing_ok=True)
    return Run(module, state, loop, device, group)


def provenance(data: DataRecipe, options: TrainOptions, state: State) -> dict[str, Any]:
    """How a model came to be, for its card.

    Parameters
    ----------
    data : what it was trained on.
    options : the user's files, of which the names alone are stored, and the seed.
    state : samples and minutes.
    """
    return {
        "data": data.to_dict(),
        "real_frames": [Path(p).name for p in options.data],
        "samples": state.seen,
        "minutes": round(state.seconds / 60, 1),
        "seed": options.seed,
        "torch": torch.__version__,
    }


def count_millions(module: nn.Module) -> float:
    """Parameters of a module, in millions."""
    return sum(p.numel() for p in module.parameters()) / 1e6

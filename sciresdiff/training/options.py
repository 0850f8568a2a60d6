"""The options of the two training commands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sciresdiff.nets import BACKBONES
from sciresdiff.options import PHYSICS, TRAINING, option, same_as
from sciresdiff.run.options import ComputeOptions, FileOptions


@dataclass(frozen=True)
class TrainOptions:
    """What a prior or a refiner is trained on, for how long, and where the model is written."""

    output: str = same_as(FileOptions, "output", help="Model file to write (.safetensors).")
    data: tuple[str, ...] = option(
        "HDF5 sets, folders of pairs (HR and LR/X4, X1 and X4), frames, pictures: they join the simulated scenes.",
        (),
        metavar="DATA",
        argument=True,
    )
    scale: int = option("Fine pixels per pixel, each axis.", 4, panel=PHYSICS, metavar="N", at_least=1)
    kind: Literal["astro", "micro"] | None = option(
        "Which simulated scenes to train on; default: the recipe's, else astro.", None, panel=TRAINING
    )
    prior: str | None = option(
        "The prior that it refines: a model of train-prior, or published weights (.pth, .safetensors) of ESRGAN,"
        " SwinIR, EDSR.",
        None,
        panel=TRAINING,
        metavar="PRIOR",
    )
    distil: str | None = option(
        "Distil the refiner of this model into one that needs fewer steps; its prior is kept.",
        None,
        panel=TRAINING,
        metavar="TEACHER",
    )
    method: str | None = option(
        "The diffusion: see 'sciresdiff methods'. Default: sciresdiff, with --distil sinsr.",
        None,
        panel=TRAINING,
        metavar="NAME|FILE.toml",
    )
    backbone: str | None = option(
        f"The network: {', '.join(BACKBONES)}. Default: the method's own, else resnet.",
        None,
        panel=TRAINING,
        metavar="NAME",
    )
    stages: int | None = option(
        "Unrolled stages; default: the preset's.", None, panel=TRAINING, metavar="K", at_least=1
    )
    recipe: str | None = option(
        "What to train on and how: a TOML file with the tables data, loop and loss.",
        None,
        panel=TRAINING,
        metavar="FILE.toml",
    )
    minutes: float | None = option("Stop after this many minutes in all.", None, panel=TRAINING, metavar="M", above=0)
    images: int | None = option("Stop after this many patches in all.", None, panel=TRAINING, metavar="N", at_least=1)
    preset: Literal["tiny", "small", "base"] = option("Size of the network.", "base", panel=TRAINING)
    calibrate: bool = option(
        "End with the calibration of ERR and TRUST on simulated frames, or skip it.", True, panel=TRAINING
    )
    resume: bool = option("Resume an earlier run, or start anew.", True, panel=TRAINING)
    seed: int = same_as(ComputeOptions, "seed")
    device: str = same_as(ComputeOptions, "device")
    threads: int | None = same_as(ComputeOptions, "threads")

    @property
    def method_name(self) -> str:
        """The diffusion method, by default the one that fits the kind of training."""
        return self.method or ("sinsr" if self.distil else "sciresdiff")

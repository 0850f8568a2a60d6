"""The options of ``degrade``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sciresdiff.observation.options import Stated
from sciresdiff.options import NOISE, OUTPUT, PHYSICS, option, same_as
from sciresdiff.run.options import ComputeOptions, RunOptions


@dataclass(frozen=True)
class DegradeOptions:
    """Blur, sampling and noise of the coarse frame; options that are given win over a recipe's."""

    scale: int = option("Fine pixels per pixel, each axis.", panel=PHYSICS, metavar="N", at_least=1)
    kernel: str | None = same_as(Stated, "kernel")
    quantity: Literal["sum", "mean"] | None = same_as(Stated, "quantity")
    gain: float | str | None = same_as(Stated, "gain")
    read_noise: float | str | None = same_as(Stated, "read_noise")
    sky: float = option("Sky in electrons per coarse pixel.", 0.0, panel=NOISE, metavar="E", at_least=0)
    dark: float = option("Dark electrons per coarse pixel.", 0.0, panel=NOISE, metavar="E", at_least=0)
    full_well: float | None = option("Electrons at which a pixel saturates.", None, panel=NOISE, metavar="E", above=0)
    bits: int | None = option("Bits of the converter: quantise.", None, panel=NOISE, metavar="N", at_least=1)
    recipe: str | None = option(
        "Draw blur and noise at random: astro, micro, first-order, second-order, real-esrgan, bicubic, star, or a"
        " TOML file. After real-esrgan (JPEG) noise and blur are unknown: no VAR and no KERNEL.",
        None,
        panel=PHYSICS,
        metavar="NAME|FILE.toml",
    )
    pairs: str | None = option("Write an HDF5 training set of patches as well.", None, panel=OUTPUT, metavar="SET.h5")
    patch: int = option("Side of a --pairs patch, fine pixels.", 256, panel=OUTPUT, metavar="PX", at_least=1)
    axes: str | None = same_as(Stated, "axes")
    allow_outside: bool = same_as(Stated, "allow_outside")
    sentinels: bool = same_as(Stated, "sentinels")
    padding: bool = same_as(Stated, "padding")
    absurd: bool = same_as(Stated, "absurd")
    seed: int = same_as(ComputeOptions, "seed")
    overwrite: bool = same_as(RunOptions, "overwrite")

"""Networks on the coarse grid: ``BACKBONES[name](inputs, outputs, width, depth)``.

The contract: a module that maps (B, inputs, h, w) to (B, outputs, h, w) for any h and w (what it needs beyond that it
pads inside, below and to the right) and starts as zero, so that an untrained model is the physics alone.  It has

receptive_px
    An upper bound of how far away, in pixels, an input may be that a pixel of the output depends on.
multiple_of
    A tile has to start on a multiple of this.
tile_exact
    True: no statistic over the tile, so that every tiling with a halo of ``receptive_px`` gives the same answer.
    False: it sees the tile as a whole (global attention, sorting), **and tilings differ**.
    ``receptive_px`` is then no bound, but what is read around a tile.

The last three channels of the input are constant maps (a refiner's noise level, numbers of a prior's kernel); a
network may read them at the first pixel (`sciresdiff.lab.backbones.modulation`).  "At base" in the docstrings means
the prior of scale 2 and preset base: 28 channels in, 8 out, width 64, depth 5.

The shipped models use ``resnet``; the others are there to be compared with it and live in `sciresdiff.lab.backbones`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sciresdiff.plugins import Registry

if TYPE_CHECKING:
    from torch import nn


class MisfitError(ValueError):
    """A state dictionary that no network fits; the message says which names and shapes."""


BACKBONES: Registry[Callable[[int, int, int, int], nn.Module]] = Registry(
    {
        "resnet": "sciresdiff.nets.resnet:ResNet",
        "unet": "sciresdiff.lab.backbones.unet:UNet",
        "srcnn": "sciresdiff.lab.backbones.srcnn:SRCNN",
        "edsr": "sciresdiff.lab.backbones.edsr:EDSR",
        "rrdb": "sciresdiff.lab.backbones.rrdb:RRDB",
        "rird": "sciresdiff.lab.backbones.rird:RIRD",
        "nafnet": "sciresdiff.lab.backbones.nafnet:NAFNet",
        "freq": "sciresdiff.lab.backbones.freq:Freq",
        "two-branch": "sciresdiff.lab.backbones.twobranch:TwoBranch",
        "swinir": "sciresdiff.lab.backbones.swinir:SwinIR",
        "atd": "sciresdiff.lab.backbones.atd:ATD",
        "dit-sr": "sciresdiff.lab.backbones.ditsr:DiTSR",
        "u-vit": "sciresdiff.lab.backbones.uvit:UViT",
        "two-stream": "sciresdiff.lab.backbones.twostream:TwoStream",
    }
)
"""Name -> (inputs, outputs, width, depth) -> network; importing this module imports no network, and no torch."""

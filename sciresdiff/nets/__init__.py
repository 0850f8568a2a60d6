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
network may read them at the first pixel (`sciresdiff.nets.modulation`).  "At base" in the docstrings means the prior
of scale 2 and preset base: 28 channels in, 8 out, width 64, depth 5.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from sciresdiff.nets.atd import ATD
from sciresdiff.nets.ditsr import DiTSR
from sciresdiff.nets.edsr import EDSR
from sciresdiff.nets.freq import Freq
from sciresdiff.nets.nafnet import NAFNet
from sciresdiff.nets.resnet import ResNet
from sciresdiff.nets.rird import RIRD
from sciresdiff.nets.rrdb import RRDB
from sciresdiff.nets.srcnn import SRCNN
from sciresdiff.nets.swinir import SwinIR
from sciresdiff.nets.twobranch import TwoBranch
from sciresdiff.nets.twostream import TwoStream
from sciresdiff.nets.unet import UNet
from sciresdiff.nets.uvit import UViT

BACKBONES: dict[str, Callable[[int, int, int, int], nn.Module]] = {
    "resnet": ResNet,
    "unet": UNet,
    "srcnn": SRCNN,
    "edsr": EDSR,
    "rrdb": RRDB,
    "rird": RIRD,
    "nafnet": NAFNet,
    "freq": Freq,
    "two-branch": TwoBranch,
    "swinir": SwinIR,
    "atd": ATD,
    "dit-sr": DiTSR,
    "u-vit": UViT,
    "two-stream": TwoStream,
}

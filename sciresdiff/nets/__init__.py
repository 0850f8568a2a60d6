"""Networks on the coarse grid: ``BACKBONES[name](inputs, outputs, width, depth)``.

The contract: a module that maps (B, inputs, h, w) to (B, outputs, h, w), is **tile-exact** (no statistic over the
tile, so that a pixel of the output depends only on inputs at most ``receptive_px`` away), accepts any h and w that are
multiples of ``multiple_of``, and starts as zero, so that an untrained model is the physics alone.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from sciresdiff.nets.resnet import ResNet
from sciresdiff.nets.unet import UNet

BACKBONES: dict[str, Callable[[int, int, int, int], nn.Module]] = {"resnet": ResNet, "unet": UNet}

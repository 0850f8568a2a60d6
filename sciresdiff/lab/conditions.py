"""What a network may see besides: maps on the coarse grid that single methods ask for."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sciresdiff.physics.consistency import Data
from sciresdiff.restoration.ops import box_mean, constant_maps, local_contrast
from sciresdiff.restoration.prior import Estimate
from sciresdiff.restoration.refiner import Condition


def frequency_bands(data: Data, prior: Estimate, level: Tensor) -> list[Tensor]:
    """High-pass bands of the prior's image and of the interpolated frame in units of the local contrast.

    Parameters
    ----------
    data : (B, 1, h, w) tensors in noise units. prior : its images (B, 1, s*h, s*w). level : not used.

    Returns
    -------
    2 s^2 maps, each (B, 1, h, w).
    """
    s = data.scale
    up = F.interpolate(data.y * data.valid, scale_factor=float(s), mode="bicubic") / s**2
    _, amplitude = local_contrast(prior.x, data.noise, s)
    bands = [F.pixel_unshuffle(torch.asinh((v - box_mean(v, 1)) / amplitude), s) for v in (prior.x, up)]
    return [band for v in bands for band in v.split(1, dim=1)]


def signal_to_noise(data: Data, prior: Estimate, level: Tensor) -> list[Tensor]:
    """Logarithms of the median and of the highest signal to noise of the frame.

    Parameters
    ----------
    data : (B, 1, h, w) tensors in noise units. prior, level : not used.

    Returns
    -------
    Two constant maps, each (B, 1, h, w).
    """
    snr = ((data.y * data.valid).clamp_min(0) / data.noise.sqrt()).flatten(1)
    if data.statistics is not None:  # a part of a plane is told the plane's, so that parts agree
        snr = snr.new_tensor(np.maximum(data.statistics.y, 0) / np.sqrt(data.statistics.noise))[None]
    numbers = torch.stack([snr.median(dim=1).values, snr.amax(dim=1)], dim=1)
    return constant_maps(torch.log1p(numbers) / 4, data.y)


def augmentation_level(data: Data, prior: Estimate, level: Tensor) -> list[Tensor]:
    """Logarithm of the noise put on an earlier stage's image, over that stage's error: one constant map, (B, 1, h, w).

    Parameters
    ----------
    level : (B,) or one number, above 0 up to 1.
    """
    return constant_maps(level.log().reshape(-1, 1).expand(len(data.y), 1), data.y)


FREQUENCY = Condition(frequency_bands, lambda scale: 2 * scale**2)
SNR = Condition(signal_to_noise, lambda scale: 2)
AUGMENTATION = Condition(augmentation_level, lambda scale: 1)

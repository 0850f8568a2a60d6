"""Hooks of methods to compare with the default: projections onto the data, guidance by the prior, limits.

See `sciresdiff.restoration.hooks` for what a hook is; every image is (B, 1, s*h, s*w), in noise units.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from sciresdiff.physics.consistency import consistency_step
from sciresdiff.restoration.hooks import Args
from sciresdiff.restoration.ops import upsample_nearest

PROJECTED = 30
"""Chebyshev iterations of a projection through a kernel."""
STIFFNESS = 1e-2
"""Share of the noise that a projection through a kernel keeps: without any it would amplify the noise without bound."""


def clip(x: Tensor, args: Args) -> Tensor:
    """At most ``clip_limit`` units of the method from its base.  **Takes flux off what is brighter.**

    Parameters
    ----------
    x : (B, 1, s*h, s*w), noise units. args : with the method's space and ``clip_limit``.
    """
    limit, space = float(args.numbers["clip_limit"]), args.space
    return space.image(((x - space.mean) / space.scale).clamp(-limit, limit))


def project(x: Tensor, args: Args) -> Tensor:
    """x + A^+ (y - A x), whose part that the data see is theirs (DDNM, Wang et al. 2023, Eq. 13).

    Exact for pixel integration; through a kernel a hundredth of the noise is left in, because A^+ alone amplifies it by
    1e3 and more.  **Noise in the data becomes structure in the image.**
    """
    data = args.data
    pure = data.operator.pure
    noise = torch.full_like(data.noise, 1e-12) if pure else STIFFNESS * data.noise
    steps = 1 if pure else PROJECTED
    for _ in range(2 if pure else 1):  # the second round takes up what float32 left of the first
        x = consistency_step(replace(data, noise=noise), x, torch.ones_like(x), steps)
    return x


def project_noise(x: Tensor, args: Args) -> Tensor:
    """x + lambda A^+ (y - A x), with lambda such that no more noise enters than the next state has anyway (DDNM+).

    lambda = min(1, s_r d / (a_r sigma_y)) in every coarse pixel, with s_r the next state's noise, sigma_y the data's
    and d = scale the singular value of a sum over scale^2 pixels (Wang et al. 2023, Eq. 17, with the square root of
    abar that their released code leaves out).  **The noise that this brings is not taken off the step's own**: their
    gamma changes the step, which a hook on estimates does not see.  **The last estimates are not held to the data.**
    """
    data, q, s = args.data, args.q, args.data.scale
    spread = q.s * F.avg_pool2d((args.space.scale * args.space.w).square(), s).sqrt()
    share = (spread * s / (max(q.a, 1e-12) * data.noise.sqrt())).clamp_max(1.0)
    return x + upsample_nearest(share, s) * (project(x, args) - x)


def sobel(image: Tensor) -> Tensor:
    """Magnitude of the gradient, (B, 1, Y, X), in units of the image per pixel; borders are repeated."""
    x = F.pad(image, (1, 1, 1, 1), mode="replicate")
    slope = x.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 8
    along_x, along_y = (F.conv2d(x, k[None, None]) for k in (slope, slope.T))
    return (along_x.square() + along_y.square()).sqrt()


def guide_prior(x: Tensor, args: Args) -> Tensor:
    """x - g W (x - prior), W = 1 - tanh(sum of the gradient over 2 x 2 pixels): smooth regions stay the prior's.

    A step down the gradient of W (x - prior)^2 / 2 (DiffBIR, Lin et al. 2024, Eq. 9); the gradient is the prior's, in
    units of its scale, and g = ``prior_strength``, 0..1.
    """
    steep = sobel(args.prior.x) / args.prior.w
    total = 4 * F.avg_pool2d(F.pad(steep, (0, 1, 0, 1), mode="replicate"), 2, stride=1)
    return x - float(args.numbers["prior_strength"]) * (1 - torch.tanh(total)) * (x - args.prior.x)


def guide_frequency(x: Tensor, args: Args) -> Tensor:
    """A step down the gradient of the L1 distance between the Fourier amplitudes of x and of the prior.

    d/dx sum | |F x| - |F g| | = F^-1[sign(|X| - |G|) X / |X|], F orthonormal over the whole frame; the step is
    ``frequency_strength`` prior scales long in the root mean square (a reading of DifIISR, Li et al. 2025: the
    reference in training, the true image, is not there in use).  **Blind to phases, that is to where structure is.**
    """
    seen, wanted = torch.fft.rfft2(x, norm="ortho"), torch.fft.rfft2(args.prior.x, norm="ortho")
    gradient = torch.sgn(seen) * torch.sign(seen.abs() - wanted.abs())
    gradient[..., 0, 0] = 0  # the total is the data's affair
    step = torch.fft.irfft2(gradient, s=x.shape[-2:], norm="ortho")
    return x - float(args.numbers["frequency_strength"]) * args.prior.w * step


def atrous_low_band(image: Tensor, levels: int) -> Tensor:
    """The low band that ``levels`` of the a-trous transform leave: (1, 2, 1) / 4 along both axes, holes of 2^k."""
    for k in range(levels):
        hole = 2**k
        for dy, dx in ((hole, 0), (0, hole)):
            wide = F.pad(image, (dx, dx, dy, dy), mode="replicate")
            h, w = image.shape[-2:]
            first, last = wide[..., :h, :w], wide[..., 2 * dy : 2 * dy + h, 2 * dx : 2 * dx + w]
            image = 0.5 * image + 0.25 * (first + last)
    return image


def low_frequency(x: Tensor, args: Args) -> Tensor:
    """x with its low band replaced by the prior's: x + low(prior - x), ``low_levels`` of the a-trous transform.

    The colour correction of DiffBIR (Lin et al. 2024).  **It has the prior's flux, whatever the data say.**
    """
    return x + atrous_low_band(args.prior.x - x, int(args.numbers["low_levels"]))

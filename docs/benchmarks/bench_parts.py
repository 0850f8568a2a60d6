"""What the benchmarks of speed share: a scene, clocks, the convolution peak, networks of peers, and a clock by part."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from sciresdiff.lab.published.networks import build_network
from sciresdiff.physics.operators import Operator

SIGMA_LOW_PX = 0.6
TARGET_SIGMA_PX = 1.0
"""Width of a star in the image that is wanted, fine px."""
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
"""Seconds that pass, and seconds that all threads of this process compute: the one to use where others compute, too."""
PEERS: dict[str, tuple[str, dict[str, Any]]] = {
    "EDSR-baseline": ("edsr", {"channels": 1, "width": 64, "depth": 16, "scale": 4}),
    "ESRGAN (RRDB, 23 blocks)": (
        "rrdb",
        {"channels": 1, "width": 64, "growth": 32, "depth": 23, "doublings": 2, "unshuffle": 1},
    ),
    "SwinIR-light": (
        "swinir",
        {
            "channels": 1,
            "width": 60,
            "depths": [6, 6, 6, 6],
            "heads": 6,
            "window": 8,
            "hidden": 120,
            "convolutions": 1,
            "upsampler_": "pixelshuffledirect",
            "scale": 4,
        },
    ),
}
"""Name -> architecture and sizes, as published for x4, with one colour."""


def scene(side: int, scale: int, kernel: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Stars on a sky, measured through the kernel: data and their variance, (side, side), in units of the sky noise."""
    rng = np.random.default_rng(0)
    image = np.zeros((side * scale,) * 2, "f4")
    stars = rng.integers(0, side * scale, (side * side // 200, 2))
    image[stars[:, 0], stars[:, 1]] = 10 ** rng.uniform(1, 4, len(stars))
    sharp = gaussian_filter(image, TARGET_SIGMA_PX)
    clean = Operator((side, side), scale, kernel).apply(torch.from_numpy(sharp)[None, None])[0, 0].numpy()
    variance = (1 + 0.1 * np.clip(clean, 0, None)).astype("f4")
    return (clean + rng.normal(size=clean.shape) * np.sqrt(variance)).astype("f4"), variance


@torch.inference_mode()
def peak(dtype: torch.dtype, clock: Callable[[], float], device: str = "cpu", side: int = 256) -> float:
    """GFLOP/s of a 3x3 convolution of 64 channels, channels last, the best of eight."""
    layer = nn.Conv2d(64, 64, 3, padding=1).to(device, dtype, memory_format=torch.channels_last)
    x = torch.randn(1, 64, side, side, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
    seconds = []
    for _ in range(8):
        start = clock()
        layer(x)
        if device != "cpu":
            torch.cuda.synchronize()
        seconds.append(clock() - start)
    return 2 * 64 * 64 * 9 * side * side / min(seconds[1:]) / 1e9


@dataclass
class Parts:
    """Seconds by part, and multiply-adds (as two operations) of convolutions by precision."""

    clock: Callable[[], float]
    seconds: dict[str, float] = field(default_factory=dict)
    flop: dict[torch.dtype, float] = field(default_factory=dict)
    inside: str = ""

    def add(self, part: str, work: Callable[..., Any], *args: Any, **named: Any) -> Any:
        """Do something; its seconds count for the part, unless it is part of another one."""
        if self.inside:
            return work(*args, **named)
        start, self.inside = self.clock(), part
        try:
            out = work(*args, **named)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            return out
        finally:
            self.inside = ""
            self.seconds[part] = self.seconds.get(part, 0.0) + self.clock() - start

    def convolved(self, conv2d: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """A convolution that counts."""

        def counting(x: Tensor, weight: Tensor, *args: Any, **named: Any) -> Tensor:
            out = conv2d(x, weight, *args, **named)
            self.flop[out.dtype] = self.flop.get(out.dtype, 0.0) + 2.0 * out.numel() * weight[0].numel()
            return out

        return counting

    def ideal(self, peaks: dict[torch.dtype, float]) -> float:
        """Seconds that the convolutions would take at their peaks, GFLOP/s."""
        return sum(flop / peaks[dtype] / 1e9 for dtype, flop in self.flop.items())


@contextmanager
def watched(parts: Parts) -> Iterator[None]:
    """What is restored meanwhile has its time taken apart: networks, operator, noise; and the rest is the rest."""
    from sciresdiff import tiling
    from sciresdiff.restoration import posterior

    def around(part: str, work: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **named: parts.add(part, work, *args, **named)

    with (
        mock.patch.object(tiling, "run", around("networks", tiling.run)),
        mock.patch.object(Operator, "apply", around("operator", Operator.apply)),
        mock.patch.object(Operator, "adjoint", around("operator", Operator.adjoint)),
        mock.patch.object(Operator, "apply_weighted_gram", around("operator", Operator.apply_weighted_gram)),
        mock.patch.object(posterior, "gaussian", around("noise", posterior.gaussian)),
        mock.patch.object(F, "conv2d", parts.convolved(F.conv2d)),
    ):
        yield


def peer(name: str, half: bool) -> Callable[[int], Tensor]:
    """A published network with random weights: side of a coarse frame -> its answer."""
    torch.manual_seed(0)
    net = build_network(*PEERS[name]).eval().to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def answer(side: int) -> Tensor:
        x = torch.rand(1, 1, side, side).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            out: Tensor = net(x)
        return out

    return answer

"""What it costs to state gain and read noise instead of the exact variance: PSNR against the frame that was degraded.

    python docs/benchmarks/noise_numbers.py FRAME... [--electrons 1,10,100] [--side 512] [--scale 2]

Every frame is degraded with so many electrons in its median coarse pixel and a read noise of a fifth of their root,
and restored with the shipped model: once with the variance that ``degrade`` writes, of the noiseless expectation, and
once with that plane taken away and the same gain and read noise stated.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np

import sciresdiff
from sciresdiff.frame import Frame


def psnr(image: np.ndarray, truth: np.ndarray) -> float:
    """Peak signal-to-noise ratio, dB, of images (h, w) without a border of 8 px."""
    inside = (slice(8, -8),) * 2
    return float(10 * np.log10(np.ptp(truth[inside]) ** 2 / np.mean((image - truth)[inside] ** 2)))


def cut(path: str, side: int, scale: int) -> Frame:
    """The middle of the first plane of a frame, (side, side), with its median in place of bad pixels."""
    whole = sciresdiff.read(path)
    pixels = np.where(whole.mask[0] | ~np.isfinite(whole.pixels[0]), np.nanmedian(whole.pixels[0]), whole.pixels[0])
    side = min(side, *pixels.shape) // scale * scale
    y, x = ((n - side) // 2 for n in pixels.shape)
    part = pixels[None, y : y + side, x : x + side].astype(np.float32)
    return Frame(part, np.zeros(part.shape, bool), whole.kind, quantity="sum", axes="YX", shape=part.shape[1:])


def compare(frame: Frame, electrons: float, scale: int) -> tuple[float, float]:
    """PSNR with the variance, and with gain and read noise."""
    middle = float(np.median(frame.pixels)) * scale**2
    given = {"gain": electrons / middle, "read_noise": 0.2 * electrons**0.5}
    kernel = f"gaussian:sigma={0.6 * scale}px"
    low = sciresdiff.degrade(frame, scale=scale, kernel=kernel, seed=1, **given)
    bare = replace(low.frame, variance=None, kernel=None, kernel_scale=None)
    exact = sciresdiff.restore(low, scale=scale)
    stated = sciresdiff.restore(bare, scale=scale, kernel=kernel, **given)
    return psnr(exact.sci, frame.pixels[0]), psnr(stated.sci, frame.pixels[0])


def main() -> None:
    """Print one line for every frame and number of electrons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("frames", nargs="+")
    parser.add_argument("--electrons", default="1,10,100")
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--scale", type=int, default=2)
    given = parser.parse_args()
    print("frame, electrons in the median pixel, dB with the variance, dB with gain and read noise, loss")
    for path in given.frames:
        frame = cut(path, given.side, given.scale)
        for electrons in map(float, given.electrons.split(",")):
            exact, stated = compare(frame, electrons, given.scale)
            print(f"{path} {electrons:g} {exact:.2f} {stated:.2f} {exact - stated:+.2f}", flush=True)


if __name__ == "__main__":
    main()

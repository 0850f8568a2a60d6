"""How often `upscale` warns of sound frames, and how often of wrong ones: the table of docs/how-to/output.md.

    python docs/benchmarks/judges_guard.py [--frames 200] [--first 1000] [--wrong 60] [--model NAME] [--list]

Small simulated frames of stars, galaxies and cells with Poisson and read noise: peaks of 1 to 1000 sigma, PSFs of 1.5
to 5 input px, x2 and x4, the noise stated as a plane or as gain and read noise, and bright cores masked in some.  All
is stated exactly, or one thing is stated wrongly.  Rows are markdown.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from astropy.io import fits
from numpy.typing import NDArray
from typer.testing import CliRunner

from sciresdiff import scenes
from sciresdiff.cli.app import app
from sciresdiff.physics.operators import Operator
from sciresdiff.physics.psf import parse, render

Array = NDArray[np.float64]
KINDS = (*("sparse", "crowded", "globular", "survey", "galaxy", "galaxy-cluster"),
         *("puncta", "nuclei", "membranes", "tissue"))  # fmt: skip
CORES = 0.3
"""Share of the frame's peak above which cores are masked, or cut."""


@dataclass(frozen=True)
class Sample:
    """A frame, and what is stated of it."""

    name: str
    low: Array
    """(h, w), electrons."""
    sigma: Array
    expected: Array
    """Of ``low``, without noise."""
    scale: int
    width: float
    """FWHM of the PSF, output px."""
    beta: float
    """Of a Moffat PSF; 0: Gaussian."""
    read_noise: float
    peak: float
    """Of the brightest pixel, sigma of the sky."""
    plane: bool
    """Whether the noise is stated as a plane."""
    mask: NDArray[np.bool_] | None = None

    @property
    def psf(self) -> str:
        """As it is stated."""
        return (
            f"moffat:fwhm={self.width:.4f}px,beta={self.beta:g}" if self.beta else f"gaussian:fwhm={self.width:.4f}px"
        )


def draw(seed: int) -> Sample:
    """A sound frame, by its seed."""
    rng = np.random.default_rng([12, seed])
    kind, scale = str(rng.choice(KINDS)), int(rng.choice([2, 4]))
    side = 16 * int(rng.integers(4, 7))
    peak, width = 10 ** rng.uniform(0, 3), float(np.exp(rng.uniform(np.log(1.5), np.log(5)))) * scale
    sky, read_noise = 10 ** rng.uniform(0.7, 2.7), float(rng.uniform(2, 10))
    beta, plane, nothing = float(rng.choice([0, 3])), bool(rng.integers(2)), np.zeros((side, side))
    sample = Sample(kind, nothing, nothing, nothing, scale, round(width, 4), beta, read_noise, peak, plane)
    truth = scenes.scene(kind, rng, side * scale).pixels.astype(float)
    kernel = render(parse(sample.psf), None, integrate=False)
    seen = Operator((side, side), scale, kernel, dtype=torch.float64).apply(torch.from_numpy(truth)[None, None])
    signal = seen[0, 0].numpy()
    signal *= peak * np.sqrt(sky + read_noise**2) / max(signal.max(), 1e-9)
    expected = np.maximum(sky + signal, 0.01)
    low = rng.poisson(expected) + rng.normal(0, read_noise, expected.shape)
    bright = expected > sky + CORES * signal.max()
    masked = peak > 50 and bright.mean() < 0.03 and bool(rng.integers(2))
    return replace(sample, low=low, sigma=np.sqrt(expected + read_noise**2), expected=expected,
                   mask=bright if masked else None)  # fmt: skip


def cut(sample: Sample) -> Sample:
    """Bright cores cut at a level that differs a little between columns, and not masked."""
    sky = np.median(sample.expected)
    level = sky + CORES * (sample.expected.max() - sky)
    levels = level * np.random.default_rng(1).normal(1, 0.01, sample.low.shape)
    return replace(sample, low=np.minimum(sample.low, levels), mask=None)


WRONG: dict[str, Callable[[Sample], Sample]] = {
    "PSF 20 % too wide": lambda s: replace(s, width=1.2 * s.width),
    "PSF 20 % too narrow": lambda s: replace(s, width=s.width / 1.2),
    "noise stated as half": lambda s: replace(s, sigma=s.sigma / 2, plane=True),
    "noise stated as twice": lambda s: replace(s, sigma=s.sigma * 2, plane=True),
    "bright cores cut, not masked": cut,
}


def warned(sample: Sample, model: str, folder: Path) -> tuple[str, list[str]]:
    """What the last look at the image says of it (``passed``, or names), and all warnings of `upscale`."""
    low = np.where(sample.mask, 0, sample.low) if sample.mask is not None else sample.low
    units = [fits.PrimaryHDU(), fits.ImageHDU(low.astype(np.float32), fits.Header({"BUNIT": "electron"}), name="SCI")]
    if sample.plane:
        units.append(fits.ImageHDU(sample.sigma.astype(np.float32), name="ERR"))
    if sample.mask is not None:
        units.append(fits.ImageHDU(256 * sample.mask.astype(np.int32), name="DQ"))
    fits.HDUList(units).writeto(folder / "low.fits", overwrite=True)
    stated = [] if sample.plane else ["--gain", "1", "--read-noise", f"{sample.read_noise:.6g}"]
    paths = [str(folder / "low.fits"), "-o", str(folder / "high.fits"), "--overwrite", "--no-checks", "--no-refine"]
    stated += ["--scale", str(sample.scale), "--kernel", sample.psf, *(["--model", model] if model else [])]
    end = CliRunner().invoke(app, ["upscale", *paths, *stated])
    if end.exit_code:
        return "refused", [end.stderr.strip().splitlines()[-1]]
    lines = [line.split("WARNING ", 1)[1] for line in end.stderr.splitlines() if "WARNING " in line]
    return str(fits.getheader(folder / "high.fits")["SRDGUARD"]), lines


def row(name: str, results: list[tuple[Sample, str, list[str]]]) -> str:
    """A line of the table: frames that the last look doubts, all and by S/N, and those with any warning."""
    cells = []
    for low, high in ((0, 1001), (0, 10), (10, 100), (100, 1001)):
        some = [found != "passed" for sample, found, _ in results if low <= sample.peak < high]
        cells.append(f"{sum(some)} of {len(some)}")
    return f"| {name} | " + " | ".join(cells) + f" | {sum(bool(lines) for *_, lines in results)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--first", type=int, default=1000, help="first seed")
    parser.add_argument("--wrong", type=int, default=60, help="frames of each wrong statement")
    parser.add_argument("--model", default="physics", help="'' for the default one")
    parser.add_argument("--list", action="store_true", help="every warned frame as well")
    options = parser.parse_args()
    samples = [draw(options.first + n) for n in range(max(options.frames, options.wrong))]
    print("| statement | doubted | S/N below 10 | 10 ... 100 | above 100 | any warning |")
    print("|---|---|---|---|---|---|")
    for name, change in {"all exact": lambda s: s, **WRONG}.items():
        count = options.frames if name == "all exact" else options.wrong
        if not count:
            continue
        with tempfile.TemporaryDirectory() as folder:
            results = [(s, *warned(change(s), options.model, Path(folder))) for s in samples[:count]]
        print(row(name, results), flush=True)
        for n, (s, found, lines) in enumerate(results):
            if options.list and lines and name == "all exact":
                print(f"  {options.first + n} {s.name} {s.low.shape[0]} px x{s.scale}, S/N {s.peak:.0f}, {s.psf}, "
                      f"plane {s.plane}, masked {s.mask is not None}: {found}; {' / '.join(lines)[:300]}")  # fmt: skip


if __name__ == "__main__":
    main()

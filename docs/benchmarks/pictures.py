"""The pictures of the README and the tutorials, made from the frames of sample_data.

    python docs/benchmarks/pictures.py [--folder docs/img]

The commands are those of the README and of the tutorials. ``before-after.png`` shows the frame, its restoration and the
truth; the others are what ``sciresdiff evaluate --report NAME.png`` draws, at a smaller size.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from sciresdiff import io
from sciresdiff.frame import Frame

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 300_000
"""Most bytes of a picture."""


@dataclass(frozen=True)
class Row:
    """One row of the README's picture."""

    title: str
    truth: str
    scale: int
    noise: str
    """Options of ``sciresdiff degrade``."""
    corner: tuple[int, int]
    """First pixel shown, (y, x) on the fine grid."""
    side: int
    """Fine pixels shown along each axis."""
    bend: float
    """Strength of the asinh stretch; small is nearly linear."""
    origin: str
    """Where the first row of pixels is drawn: ``lower`` for a frame of the sky, ``upper`` for one of a microscope."""


ROWS = (
    Row("47 Tuc, Hubble, x4", "47tuc.fits", 4, "--kernel gaussian:sigma=2.4px --gain 10 --read-noise 320",
        (120, 104), 136, 12, "lower"),
    Row("C. elegans, x2", "celegans.tif", 2, "--kernel gaussian:sigma=1.2px --gain 0.1 --read-noise 8",
        (100, 120), 104, 0.5, "upper"),
)  # fmt: skip


def sciresdiff(words: str, folder: Path) -> None:
    """Run a command in a folder."""
    subprocess.run([sys.executable, "-m", "sciresdiff", *words.split(), "--quiet"], cwd=folder, check=True)


def restored(row: Row, folder: Path) -> Iterator[tuple[str, Any]]:
    """Title and pixels of the frame, its restoration and the truth; each (side, side), per fine pixel."""
    end = Path(row.truth).suffix
    truth, low, high = ROOT / "sample_data" / row.truth, folder / f"low{end}", folder / f"high{end}"
    sciresdiff(f"degrade {truth} -o {low} --scale {row.scale} {row.noise}", folder)
    sciresdiff(f"upscale {low} -o {high} --scale {row.scale}", folder)
    coarse = io.read(low)
    share = row.scale**2 if coarse.quantity == "sum" else 1
    block = np.ones((row.scale, row.scale))
    y, x = row.corner
    here = slice(y, y + row.side), slice(x, x + row.side)
    yield "data", np.kron(valued(coarse) / share, block)[here]
    yield "restored", valued(io.read(high))[here]
    yield "truth", valued(io.read(truth))[here]


def valued(frame: Frame) -> Any:
    """Pixels of the first plane, (h, w), NaN where they are masked."""
    return np.where(frame.mask[0], np.nan, np.asarray(frame.pixels[0], np.float64))


def before_after(path: Path) -> None:
    """Draw the picture of the README: one line for every entry of ``ROWS``, one stretch for each line."""
    figure = Figure(figsize=(7.6, 5.3), layout="constrained", dpi=100)
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(ROWS), 3)
    for axes, row in zip(grid, ROWS, strict=True):
        with tempfile.TemporaryDirectory() as folder:
            images = dict(restored(row, Path(folder)))
        low, high = np.nanpercentile(images["truth"], [2, 99.7])
        for axis, (title, pixels) in zip(axes, images.items(), strict=True):
            axis.imshow(
                np.arcsinh(row.bend * np.clip((pixels - low) / (high - low), 0, 1)),
                cmap="cividis", origin=row.origin, interpolation="nearest",
            )  # fmt: skip
            axis.set_facecolor("0.6")
            axis.set(xticks=[], yticks=[])
            axis.set_title(title if row is ROWS[0] else "", fontsize=11)
        axes[0].set_ylabel(row.title, fontsize=11)
    figure.savefig(path, metadata={"Software": None})


def report(name: str, commands: list[str], path: Path, size: int = 1100) -> None:
    """Run the commands of a tutorial in an empty folder and keep the picture ``name`` at a width of ``size`` px."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "sample_data").symlink_to(ROOT / "sample_data")
        for words in commands:
            sciresdiff(words, Path(folder))
        with Image.open(Path(folder, name)) as whole:
            small = whole.convert("RGB").resize((size, whole.height * size // whole.width), Image.Resampling.LANCZOS)
    small.save(path, quality=90)


TUTORIALS = {
    "hubble": [
        "degrade sample_data/47tuc.fits -o low.fits --scale 4 --kernel gaussian:sigma=2.4px --gain 10 --read-noise 320",
        "upscale low.fits -o high.fits --scale 4",
        "evaluate high.fits --low low.fits --truth sample_data/47tuc.fits --report hubble.png",
    ],
    "worm": [
        "degrade sample_data/celegans.tif -o low.tif --scale 2 --kernel gaussian:sigma=1.2px --gain 0.1 --read-noise 8",
        "upscale low.tif -o high.tif --scale 2",
        "evaluate high.tif --low low.tif --truth sample_data/celegans.tif --report worm.png",
    ],
}
"""Pictures of the tutorials, and the commands that make them."""


def main() -> None:
    """Make all pictures, and refuse one that is too large."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, default=ROOT / "docs" / "img")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    before_after(given.folder / "before-after.png")
    for name, commands in TUTORIALS.items():
        report(f"{name}.png", commands, given.folder / f"{name}.jpg")
    for path in sorted(given.folder.iterdir()):
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
        if path.stat().st_size > LIMIT:
            sys.exit(f"{path}: more than {LIMIT / 1000:.0f} kB; draw it smaller")


if __name__ == "__main__":
    main()

"""Kill runs of ``upscale`` or ``degrade`` at random moments and fill their disk, until the numbers are worth something.

    python tests/kills.py FOLDER [--command upscale|degrade] [--kills 200] [--full 20] [--seed 0]

Every run is a forked process that works on a frame of many small blocks, as FITS or as TIFF. It is killed (SIGKILL) at
a random moment, up to three times in a row, then left alone. Counted are files under final names that are not whole,
and runs whose bytes are not those of a run that nobody killed. With root's rights the disk is a tmpfs of a given size,
else the size of a file is limited: exit code 5, nothing unfinished under a final name, and after more room the same
bytes. It is no part of the suite: two hundred kills take some minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tifffile
from astropy.io import fits

CORE, HALO, SCALE = 64, 8, 2
"""Fine pixels of a block, coarse pixels around it."""
SIDES = {"upscale": 80, "degrade": 640}
"""Command -> side of its input: 3 x 3 blocks, and 10 x 10, which are done sooner."""
MARGIN = 64 << 10
"""Room for what is beside the image, in bytes: half of the full disks lie in it."""


def inputs(folder: Path, side: int) -> list[Path]:
    """A star field as FITS, a field of spots in two planes as TIFF."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    yy, xx = np.mgrid[:side, :side]
    image = rng.normal(100, 3, (2, side, side))
    for y, x in rng.uniform(0, side, (30, 2)):
        image += 500 * np.exp(-((yy - y) ** 2 + (xx - x) ** 2) / 3)
    paths = [folder / "low.fits", folder / "low.tif"]
    fits.HDUList(
        [fits.PrimaryHDU(image[0].astype("f4")), fits.ImageHDU(np.full((side, side), 9, "f4"), name="VAR")]
    ).writeto(paths[0], overwrite=True)
    tifffile.imwrite(paths[1], image.astype("u2"), metadata={"axes": "TYX"}, photometric="minisblack")
    return paths


def words(low: Path, high: Path) -> list[str]:
    """The command, by the folder that it works in."""
    if "degrade" in high.parts:
        noise = ["--gain", "1", "--read-noise", "3", "--kernel", "gaussian:fwhm=2.5px"]
        listed = ["--manifest", str(high.parent.parent / "list.jsonl")]  # says which files are whole
        return ["degrade", str(low), "-o", str(high), "--scale", str(SCALE), *noise, *listed, "--threads", "1", "-q"]
    noise = ["--variance", "VAR"] if low.suffix == ".fits" else ["--gain", "1", "--read-noise", "3"]
    few = ["--model", "physics", "--samples", "2", "--scale", str(SCALE), "--psf", "gaussian:fwhm=2.5px"]
    return ["upscale", str(low), "-o", str(high), *few, *noise, "--threads", "1", "-q"]


def start(arguments: Sequence[str], before: Callable[[], None] = lambda: None) -> int:
    """Run the command in a child process; its id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        log = os.open("/dev/null" if "-v" not in sys.argv else "/dev/stderr", os.O_WRONLY)
        os.dup2(log, 1)
        os.dup2(log, 2)
        before()
        from sciresdiff.cli.app import app

        code = app(list(arguments), standalone_mode=False)
    finally:
        os._exit(code)


def ended(child: int) -> int:
    """The exit code of a child, or the number of its signal below 0."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def whole(folder: Path) -> dict[str, bytes]:
    """Name -> content of the files under final names, but for the records, which have a clock."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if not p.name.startswith(".") and p.suffix != ".json"}


def hidden(folder: Path) -> list[str]:
    """What is beside."""
    return sorted(p.name for p in folder.iterdir() if p.name.startswith("."))


def reference(low: Path, folder: Path) -> tuple[dict[str, bytes], float]:
    """The files of a run that nobody killed, and its seconds."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    began = time.monotonic()
    code = ended(start(words(low, folder / f"high{low.suffix}")))
    assert code == 0, f"{low}: exit code {code}"
    assert hidden(folder) == [], hidden(folder)
    return whole(folder), time.monotonic() - began


def kills(low: Path, folder: Path, count: int, rng: random.Random) -> dict[str, int]:
    """Killed runs and what came of them."""
    wanted, seconds = reference(low, folder / "reference")
    told = {"kills": 0, "ended before": 0, "left to go on with": 0, "partial files": 0, "resumed": 0, "other bytes": 0}
    here = folder / "killed"
    while told["kills"] < count:
        shutil.rmtree(here, ignore_errors=True)
        here.mkdir()
        command = words(low, here / f"high{low.suffix}")
        for _ in range(rng.randint(1, 3)):
            child = start(command)
            time.sleep(rng.uniform(0, seconds))
            os.kill(child, signal.SIGKILL)
            stopped = ended(child) == -signal.SIGKILL
            told["kills" if stopped else "ended before"] += 1
            told["left to go on with"] += any(name.endswith(".journal") for name in hidden(here))
            told["partial files"] += sum(wanted.get(name) != data for name, data in whole(here).items())
        code = ended(start(command))
        told["resumed"] += code == 0
        told["other bytes"] += code != 0 or whole(here) != wanted or any("high" in name for name in journals(here))
    return told


def journals(folder: Path) -> list[str]:
    """Journals and unfinished files that are left."""
    return [name for name in hidden(folder) if ".journal" in name or name.endswith(".part")]


@contextmanager
def small_disk(folder: Path) -> Iterator[Callable[[int], None]]:
    """A folder on a disk of its own, and a function that sets its size."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=True)
    try:
        yield lambda size: subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True) and None
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def points(size: int, count: int) -> list[int]:
    """Sizes of a disk: half up to that of the files, half in the room that all else takes."""
    first = [size * (i + 1) // (count // 2 + 1) for i in range(count // 2)]
    return first + [size + MARGIN * i // (count - count // 2) for i in range(count - count // 2)]


def full(low: Path, folder: Path, count: int) -> dict[str, int]:
    """Runs on a disk that is too small, then on one that is not."""
    wanted, _ = reference(low, folder / "reference")
    told = {"points": 0, "exit 5": 0, "had room": 0, "partial files": 0, "other bytes": 0}
    total = sum(map(len, wanted.values()))
    with small_disk(folder / "disk") as sized:
        for size in points(total, count):
            for path in (folder / "disk").iterdir():
                path.unlink()
            sized(size)
            command = words(low, folder / "disk" / f"high{low.suffix}")
            code = ended(start(command))
            told["points"] += 1
            told["exit 5"] += code == 5
            told["had room"] += code == 0
            told["partial files"] += sum(wanted.get(name) != data for name, data in whole(folder / "disk").items())
            sized(4 * total + (1 << 20))
            code = ended(start(command))
            told["other bytes"] += code != 0 or whole(folder / "disk") != wanted or bool(hidden(folder / "disk"))
    return told


def limited(low: Path, folder: Path, count: int) -> dict[str, int]:
    """The same without root's rights: no file may be larger than so much."""
    wanted, _ = reference(low, folder / "reference")
    told = {"points": 0, "exit 5": 0, "had room": 0, "partial files": 0, "other bytes": 0}
    here, most = folder / "limited", max(map(len, wanted.values()))
    for size in points(most, count):
        shutil.rmtree(here, ignore_errors=True)
        here.mkdir()
        command = words(low, here / f"high{low.suffix}")
        code = ended(start(command, lambda size=size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))))
        told["points"] += 1
        told["exit 5"] += code == 5
        told["had room"] += code == 0
        told["partial files"] += sum(wanted.get(name) != data for name, data in whole(here).items())
        code = ended(start(command))
        told["other bytes"] += code != 0 or whole(here) != wanted or bool(hidden(here))
    return told


def small_blocks() -> None:
    """Import what the children need, and make the blocks small."""
    import torch

    from sciresdiff.jobs import blocks
    from sciresdiff.jobs.upscale import job as upscale
    from sciresdiff.restoration import restore
    from sciresdiff.run import journal, manifest

    torch.set_num_threads(1)
    assert restore and journal and manifest and upscale
    blocks.CORE, blocks.HALO = CORE, HALO


def main() -> None:
    """Do it and print what was counted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--command", choices=list(SIDES), default="upscale")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--full", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-v", action="store_true", help="let the children talk")
    given = parser.parse_args()
    small_blocks()
    rng = random.Random(given.seed)
    filled = full if os.geteuid() == 0 and shutil.which("mount") else limited
    for low in inputs(given.folder / "in", SIDES[given.command]):
        folder = given.folder / given.command / low.suffix[1:]
        with contextlib.suppress(FileExistsError):
            folder.mkdir(parents=True)
        for name, told in (
            ("kills", lambda: kills(low, folder, given.kills // 2, rng)),  # noqa: B023 (called at once)
            ("full disks", lambda: filled(low, folder, given.full // 2)),  # noqa: B023
        ):
            print(f"{low.name} {name}:", ", ".join(f"{key} {n}" for key, n in told().items()), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()

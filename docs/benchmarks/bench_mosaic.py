"""``make bench-mosaic``: ``upscale --joint`` of a mosaic that is killed and resumed: seconds, peak memory, and bytes.

    python docs/benchmarks/bench_mosaic.py [--sides 2048 8192] [--kills survey:0.6 blocks:0.4] [--samples 8]

Six exposures are simulated (``mosaic.py``).  The command is killed (SIGKILL) when the stated share of its survey of the
exposures, or of its blocks, is on the disk, and given again.  Mosaics up to ``--compare`` px are restored without a
kill, too, and the bytes are compared.  Progress and memory are logged to stderr every 10 s.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mosaic

from sciresdiff.jobs.upscale.joint import lines
from sciresdiff.observation.outlier_mask import TILE
from sciresdiff.restoration.cosmic_rays import SIDE
from sciresdiff.run.locks import findings_path, journal_path

LOOK, LOG = 0.2, 10.0
"""Seconds between two looks at the progress, and between two lines of the log."""


@dataclass(frozen=True)
class Kill:
    """Where a run is killed."""

    stage: str
    """``survey`` or ``blocks``."""
    share: float

    @classmethod
    def parse(cls, text: str) -> Kill:
        """``survey:0.6`` or ``blocks:0.4``."""
        stage, _, share = text.partition(":")
        if stage not in ("survey", "blocks") or not 0 < float(share) < 1:
            raise argparse.ArgumentTypeError(f"{text}: give survey:SHARE or blocks:SHARE, with a share of 0 to 1")
        return cls(stage, float(share))

    def __str__(self) -> str:
        return f"{self.stage}:{self.share:g}"


def totals(side: int) -> dict[str, int]:
    """How many findings and blocks a mosaic of a side has, where exposures reach beyond it by little."""
    single = side // mosaic.SCALE
    single -= round(mosaic.APART * single)
    windows = 2 * len(mosaic.PATTERN) * (-(-single // TILE)) ** 2
    return {"survey": windows + (-(-(side + 2) // SIDE)) ** 2 + 2, "blocks": (len(lines(side)) - 1) ** 2}


def progress_of(output: Path) -> dict[str, int]:
    """Findings and blocks that are on the disk."""
    found = {}
    for stage, path in (("survey", findings_path(output)), ("blocks", journal_path(output))):
        try:
            found[stage] = max(path.read_bytes().count(b"\n") - 1, 0)
        except FileNotFoundError:
            found[stage] = 0
    return found


def memory_of(process: int) -> float:
    """Resident MB of a process; 0 when it is gone."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def run(words: list[str], output: Path, side: int, kill: Kill | None) -> dict[str, Any]:
    """Run the command until it ends, or is killed; wall and CPU seconds, peak MB, and seconds until the first block."""
    whole, start, told, surveyed = totals(side), time.perf_counter(), 0.0, None
    child = subprocess.Popen([sys.executable, "-m", "sciresdiff", *words, "-o", str(output), "-q"])
    killed, before = False, progress_of(output)["blocks"]
    while True:
        ended, status, used = os.wait4(child.pid, os.WNOHANG)
        if ended:
            break
        now, done = time.perf_counter() - start, progress_of(output)
        if surveyed is None and done["blocks"] > before:
            surveyed = now
        if now - told >= LOG:
            told = now
            parts = ", ".join(f"{stage} {n} of {whole[stage]}" for stage, n in done.items())
            print(f"{now:.0f} s: {parts}, {memory_of(child.pid):.0f} MB", file=sys.stderr, flush=True)
        if kill and not killed and done[kill.stage] >= kill.share * whole[kill.stage]:
            os.kill(child.pid, signal.SIGKILL)
            killed = True
        time.sleep(LOOK)
    code = os.waitstatus_to_exitcode(status)
    if code and not killed:
        raise SystemExit(f"upscale ended with {code}")
    return {
        "killed": str(kill) if killed else None,
        "done": progress_of(output) if killed else whole,
        "seconds": time.perf_counter() - start,
        "cpu": used.ru_utime + used.ru_stime,
        "first_block": surveyed,
        "mb": used.ru_maxrss / 1e3,
    }


def measure(folder: Path, side: int, kills: list[Kill], told: argparse.Namespace) -> dict[str, Any]:
    """Make a mosaic, kill and resume it, and hold it against one that was not killed where that is asked for."""
    start = time.perf_counter()
    names, grid = mosaic.build(folder, side)
    made = time.perf_counter() - start
    words = ["upscale", *map(str, names), "--joint", "--grid", str(grid), "--samples", str(told.samples)]
    words += ["--threads", str(told.threads), *(["--no-refine"] if told.no_refine else [])]
    runs, output = [], folder / "mosaic.fits"
    for kill in [*kills, None]:
        runs.append(run(words, output, side, kill))
        print(json.dumps(runs[-1]), file=sys.stderr, flush=True)
    same = None
    if side <= told.compare:
        runs.append(run(words, folder / "whole.fits", side, None))
        same = filecmp.cmp(output, folder / "whole.fits", shallow=False)
    return {
        "side": side, "mpix": side**2 / 1e6, "blocks": totals(side)["blocks"], "made": made,
        "samples": 0 if told.no_refine else told.samples, "threads": told.threads, "runs": runs, "same_bytes": same,
    }  # fmt: skip


def row(found: dict[str, Any]) -> str:
    """A mosaic as a line of the table."""
    broken = found["runs"][: -1 if found["same_bytes"] is not None else None]
    wall, cpu = (sum(one[name] for one in broken) for name in ("seconds", "cpu"))
    kills = ", ".join(one["killed"] for one in broken if one["killed"]) or "none"
    same = {True: "yes", False: "**no**", None: "not compared"}[found["same_bytes"]]
    peak = max(one["mb"] for one in found["runs"])
    return (
        f"| {found['side']} | {found['mpix']:.0f} | {found['blocks']} | {found['samples']} | {wall:.0f} | {cpu:.0f} |"
        f" {cpu / found['mpix']:.1f} | {peak:.0f} | {kills} | {same} |"
    )


def main() -> None:
    """Measure every size and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--sides", type=int, nargs="+", default=[2048, 8192], metavar="PX", help="of mosaics, output px"
    )
    parser.add_argument("--kills", type=Kill.parse, nargs="*", default=[Kill("survey", 0.6), Kill("blocks", 0.4)])
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--no-refine", action="store_true", help="no samples")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compare", type=int, default=2048, metavar="PX", help="largest side that is restored twice")
    parser.add_argument("--folder", type=Path, help="where the files go for a while (default: the system's)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all figures of every run")
    told = parser.parse_args()
    print(
        "| side, px | Mpix | blocks | samples | s | s of a core | per Mpix | peak MB | killed at | same bytes |\n"
        "|---|---|---|---|---|---|---|---|---|---|"
    )
    every = []
    for side in told.sides:
        with tempfile.TemporaryDirectory(dir=told.folder) as folder:
            every.append(measure(Path(folder), side, told.kills, told))
        print(row(every[-1]), flush=True)
        if told.json:
            told.json.write_text(json.dumps(every, indent=1))


if __name__ == "__main__":
    main()

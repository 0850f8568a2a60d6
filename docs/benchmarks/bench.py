"""``make bench``: seconds per output megapixel, peak memory, and where the time goes, beside Richardson-Lucy and peers.

    python docs/benchmarks/bench.py [--model astro-x4] [--side 512] [--threads 2] [--clock wall] [--json FILE]

Everything is timed in one run on one simulated star field, because absolute figures drift from machine to machine, and
every method in a process of its own.  Peers are networks alone, as published for x4, with random weights.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from bench_parts import CLOCKS, PEERS, SIGMA_LOW_PX, Parts, peak, peer, scene, watched

from sciresdiff.observation.observation import Observation
from sciresdiff.physics import psf
from sciresdiff.restoration import model as models
from sciresdiff.restoration.restore import restore
from sciresdiff.restoration.settings import Settings

PEER_SIDE = 128
"""Coarse px: their cost per pixel does not depend on it."""
OURS = {
    "physics": (False, 1, False),
    "prior": (True, 1, False),
    "prior and 4 steps, one draw": (True, 1, True),
    "prior and 4 steps, 8 draws": (True, 8, True),
}
"""Method -> whether it has a model, draws, whether the refiner draws them."""
LUCY = "Richardson-Lucy, 30 iterations"
PRECISIONS = ("float32", "bfloat16")
RUNS = 3
"""Of which the best counts: other tenants of a machine can only slow it."""


def methods() -> list[str]:
    """Everything that is timed, in the order of the table."""
    return [LUCY, *OURS, *(f"{name}, {precision}" for name in PEERS for precision in PRECISIONS)]


def timed(work: Callable[[], object], clock: Callable[[], float]) -> tuple[float, Parts]:
    """Seconds of the best run, and its parts; the first run, which warms up, does not count."""
    work()
    runs = []
    for _ in range(RUNS):
        with watched(parts := Parts(clock)):
            start = clock()
            work()
            runs.append((clock() - start, parts))
    return min(runs, key=itemgetter(0))


def work_of(what: str, side: int, model_name: str) -> tuple[Callable[[], object], float]:
    """What a method does, and how many megapixels come out of it."""
    model = models.load(model_name)
    scale = model.scale
    name, _, precision = what.rpartition(", ")
    if name in PEERS:
        answer, small = peer(name, precision == "bfloat16"), min(side, PEER_SIDE)
        return lambda: answer(small), (4 * small) ** 2 / 1e6
    kernel = psf.render(psf.parse(f"gaussian:sigma={SIGMA_LOW_PX * scale}px"), None, integrate=False)
    pixels, variance = scene(side, scale, kernel)
    observation = Observation.of_arrays(pixels, variance, scale, kernel)

    def ours() -> object:
        learned, samples, refine = OURS[what]
        settings = Settings(samples=samples, refine=refine)
        return restore(observation, model if learned else None, settings)

    @torch.inference_mode()
    def richardson_lucy() -> object:
        data = observation.data()
        y = (data.y + 5).clamp_min(1e-3)
        x = data.operator.adjoint(y) / scale**2
        share = data.operator.adjoint(torch.ones_like(y))
        for _ in range(30):
            x = x * data.operator.adjoint(y / data.operator.apply(x).clamp_min(1e-6)) / share
        return x

    return richardson_lucy if what == LUCY else ours, pixels.size * scale**2 / 1e6


def measure(what: str, side: int, model_name: str, threads: int, clock_name: str) -> dict[str, Any]:
    """Seconds, peak memory and parts of one method, in a process of its own."""
    torch.set_num_threads(threads)
    clock = CLOCKS[clock_name]
    work, mpix = work_of(what, side, model_name)
    before = {dtype: peak(dtype, clock) for dtype in (torch.float32, torch.bfloat16)}
    seconds, parts = timed(work, clock)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    peaks = {dtype: max(found, peak(dtype, clock)) for dtype, found in before.items()}
    # of attention, which is no convolution, no share is told
    ideal, inside = parts.ideal(peaks), parts.seconds.get("networks", 0.0) if what in OURS else seconds
    return {
        "method": what,
        "seconds": seconds,
        "s_per_mpix": seconds / mpix,
        "peak_mb": memory,
        "parts_s_per_mpix": {k: v / mpix for k, v in parts.seconds.items()}
        | {"rest": (seconds - sum(parts.seconds.values())) / mpix},
        "tflop_per_mpix": {str(k).removeprefix("torch."): v / mpix / 1e12 for k, v in parts.flop.items()},
        "conv_peak_gflops": {str(k).removeprefix("torch."): v for k, v in peaks.items()},
        "share_of_peak": ideal / inside if inside and parts.flop and "SwinIR" not in what else None,
    }


def row(found: dict[str, Any]) -> str:
    """A line of the table."""
    parts, share = found["parts_s_per_mpix"], found["share_of_peak"]
    where = [f"{parts.get(name, 0):.2f}" for name in ("networks", "operator", "noise", "rest")]
    if found["method"] not in OURS:
        where = ["", "", "", ""]
    cells = [found["method"], f"{found['s_per_mpix']:.2f}", f"{found['peak_mb']:.0f}", *where]
    return "| " + " | ".join([*cells, "" if share is None else f"{100 * share:.0f} %"]) + " |"


def main() -> None:
    """Time every method; print a table, and the figures as one line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="astro-x4")
    parser.add_argument("--side", type=int, default=512, help="side of the coarse frame, px")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: seconds of all threads together")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    parser.add_argument("--no-peers", action="store_true", help="leave out the networks of others")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only:
        print(json.dumps(measure(given.only, given.side, given.model, given.threads, given.clock)))
        return
    print(f"{given.model}, {given.side} x {given.side} px, {given.threads} threads, {given.clock} seconds\n")
    print("| method | s per output Mpix | peak MB | networks | operator | noise | rest | of the convolution peak |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    found = []
    for what in [LUCY, *OURS] if given.no_peers else methods():
        words = [sys.executable, __file__, *sys.argv[1:], "--only", what]
        found.append(json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout))
        print(row(found[-1]), flush=True)
    peaks = found[0]["conv_peak_gflops"]
    print(f"\nConvolution peak, GFLOP/s: {', '.join(f'{v:.0f} in {k}' for k, v in peaks.items())}.\n")
    text = json.dumps({"options": {k: str(v) for k, v in vars(given).items()}, "methods": found})
    print(text)
    if given.json:
        given.json.write_text(text + "\n")


if __name__ == "__main__":
    main()

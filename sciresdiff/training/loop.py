"""The training loop: report, save, stop or go on; batch, loss, step, average.  It knows no physics.

Progress is counted in samples.  A batch is a function of its number and the noise of a step of the sample count, so a
run that is stopped and started again goes through the same numbers as one that is not.
"""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from sciresdiff.diffusion.share import shared_generator
from sciresdiff.training import stopping
from sciresdiff.training.world import ALONE, World

MEASURED = 24
"""Batches after which the speed is known well enough to plan a budget in minutes."""
Say = Callable[[str], None]
Loss = Callable[[nn.Module, Any, torch.Generator], tuple[Tensor, dict[str, float]]]


@dataclass(frozen=True)
class LoopOptions:
    """How long and how fast."""

    batch: int = 16
    rate: float = 1e-3
    warmup: int = 1600
    """Samples over which the learning rate rises."""
    final_rate: float = 0.02
    """Share of the rate that is left at the end of a cosine decay."""
    clip: float = 1.0
    """Largest gradient norm."""
    average: float = 0.08
    """Length of the moving average of the weights, as a share of the samples seen."""
    minutes: float | None = None
    images: int | None = None
    """Budget in samples; wins over minutes."""
    interval: float = 120.0
    """Seconds between reports and saves."""
    seed: int = 0
    bf16: bool = True
    """Networks in bfloat16 where the machine has it in hardware; physics never."""


@dataclass
class State:
    """What a resumed run needs besides the weights."""

    seen: int = 0
    planned: int = 0
    seconds: float = 0.0
    running: float = 0.0
    """Running mean of the loss."""


def rate_at(seen: int, planned: int, options: LoopOptions) -> float:
    """The learning rate after ``seen`` samples: linear warm-up, cosine decay over the planned number."""
    rise = min(1.0, (seen + options.batch) / max(options.warmup, 1))
    share = min(1.0, seen / planned) if planned else 0.0
    fall = options.final_rate + (1 - options.final_rate) * 0.5 * (1 + np.cos(np.pi * share))
    return float(options.rate * rise * fall)


def follow(average: nn.Module, module: nn.Module, seen: int, options: LoopOptions) -> None:
    """Move the averaged weights towards the current ones (power-function average, Karras et al. 2024, Eq. 121)."""
    length = max(options.average * seen / options.batch, 1.0)
    with torch.no_grad():
        for a, b in zip(average.parameters(), module.parameters(), strict=True):
            a.lerp_(b, 1 / length)


def quick(bf16: bool) -> Callable[[nn.Module, Sequence[Tensor]], Tensor]:
    """How a network is evaluated in training: in bfloat16 where that is fast, and nothing but the network."""

    def run(net: nn.Module, parts: Sequence[Tensor]) -> Tensor:
        features = torch.cat(list(parts), dim=1).contiguous(memory_format=torch.channels_last)
        with torch.autocast(features.device.type, torch.bfloat16, enabled=bf16):
            out: Tensor = net(features)
        return out.float()

    return run


class Run:
    """One training run and its state file, which the first process of its world reads and writes."""

    def __init__(
        self, module: nn.Module, state_file: Path, options: LoopOptions, device: torch.device, world: World = ALONE
    ) -> None:
        """``module`` is trained in place; ``state_file`` is read if it exists."""
        self.module, self.file, self.options, self.device = module.to(device), state_file, options, device
        self.world, self.share = world, world.share(options.batch)
        self.average = deepcopy(self.module).requires_grad_(False)
        self.optimizer = torch.optim.Adam(self.module.parameters(), lr=options.rate, betas=(0.9, 0.98))
        self.state = State()
        there = world.first and state_file.exists()
        fresh = world.first and not there and not world.alone
        if begun := world.told(state_file.read_bytes() if there else self.packed() if fresh else b""):
            self.load(begun)

    def load(self, packed: bytes) -> None:
        """Take up a run where it was packed."""
        kept = torch.load(io.BytesIO(packed), map_location=self.device, weights_only=True)
        self.module.load_state_dict(kept["module"])
        self.average.load_state_dict(kept["average"])
        self.optimizer.load_state_dict(kept["optimizer"])
        self.state = State(**kept["state"])

    def packed(self) -> bytes:
        """All that a resumed run needs."""
        kept = {
            "module": self.module.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "state": asdict(self.state),
        }
        buffer = io.BytesIO()
        torch.save(kept, buffer)
        return buffer.getvalue()

    def save(self) -> None:
        """Write the state file, whole or not at all."""
        beside = self.file.with_suffix(".part")
        beside.write_bytes(self.packed())
        os.replace(beside, self.file)

    def step(self, batch: Any, loss: Loss) -> dict[str, float]:
        """One optimizer step on one batch, of which this process has its share.

        Returns
        -------
        Figures of the whole batch.
        """
        seed = self.options.seed * 1_000_003 + self.state.seen
        generator = shared_generator(seed, self.share[0], self.options.batch, self.device)
        for group in self.optimizer.param_groups:
            group["lr"] = rate_at(self.state.seen, self.state.planned, self.options)
        self.optimizer.zero_grad(set_to_none=True)
        value, parts = loss(self.module, batch, generator)
        weight = self.share[1] / self.options.batch
        (value * weight).backward()  # type: ignore[no-untyped-call]
        figures = self.world.mean({"loss": float(value.detach()), **parts}, weight)
        self.world.add(p.grad for p in self.module.parameters() if p.grad is not None)
        norm = nn.utils.clip_grad_norm_(self.module.parameters(), self.options.clip)
        if bool(torch.isfinite(norm)):  # a batch that overflows is skipped, not learned
            self.optimizer.step()
        self.state.seen += self.options.batch
        follow(self.average, self.module, self.state.seen, self.options)
        return {**figures, "norm": float(norm)}

    def plan(self) -> int:
        """How many samples the budget buys, fixed once so that a resumed run has the same schedule; 0: unknown yet."""
        if self.options.images or self.state.planned:
            return self.options.images or self.state.planned
        if self.state.seen < MEASURED * self.options.batch:
            return 0
        total = (self.options.minutes or 20.0) * 60
        seconds_per_sample = self.state.seconds / self.state.seen
        planned = max(self.options.batch, int(total / seconds_per_sample) // self.options.batch * self.options.batch)
        return int(self.world.told(str(planned).encode()))  # clocks differ


def fit(
    run: Run,
    batches: Callable[[int, int], Any],
    loss: Loss,
    validate: Callable[[nn.Module], dict[str, float]],
    snapshot: Callable[[nn.Module, State], None],
    say: Say,
) -> State:
    """Train until the budget is spent.

    Parameters
    ----------
    run : the module, its average and optimizer, perhaps taken up from a state file.
    batches : (number of the first sample, samples to the next batch) -> a batch.
    loss : (module, batch, generator) -> (scalar tensor, figures to report).
    validate : averaged module -> figures to report.
    snapshot : (averaged module, state) -> None; writes the usable model.
    say : takes one line for a person; a JSON line goes to the log beside the state file.

    Of several processes only the first one validates, writes and speaks. SIGTERM or SIGINT to any of them ends all
    after the step in hand, with the state saved.

    Returns
    -------
    The final state.
    """
    options, state = run.options, run.state
    last = time.monotonic()
    parts: dict[str, float] = {}

    def report() -> None:
        nonlocal last
        if run.world.first:
            told(run, {**parts, **validate(run.average)}, say)
            run.save()
            snapshot(run.average, state)
        last = time.monotonic()

    state.planned = run.plan()
    with stopping.noted() as came:
        while not state.planned or state.seen < state.planned:
            start = time.monotonic()
            batch = batches(state.seen, options.batch)
            parts = run.step(batch, loss)
            if np.isfinite(parts["loss"]):
                state.running += (parts["loss"] - state.running) * max(0.02, options.batch / state.seen)
            parts["loss"] = state.running
            state.seconds += time.monotonic() - start
            state.planned = run.plan()
            if signal := run.world.most(came()):
                break
            if time.monotonic() - last > options.interval:
                report()
        else:
            report()
            return state
    stopped(run, signal, say)


def told(run: Run, figures: Mapping[str, float], say: Say) -> None:
    """Say and log how far a run is."""
    state = run.state
    record = {"samples": state.seen, "planned": state.planned, "minutes": state.seconds / 60, **figures}
    with open(run.file.with_suffix(".jsonl"), "a") as log:
        log.write(json.dumps({k: round(v, 6) for k, v in record.items()}) + "\n")
    words = "  ".join(f"{k} {v:.4g}" for k, v in figures.items())
    say(f"{state.seen}/{state.planned or '?'} samples  {state.seconds / 60:.1f} min  {words}")


def stopped(run: Run, signal: int, say: Say) -> NoReturn:
    """Save a run that is to end before its time, and end it as the signal would have."""
    if run.world.first:
        run.save()
        say(f"stopped after {run.state.seen} samples; the same command goes on from there")
    run.world.most(signal)  # a launcher may kill all when the first one ends: not before the state is saved
    stopping.end(signal)

"""The training loop: plan, report and save, draw a batch, step.  It knows no physics.

Progress is counted in samples.  A batch is a function of its number and the noise of a step of the sample count, so a
run that is stopped and started again goes through the same numbers as one that is not.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from sciresdiff.diffusion.share import shared_generator
from sciresdiff.errors import InputError
from sciresdiff.files import open_plain, write_synced
from sciresdiff.io.atomic import write_atomic
from sciresdiff.training.process_group import SINGLE, ProcessGroup
from sciresdiff.training.signals import defer_signals, raise_deferred

MAGIC = b"sciresdiff state 1\n"
"""How a state file begins; then come the SHA-256 of the rest, 32 bytes, and the rest, which torch reads."""
_FOREIGN = (RuntimeError, ValueError, LookupError, TypeError, AttributeError, EOFError, UnpicklingError, OSError)
"""What torch raises for a file that is no state, or one of another network."""
TIMED_BATCHES = 24
"""Batches after which the speed is known well enough to plan a budget in minutes."""
Say = Callable[[str], None]
"""Takes one line for the user."""
Loss = Callable[[nn.Module, Any, torch.Generator], tuple[Tensor, dict[str, float]]]
"""(module, batch, generator) -> (scalar tensor, figures to report)."""


@dataclass(frozen=True)
class LoopOptions:
    """How long and how fast."""

    batch: int = 16
    """Samples of a step, of all processes together."""
    rate: float = 1e-3
    """Highest learning rate."""
    warmup: int = 1600
    """Samples over which the learning rate rises."""
    final_rate: float = 0.02
    """Share of the rate that is left at the end of a cosine decay."""
    clip: float = 1.0
    """Largest gradient norm."""
    average: float = 0.08
    """Length of the moving average of the weights, as a share of the samples seen."""
    minutes: float | None = None
    """Budget in minutes; 20 where no budget is given."""
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
    """Samples seen."""
    planned: int = 0
    """Samples in all; 0: not known yet."""
    seconds: float = 0.0
    """Time spent on steps."""
    running: float = 0.0
    """Running mean of the loss."""

    def average_loss(self, loss: float, batch: int) -> float:
        """Running mean of the loss after one more batch: over all batches at first, then over some fifty."""
        if np.isfinite(loss):
            self.running += (loss - self.running) * max(0.02, batch / self.seen)
        return self.running


def learning_rate(seen: int, planned: int, options: LoopOptions) -> float:
    """The learning rate after ``seen`` samples of ``planned``: linear warm-up times cosine decay.

    rate min(1, n / warmup) (f + (1 - f) (1 + cos(pi n / planned)) / 2), with f = ``final_rate``.
    """
    rise = min(1.0, (seen + options.batch) / max(options.warmup, 1))
    share = min(1.0, seen / planned) if planned else 0.0
    fall = options.final_rate + (1 - options.final_rate) * 0.5 * (1 + np.cos(np.pi * share))
    return float(options.rate * rise * fall)


def update_average(average: nn.Module, module: nn.Module, seen: int, options: LoopOptions) -> None:
    """Move the averaged weights towards the current ones.

    The length of the average grows with the samples seen, as in the power-function average of Karras et al. 2024
    (arXiv 2312.02696, Eq. 121), so that the first steps are forgotten whatever the budget.
    """
    length = max(options.average * seen / options.batch, 1.0)
    with torch.no_grad():
        for a, b in zip(average.parameters(), module.parameters(), strict=True):
            a.lerp_(b, 1 / length)


def mixed_precision(bf16: bool) -> Callable[[nn.Module, Sequence[Tensor]], Tensor]:
    """How a network is evaluated in training: in bfloat16 if ``bf16``, and nothing but the network.

    Returns
    -------
    (network, parts (B, ., h, w) of its input) -> its output (B, ., h, w), float32.
    """

    def run(net: nn.Module, parts: Sequence[Tensor]) -> Tensor:
        features = torch.cat(list(parts), dim=1).contiguous(memory_format=torch.channels_last)
        with torch.autocast(features.device.type, torch.bfloat16, enabled=bf16):
            out: Tensor = net(features)
        return out.float()

    return run


def read_state(path: Path) -> bytes:
    """The content of a state file.

    Raises
    ------
    InputError : it is no file, or an empty one.
    """
    content = path.read_bytes() if path.is_file() else b""
    if not content:
        raise InputError(describe_foreign(path, ValueError("no file, or an empty one")))
    return content


def strip_checksum(content: bytes) -> bytes:
    """What `Run.pack` put behind the checksum; **a state without one, of an earlier version, is taken as it is**.

    Raises
    ------
    ValueError : another checksum.
    """
    if not content.startswith(MAGIC):
        return content
    start = len(MAGIC) + hashlib.sha256().digest_size
    if hashlib.sha256(content[start:]).digest() != content[len(MAGIC) : start]:
        raise ValueError("its checksum is another one: it is damaged")
    return content[start:]


def describe_foreign(path: Path, problem: Exception) -> str:
    """The message that refuses a state file."""
    reason = (str(problem) or type(problem).__name__).split(" This file")[0].splitlines()[0][:120]
    return f"{path}: a training cannot be resumed from it ({reason}); remove it, or give --no-resume to begin anew"


class Run:
    """One training run and its state file, which the first process of the group reads and writes."""

    def __init__(
        self,
        module: nn.Module,
        state_file: Path,
        options: LoopOptions,
        device: torch.device,
        group: ProcessGroup = SINGLE,
    ) -> None:
        """Begin a run, or resume that of the state file.

        Parameters
        ----------
        module : what is trained, in place.
        state_file : read if it exists.
        options : the budget and the rates.
        device : where the module is trained.
        group : the processes that share the work.
        """
        self.module, self.file, self.options, self.device = module.to(device), state_file, options, device
        self.group, self.share = group, group.share(options.batch)
        self.average = deepcopy(self.module).requires_grad_(False)
        self.optimizer = torch.optim.Adam(self.module.parameters(), lr=options.rate, betas=(0.9, 0.98))
        self.state = State()
        # All processes begin with what the first one has: the state file, else its fresh weights.
        packed = b""
        if group.first and state_file.exists():
            packed = read_state(state_file)
        elif group.first and not group.alone:
            packed = self.pack()
        if packed := group.broadcast(packed):
            try:
                self.unpack(packed)
            except _FOREIGN as problem:
                raise InputError(describe_foreign(state_file, problem)) from None

    def pack(self) -> bytes:
        """All that a resumed run needs, as the bytes of a state file."""
        state = {
            "module": self.module.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "state": asdict(self.state),
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        packed = buffer.getvalue()
        return MAGIC + hashlib.sha256(packed).digest() + packed

    def unpack(self, packed: bytes) -> None:
        """Resume a run where it was packed; no code in it is run.

        Raises
        ------
        Exception : one of ``_FOREIGN``, for what is no state, or one of another network.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of unusual pickles: they are read or they are refused
            state = torch.load(io.BytesIO(strip_checksum(packed)), map_location=self.device, weights_only=True)
        self.module.load_state_dict(state["module"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        for parameter, moments in self.optimizer.state.items():  # which torch does not look at before the next step
            for name in ("exp_avg", "exp_avg_sq"):
                if moments[name].shape != parameter.shape:
                    raise ValueError(f"{name} of shape {tuple(moments[name].shape)}")
        self.state = State(**state["state"])
        if not all(
            isinstance(v, int | float) and 0 <= v < np.inf for v in asdict(replace(self.state, running=0)).values()
        ):
            raise ValueError(f"counts {self.state}")

    def save(self) -> None:
        """Write the state file, whole or not at all."""
        packed = self.pack()
        write_atomic({self.file: lambda part: write_synced(part, packed)}, overwrite=True)

    def step(self, batch: Any, loss: Loss) -> dict[str, float]:
        """Take one optimizer step on one batch, of which this process has its share.

        Returns
        -------
        Figures of the whole batch.
        """
        # Noise of the step: a function of the sample count, and of the sample within the batch.
        seed = self.options.seed * 1_000_003 + self.state.seen
        generator = shared_generator(seed, self.share[0], self.options.batch, self.device)
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = learning_rate(self.state.seen, self.state.planned, self.options)

        # Gradients: those of the shares add up to that of the batch's mean loss.
        self.optimizer.zero_grad(set_to_none=True)
        value, parts = loss(self.module, batch, generator)
        weight = self.share[1] / self.options.batch
        (value * weight).backward()  # type: ignore[no-untyped-call]
        figures = self.group.weighted_mean({"loss": float(value.detach()), **parts}, weight)
        self.group.all_reduce(p.grad for p in self.module.parameters() if p.grad is not None)

        # Weights, and their average.
        norm = nn.utils.clip_grad_norm_(self.module.parameters(), self.options.clip)
        if bool(torch.isfinite(norm)):  # a batch that overflows is skipped, not learned
            self.optimizer.step()
        self.state.seen += self.options.batch
        update_average(self.average, self.module, self.state.seen, self.options)
        return {**figures, "norm": float(norm)}

    def plan(self) -> int:
        """How many samples the budget buys.

        A budget in minutes is turned into samples once, after TIMED_BATCHES batches, so that a resumed run has the
        same schedule.

        Returns
        -------
        A multiple of the batch, or the budget in samples; 0: not known yet.
        """
        if self.options.images or self.state.planned:
            return self.options.images or self.state.planned
        if self.state.seen < TIMED_BATCHES * self.options.batch:
            return 0
        total = (self.options.minutes or 20.0) * 60
        seconds_per_sample = self.state.seconds / self.state.seen
        planned = max(self.options.batch, int(total / seconds_per_sample) // self.options.batch * self.options.batch)
        return int(self.group.broadcast(str(planned).encode()))  # the clocks of processes differ


def training_loop(
    run: Run,
    batches: Callable[[int, int], Any],
    loss: Loss,
    validate: Callable[[nn.Module], dict[str, float]],
    snapshot: Callable[[nn.Module, State], None],
    say: Say,
) -> State:
    """Train until the budget is spent.

    Of several processes only the first one validates, writes and reports.  SIGTERM or SIGINT to any of them ends all
    after the step in hand, with the state saved.

    Parameters
    ----------
    run : the module, its average and optimizer, perhaps resumed from a state file.
    batches : (number of the first sample, samples to the next batch) -> a batch.
    loss : (module, batch, generator) -> (scalar tensor, figures to report).
    validate : averaged module -> figures to report.
    snapshot : (averaged module, state) -> None; writes the usable model.
    say : takes one line for the user; a JSON line goes to the log beside the state file.

    Returns
    -------
    The final state.
    """
    options, state = run.options, run.state
    figures: dict[str, float] = {}
    last = time.monotonic()
    with defer_signals() as received:
        while True:
            # Plan: how many samples the budget buys.
            state.planned = run.plan()
            done = bool(state.planned) and state.seen >= state.planned

            # Stop, all processes together, when one of them got a signal.
            if signal := run.group.maximum(received()):
                break

            # Report, save and write the model, at intervals and at the end.
            if done or (figures and time.monotonic() - last > options.interval):
                if run.group.first:
                    report(run, {**figures, **validate(run.average)}, say)
                    run.save()
                    snapshot(run.average, state)
                last = time.monotonic()
            if done:
                return state

            # Step.
            start = time.monotonic()
            figures = run.step(batches(state.seen, options.batch), loss)
            figures["loss"] = state.average_loss(figures["loss"], options.batch)
            state.seconds += time.monotonic() - start
    stop(run, signal, say)


def report(run: Run, figures: Mapping[str, float], say: Say) -> None:
    """Report how far a run is: a line for the user, and one of JSON in the log."""
    state = run.state
    record = {"samples": state.seen, "planned": state.planned, "minutes": state.seconds / 60, **figures}
    with open(open_plain(run.file.with_suffix(".jsonl"), os.O_WRONLY | os.O_CREAT | os.O_APPEND), "a") as log:
        log.write(json.dumps({k: round(v, 6) for k, v in record.items()}) + "\n")
    words = "  ".join(f"{k} {v:.4g}" for k, v in figures.items())
    say(f"{state.seen}/{state.planned or '?'} samples  {state.seconds / 60:.1f} min  {words}")


def stop(run: Run, signal: int, say: Say) -> NoReturn:
    """Save a run that is to end before its time, and end it as the signal would have."""
    if run.group.first:
        run.save()
        say(f"stopped after {run.state.seen} samples; the same command goes on from there")
    run.group.maximum(signal)  # a launcher may kill all when the first one ends: not before the state is saved
    raise_deferred(signal)

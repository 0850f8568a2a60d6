"""The image of several exposures as it is written: its planes, its header cards and its record."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from sciresdiff import __version__, io
from sciresdiff.files import remove
from sciresdiff.frame import Frame
from sciresdiff.io.jsonable import write_json
from sciresdiff.io.sink import Plane, Sink
from sciresdiff.io.source import placeholder
from sciresdiff.jobs.blocks import Block
from sciresdiff.jobs.upscale.guard import CHANCE, HIGHEST_CHI2
from sciresdiff.jobs.upscale.header import PATHS, mean
from sciresdiff.jobs.upscale.integers import count_small_errors, describe_integers
from sciresdiff.jobs.upscale.joint_block import Done, JointJob
from sciresdiff.jobs.upscale.options import UpscaleOptions
from sciresdiff.notes import Notes
from sciresdiff.run.checksums import checksums
from sciresdiff.run.executor import Sums
from sciresdiff.run.journal import Journal
from sciresdiff.run.sink import Arrays


@dataclass(frozen=True)
class JointTask:
    """Exposures that are being restored."""

    target: Path
    job: JointJob
    blocks: list[Block]
    identity: Mapping[str, str]
    frame: Frame
    """Of the output, without values."""
    notes: Notes
    exposure: float | None
    """Total exposure time, s."""


@dataclass(frozen=True)
class JointFile:
    """The restored image as it is written; an `executor.Output`."""

    task: JointTask
    only: Done | None

    @property
    def cards(self) -> dict[str, Any]:
        """The header cards; those of figures hold their places."""
        job, joint = self.task.job, self.task.job.joint
        names = {f"SRDEXP{part.number:d}": Path(part.name).name[:60] for part in joint.parts[:99]}
        left = {} if job.left_out is None else {"SRDLEFT": job.left_out.parts[0].name[:60], "SRDLCHI2": 0.0}
        widened = {"SRDWIDEN": round(joint.widened, 4)} if joint.widened else {}
        options = job.options
        return {
            "SRDSCALE": round(joint.scale, 6),
            "SRDMODEL": "physics",
            "SRDSEED": options.seed,
            "SRDDRAWS": options.samples if options.refine else 0,
            "SRDCONS": options.consistency,
            "SRDTFWHM": joint.target_fwhm if joint.target_fwhm is not None else "UNKNOWN",
            **widened,
            "SRDNEXP": len(joint.parts),
            **names,
            "SRDTEXP": self.task.exposure,
            **left,
            "SRDCHI2": 0.0,
            "SRDFLUX": 0.0,
        }

    def open(self, part: Path | None) -> AbstractContextManager[Sink]:
        """Open the output with its planes."""
        options, joint = self.task.job.options, self.task.job.joint
        planes = {"ERR": Plane(), "SUPPORT": Plane(), "GATE": Plane(), "DQ": Plane(np.int32)}
        if options.save_samples and options.refine:
            planes["DRAWS"] = Plane(np.float32, options.samples)
        h, w = joint.grid.shape
        high = self.task.frame.with_(
            pixels=placeholder((1, h, w), np.float32),
            mask=placeholder((1, h, w), bool),
            variance=None, dq=None, saturated=None, flags=None,
            quantity=joint.quantity, kernel=None, kernel_scale=None,
        )  # fmt: skip
        return io.open_sink(
            self.task.target,
            high,
            planes=planes,
            provenance=self.cards,
            history=history(options, self.task),
            scale=1.0 if options.grid else joint.scale,
            overwrite=options.overwrite,
            dtype=options.dtype,
            pyramid=options.pyramid,
            part=part,
        )

    def split(self, done: Done) -> tuple[Arrays, Sums]:
        """The planes of a block, and what it adds to the record."""
        core = done.block.tile.core
        sums = {**done.sums, **count_small_errors(done.arrays["ERR"])}
        return [(name, 0, core.y0, core.x0, values) for name, values in done.arrays.items()], sums

    def finish(self, journal: Journal, sums: Sequence[Sums]) -> dict[str, Any]:
        """Give the output its name, and write its record beside it."""
        task = self.task
        assert journal.sink is not None
        figures = pool(task, sums)
        cards = {**self.cards, "SRDCHI2": round(figures["chi2"], 6), "SRDFLUX": round(figures["flux_ratio"], 9)}
        if figures["left_out"] is not None:
            cards["SRDLCHI2"] = round(figures["left_out"]["chi2"], 6)
        wrote = journal.sink.finish(cards)
        try:
            doubts, lines = judge(figures)
            clipped = max(wrote["clipped"], sum(one["clipped"] for one in sums))
            lines = [*lines, *describe_integers(journal.sink.dtype, clipped, sums)]
            record = {
                **make_record(task, cards, figures),
                **wrote,
                "doubts": doubts,
                "said": [*task.notes, *journal.notes, *lines],
            }
            record["checksums"] = checksums(wrote["files"])
            write_json(task.target.with_name(task.target.name + ".json"), record)
        except BaseException:  # an image without its sidecar is half an output
            if len(task.blocks) == 1:
                for file in wrote["files"]:
                    remove(Path(file))
            raise
        return record


def history(options: UpscaleOptions, task: JointTask) -> list[str]:
    """HISTORY cards: version, options, exposures, what was assumed; no clock, host or path."""
    given = replace(options, device="auto", threads=None)
    words = {f.name: getattr(given, f.name) for f in fields(given) if getattr(given, f.name) != f.default}
    words.pop("overwrite", None)
    for name in (*PATHS, "grid"):
        if isinstance(words.get(name), str):
            words[name] = " | ".join(os.path.basename(one.strip()) for one in words[name].split("|"))
    text = " ".join(f"{k}={v}" for k, v in sorted(words.items()))
    names = " ".join(Path(path).name for path in task.job.paths)
    notes = [line for line in task.notes if os.sep not in line]
    return [f"sciresdiff {__version__} upscale {names} {text}".rstrip(), *notes]


def pool(task: JointTask, sums: Sequence[Sums]) -> dict[str, Any]:
    """chi2 of every exposure and of all, flux, and the prediction of the one that was left out."""
    each = []
    for part in task.job.joint.parts:
        found = [one["chi2"][str(part.number)] for one in sums if str(part.number) in one["chi2"]]
        n = sum(pixels for _, pixels in found)
        chi2 = sum(value * pixels for value, pixels in found) / n if n else float("nan")
        each.append({"input": part.name, "chi2": chi2, "pixels": n, "flux": part.factor, "sky": part.sky})
    known = [one for one in each if one["pixels"]]
    total = sum(one["pixels"] for one in known)
    left_out = None
    if task.job.left_out is not None:
        found = [pair for one in sums for pair in one.get("left_out", [])]
        pixels = sum(n for _, n in found)
        chi2 = sum(value for value, _ in found) / pixels if pixels else float("nan")
        left_out = {"input": task.job.left_out.parts[0].name, "chi2": chi2, "pixels": pixels}
    return {
        "exposures": each,
        "chi2": sum(one["chi2"] * one["pixels"] for one in known) / total if total else float("nan"),
        "flux_ratio": mean([one["flux_ratio"] for one in sums], [one["total"] for one in sums]),
        "left_out": left_out,
        "masked": sum(one["masked"] for one in sums),
        "empty": sum(one["bad"] for one in sums),
    }


def judge(figures: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """What contradicts the data, by name and in words."""
    doubts, lines = [], []
    for one in figures["exposures"]:
        n = one["pixels"]
        if n and one["chi2"] > HIGHEST_CHI2 + CHANCE * (2 / n) ** 0.5:
            doubts.append("chi2")
            lines.append(
                f"WARNING chi2: {one['chi2']:.3g} of the image against {one['input']}, where 1 is right; look at its "
                "WCS (--align measure), noise and PSF"
            )
    if (left := figures["left_out"]) is not None:
        lines.append(f"left out: {left['input']}, predicted from the others with chi2 {left['chi2']:.3g}")
    return list(dict.fromkeys(doubts)), lines


def make_record(task: JointTask, cards: Mapping[str, Any], figures: Mapping[str, Any]) -> dict[str, Any]:
    """What the sidecar says of the image."""
    job = task.job
    return {
        "schema": 1,
        "input": job.paths[0],
        "inputs": list(job.paths),
        "output": str(task.target),
        "scale": job.joint.scale,
        "model": "physics",
        "quantity": job.joint.quantity,
        "target_fwhm_px": job.joint.target_fwhm,
        "sources": dict(task.notes.origins),
        "blocks": len(task.blocks),
        "chi2": [figures["chi2"]],
        "flux_ratio": [figures["flux_ratio"]],
        "exposures": figures["exposures"],
        "left_out": figures["left_out"],
        "exposure_time": task.exposure,
        "masked": figures["masked"],
        "empty": figures["empty"],
        "provenance": cards,
        "options": {f.name: getattr(job.options, f.name) for f in fields(job.options)},
        "version": __version__,
        "identity": dict(task.identity),
    }

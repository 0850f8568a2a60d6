"""The options of ``evaluate``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sciresdiff.observation.options import SWITCHES, Stated
from sciresdiff.options import CHECKS, INPUT, OUTPUT, option, same_as
from sciresdiff.run.options import ComputeOptions, RunOptions

DEFAULT_BASELINES = "bicubic,lanczos,richardson-lucy"


@dataclass(frozen=True)
class EvaluateOptions:
    """What is stated of the low frame, and which checks are run."""

    psf: str | None = same_as(Stated, "psf")
    kernel: str | None = same_as(Stated, "kernel")
    psf_error: float | None = same_as(Stated, "psf_error")
    target_fwhm: float | None = same_as(Stated, "target_fwhm")
    variance: str | None = same_as(Stated, "variance")
    quantity: Literal["sum", "mean"] | None = same_as(Stated, "quantity")
    sentinels: bool = same_as(Stated, "sentinels")
    padding: bool = same_as(Stated, "padding")
    absurd: bool = same_as(Stated, "absurd")
    saturated: bool = same_as(Stated, "saturated")
    hot_pixels: bool = same_as(Stated, "hot_pixels")
    cosmic: bool = same_as(Stated, "cosmic")
    baselines: str | Sequence[str] = option(
        "Classical methods to compare with: bicubic, lanczos, wiener, richardson-lucy (also -10, -60, -accelerated,"
        " -accelerated-best), or none.",
        DEFAULT_BASELINES,
        panel=CHECKS,
        metavar="LIST",
    )
    probe: bool = option(
        "Also restore blank sky and injected sources, with the settings in the image's sidecar.", False, panel=CHECKS
    )
    limits: str | Path | None = option("Your own limits, by check name.", None, panel=CHECKS, metavar="FILE.toml")
    device: str = same_as(ComputeOptions, "device")
    overwrite: bool = same_as(RunOptions, "overwrite")

    @property
    def stated(self) -> Stated:
        """What is stated of the low frame; its other settings are read or measured."""
        return Stated(
            psf=self.psf,
            kernel=self.kernel,
            psf_error=self.psf_error,
            target_fwhm=self.target_fwhm,
            quantity=self.quantity,
            variance=self.variance,
            **{name: getattr(self, name) for name in SWITCHES},
        )


@dataclass(frozen=True)
class EvaluateFiles:
    """Files beside the images: those that each is compared with, and those that the results are written to."""

    low: tuple[str, ...] = option("The frame that was restored; repeat for several.", (), panel=INPUT, metavar="LOW")
    truth: tuple[str, ...] = option("The true image, where it is known.", (), panel=INPUT, metavar="TRUTH")
    report: str | None = option(
        "Write a page to read; NAME.png for a picture, a folder for a page of each image and one over all.",
        None,
        panel=OUTPUT,
        metavar="PAGE.html",
    )
    csv: str | None = option("Write a table with one row an image.", None, panel=OUTPUT, metavar="FILE")
    csv_long: str | None = option(
        "Write a table with one row a result, the baselines' too.", None, panel=OUTPUT, metavar="FILE"
    )
    strict: bool = option("Exit with 4 where the verdict is fail.", False, panel=CHECKS)

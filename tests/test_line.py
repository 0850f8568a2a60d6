"""The main line through the public commands: sample frame -> degrade -> upscale -> evaluate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from astropy.io import fits
from typer.testing import CliRunner

from sciresdiff.cli.app import app


def srd(*words: object) -> list[dict[str, Any]]:
    """Run a command that has to succeed; its JSON records."""
    result = CliRunner().invoke(app, [*map(str, words), "--json", "-q"])
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 128 px corner of the sample frames, degraded by 2 and restored by the physics alone."""
    folder = tmp_path_factory.mktemp("line")
    samples = Path(__file__).resolve().parent.parent / "sample_data"
    with fits.open(samples / "47tuc.fits") as hdus:
        for hdu in hdus[1:]:
            hdu.data = hdu.data[:128, :128]
        hdus.writeto(folder / "truth.fits", output_verify="silentfix+ignore")
    tifffile.imwrite(folder / "truth.tif", tifffile.imread(samples / "celegans.tif")[:128, :128], imagej=True)
    for end, noise in (("fits", ["--gain", 10, "--read-noise", 160]), ("tif", ["--gain", 1, "--read-noise", 8])):
        low, high = folder / f"low.{end}", folder / f"high.{end}"
        srd("degrade", folder / f"truth.{end}", "-o", low, "--scale", 2, "--kernel", "gaussian:sigma=1.2px", *noise)
        srd("upscale", low, "-o", high, "--model", "physics", "--samples", 2)
    return folder


def test_the_file_that_degrade_wrote_says_all_that_upscale_needs(line: Path) -> None:
    with fits.open(line / "high.fits") as hdus:
        assert hdus["SCI"].shape == (128, 128)
        assert {"SCI", "ERR", "SUPPORT", "GATE", "DQ"} <= {hdu.name for hdu in hdus}
        assert hdus["SCI"].header["SRDSCALE"] == 2
    assert json.loads((line / "high.fits.json").read_text())["sources"]["psf"] == "file"
    assert tifffile.imread(line / "high.tif").shape == (128, 128)
    flags = tifffile.imread(line / "high_dq.tif")
    assert flags.shape == (128, 128) and flags.dtype == np.int32


def test_flux_is_kept_by_the_whole_line(line: Path) -> None:
    header = fits.getheader(line / "high.fits", "SCI")
    assert header["SRDFLUX"] == pytest.approx(1, abs=1e-3)  # closed to rounding, over valid pixels
    grey, fine = tifffile.imread(line / "low.tif"), tifffile.imread(line / "high.tif")
    assert fine.mean(dtype=float) == pytest.approx(grey.mean(dtype=float), rel=1e-3)  # the mean is closed to rounding


def test_the_same_command_twice_gives_the_same_bytes(line: Path) -> None:
    again = line / "again.fits"
    srd("upscale", line / "low.fits", "-o", again, "--model", "physics", "--samples", 2)
    assert again.read_bytes() == (line / "high.fits").read_bytes()


@pytest.mark.parametrize("end", ["fits", "tif"])
def test_evaluate_finds_the_restoration_better_than_bicubic(line: Path, end: str) -> None:
    (record,) = srd(
        "evaluate", line / f"high.{end}", "--low", line / f"low.{end}", "--truth", line / f"truth.{end}",
        "--baselines", "bicubic",
    )  # fmt: skip
    assert record["verdict"] in ("pass", "warn", "fail")
    assert (record["schema"], record["scale"]) == (1, 2)

    def psnr(results: list[dict[str, Any]]) -> float:
        return next(r["value"] for r in results if r["name"] == "psnr" and r["region"] == "all")

    least = psnr(record["baselines"]["bicubic"]) + 0.5  # dB; what knowing the kernel is worth at the very least
    assert psnr(record["results"]) > least
    assert np.isfinite([r["value"] for r in record["results"] if r["name"] == "chi2"]).all()


def test_evaluate_needs_no_truth(line: Path) -> None:
    (record,) = srd("evaluate", line / "high.fits", "--low", line / "low.fits")
    assert {"chi2", "total_flux_ratio"} <= {r["name"] for r in record["results"]}

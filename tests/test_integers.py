"""Images of whole numbers: what rounding and clipping lose is told."""

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from sciresdiff.cli.app import app
from sciresdiff.jobs.upscale.integers import count_small_errors, describe_integers


def upscale(tmp_path, photons: float, gain: float, *more: str, end: str = "tif") -> str:
    """What is said of an 8-bit or 16-bit frame of so many photons a pixel."""
    rng = np.random.default_rng(0)
    counts = np.rint(rng.poisson(photons, (32, 32)) / gain)
    tifffile.imwrite(tmp_path / "low.tif", counts.astype(np.uint8 if counts.max() < 256 else np.uint16))
    args = ["upscale", tmp_path / "low.tif", "-o", tmp_path / f"high.{end}", "--scale", "2", "--model", "physics"]
    args += ["--psf", "gaussian:fwhm=2.5px", "--gain", gain, "--read-noise", 0, "--offset", 0, "--samples", 2, *more]
    done = CliRunner().invoke(app, [str(arg) for arg in args])
    assert done.exit_code == 0, done.output
    return done.output


def test_rounding_below_the_error_is_told(tmp_path):
    assert "WARNING dtype: ERR is below 1 in" in upscale(tmp_path, 4, 4.0)


@pytest.mark.parametrize("more", [("--dtype", "float32")])
def test_floats_lose_nothing(tmp_path, more):
    assert "WARNING dtype" not in upscale(tmp_path, 4, 4.0, *more)


def test_an_error_of_many_counts_is_not_hidden(tmp_path):
    assert "WARNING dtype" not in upscale(tmp_path, 900, 0.1)


@pytest.mark.parametrize("end", ["tif", "ome.tif", "fits", "h5"])
def test_every_format_that_is_asked_for_integers_tells(tmp_path, end):
    assert "int16 rounds to whole numbers" in upscale(tmp_path, 4, 4.0, "--dtype", "int16", "--overwrite", end=end)


def test_what_is_counted():
    err = np.array([[0.5, 2.0, np.nan, 0.99]], np.float32)
    sums = [{**count_small_errors(err)}, {**count_small_errors(np.full((1, 4), np.nan, np.float32))}]
    assert sums[0] == {"below_one": 2, "errors": 3}
    assert "67 %" in describe_integers(np.uint16, 0, sums)[0]
    assert describe_integers(np.float32, 0, sums) == []
    assert "7 pixels are beyond uint8" in describe_integers(np.uint8, 7, sums[1:])[0]

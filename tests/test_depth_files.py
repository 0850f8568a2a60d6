"""Files of stacks in depth: time series, OME-Zarr, and files that do not say enough."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from sciresdiff import io
from sciresdiff.errors import InputError, UsageError
from sciresdiff.frame import PixelSize
from sciresdiff.jobs.upscale import job as upscale
from sciresdiff.jobs.upscale.options import UpscaleOptions
from sciresdiff.physics.depth import DepthOperator
from sciresdiff.physics.psf import microscope
from sciresdiff.physics.psf.microscope import Microscope

STATED = {"na": 1.2, "ri": 1.5, "wavelength": "550", "gain": 1.0, "read_noise": 1.0, "offset": 0.0}
SHAPE = 4, 24, 20
STEP = 0.3
POINT = 2, 11, 9


@pytest.fixture(scope="module", autouse=True)
def narrow():
    """Kernels of 25 px at most: files are tested here and not optics."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(microscope, "WIDEST", 12)
        yield


@pytest.fixture(scope="module")
def planes(narrow) -> np.ndarray:
    """(4, 24, 20): a point's light and noise."""
    psf, _ = Microscope(1.2, 1.5, 0.55).kernel(PixelSize(0.1, 0.1, "um"), STEP, 6)
    x = torch.zeros(1, *SHAPE, dtype=torch.float64)
    x[0][POINT] = 2000
    light = DepthOperator(SHAPE, 1, psf, dtype=torch.float64).apply(x)[0].numpy()
    return np.random.default_rng(0).poisson(light + 10).astype("f4")


def written(path: Path, y: np.ndarray, axes: str, step: float | None = STEP, pixel: float | None = 0.1) -> Path:
    sizes = {f"PhysicalSize{axis}Unit": "um" for axis in "XYZ"}
    sizes |= {} if pixel is None else {"PhysicalSizeX": pixel, "PhysicalSizeY": pixel}
    sizes |= {} if step is None else {"PhysicalSizeZ": step}
    tifffile.imwrite(path, y, metadata={"axes": axes, **sizes}, ome=True)
    return path


def run(path: Path, out: Path, **changes) -> dict:
    given = {**STATED, "scale": 1, "samples": 2, "overwrite": True, "checks": False, **changes}
    return upscale.run(path, out, UpscaleOptions(**given))


@pytest.fixture(scope="module")
def alone(planes, tmp_path_factory) -> np.ndarray:
    """What is restored of the stack without a time, noise of no draw."""
    folder = tmp_path_factory.mktemp("alone")
    run(written(folder / "low.ome.tif", planes, "ZYX"), folder / "out.ome.tif", refine=False)
    return tifffile.imread(folder / "out.ome.tif")


@pytest.mark.parametrize("axes", ["TZYX", "ZTYX"])
def test_every_time_of_a_series_is_restored_as_it_is_alone(planes, alone, tmp_path, axes):
    along = axes.index("T")
    series = np.stack([planes, planes[::-1]], along)
    record = run(written(tmp_path / "low.ome.tif", series, axes), tmp_path / "out.ome.tif", refine=False)
    found = tifffile.imread(tmp_path / "out.ome.tif")
    assert found.shape == series.shape
    assert len(record["chi2"]) == 8
    # noise and sky of every time are stated or its own, so that nothing of the others is in it
    np.testing.assert_allclose(np.take(found, 0, along), alone, rtol=1e-5, atol=1e-4 * alone.max())
    assert np.unravel_index(np.take(found, 1, along).argmax(), SHAPE)[0] == SHAPE[0] - 1 - POINT[0]


def test_a_stack_comes_from_and_goes_to_ome_zarr(planes, alone, tmp_path):
    pytest.importorskip("zarr", reason="the extra zarr is not installed")
    frame = io.read(written(tmp_path / "low.ome.tif", planes, "ZYX"))
    io.write(tmp_path / "low.ome.zarr", frame)
    run(tmp_path / "low.ome.zarr", tmp_path / "out.ome.zarr", refine=False)
    found = io.read(tmp_path / "out.ome.zarr")
    assert (found.axes, found.shape) == ("ZYX", SHAPE)
    assert found.facts["z_step"] == pytest.approx(STEP)
    np.testing.assert_allclose(found.pixels, alone, rtol=1e-6, atol=1e-6 * alone.max())


def refused(path: Path, **changes) -> str:
    with pytest.raises((InputError, UsageError)) as problem:
        run(path, path.with_name("out.ome.tif"), **changes)
    assert not path.with_name("out.ome.tif").exists()
    return str(problem.value)


def test_a_stack_of_unknown_sizes_is_refused_by_the_option_that_is_missing(planes, tmp_path):
    low = tmp_path / "low.ome.tif"
    lines = refused(written(low, planes, "ZYX", step=None)), refused(written(low, planes, "ZYX", pixel=None))
    for line, option in zip(lines, ("--z-step", "--pixel-size"), strict=True):
        assert f"give {option}" in line
        assert str(low) in line
        assert "\n" not in line


@pytest.mark.parametrize(
    ("shape", "words"),
    [((2, 15, 15), "has 2 planes"), ((15, 15), "has 1 planes"), ((5, 15, 15), "too near an edge")],
)
@pytest.mark.parametrize("spec", ["{}", "beads:{}"])
def test_a_psf_that_shows_no_depth_is_refused(planes, tmp_path, shape, words, spec):
    image = np.zeros(shape, "f4")
    image[(0, *(7,) * 2)[-len(shape) :]] = 100
    tifffile.imwrite(tmp_path / "psf.tif", image, metadata={"axes": "ZYX"[-len(shape) :]})
    optics = {"na": None, "ri": None, "wavelength": None}
    low = written(tmp_path / "low.ome.tif", planes, "ZYX")
    line = refused(low, psf=spec.format(tmp_path / "psf.tif"), **optics)
    assert "psf.tif" in line
    assert words in line or (spec != "{}" and "bead" in line)

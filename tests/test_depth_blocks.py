"""Stacks in depth that are cut into blocks, and the last look at what was restored of every plane."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from sciresdiff.frame import PixelSize
from sciresdiff.jobs.blocks import plan_stacks
from sciresdiff.jobs.upscale import job as upscale
from sciresdiff.jobs.upscale import piece
from sciresdiff.jobs.upscale.options import UpscaleOptions
from sciresdiff.physics.conjugate_residuals import LEFT, LEFT_RMS, is_solved, solve_by_conjugate_residuals
from sciresdiff.physics.consistency import Data, apply_covariance
from sciresdiff.physics.depth import DepthOperator
from sciresdiff.physics.psf import microscope
from sciresdiff.physics.psf.microscope import Microscope
from sciresdiff.physics.psf.volume import VolumePSF
from sciresdiff.run.shards import Shard

STATED = {"na": 1.2, "ri": 1.5, "wavelength": "550", "gain": 1.0, "read_noise": 1.0, "offset": 0.0}
BACKGROUND = 10.0


def psf_of(planes: int) -> VolumePSF:
    return Microscope(1.2, 1.5, 0.55).kernel(PixelSize(0.1, 0.1, "um"), 0.3, planes)[0]


@pytest.fixture(scope="module")
def stack(tmp_path_factory) -> Path:
    """Points in 4 planes of 64 x 64 px, with noise; a file that states all of its sizes."""
    rng, before = np.random.default_rng(2), microscope.WIDEST
    x = np.zeros((4, 64, 64))
    x[tuple(rng.integers(0, n, 12) for n in x.shape)] = 500
    microscope.WIDEST = 12
    try:
        y = DepthOperator(x.shape, 1, psf_of(6), dtype=torch.float64).apply(torch.from_numpy(x[None]))[0].numpy()
    finally:
        microscope.WIDEST = before
    path = tmp_path_factory.mktemp("stack") / "low.ome.tif"
    sizes = {f"PhysicalSize{axis}": 0.1 for axis in "XY"} | {f"PhysicalSize{axis}Unit": "um" for axis in "XYZ"}
    noisy = rng.poisson(y + BACKGROUND) + rng.normal(0, 1, y.shape)
    tifffile.imwrite(path, noisy.astype("f4"), metadata={"axes": "ZYX", "PhysicalSizeZ": 0.3, **sizes}, ome=True)
    return path


def cut(patch: pytest.MonkeyPatch) -> None:
    """Four blocks of 32 px and kernels of 25 px."""
    patch.setattr(microscope, "WIDEST", 12)
    patch.setattr(
        upscale,
        "plan_stacks",
        lambda inputs: plan_stacks(inputs.observation.depth.stacks, inputs.frame.pixels.shape[1:], 32, 16),
    )


@pytest.fixture
def in_parts(monkeypatch) -> None:
    """Of every test that restores."""
    cut(monkeypatch)


def run(path: Path, out: Path, shard: Shard | None = None, **changes) -> dict:
    given = {**STATED, "scale": 1, "samples": 2, "overwrite": True, "checks": False, **changes}
    return upscale.run(path, out, UpscaleOptions(**given), shard=shard)


def files_of(out: Path) -> dict[str, bytes]:
    """The output and its planes, without their names' first part."""
    stem = out.name.removesuffix(".ome.tif")
    return {p.name.removeprefix(stem): p.read_bytes() for p in out.parent.glob(f"{stem}*.tif")}


@pytest.fixture(scope="module")
def whole(stack, tmp_path_factory) -> dict[str, bytes]:
    """What one run over all blocks writes."""
    with pytest.MonkeyPatch.context() as patch:
        cut(patch)
        out = tmp_path_factory.mktemp("whole") / "a.ome.tif"
        assert run(stack, out)["blocks"] == 4
        return files_of(out)


def test_a_run_that_was_stopped_ends_with_the_bytes_of_one_that_was_not(stack, whole, in_parts, tmp_path, monkeypatch):
    real, calls = piece.restore_stack, []

    def stops(*args, **more):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args, **more)

    monkeypatch.setattr(piece, "restore_stack", stops)
    with pytest.raises(KeyboardInterrupt):
        run(stack, tmp_path / "b.ome.tif")
    assert not (tmp_path / "b.ome.tif").exists()
    run(stack, tmp_path / "b.ome.tif")
    assert len(calls) == 5  # two blocks were kept
    assert files_of(tmp_path / "b.ome.tif") == whole


def test_shards_write_the_bytes_of_one_run(stack, whole, in_parts, tmp_path):
    records = [run(stack, tmp_path / "c.ome.tif", Shard(n, 2), overwrite=False) for n in (2, 1)]
    assert records[0]["status"] == "waiting"
    assert files_of(tmp_path / "c.ome.tif") == whole


# the solver


def a_system(seed: int = 0) -> tuple[Data, torch.Tensor, torch.Tensor]:
    """Data of 4 x 12 x 10 px with masked ones, weights of the voxels and a right-hand side."""
    rng = np.random.default_rng(seed)
    operator = DepthOperator((4, 12, 10), 2, psf_of(6), (2, 4), dtype=torch.float64)
    tensor = lambda *shape: torch.from_numpy(rng.random((1, *shape)))  # noqa: E731
    valid = (tensor(4, 12, 10) > 0.1).double()
    data = Data(torch.zeros_like(valid), 0.5 + tensor(4, 12, 10), valid, operator)
    return data, 10 ** (3 * tensor(*operator.volume) - 1), valid * (10 * tensor(4, 12, 10) - 5)


@pytest.mark.parametrize("seed", [0, 1])
def test_what_is_solved_leaves_less_than_the_noise(seed, monkeypatch):
    monkeypatch.setattr(microscope, "WIDEST", 12)
    data, w2, r = a_system(seed)
    with torch.inference_mode():
        q = solve_by_conjugate_residuals(data, w2, r)
        left = (r - apply_covariance(data, w2, q)) * data.valid / data.noise.sqrt()
    assert not q[data.valid == 0].any()
    assert float(left.abs().max()) <= LEFT * (1 + 1e-6)
    assert float(left.square().sum()) <= LEFT_RMS**2 * float(data.valid.sum()) * (1 + 1e-6)


def test_the_misfit_falls_with_every_step(monkeypatch):
    monkeypatch.setattr(microscope, "WIDEST", 12)
    data, w2, r = a_system()
    sizes = []
    with torch.inference_mode():
        for most in range(1, 12):
            q = solve_by_conjugate_residuals(data, w2, r, most)
            left = (r - apply_covariance(data, w2, q)) * data.valid
            sizes.append(float((left.square() / data.noise).sum()))
    assert all(after <= before * (1 + 1e-9) for before, after in zip(sizes, sizes[1:], strict=False))


def test_a_solution_needs_every_pixel_to_be_near():
    valid = torch.ones(1, 1, 10, 10)
    far, near = torch.zeros(1, 1, 10, 10), torch.full((1, 1, 10, 10), 0.9 * LEFT_RMS)
    far[0, 0, 3, 3] = 1.1 * LEFT
    assert is_solved(near, valid) and not is_solved(far, valid) and not is_solved(near / 0.8, valid)


# the guard


def doubts(record: dict) -> tuple[list[str], list[str]]:
    return record["doubts"], [line for line in record["said"] if line.startswith("WARNING")]


def test_a_sound_stack_is_judged_and_passes(stack, in_parts, tmp_path):
    record = run(stack, tmp_path / "d.ome.tif")
    assert doubts(record) == ([], [])
    assert record["provenance"]["SRDGUARD"] == "passed"


@pytest.mark.parametrize(("gain", "name"), [(40.0, "chi2"), (0.2, "noise")])
def test_a_wrong_noise_is_told_of_a_volume(stack, in_parts, tmp_path, gain, name):
    read_noise = {40.0: 0.1, 0.2: 5.0}[gain]
    names, said = doubts(run(stack, tmp_path / "d.ome.tif", gain=gain, read_noise=read_noise, refine=False))
    assert names[0] == name
    told = [line for line in said if line.startswith(f"WARNING {name}") and "of plane" in line]
    assert len(told) == 3
    assert f"WARNING {name}: the same of 1 more planes" in said


def test_a_plane_that_does_not_fit_the_others_is_named(stack, in_parts, tmp_path):
    y = tifffile.imread(stack)
    y[2] += 60 * (np.indices((64, 64)).sum(0) % 2)  # a pattern that no light makes
    sizes = {f"PhysicalSize{axis}": 0.1 for axis in "XY"} | {f"PhysicalSize{axis}Unit": "um" for axis in "XYZ"}
    path = tmp_path / "low.ome.tif"
    tifffile.imwrite(path, y, metadata={"axes": "ZYX", "PhysicalSizeZ": 0.3, **sizes}, ome=True)
    _, said = doubts(run(path, tmp_path / "d.ome.tif", refine=False, hot_pixels=False, cosmic=False))
    assert any(line.startswith("WARNING chi2") and "of plane 2" in line for line in said)

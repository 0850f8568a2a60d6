"""Stacks in depth: the laws of the operator and of the PSF, and what is restored of points, beads and blocks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from sciresdiff.errors import InputError, UsageError
from sciresdiff.frame import PixelSize
from sciresdiff.io import open_files
from sciresdiff.jobs.blocks import plan_stacks
from sciresdiff.jobs.upscale import job as upscale
from sciresdiff.jobs.upscale import stack as stacks
from sciresdiff.jobs.upscale.options import UpscaleOptions
from sciresdiff.observation.depth import stacks_of
from sciresdiff.physics.consistency import Data, row_sum_bound
from sciresdiff.physics.depth import DepthOperator
from sciresdiff.physics.psf import microscope
from sciresdiff.physics.psf.microscope import Microscope
from sciresdiff.physics.psf.volume import VolumePSF
from sciresdiff.physics.psf.volume_image import Sampling, average_beads, find_centre, kernel_of_image
from sciresdiff.restoration.volume import level_error

PIXEL = PixelSize(0.1, 0.1, "um")
OPTICS = Microscope(1.2, 1.5, 0.55)
STEP = 0.3


def a_psf(planes: int = 4, scale: int = 1, **changes) -> VolumePSF:
    return replace(OPTICS, **changes).kernel(PIXEL.refine(scale), STEP, planes)[0]


def lopsided() -> VolumePSF:
    """A kernel without any symmetry, with negative lobes."""
    rng = np.random.default_rng(0)
    kernel = rng.normal(0.02, 0.3, (5, 7, 9))
    kernel[2, 3, 4] = 9
    return VolumePSF.of_array(kernel)


def an_operator(psf: VolumePSF, scale: int = 2, margin=(2, 3), quantity="sum") -> DepthOperator:
    return DepthOperator((3, 6, 5), scale, psf, margin, quantity, torch.float64)


def fwhm(line: np.ndarray) -> float:
    at = np.linspace(0, len(line) - 1, 40 * (len(line) - 1) + 1)
    return float((np.interp(at, np.arange(len(line)), line) > line.max() / 2).sum() / 40)


# the operator


@pytest.mark.parametrize("quantity", ["sum", "mean"])
@pytest.mark.parametrize("margin", [(0, 0), (2, 3), (0, 4)])
def test_the_adjoint_is_the_transpose(margin, quantity):
    op, rng = an_operator(lopsided(), margin=margin, quantity=quantity), np.random.default_rng(1)
    x, y = torch.from_numpy(rng.normal(size=(1, *op.volume))), torch.from_numpy(rng.normal(size=(1, *op.shape)))
    assert float((op.apply(x) * y).sum()) == pytest.approx(float((x * op.adjoint(y)).sum()), rel=1e-12)


def test_the_operator_is_a_sum_over_offsets_without_wrapping():
    # written out: y[z, Y, X] = sum over voxels and fine px of kernel[offset] x, zero beyond the volume
    psf, scale, (mz, m) = lopsided(), 2, (2, 3)
    op, rng = an_operator(psf, scale, (mz, m)), np.random.default_rng(2)
    x = rng.normal(size=op.volume)
    padded = np.pad(x, [(n // 2,) * 2 for n in psf.kernel.shape])
    flipped = psf.kernel[::-1, ::-1, ::-1].astype(float)
    windows = np.lib.stride_tricks.sliding_window_view(padded, psf.kernel.shape)
    blurred = (windows * flipped).sum((-3, -2, -1))[op.inside]
    low = blurred.reshape(3, 6, 2, 5, 2).sum((2, 4))
    assert np.allclose(op.apply(torch.from_numpy(x[None]))[0], low, atol=1e-10 * np.abs(low).max() + 1e-12)


def test_the_weighted_gram_is_its_parts():
    op, rng = an_operator(lopsided()), np.random.default_rng(3)
    y, w2 = torch.from_numpy(rng.normal(size=(1, *op.shape))), torch.from_numpy(rng.random((1, *op.volume)))
    assert torch.allclose(op.apply_weighted_gram(y, w2), op.apply(w2 * op.adjoint(y)))


def test_the_row_sums_bound_the_covariance():
    # Gershgorin: no eigenvalue of M^-1 (A S A^T + N) above 1, for a kernel with negative lobes, too
    op, rng = an_operator(lopsided()), np.random.default_rng(4)
    w2, noise = torch.from_numpy(rng.random((1, *op.volume))), torch.ones(1, *op.shape, dtype=torch.float64)
    bound = row_sum_bound(op, w2, noise)
    v = torch.from_numpy(rng.normal(size=(1, *op.shape)))
    for _ in range(50):
        v = (op.apply_weighted_gram(v, w2) + noise * v) / bound
        size = float(v.norm())
        v = v / size
    assert size <= 1 + 1e-9


def test_the_light_of_a_point_in_focus_falls_on_its_plane_once():
    op = DepthOperator((5, 40, 40), 2, a_psf(6, 2), (0, 0), dtype=torch.float64)
    x = torch.zeros(1, *op.volume, dtype=torch.float64)
    x[0, 2, 40, 40] = 1
    seen = op.apply(x)[0].sum((-2, -1))
    assert float(seen[2]) == pytest.approx(1, abs=0.03)  # wings beyond 40 px
    assert torch.allclose(seen, seen[2].expand(5), atol=0.02)  # every plane of a widefield stack sees all of it


def test_a_map_of_the_planes_is_spread_and_cropped_to_itself():
    op = an_operator(lopsided())
    y = torch.arange(90, dtype=torch.float64).reshape(1, 3, 6, 5)
    wide = op.spread(y)
    assert wide.shape == (1, *op.volume)
    assert torch.equal(op.crop(wide)[..., ::2, ::2], y)


@pytest.mark.parametrize("kwargs", [{"shape": (0, 4, 4)}, {"margin": (-1, 0)}])
def test_an_operator_without_a_voxel_is_refused(kwargs):
    with pytest.raises(InputError, match="depth"):
        DepthOperator(**{"shape": (2, 4, 4), "scale": 1, "psf": lopsided(), **kwargs})


# the PSF


@pytest.mark.parametrize("vectorial", [False, True])
def test_every_plane_of_a_widefield_psf_has_the_same_light(vectorial):
    r, z = np.arange(0, 30, 0.02), np.array([0.0, 1.0])
    light = (replace(OPTICS, vectorial=vectorial).intensity(r, z) * 2 * np.pi * r).sum(1) * 0.02
    assert np.allclose(light, 1, atol=0.01)  # wings beyond 30 um: wavelength / (pi^2 NA r)


def test_the_psf_in_focus_is_the_airy_pattern():
    from scipy.special import j1

    r = np.arange(0.01, 1, 0.01)
    v = 2 * np.pi * r * OPTICS.na / OPTICS.wavelength
    found = OPTICS.intensity(r, np.zeros(1))[0]
    peak = np.pi * (OPTICS.na / OPTICS.wavelength) ** 2  # of a pattern whose integral is 1
    assert np.allclose(found, peak * (2 * j1(v) / v) ** 2, rtol=1e-6, atol=1e-9)


def test_a_pinhole_and_a_sheet_narrow_the_psf_along_z():
    wide, confocal, sheet = (fwhm(a_psf(8, **x).axial) for x in ({}, {"pinhole": 0.5}, {"sheet": 0.6}))
    assert confocal < 0.9 * wide
    assert sheet < 0.9 * wide
    # a wide pinhole leaves the excitation's own width: the product with a constant
    assert fwhm(a_psf(8, pinhole=8.0).axial) == pytest.approx(wide, rel=0.06)


def test_a_specimen_of_another_index_makes_the_psf_uneven_along_z():
    even, uneven = a_psf(6).axial, a_psf(6, sample_ri=1.33, sample_depth=10.0).axial
    assert np.allclose(even, even[::-1], rtol=1e-3)
    assert not np.allclose(uneven, uneven[::-1], rtol=0.2)


def test_an_aperture_that_no_ray_has_is_refused():
    with pytest.raises(UsageError, match="--ri"):
        replace(OPTICS, ri=1.1)


@pytest.mark.parametrize("shift", [(0, 0, 0), (0.3, -0.4, 0.2), (1.0, 2.0, -1.0)])
def test_an_image_of_a_psf_is_centred(shift):
    z, y, x = np.indices((15, 31, 31)) - np.array([7, 15, 15])[:, None, None, None]
    image = np.exp(-0.5 * (((z - shift[0]) / 2) ** 2 + ((y - shift[1]) / 2) ** 2 + ((x - shift[2]) / 2) ** 2))
    assert np.allclose(find_centre(image), np.array([7, 15, 15]) + shift, atol=0.05)
    psf, _ = kernel_of_image(image, Sampling((1, 1, 1), (1, 0.5, 0.5)), "psf")
    assert np.allclose(find_centre(psf.kernel.astype(float)), [n // 2 for n in psf.kernel.shape], atol=0.1)
    # the image's pixel is taken off and the finer one put on: variances of boxes are side^2 / 12
    line = psf.focus.sum(0)
    at = 0.5 * (np.arange(len(line)) - len(line) // 2)
    assert float((line * at**2).sum() / line.sum()) == pytest.approx(4 - 1 / 12 + 0.25 / 12, rel=0.03)


def test_an_image_of_other_planes_is_brought_to_those_of_the_stack():
    z, y, x = np.indices((41, 31, 31)) - np.array([20, 15, 15])[:, None, None, None]
    image = np.exp(-0.5 * ((z / 6) ** 2 + (y / 2) ** 2 + (x / 2) ** 2))
    psf, _ = kernel_of_image(image, Sampling((0.1, 1, 1), (0.3, 1, 1)), "psf")
    assert fwhm(psf.axial) == pytest.approx(2.355 * 2, rel=0.02)


@pytest.mark.parametrize("planes", [1, 2])
def test_an_image_of_one_or_two_planes_is_no_psf_in_depth(planes):
    with pytest.raises(InputError, match=f"has {planes} planes"):
        kernel_of_image(np.ones((planes, 9, 9)), Sampling((1, 1, 1), (1, 1, 1)), "psf")


def test_isolated_beads_are_averaged_without_their_background():
    rng, psf = np.random.default_rng(5), a_psf(8)
    stack = np.full((17, 90, 90), 20.0)
    half = [n // 2 for n in psf.kernel.shape]
    core = psf.kernel[:, half[1] - 10 : half[1] + 11, half[2] - 10 : half[2] + 11]
    for y, x in ((20, 20), (20, 70), (70, 40)):
        stack[:, y - 10 : y + 11, x - 10 : x + 11] += 4000 * core
    mean, count = average_beads(rng.poisson(stack).astype(float), "beads")
    assert count == 3
    assert fwhm(mean[:, mean.shape[1] // 2, mean.shape[2] // 2]) == pytest.approx(fwhm(psf.axial), rel=0.05)
    assert np.median(mean[:, :2, :2]) == 0


@pytest.mark.parametrize("stack", [np.zeros((9, 20, 20)), np.ones((9, 20, 20))])
def test_a_stack_without_beads_is_refused(stack):
    with pytest.raises(InputError, match="bead"):
        average_beads(stack, "beads")


# restoring files


@pytest.fixture
def narrow(monkeypatch) -> None:
    """Kernels of 49 px at most: the laws are the same, and the transforms a sixteenth."""
    monkeypatch.setattr(microscope, "WIDEST", 24)


STATED = {"na": 1.2, "ri": 1.5, "wavelength": "550", "gain": 1.0, "read_noise": 1.0, "offset": 0.0}
POINTS = ((3, 12, 12, 3000.0), (6, 20, 28, 3000.0), (7, 33, 10, 1500.0))
"""z, y, x and light of points in a stack of 10 planes."""


def a_scene(scale: int = 1, shape=(10, 44, 40)) -> tuple[np.ndarray, np.ndarray]:
    """Emitters on the fine grid, and the planes without noise."""
    z, h, w = shape
    x = np.zeros((z, scale * h, scale * w))
    for plane, row, column, light in POINTS:
        x[plane, scale * row, scale * column] = light
    op = DepthOperator(shape, scale, a_psf(12, scale), dtype=torch.float64)
    return x, op.apply(torch.from_numpy(x[None]))[0].numpy() + 10.0


def written(path: Path, y: np.ndarray, axes: str = "ZYX", step: float | None = STEP) -> Path:
    sizes = {f"PhysicalSize{axis}": 0.1 for axis in "XY"} | {f"PhysicalSize{axis}Unit": "um" for axis in "XYZ"}
    sizes |= {} if step is None else {"PhysicalSizeZ": step}
    tifffile.imwrite(path, y.astype("f4"), metadata={"axes": axes, **sizes}, ome=True)
    return path


def restored(path: Path, **changes) -> tuple[np.ndarray, np.ndarray, dict]:
    options = UpscaleOptions(**{**STATED, "scale": 1, "samples": 8, "overwrite": True, "checks": False, **changes})
    out = path.with_name("out.ome.tif")
    record = upscale.run(path, out, options)
    return tifffile.imread(out), tifffile.imread(path.with_name("out_err.tif")), record


def test_points_are_put_back_where_they_are_with_their_light_and_width(narrow, tmp_path):
    _, y = a_scene()
    noisy = np.random.default_rng(0).poisson(y).astype(float)
    image, err, record = restored(written(tmp_path / "low.ome.tif", noisy))
    light = image - np.median(image)
    for z, row, column, flux in POINTS:
        here = light[z - 3 : z + 4, row - 4 : row + 5, column - 4 : column + 5][: 10 - z + 3]
        assert here.sum() == pytest.approx(flux, rel=0.06)
        centre = find_centre(here)
        assert np.allclose(centre, (3, 4, 4), atol=0.15)
        assert fwhm(here.sum((1, 2))) == pytest.approx(2.0, rel=0.25)  # the wanted volume's, planes
    assert 0.6 < np.mean(record["chi2"]) < 1.1
    assert (err > 0).all()
    assert any(line.startswith("depth: 10 planes") for line in record["said"])
    assert any(line.startswith("model: physics") for line in record["said"])


def test_the_error_of_a_volume_covers_what_is_wrong(narrow, tmp_path):
    rng = np.random.default_rng(1)
    x = np.zeros((8, 40, 40))
    x[tuple(rng.integers(0, n, 60) for n in x.shape)] = rng.gamma(2.0, 400.0, 60)
    psf = a_psf(10)
    y = DepthOperator((8, 40, 40), 1, psf, dtype=torch.float64).apply(torch.from_numpy(x[None]))[0].numpy() + 10
    image, err, _ = restored(written(tmp_path / "low.ome.tif", rng.poisson(y).astype(float)))
    from scipy.ndimage import gaussian_filter

    truth = gaussian_filter(x, 2 / 2.355, mode="constant")
    lit = truth > 1.0
    assert 0.55 < float((np.abs(image - 10 - truth) < err)[lit].mean()) < 0.85


def test_samples_of_a_volume_hold_the_error_of_sums(narrow, tmp_path):
    from scipy.ndimage import gaussian_filter, uniform_filter

    rng = np.random.default_rng(3)
    x = np.zeros((8, 40, 40))
    x[tuple(rng.integers(1, n - 1, 60) for n in x.shape)] = rng.gamma(2.0, 400.0, 60)
    clean = DepthOperator(x.shape, 1, a_psf(10), dtype=torch.float64).apply(torch.from_numpy(x[None]))[0].numpy()
    path = written(tmp_path / "low.ome.tif", rng.poisson(clean + 10).astype(float))
    image, _, _ = restored(path, save_samples=True)
    draws = tifffile.imread(path.with_name("out_draws.tif")).reshape(8, -1, 40, 40).swapaxes(0, 1)
    truth = gaussian_filter(x, 2 / 2.355, mode="constant") + 10
    sums = [uniform_filter(one, (3, 5, 5)) for one in (image - truth, *(one - image for one in draws))]
    # light is everywhere in so small a stack and goes into its level, which no sample knows: above the level, then
    off, *scatter = [one - np.median(one) for one in sums]
    held = np.abs(off) <= np.sqrt(np.mean(np.square(scatter), 0))
    # 8 x 40 x 40 voxels are 170 independent sums, 4 % of 0.683; of what no data hold the size alone is known
    assert 0.5 < float(held[truth > 11].mean()) < 0.85


def test_the_level_is_less_certain_where_light_is_everywhere():
    psf, rng = a_psf(10), np.random.default_rng(0)
    operator = DepthOperator((8, 40, 40), 1, psf)
    data = Data(torch.zeros(1, 8, 40, 40), torch.ones(1, 8, 40, 40), torch.ones(1, 8, 40, 40), operator)
    u = torch.zeros(1, 8, 40, 40)
    empty = level_error(data, u)
    u[(0, *(torch.from_numpy(rng.integers(0, n, 200)) for n in (8, 40, 40)))] = 50.0
    # the lowest hundredth of 8 planes of 64 means over 25 px of noise 1 scatters by some tenths of 1/5
    assert 0.01 < empty < 0.1 < level_error(data, u)


def test_a_stack_in_blocks_is_the_stack_at_once(narrow, tmp_path, monkeypatch):
    x = np.zeros((5, 96, 96))
    rng = np.random.default_rng(2)
    x[tuple(rng.integers(0, n, 80) for n in x.shape)] = 2000
    y = DepthOperator((5, 96, 96), 1, a_psf(8), dtype=torch.float64).apply(torch.from_numpy(x[None]))[0].numpy() + 10
    path = written(tmp_path / "low.ome.tif", rng.poisson(y).astype(float))
    whole, err, one = restored(path, samples=2)

    def in_parts(inputs):
        return plan_stacks(inputs.observation.depth.stacks, inputs.frame.pixels.shape[1:], 48, 32)

    monkeypatch.setattr(upscale, "plan_stacks", in_parts)
    parts, _, several = restored(path, refine=False)
    assert (one["blocks"], several["blocks"]) == (1, 4)
    # Richardson-Lucy of the parts stops where the middle of the stack does; what differs is far below the error
    assert float(np.sqrt(np.mean((parts - whole) ** 2))) < 0.35 * float(np.sqrt(np.mean(err**2)))


def test_times_and_channels_are_stacks_of_their_own(narrow, tmp_path):
    _, y = a_scene(shape=(10, 44, 40))
    stack = np.random.default_rng(3).poisson(np.stack([y, 2 * y])).astype(float)
    image, _, record = restored(written(tmp_path / "low.ome.tif", stack, "CZYX"), wavelength="550,650", samples=2)
    assert image.shape == stack.shape
    assert len(record["chi2"]) == 20
    said = [line for line in record["said"] if line.startswith("psf: widefield")]
    assert len(said) == 2
    assert "550 nm" in said[0]
    assert "650 nm" in said[1]


@pytest.mark.parametrize(
    ("axes", "shape", "expected"),
    [
        ("ZYX", (3, 1, 1), ((0, 1, 2),)),
        ("CZYX", (2, 3, 1, 1), ((0, 1, 2), (3, 4, 5))),
        ("ZCYX", (3, 2, 1, 1), ((0, 2, 4), (1, 3, 5))),
        ("TZCYX", (2, 2, 2, 1, 1), ((0, 2), (1, 3), (4, 6), (5, 7))),
    ],
)
def test_the_planes_of_a_stack_differ_in_z_alone(axes, shape, expected, tmp_path):
    from sciresdiff.frame import Frame

    nothing = np.zeros((int(np.prod(shape[:-2])), 1, 1), np.float32)
    assert stacks_of(Frame(nothing, nothing > 0, "micro", axes=axes, shape=shape)) == expected


# what is refused, and what is said


def refused(path: Path, **changes) -> str:
    with pytest.raises((InputError, UsageError)) as problem:
        restored(path, **changes)
    return str(problem.value)


@pytest.fixture
def a_file(narrow, tmp_path):
    return written(tmp_path / "low.ome.tif", np.random.default_rng(0).poisson(a_scene()[1]).astype(float))


def test_a_stack_without_the_distance_of_its_planes_is_refused(narrow, tmp_path):
    path = written(tmp_path / "low.ome.tif", a_scene()[1], step=None)
    assert "--z-step" in refused(path)
    image, _, _ = restored(path, z_step="0.3um", refine=False)
    assert np.isfinite(image).all()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"na": None, "wavelength": None, "ri": None}, "--depth plane"),
        ({"ri": None}, "--ri"),
        ({"psf": "gaussian:fwhm=3px", "na": None, "wavelength": None, "ri": None}, "is the PSF of one plane"),
        ({"kernel": "gaussian:sigma=1px"}, "is the blur of one plane"),
        ({"psf": "measure"}, "is measured on one plane"),
        ({"psf": "beads:"}, "needs a file"),
        ({"z_step": "far"}, "--z-step"),
        ({"z_step": "2arcsec"}, "--z-step"),
        ({"sample_ri": 1.4}, "--sample-depth"),
        ({"sheet": 2.0, "pinhole": 1.0}, "--sheet"),
        ({"model": "micro-x2", "scale": 2}, "--depth plane"),
        ({"consistency": "exact"}, "--consistency"),
        ({"target_fwhm": 9.0}, "target"),
    ],
)
def test_what_does_not_fit_a_stack_is_refused_in_words(a_file, changes, words):
    assert words in refused(a_file, **changes)


def test_depth_of_what_is_no_stack_is_refused(tmp_path):
    path = tmp_path / "low.tif"
    tifffile.imwrite(path, a_scene()[1][5].astype("f4"))
    assert "no z-stack" in refused(path, depth="3d")


def test_plane_by_plane_is_what_assume_2d_is(a_file):
    one = restored(a_file, depth="plane", refine=False, model="physics", psf="airy:na=1.2,wavelength=550nm", na=None,
                   wavelength=None, ri=None)  # fmt: skip
    two = restored(a_file, assume_2d=True, refine=False, model="physics", psf="airy:na=1.2,wavelength=550nm", na=None,
                   wavelength=None, ri=None)  # fmt: skip
    assert np.array_equal(one[0], two[0])


def test_a_psf_of_other_planes_is_interpolated_and_said(tmp_path, a_file):
    psf, _ = OPTICS.kernel(PIXEL, 0.1, 30)
    middle = psf.kernel.shape[1] // 2
    core = psf.kernel[:, middle - 20 : middle + 21, middle - 20 : middle + 21]
    sizes = {f"PhysicalSize{axis}Unit": "um" for axis in "XYZ"} | {"PhysicalSizeX": 0.1, "PhysicalSizeY": 0.1}
    tifffile.imwrite(tmp_path / "psf.ome.tif", core, metadata={"axes": "ZYX", "PhysicalSizeZ": 0.1, **sizes}, ome=True)
    changes = {"na": None, "wavelength": None, "ri": None, "samples": 2}
    image, _, record = restored(a_file, psf=str(tmp_path / "psf.ome.tif"), **changes)
    said = " ".join(record["said"])
    assert "0.1 um apart, those of the stack 0.3; interpolated" in said
    z, row, column, flux = POINTS[1]
    light = image - np.median(image)
    assert light[z - 3 :, row - 4 : row + 5, column - 4 : column + 5].sum() == pytest.approx(flux, rel=0.15)


def test_a_volume_comes_out_of_python_as_it_does_out_of_a_file(a_file):
    import sciresdiff

    image, err, _ = restored(a_file, samples=2)
    found = sciresdiff.restore(a_file, **{**STATED, "scale": 1, "samples": 2, "save_samples": True, "checks": False})
    assert np.array_equal(found.sci, image)
    assert np.array_equal(found.err, err)
    assert found.draws.shape == (10, 2, 44, 40)


def test_a_volume_is_not_judged_plane_by_plane(a_file):
    from sciresdiff.jobs.evaluate.sidecar import Sidecar

    restored(a_file, refine=False)
    with pytest.raises(InputError, match="restored in depth"):
        Sidecar.read(a_file.with_name("out.ome.tif"), a_file)


def test_a_noise_that_is_far_too_small_is_told(a_file):
    _, _, record = restored(a_file, refine=False, gain=40.0)
    assert any(line.startswith("WARNING chi2") for line in record["said"])


def test_data_of_a_stack_are_in_the_noise_of_all_its_planes(a_file):
    options = UpscaleOptions(**{**STATED, "scale": 1})
    from sciresdiff.jobs.upscale.inputs import resolve_source
    from sciresdiff.observation.sample import samples_of_source
    from sciresdiff.observation.stack import Stack
    from sciresdiff.region import Region
    from sciresdiff.tiling import Tile

    with open_files.use(a_file) as held:
        inputs = resolve_source(a_file, held.source, options)
        samples = samples_of_source(inputs.observation.exposure.image)
        inputs = stacks.with_stack_statistics(inputs, samples, stacks.plan_stacks(inputs))
        region = Region(0, 44, 0, 40)
        data = Stack.of_window(inputs.observation, 0, Tile(region, region)).data()
    assert isinstance(data, Data)
    assert data.y.shape == (1, 10, 44, 40)
    assert inputs.observation.depth.statistics[0].sky == pytest.approx(10, abs=1.5)

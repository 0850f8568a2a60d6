"""Several exposures of one field: where they lie, what they see of an image, and one image of all."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from astropy.io import fits
from astropy.wcs import WCS
from dithers import Taken, draw, make_sky, turn
from scipy.ndimage import gaussian_filter
from test_psf_on_grid import lopsided
from typer.testing import CliRunner

from sciresdiff.cli.app import app
from sciresdiff.errors import InputError
from sciresdiff.io import open_source
from sciresdiff.jobs.upscale import joint as job
from sciresdiff.jobs.upscale.options import UpscaleOptions
from sciresdiff.observation.joint import Joint
from sciresdiff.observation.options import Stated
from sciresdiff.observation.placement import Placement, between, sky_of
from sciresdiff.observation.psf_on_grid import psf_on_grid
from sciresdiff.observation.resolve_joint import Given, resolve_joint
from sciresdiff.observation.sharper_target import MOST_LOBES, largest_lobes, resolve_sharper
from sciresdiff.physics.exposures import ExposuresOperator, Seen
from sciresdiff.physics.operators import Operator
from sciresdiff.physics.psf.field import PSF
from sciresdiff.physics.psf.kernel import gaussian, kernel_from_psf, moffat
from sciresdiff.physics.psf.profile_fit import profile_of, same_size
from sciresdiff.physics.psf.regrid import regrid_kernels
from sciresdiff.physics.resample import corners_of, resample
from sciresdiff.region import Region
from sciresdiff.restoration.joint import measure_joint, restore_joint
from sciresdiff.restoration.settings import Settings
from sciresdiff.tiling import Tile

PIXEL = 0.1 / 3600
"""Side of a pixel of the exposures, degrees."""
SIGMA = 0.9
"""Blur of the exposures, px of the truth."""
TURNED = ((0.0, (0.0, 0.0)), (0.4, (0.3, -0.7)), (-0.3, (-0.45, 1.2)))
"""Degrees and shift (y, x), px of the first exposure."""


def place_of(degrees: float, shift: tuple[float, float], side: int):
    """Pixels of an exposure -> pixels of the first one."""
    t, middle = np.radians(degrees), (side - 1) / 2
    turn = np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]])
    return lambda p: (p - middle) @ turn.T + middle + np.array(shift)


def header_of(degrees: float, shift: tuple[float, float], side: int) -> fits.Header:
    """The WCS of an exposure, such that the first one's is undistorted."""
    place, middle = place_of(degrees, shift, side), (side - 1) / 2
    steps = np.array([place(np.array(p)) - place(np.zeros(2)) for p in ([0.0, 1.0], [1.0, 0.0])])[:, ::-1].T
    cd = np.array([[-PIXEL, 0], [0, PIXEL]]) @ steps
    # the place that lies on the first exposure's middle
    back = np.linalg.solve(steps[::-1, ::-1], middle - place(np.zeros(2)))
    cards = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.1, "CRVAL2": 2.2, "CUNIT1": "deg"}
    cards |= {"CUNIT2": "deg", "CRPIX1": back[1] + 1, "CRPIX2": back[0] + 1, "BUNIT": "electron"}
    cards |= {f"CD{i + 1}_{j + 1}": cd[i, j] for i in (0, 1) for j in (0, 1)}
    header = fits.Header()
    header.update(cards)
    return header


def make_truth(side: int, seed: int = 3) -> np.ndarray:
    """Stars of FWHM 2 px on a sky, on a grid twice as fine."""
    rng, n = np.random.default_rng(seed), 2 * side
    image, (yy, xx) = np.zeros((n, n)), np.mgrid[:n, :n]
    for _ in range(side // 2):
        y, x = rng.uniform(4, n - 4, 2)
        image += 10 ** rng.uniform(3, 4.6) * np.exp(-4 * np.log(2) * ((yy - y) ** 2 + (xx - x) ** 2) / 4) / 4.53
    return image + 15


def whole_psf(side: int = 21) -> np.ndarray:
    """The PSF with target and pixel, on the pixels of an exposure: sums of two pixels of the truth."""
    u = (np.arange(side * 2) + 0.5) / 2 - side / 2
    line = np.exp(-0.5 * (2 * u) ** 2 / (SIGMA**2 + (2 / 2.35482) ** 2)).reshape(side, 2).sum(1)
    image = np.outer(line, line)
    return image / image.sum()


def write_exposures(folder: Path, side: int = 40, seed: int = 3, times: tuple[float, ...] = (1.0, 0.7, 1.3)):
    """Three exposures with their noise, PSF and WCS; the names, and the truth."""
    truth, rng, names = make_truth(side, seed), np.random.default_rng(seed), []
    for k, ((degrees, shift), time) in enumerate(zip(TURNED, times, strict=True)):
        place = place_of(degrees, shift, side)
        pixels = resample(corners_of((side, side), lambda p, place=place: 2 * (place(p) + 0.5) - 0.5 + 8),
                          (2 * side + 16, 2 * side + 16), torch.float64)  # fmt: skip
        wide = np.pad(gaussian_filter(truth, SIGMA, mode="reflect"), 8, mode="symmetric")
        seen = time * pixels.apply(torch.from_numpy(wide)[None, None])[0, 0].numpy()
        variance = seen + 25
        header = header_of(degrees, shift, side)
        header["EXPTIME"] = 100 * time
        path = folder / f"e{k}.fits"
        noisy = seen + rng.normal(size=seen.shape) * np.sqrt(variance)
        planes = [fits.ImageHDU(noisy.astype("f4"), header, "SCI")]
        planes += [fits.ImageHDU(v.astype("f4"), name=n) for v, n in ((variance, "VAR"), (whole_psf(), "PSF"))]
        fits.HDUList([fits.PrimaryHDU(), *planes]).writeto(path)
        names.append(str(path))
    return names, truth


def resolve(names: list[str], scale: float = 2.0, **more) -> Joint:
    """The measurement of exposures in files."""
    given = [Given(name, open_source(name).__enter__(), Stated(), Path(name).name) for name in names]
    return resolve_joint(given, scale, **more)


def restored(joint: Joint, samples: int = 2) -> np.ndarray:
    """The image of all of a measurement."""
    joint = measure_joint(joint)
    window = joint.window(Tile(Region.of_shape(joint.grid.shape), joint.canvas))
    return restore_joint(window, Settings(samples=samples)).plane.mean[window.core.slices]


def some_operator(dtype=torch.float64) -> ExposuresOperator:
    """Exposures of different shapes, pixels and blurs."""
    size, parts = (60, 64), []
    cases = (((22, 24), 0.0, 2.0, 0.8), ((20, 25), 7.0, 2.1, 1.2), ((33, 30), -30.0, 1.3, 0.6))
    for shape, degrees, scale, sigma in cases:
        t, middle = np.radians(degrees), (np.array(shape) - 1) / 2
        turn = scale * np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]])
        corners = corners_of(shape, lambda p, turn=turn, middle=middle: (p - middle) @ turn.T + [29.3, 31.8])
        blur = Operator(size, 1, gaussian(2.3548 * sigma), dtype=dtype)
        parts.append(Seen(blur, resample(corners, size, dtype)))
    return ExposuresOperator(parts, 2.0)


def test_the_adjoint_is_exact():
    rng, operator = torch.Generator().manual_seed(1), some_operator()
    x = torch.rand(1, 1, *operator.size, generator=rng, dtype=torch.float64)
    y = torch.rand(1, 3, *operator.shape, generator=rng, dtype=torch.float64)
    one, other = (operator.apply(x) * y).sum(), (x * operator.adjoint(y)).sum()
    assert abs(float(one - other)) < 1e-12 * float(one)
    gram = operator.apply_weighted_gram(y, x)
    torch.testing.assert_close(gram, operator.apply(x * operator.adjoint(y)))


def test_the_light_of_what_an_exposure_sees_is_in_it():
    operator = some_operator()
    x = torch.zeros(1, 1, *operator.size, dtype=torch.float64)
    x[0, 0, 27:32, 29:34] = torch.rand(5, 5, dtype=torch.float64)
    seen = operator.apply(x).sum((-2, -1))[0]
    # the wings of the blurs are cut at 5 sigma, and all of them lie on each exposure
    torch.testing.assert_close(seen, x.sum().expand(3), rtol=1e-6, atol=0)


def test_the_bound_is_above_every_entry():
    operator = some_operator()
    ones = torch.ones(1, 3, *operator.shape, dtype=torch.float64)
    x = torch.randn(1, 1, *operator.size, dtype=torch.float64)
    assert (operator.magnitude.apply(x.abs()) + 1e-12 >= operator.apply(x).abs()).all()
    assert (operator.magnitude.adjoint(ones) + 1e-12 >= operator.adjoint(ones)).all()


def test_what_is_spread_and_gathered_stays_where_it_is():
    operator = some_operator()
    spread = operator.spread(operator.coverage)
    assert float(spread.max()) <= 1 + 1e-9 and float(spread[0, 0, 30, 32]) > 0.99
    fine = torch.zeros(1, 1, *operator.size, dtype=torch.float64)
    fine[..., 30, 32] = 1
    touched = operator.gather(fine) > 0
    assert 1 <= int(touched[0, 0].sum()) <= 9
    # two exposures of the same noise leave half of the variance of one
    both = ExposuresOperator(operator.parts[:1] * 2, 2.0)
    one = ExposuresOperator(operator.parts[:1], 2.0)
    noise = torch.ones(1, 2, *both.shape, dtype=torch.float64)
    ratio = both.spread_sigma(noise)[0, 0, 30, 32] / one.spread_sigma(noise[:, :1])[0, 0, 30, 32]
    assert float(ratio) == pytest.approx(0.5**0.5)


@pytest.mark.parametrize("kind", ["tan", "sip", "tpv"])
def test_places_are_those_of_the_wcs(kind):
    side, one = 300, header_of(0.4, (3.3, -7.1), 300)
    if kind == "sip":
        one["CTYPE1"], one["CTYPE2"] = "RA---TAN-SIP", "DEC--TAN-SIP"
        one.update({"A_ORDER": 2, "B_ORDER": 2, "A_2_0": 2e-6, "A_1_1": -1e-6, "B_0_2": 3e-6, "B_2_0": 1e-6})
    if kind == "tpv":
        one["CTYPE1"], one["CTYPE2"] = "RA---TPV", "DEC--TPV"
        one.update({"PV1_1": 1.0, "PV2_1": 1.0, "PV1_4": 0.02, "PV2_5": -0.03, "PV1_7": 0.5})
    here, there = sky_of(one, "", "one"), sky_of(header_of(0, (0, 0), side), "", "first")
    exact = between(here, there, "one")
    place = Placement.of_function(exact, (side, side))
    rng = np.random.default_rng(2)
    tried = rng.uniform(0, side - 1, (500, 2))
    apart = np.hypot(*(place(tried) - exact(tried)).T) * PIXEL * 3600e3
    assert apart.max() < 1  # mas
    sky = here.pixel_to_world(tried[:, 1], tried[:, 0])
    back = there.pixel_to_world(place(tried)[:, 1], place(tried)[:, 0])
    assert float(sky.separation(back).mas.max()) < 1
    assert (kind == "tan") == (place.knots is None) or place.largest_rest < 1e-3


def test_the_pixels_that_a_window_needs_are_read():
    place = Placement.of_function(lambda p: 2.1 * (place_of(5, (3, 4), 80)(p)) - 20, (80, 90))
    window = Region(40, 90, 10, 70)
    region = place.overlap(window, (80, 90))
    corners = place.corners(Region(0, 80, 0, 90))
    middle = (corners[1:, 1:] + corners[:-1, :-1]) / 2
    inside = (middle[..., 0] > 39.5) & (middle[..., 0] < 89.5) & (middle[..., 1] > 9.5) & (middle[..., 1] < 69.5)
    rows, columns = np.nonzero(inside)
    assert region is not None and region.y0 <= rows.min() and region.y1 > rows.max()
    assert region.x0 <= columns.min() and region.x1 > columns.max()
    assert place.overlap(Region(1000, 1100, 0, 50), (80, 90)) is None


@pytest.mark.parametrize("ratio, theta", [(1.0, 0.0), (0.8, 30.0)])
def test_an_undersampled_image_is_its_profile(ratio, theta):
    image = same_size(gaussian(1.4, ratio=ratio, theta=theta), (15, 15))
    found = profile_of(image / image.sum())
    assert found is not None and found.shape == "gaussian"
    assert found.params["fwhm"][0] == pytest.approx(1.4, abs=0.01)
    assert found.params.get("ratio", (1.0,))[0] == pytest.approx(ratio, abs=0.02)


def test_an_image_that_is_no_profile_or_well_sampled_is_left():
    two = same_size(gaussian(1.3), (15, 15)) + 0.2 * np.roll(same_size(gaussian(1.3), (15, 15)), 3, 0)
    assert profile_of(two / two.sum()) is None
    assert profile_of(same_size(gaussian(3.5), (25, 25))) is None


def test_a_blur_before_resampling_is_that_before_a_sum_of_pixels():
    kernel = kernel_from_psf("gaussian:fwhm=2.2px", pixel=None, scale=2)
    rng = np.random.default_rng(4)
    image = torch.from_numpy(gaussian_filter(rng.random((64, 64)), 1.0))[None, None]
    before = Operator((32, 32), 2, kernel, dtype=torch.float64).apply(image)
    corners = corners_of((24, 24), lambda p: 2 * (p + 4 + 0.5) - 0.5)
    blur = Operator((64, 64), 1, kernel, dtype=torch.float64)
    after = ExposuresOperator([Seen(blur, resample(corners, (64, 64), torch.float64))], 2.0).apply(image)
    torch.testing.assert_close(after, before[..., 4:28, 4:28], rtol=1e-9, atol=1e-9)


def test_a_kernel_turns_with_its_moments():
    kernel = same_size(gaussian(5.0, ratio=0.6, theta=0.0), (31, 31))
    quarter = regrid_kernels(kernel[None], np.array([[0.0, 1.0], [1.0, 0.0]]))[0]
    np.testing.assert_allclose(same_size(quarter, kernel.shape), kernel.T, atol=1e-6)
    wide = regrid_kernels(kernel[None], 1.5 * np.eye(2))[0]
    y = np.arange(len(wide)) - len(wide) // 2
    v = np.arange(31) - 15
    # without its own pixel, which is 1.5 px wide there, and with the other one
    moment = 2.25 * (kernel.sum(1) * v**2).sum() + (1 - 2.25) / 12
    assert (wide.sum(1) * y**2).sum() == pytest.approx(moment, rel=1e-3)
    assert wide.sum() == pytest.approx(kernel.sum())


@pytest.mark.parametrize("target, widened", [(4.0, False), (5.2, True)])
def test_an_image_nearly_as_wide_as_the_psf_is_restored_sharper(tmp_path, target, widened):
    names, _ = write_exposures(tmp_path)
    for name in names:
        with fits.open(name, mode="update") as file:
            file["PSF"].data = same_size(moffat(3.0, 3.0, ratio=0.7, theta=30), (31, 31)).astype("f4")
    stated = Stated(target_fwhm=target)
    given = [Given(name, open_source(name).__enter__(), stated, Path(name).name) for name in names]
    joint = resolve_sharper(given, 2.0)
    assert joint.target_fwhm == target and largest_lobes(joint) <= MOST_LOBES
    assert (joint.widened > 0) == widened == any("negative lobes" in line for line in joint.notes)


def test_several_exposures_tell_more_than_one(tmp_path):
    names, truth = write_exposures(tmp_path)
    cut = (slice(8, -8),) * 2
    errors = [np.sqrt(np.mean((restored(resolve(some))[cut] - truth[cut]) ** 2)) for some in (names[:1], names)]
    # 0.58 by noise alone; stopping early leaves less of the noise of one than of three
    assert errors[1] < 0.8 * errors[0]


def test_fluxes_and_skies_of_other_times_are_those_of_the_first(tmp_path):
    names, truth = write_exposures(tmp_path, times=(1.0, 0.4, 2.0))
    joint = resolve(names)
    assert [part.factor for part in joint.parts] == pytest.approx([1, 0.4, 2])
    image = restored(joint)
    assert image[8:-8, 8:-8].sum() == pytest.approx(truth[8:-8, 8:-8].sum(), rel=3e-3)  # the noise of the sum is 1e-3


def test_errors_are_those_that_are_made(tmp_path):
    inside, sums = [], []
    for seed in (3, 4, 5):
        folder = tmp_path / str(seed)
        folder.mkdir()
        names, truth = write_exposures(folder, seed=seed)
        joint = measure_joint(resolve(names))
        window = joint.window(Tile(Region.of_shape(joint.grid.shape), joint.canvas))
        plane = restore_joint(window, Settings(samples=8, keep_draws=True)).plane
        cut = window.core.slices
        off = (plane.mean[cut] - truth)[8:-8, 8:-8]
        inside.append((np.abs(off) < plane.err[cut][8:-8, 8:-8]).mean())
        spread = (plane.draws - plane.mean)[:, *cut][:, 8:-8, 8:-8]
        blocks = lambda v: v.reshape(*v.shape[:-2], 8, 8, 8, 8).sum((-3, -1))  # noqa: E731
        sums.append((np.abs(blocks(off)) < np.sqrt((blocks(spread) ** 2).mean(0))).mean())
        assert np.allclose(np.sqrt((spread**2).mean(0)), plane.err[cut][8:-8, 8:-8], rtol=1e-3)
    assert 0.6 < np.mean(inside) < 0.76
    assert 0.55 < np.mean(sums) < 0.8  # 192 blocks: +- 0.04


def run(*words: str):
    return CliRunner().invoke(app, ["upscale", *words])


def test_the_command_writes_one_image_with_its_wcs(tmp_path):
    names, truth = write_exposures(tmp_path)
    out = tmp_path / "o.fits"
    done = run(*names, "--joint", "-o", str(out), "--samples", "2", "--leave-out", "1")
    assert done.exit_code == 0, done.output
    with fits.open(out) as file:
        science, header = file["SCI"].data, file["SCI"].header
        assert science.shape == truth.shape and np.isfinite(file["ERR"].data).all() and not file["DQ"].data.any()
        assert header["SRDNEXP"] == 2 and header["SRDTEXP"] == pytest.approx(230) and header["SRDLEFT"] == "e1.fits"
        peak = np.unravel_index(science.argmax(), science.shape)
        here = WCS(header).pixel_to_world(peak[1], peak[0])
    first = WCS(fits.getheader(names[0], "SCI"))
    there = first.pixel_to_world((peak[1] + 0.5) / 2 - 0.5, (peak[0] + 0.5) / 2 - 0.5)
    assert here.separation(there).mas < 1e-3
    record = json.loads(Path(f"{out}.json").read_text())
    assert len(record["exposures"]) == 2 and record["left_out"]["input"] == "e1.fits"
    assert 0.7 < record["left_out"]["chi2"] < 1.6  # 1 and what two exposures do not know of the third


@pytest.mark.parametrize("words, shape", [(["--scale", "1.5"], (60, 60)), (["--scale", "3"], (120, 120))])
def test_other_scales_are_the_same_path(tmp_path, words, shape):
    names, truth = write_exposures(tmp_path)
    out = tmp_path / "o.fits"
    done = run(names[0], "-o", str(out), *words, "--samples", "2", "--target-fwhm", "1.6", "--model", "physics",
               *([] if "1.5" in words else ["--joint"]))  # fmt: skip
    assert done.exit_code == 0, done.output
    science = fits.getdata(out, "SCI")
    assert science.shape == shape
    assert science.sum() == pytest.approx(truth.sum(), rel=5e-3)


def test_a_grid_of_its_own(tmp_path):
    names, _ = write_exposures(tmp_path)
    grid, out = header_of(25.0, (0, 0), 40), tmp_path / "o.fits"
    for i in (1, 2):
        for j in (1, 2):
            grid[f"CD{i}_{j}"] /= 2.2
        grid[f"CRPIX{i}"] = 32.5
        grid[f"NAXIS{i}"] = 64
    grid.totextfile(tmp_path / "wcs.hdr")
    done = run(*names, "--joint", "-o", str(out), "--grid", str(tmp_path / "wcs.hdr"), "--samples", "2")
    assert done.exit_code == 0, done.output
    science, header = fits.getdata(out, "SCI"), fits.getheader(out, "SCI")
    assert science.shape == (64, 64)
    assert WCS(header).wcs.crpix == pytest.approx([32.5, 32.5])
    plain = tmp_path / "p.fits"
    assert run(*names, "--joint", "-o", str(plain), "--samples", "2").exit_code == 0
    image, sky = fits.getdata(plain, "SCI"), WCS(fits.getheader(plain, "SCI"))
    y, x = np.unravel_index(image[30:50, 30:50].argmax(), (20, 20))
    u, v = WCS(header).world_to_pixel(sky.pixel_to_world(x + 30, y + 30))
    around = science[int(v) - 2 : int(v) + 4, int(u) - 2 : int(u) + 4]
    assert around.max() > 0.6 * image[y + 30, x + 30] / 1.21  # pixels are 1.1 times smaller


def test_blocks_are_those_of_the_whole(tmp_path, monkeypatch):
    names, _ = write_exposures(tmp_path, side=100)
    found = {}
    for core in (64, 512):
        monkeypatch.setattr(job, "CORE", core)
        out = tmp_path / f"o{core}.fits"
        job.run_joint(names, out, UpscaleOptions(joint=True, scale=2, samples=2))
        found[core] = [fits.getdata(out, name) for name in ("SCI", "ERR")]
    assert len(json.loads((tmp_path / "o64.fits.json").read_text())["exposures"]) == 3
    apart = np.abs(found[64][0] - found[512][0]) / found[512][1]
    assert np.quantile(apart, 0.99) < 0.02 and apart.max() < 0.3


def test_an_interrupted_run_ends_with_the_same_bytes(tmp_path, monkeypatch):
    names, _ = write_exposures(tmp_path, side=60)
    monkeypatch.setattr(job, "CORE", 48)
    options = UpscaleOptions(joint=True, scale=2, samples=2)
    job.run_joint(names, tmp_path / "a.fits", options)
    real, calls = job.restore_window, []

    def stops(*args, **more):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args, **more)

    monkeypatch.setattr(job, "restore_window", stops)
    with pytest.raises(KeyboardInterrupt):
        job.run_joint(names, tmp_path / "b.fits", options)
    monkeypatch.setattr(job, "restore_window", real)
    job.run_joint(names, tmp_path / "b.fits", options)
    assert (tmp_path / "a.fits").read_bytes() == (tmp_path / "b.fits").read_bytes()


def test_a_pixel_that_no_exposure_has_is_flagged(tmp_path):
    names, _ = write_exposures(tmp_path)
    for name in names:
        with fits.open(name, mode="update") as file:
            file["SCI"].data[15:25, 15:25] = np.nan
    out = tmp_path / "o.fits"
    done = run(*names, "--joint", "-o", str(out), "--samples", "2")
    assert done.exit_code == 0, done.output
    dq, err = fits.getdata(out, "DQ"), fits.getdata(out, "ERR")
    assert dq[40, 40] and np.isnan(err[40, 40]) and not dq[:20].any()


def test_a_pixel_that_one_exposure_has_is_not(tmp_path):
    names, truth = write_exposures(tmp_path)
    with fits.open(names[0], mode="update") as file:
        file["SCI"].data[15:25, 15:25] = np.nan
    out = tmp_path / "o.fits"
    assert run(*names, "--joint", "-o", str(out), "--samples", "2").exit_code == 0
    assert not fits.getdata(out, "DQ")[10:-10, 10:-10].any()
    seen = fits.getdata(out, "SCI")[30:50, 30:50]
    assert seen.sum() == pytest.approx(truth[30:50, 30:50].sum(), rel=0.02)  # of two exposures


@pytest.mark.parametrize("fault", ["elsewhere", "unit", "no wcs", "no light", "count", "leave out", "network", "grid"])
def test_bad_input_is_one_line(tmp_path, fault):
    names, _ = write_exposures(tmp_path, side=24)
    words, code, say = [], 3, fault
    with fits.open(names[1], mode="update") as file:
        header = file["SCI"].header
        if fault == "elsewhere":
            header["CRVAL1"], say = 151.0, "does not overlap"
        elif fault == "unit":
            header["BUNIT"], say = "MJy/sr", "BUNIT"
        elif fault == "no wcs":
            say = "no WCS"
            for key in ("CTYPE1", "CTYPE2"):
                del header[key]
        elif fault == "no light":  # in which no header's time and no star tells the flux
            say = "EXPTIME"
            del header["EXPTIME"]
            file["SCI"].data[:] = np.random.default_rng(1).normal(20, 5, file["SCI"].data.shape)
    if fault == "count":
        words, code, say = ["--gain", "1|2"], 2, "2 values"
    if fault == "leave out":
        words, code, say = ["--leave-out", "7"], 2, "counted from 0"
    if fault == "network":
        words, code, say = ["--model", "sky-x2"], 2, "networks"
    if fault == "grid":
        (tmp_path / "g.txt").write_text("no header\n")
        words, say = ["--grid", str(tmp_path / "g.txt")], "no header of an image"
    out = tmp_path / "o.fits"
    done = run(*names, "--joint", "-o", str(out), *words)
    assert done.exit_code == code and say in done.output and len(done.output.strip().splitlines()) == 1, done.output
    assert not out.exists()


@pytest.mark.parametrize(
    "words, say",
    [
        (["--joint", "--scale", "100"], "at most 8"),
        (["--leave-out", "0"], "--joint"),
        (["--align", "measure"], "--joint"),
    ],
)
def test_options_that_make_no_sense_are_refused(tmp_path, words, say):
    names, _ = write_exposures(tmp_path, side=24)
    done = run(names[0], "-o", str(tmp_path / "o.fits"), *words)
    assert done.exit_code == 2 and say in done.output and len(done.output.strip().splitlines()) == 1, done.output


def test_exposures_without_wcs_are_measured(tmp_path):
    names, truth = write_exposures(tmp_path, side=64)
    said = resolve(names)
    for name in names:
        with fits.open(name, mode="update") as file:
            for key in ("CTYPE1", "CTYPE2"):
                del file["SCI"].header[key]
    found = resolve(names, align="measure")
    places = np.array([[10.0, 10.0], [32.0, 32.0], [50.0, 20.0]])
    for one, other in zip(said.parts, found.parts, strict=True):
        assert np.abs(one.place(places) - other.place(places)).max() < 0.3  # 0.02 px of an exposure, and its errors
    with pytest.raises(InputError, match="no WCS"):
        resolve(names)


def test_a_psf_that_varies_is_that_of_every_place():
    side, canvas = 30, Region(-4, 64, -4, 64)
    narrow, wide = (same_size(gaussian(w), (41, 41)) for w in (3.0, 6.0))
    share = np.linspace(0, 1, 2 * side)[None, :] * np.ones((2 * side, 1))
    field = PSF(np.stack([narrow, wide - narrow]), np.stack([np.ones_like(share), share]))
    place = Placement.of_function(lambda p: 2 * (p + 0.5) - 0.5, (side, side))
    moved = psf_on_grid(field, 2, place, canvas)
    for x in (10, 30, 50):
        here = moved.at(30.0 + 4, x + 4.0)
        local = same_size(narrow + share[0, x] * (wide - narrow), here.shape)
        np.testing.assert_allclose(here, local, atol=2e-3 * local.max())
        assert here.sum() == pytest.approx(1, abs=1e-6)


def write_lopsided(folder: Path, degrees: float, off: float = 0.0, side: int = 64) -> list[str]:
    """Two exposures of stars with a tail, the other one turned; its WCS is off by so many px."""
    sky, names = make_sky(np.random.default_rng(2), side, stars=40, galaxies=0, brightest=4.6), []
    lobes = ((0.7, (-0.15, -0.2), 0.75), (0.3, (0.35, 0.5), 1.3))
    for k, angle in enumerate((0.0, degrees)):
        one = Taken(*(np.zeros((side, side)),) * 4, turn(angle), np.array([0.3, -0.2]) * k, 1.0, 1.0)
        at, rng = one.from_reference(sky.places), np.random.default_rng(k)
        seen = sum(share * draw(sky, (side, side), at + lies, sigma) for share, lies, sigma in lobes)
        header = header_of(angle, tuple(one.shift), side)
        header["CRPIX1"] += off * k
        planes = [fits.ImageHDU((seen + rng.normal(size=seen.shape) * 5).astype("f4"), header, "SCI")]
        planes += [fits.ImageHDU(np.full(seen.shape, 25, "f4"), name="VAR"), fits.ImageHDU(lopsided(), name="PSF")]
        names.append(str(folder / f"e{k}.fits"))
        fits.HDUList([fits.PrimaryHDU(), *planes]).writeto(names[-1])
    return names


@pytest.mark.parametrize("degrees", [90, 180])
def test_a_lopsided_psf_that_is_turned_is_no_error_of_the_wcs(tmp_path, degrees):
    """Centroids of its stars turn with it, and the WCS is right."""
    joint = resolve(write_lopsided(tmp_path, degrees))
    assert not [line for line in joint.notes if line.startswith("WARNING align")]


def test_an_error_of_the_wcs_is_told_beside_a_lopsided_psf(tmp_path):
    told = [line for line in resolve(write_lopsided(tmp_path, 180, off=0.4)).notes if "WARNING align" in line]
    assert len(told) == 1 and "e1.fits" in told[0]
    assert float(told[0].split("up to ")[1].split(" px")[0]) == pytest.approx(0.4, abs=0.06)


def test_lines_and_errors_of_an_exposure_have_its_name(tmp_path):
    """Whatever tells them: a PSF alone knows of no file."""
    names, _ = write_exposures(tmp_path)
    given = [Given(name, open_source(name).__enter__(), Stated(psf=spec), Path(name).name)
             for name, spec in zip(names, ("gaussian:fwhm=2px", "gaussian:fwhm=4px"), strict=False)]  # fmt: skip
    lines = resolve_joint(given, 2.0).notes.lines
    assert all("e0.fits" in line or "e1.fits" in line for line in lines)
    assert any(line.startswith("WARNING e1.fits: psf: ") for line in lines)  # the stars are narrower
    with pytest.raises(InputError, match=r"^e1\.fits: psf: .* narrower"):
        resolve_joint([given[0], replace(given[1], stated=Stated(psf="gaussian:fwhm=0.5px"))], 2.0)

"""A frame restored in blocks is the frame restored whole, but for what the halo cuts off."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from astropy.io import fits
from scipy.ndimage import gaussian_filter

from sciresdiff import checks
from sciresdiff.checks.evidence import Evidence
from sciresdiff.checks.self_check import SELF_CHECKS
from sciresdiff.errors import InputError
from sciresdiff.frame import Frame
from sciresdiff.io import open_files
from sciresdiff.io.source import in_memory
from sciresdiff.jobs import blocks
from sciresdiff.jobs.upscale import block as work
from sciresdiff.jobs.upscale import job as upscale
from sciresdiff.jobs.upscale.options import UpscaleOptions
from sciresdiff.observation import sample
from sciresdiff.observation.noise import Noise
from sciresdiff.physics import psf
from sciresdiff.physics.operators import Operator
from sciresdiff.physics.sky import sky_noise
from sciresdiff.region import Region
from sciresdiff.run import executor


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 700, 2600), (1, 5000, 300), (3, 1537, 1536)])
def test_blocks_cover_a_frame_once(shape: tuple[int, int, int], scale: int) -> None:
    found = blocks.plan(shape, scale)
    seen = np.zeros(shape, int)
    for block in found:
        core, window = block.tile.core, block.tile.window
        seen[(block.plane, *core.slices)] += 1
        assert core.y0 % 16 == core.x0 % 16 == window.y0 % 16 == window.x0 % 16 == 0, "cells lie in one block each"
        for a, b, ra, rb, n in ((core.y0, core.y1, window.y0, window.y1, shape[1]),
                                (core.x0, core.x1, window.x0, window.x1, shape[2])):  # fmt: skip
            assert (b - a) * scale <= 1.5 * 2048
            assert ra == max(a - 64, 0) if a else ra == 0
            assert rb == min(b + 64, n)
    assert (seen == 1).all()
    assert [block.number for block in found] == list(range(len(found)))
    assert all(block.whole == (len(found) == shape[0]) for block in found)


def test_small_frames_are_one_block() -> None:
    assert len(blocks.plan((1, 1536, 1536), 2)) == 1
    assert len(blocks.plan((1, 1536, 1537), 2)) == 2
    assert len(blocks.plan((4, 512, 512), 4)) == 4
    assert len(blocks.plan((1, 20000, 20000), 2)) == 400
    assert len(blocks.plan((1, 20000, 20000), 2, whole=True)) == 1


SCALE, SIDE = 2, 224
KERNEL = "gaussian:sigma=1.1px"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cores of 128 coarse px, so that small frames have many blocks; windows of a sample that fit them."""
    monkeypatch.setattr(blocks, "CORE", 256)


def a_sky(side: tuple[int, int] = (SIDE, SIDE), seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Crowded stars and a few galaxies as a telescope sees them, and the variance."""
    rng = np.random.default_rng(seed)
    truth = np.zeros([SCALE * n for n in side])
    yy, xx = np.indices(truth.shape, sparse=True)
    for _ in range(side[0] * side[1] // 400):
        truth[tuple(rng.integers(0, n) for n in truth.shape)] += 10 ** rng.uniform(2, 4.5)
    for _ in range(12):
        y, x, r = *(rng.uniform(0, n) for n in truth.shape), rng.uniform(3, 12)
        truth += 200 * np.exp(-np.hypot(yy - y, xx - x) / r)
    seen = gaussian_filter(gaussian_filter(truth, 0.85), 1.1, mode="reflect")
    low = seen.reshape(side[0], SCALE, side[1], SCALE).sum((1, 3)) + 40
    variance = 25 + 0.2 * low
    return (low + rng.normal(size=side) * np.sqrt(variance)).astype("f4"), variance.astype("f4")


def written(path: Path, pixels: np.ndarray, variance: np.ndarray) -> Path:
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(pixels, name="SCI"), fits.ImageHDU(variance, name="VAR")]
    hdus[1].header["BUNIT"] = "electron"
    fits.HDUList(hdus).writeto(path)
    return path


def options(**more: object) -> UpscaleOptions:
    told = {"model": "physics", "scale": SCALE, "kernel": KERNEL, "samples": 4, "checks": False, "overwrite": True}
    return UpscaleOptions(**{**told, **more})  # type: ignore[arg-type]


def restored(path: Path, name: str = "high.fits", **more: object) -> tuple[dict[str, np.ndarray], dict]:
    record = upscale.run(path, path.with_name(name), options(**more))
    with fits.open(path.with_name(name)) as found:
        return {hdu.name: np.array(hdu.data) for hdu in found if hdu.data is not None}, record


def seams(shape: tuple[int, int], near: int = 16) -> np.ndarray:
    """Fine pixels near a seam."""
    mask = np.zeros(shape, bool)
    for tile in (b.tile for b in blocks.plan((1, shape[0] // SCALE, shape[1] // SCALE), SCALE)):
        for edge, axis in ((tile.core.y0, 0), (tile.core.x0, 1)):
            if edge:
                at = slice(SCALE * edge - near, SCALE * edge + near)
                mask[(at, slice(None)) if axis == 0 else (slice(None), at)] = True
    return mask


@pytest.mark.parametrize(("model", "samples"), [("physics", 2), ("astro-x2", 0)])
def test_a_seam_is_where_it_would_be_if_every_block_had_read_everything(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch, model: str, samples: int
) -> None:
    path = written(tmp_path / "low.fits", *a_sky())
    parts, record = restored(path, model=model, samples=samples)
    assert record["blocks"] == 4
    monkeypatch.setattr(blocks, "HALO", 10**6)
    whole, _ = restored(path, model=model, samples=samples)
    sigma = np.sqrt(fits.getdata(path, "VAR")).repeat(SCALE, 0).repeat(SCALE, 1) / SCALE**2
    for name in ("SCI", "ERR"):
        off = np.abs(parts[name] - whole[name]) / sigma
        # beyond 64 px the data say nothing any more: 0 to 1e-3 are measured; cores of 1e4 sigma are rounded by 1e-3
        assert off[seams(sigma.shape)].max() < 5e-3, name
    assert np.abs(parts["SUPPORT"] - whole["SUPPORT"]).max() < 1e-3
    np.testing.assert_array_equal(parts["DQ"], whole["DQ"])


def test_blocks_are_nearly_the_frame_in_one_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "low.fits", *a_sky())
    whole, record = restored(path, samples=2)
    assert record["blocks"] == 1
    monkeypatch.setattr(blocks, "CORE", 256)
    parts, _ = restored(path, samples=2)
    sigma = np.sqrt(fits.getdata(path, "VAR")).repeat(SCALE, 0).repeat(SCALE, 1) / SCALE**2
    off = (parts["SCI"] - whole["SCI"]) / sigma
    # where Richardson-Lucy stops is measured on windows: an iteration more or less moves the brightest cores
    assert np.sqrt((off**2).mean()) < 0.2
    assert np.quantile(np.abs(off), 0.99) < 0.05


def test_err_in_a_file_is_the_scatter_of_its_samples_at_seams_too(tmp_path: Path, small: None) -> None:
    path = written(tmp_path / "low.fits", *a_sky())
    planes, record = restored(path, save_samples=True)
    assert record["blocks"] == 4
    # antithetic pairs, and no calibration of the physics: the standard deviation as it stands; float32 of bright cores
    scatter = planes["DRAWS"].astype(float).std(0)
    brightest = float(np.abs(planes["SCI"]).max())
    np.testing.assert_allclose(planes["ERR"], scatter, rtol=1e-3, atol=1e-6 * brightest)


def test_err_of_a_flat_frame_is_the_same_at_seams(tmp_path: Path, small: None) -> None:
    rng = np.random.default_rng(1)
    flat = np.full((SIDE, SIDE), 25, "f4")
    path = written(tmp_path / "low.fits", rng.normal(40, 5, flat.shape).astype("f4"), flat)
    err = restored(path, samples=8)[0]["ERR"]
    near = seams(err.shape)
    # medians of 28,000 and 173,000 pixels of eight samples each, of which four are independent: 0.5 % of chance
    assert np.median(err[near]) == pytest.approx(np.median(err[~near]), rel=0.02)


def test_the_flux_of_every_cell_is_kept_across_seams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, variance = a_sky()
    path = written(tmp_path / "low.fits", pixels, variance)
    operator = Operator(pixels.shape, SCALE, psf.render(psf.parse(KERNEL), None, integrate=False), dtype=torch.float64)
    n = SIDE // 16

    def lost(image: np.ndarray) -> np.ndarray:
        seen = operator.apply(torch.from_numpy(image.astype("f8"))[None, None])[0, 0].numpy()
        light = np.abs(pixels.astype("f8")).reshape(n, 16, n, 16).sum((1, 3))
        return np.abs((seen - pixels).reshape(n, 16, n, 16).sum((1, 3))) / light

    whole = lost(restored(path, samples=0)[0]["SCI"]).max()
    monkeypatch.setattr(blocks, "CORE", 256)
    # three rounds leave what bright stars at a cell's border leak, with seams and without
    assert whole < 2e-3
    assert lost(restored(path, samples=0)[0]["SCI"]).max() < 1.2 * whole


def test_the_order_of_blocks_does_not_matter(tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "low.fits", *a_sky((200, 220)))
    restored(path, "a.fits", save_samples=True, samples=2)

    def backwards(do, items, read, **more):  # type: ignore[no-untyped-def]
        return ((item, do(item, read(item))) for item in reversed(items))

    monkeypatch.setattr(executor, "get_engine", lambda name: backwards)
    restored(path, "b.fits", save_samples=True, samples=2)
    assert (tmp_path / "a.fits").read_bytes() == (tmp_path / "b.fits").read_bytes()


def test_a_job_is_sent_as_a_few_bytes_and_does_the_same(tmp_path: Path, small: None) -> None:
    path = written(tmp_path / "low.fits", *a_sky((200, 220)))
    task = upscale.task_of(path, tmp_path / "high.fits", options(samples=2))
    sent = pickle.dumps(task.job)
    assert len(sent) < 2**21  # a level keeps 2^17 values and their noise
    job = pickle.loads(sent)
    for block in task.blocks[:2]:
        one, two = (work.restore_block(j, block, work.read_block(j, block)) for j in (task.job, job))
        assert pickle.loads(pickle.dumps(two)).sums == one.sums
        np.testing.assert_array_equal(one.arrays["SCI"], two.arrays["SCI"])
    open_files.close()


def test_every_plane_has_its_own_level(tmp_path: Path, small: None) -> None:
    pixels, variance = a_sky((208, 100))
    planes = ((pixels, variance), ((3 * pixels + 1000).astype("f4"), 9 * variance))
    cube = written(tmp_path / "cube.fits", *(np.stack(both) for both in zip(*planes, strict=True)))
    image, record = restored(cube, samples=2)
    for i, (low, noise) in enumerate(planes):
        alone, single = restored(written(tmp_path / f"{i}.fits", low, noise), samples=2)
        np.testing.assert_array_equal(image["SCI"][i], alone["SCI"])
        assert record["chi2"][i] == single["chi2"][0]
        assert record["flux_ratio"][i] == single["flux_ratio"][0]


def test_a_block_without_a_valid_pixel_comes_out_as_it_came(tmp_path: Path, small: None) -> None:
    pixels, variance = a_sky()
    tile = blocks.plan((1, SIDE, SIDE), SCALE)[3].tile
    pixels[tile.core.slices] = np.nan
    image, record = restored(written(tmp_path / "low.fits", pixels, variance), checks=True, samples=0)
    assert np.isnan(image["SCI"][tile.core.scaled(SCALE).slices]).all()
    assert np.isnan(image["ERR"][tile.core.scaled(SCALE).slices]).all()
    assert np.isfinite(image["SCI"]).sum() == image["SCI"].size - image["SCI"][tile.core.scaled(SCALE).slices].size
    assert record["masked"] == np.prod(tile.core.shape)
    assert abs(record["flux_ratio"][0] - 1) < 1e-3
    assert all(check["value"] is not None for check in record["checks"][0])


@pytest.mark.parametrize("side", [(40, 48), (208, 100)], ids=["planes", "blocks"])
def test_an_empty_plane_of_a_stack_comes_out_as_it_came(tmp_path: Path, small: None, side: tuple[int, int]) -> None:
    pixels, variance = a_sky(side)
    path = written(tmp_path / "cube.fits", np.stack([pixels, np.nan * pixels]), np.stack([variance, variance]))
    for more in ({}, {"kernel": None, "psf": "gaussian:fwhm=2px"}):
        image, record = restored(path, samples=0, refine=False, **more)
        assert np.isfinite(image["SCI"][0]).all()
        assert np.isnan(image["SCI"][1]).all()
        assert abs(record["flux_ratio"][0] - 1) < 1e-3


def test_without_refinement_no_draws_are_claimed(tmp_path: Path) -> None:
    path = written(tmp_path / "low.fits", *a_sky((40, 48)))
    image, record = restored(path, samples=3, refine=False, save_samples=True)
    assert "DRAWS" not in image
    assert record["provenance"]["SRDDRAWS"] == 0


@pytest.mark.parametrize("side", [(40, 48), (208, 100)], ids=["one block", "blocks"])
def test_an_input_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, small: None, side: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels, variance = a_sky(side)
    path = written(tmp_path / "low.fits", pixels, variance)
    wanted, _ = restored(path, "wanted.fits", samples=0)
    restore_block = upscale.restore_piece

    def changing(*given: object, **more: object) -> object:
        done = restore_block(*given, **more)  # type: ignore[arg-type]
        pixels[-1, -1] += 1
        path.unlink()
        written(path, pixels, variance)
        return done

    with monkeypatch.context() as patch:
        patch.setattr(upscale, "restore_piece", changing)
        with pytest.raises(InputError, match=r"low\.fits: changed while it was read \(input\); give the same command"):
            restored(path, samples=0)
    assert not path.with_name("high.fits").exists()
    now, _ = restored(path, samples=0)
    alone, _ = restored(path, "alone.fits", samples=0)
    np.testing.assert_array_equal(now["SCI"], alone["SCI"])
    assert not np.array_equal(now["SCI"], wanted["SCI"])


def test_a_frame_of_nothing_is_refused_and_nothing_is_written(tmp_path: Path, small: None) -> None:
    pixels, variance = a_sky((208, 100))
    path = written(tmp_path / "low.fits", np.full_like(pixels, np.nan), variance)
    with pytest.raises(InputError, match="all pixels are NaN"):
        restored(path)
    path = written(tmp_path / "none.fits", pixels, 0 * variance)
    with pytest.raises(InputError):
        restored(path, variance="VAR")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["low.fits", "none.fits"]


@pytest.mark.parametrize("kernel", ["none", KERNEL])
def test_the_checks_of_blocks_are_those_of_their_image(tmp_path: Path, small: None, kernel: str) -> None:
    pixels, variance = a_sky((208, 224))
    path = written(tmp_path / "low.fits", pixels, variance)
    image, record = restored(path, checks=True, samples=0, kernel=kernel)
    exposure = upscale.resolve_inputs(path, options(kernel=kernel)).observation.exposure
    operator = Operator(pixels.shape, SCALE, exposure.psf, dtype=torch.float64)
    noise = variance.astype("f8") * np.square(exposure.noise.correlation or (1.0,))[0]
    evidence = Evidence(image["SCI"].astype("f8"), SCALE, pixels.astype("f8"), noise, operator=operator)
    for one, two in zip(checks.check(evidence, names=SELF_CHECKS), record["checks"][0], strict=True):
        # what is bright is said of every block by itself; all else adds up, but for seams that A sees from one side
        room = 0.2 if two["name"] in ("chi2_sky", "chi2_sources") else 1e-3
        assert two["value"] == pytest.approx(one.value, rel=room), two["name"]
        assert two["meaning"].partition(";")[0] == one.meaning.partition(";")[0] or room == 0.2
    assert record["chi2"][0] == pytest.approx(record["checks"][0][2]["value"], rel=1e-3)


def test_a_large_plane_is_measured_on_windows_that_tell_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, variance = a_sky((512, 640))
    frame = Frame(pixels[None], np.zeros((1, *pixels.shape), bool), "astro", variance=variance[None].astype("f8"))
    whole = sample.samples_of_source(in_memory(frame))(0)
    assert whole.whole and not whole.notes
    monkeypatch.setattr(sample, "WHOLE", 2**16)
    monkeypatch.setattr(sample, "SIDE", 64)
    parts = sample.samples_of_source(in_memory(frame))(0)
    assert parts.frame.pixels.shape == (1, 256, 256)
    assert len(parts.windows) == 16 and "16 windows of 64 x 64 px" in parts.notes.lines[0]
    for w in parts.windows:
        np.testing.assert_array_equal(parts.pixels[w.at], pixels[w.region.slices])
    assert parts.mask[58:70, 30].all() and not parts.mask[30, 30] and not parts.mask[0, 0]
    noise = Noise(correlation=(2.0,))
    np.testing.assert_array_equal(
        noise.variance_of_sample(parts, 0)[parts.windows[5].at],
        4 * variance.astype("f8")[parts.windows[5].region.slices],
    )
    one, two = (sky_noise(s.pixels, s.mask) for s in (whole, parts))
    assert two == pytest.approx(one, rel=0.1)  # a fifth of the pixels, crowded


def test_a_mostly_empty_plane_is_measured_where_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "WHOLE", 2**16)
    monkeypatch.setattr(sample, "SIDE", 64)
    pixels = np.full((1, 640, 640), np.nan, np.float32)
    pixels[0, 70:140, 300:520] = 1.0
    found = sample.samples_of_source(in_memory(Frame(pixels, ~np.isfinite(pixels), "astro")))(0)
    # three grid windows lie in the strip, but for their upper rows
    assert np.isfinite(found.pixels).sum() > 0.5 * np.isfinite(pixels).sum()


def test_a_file_stays_open_while_anyone_reads_it(tmp_path: Path) -> None:
    paths = [written(tmp_path / f"{i}.fits", *a_sky((32, 32), i)) for i in range(3)]
    with open_files.use(paths[0]) as first:
        with open_files.use(paths[1]):
            pass
        assert len(open_files._open) == 2
        open_files.window(paths[2], 0, Region(0, 8, 0, 8))  # opening it closes what nobody uses
        assert len(open_files._open) == 2
        assert first.source.window(0, Region(0, 8, 0, 8)).pixels.shape == (1, 8, 8)
        with open_files.use(paths[0]) as again:
            assert again is first
    open_files.close()
    assert not open_files._open

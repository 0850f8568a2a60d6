"""A frame degraded block by block is the frame degraded whole, and its noise is a function of the place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from sciresdiff import io
from sciresdiff.degradation import chain
from sciresdiff.errors import InputError, ResourceError, UsageError
from sciresdiff.frame import Frame
from sciresdiff.io.source import Source
from sciresdiff.jobs import blocks
from sciresdiff.jobs.degrade import block as degrade_blocks
from sciresdiff.jobs.degrade.job import DegradeOptions, run
from sciresdiff.observation.defects import MARGIN
from sciresdiff.region import Region
from sciresdiff.run.shards import Shard

KERNEL = "gaussian:sigma=1.5px"


def sky() -> NDArray[np.float64]:
    """A smooth sky with stars, of sides that leave a rest."""
    rng = np.random.default_rng(3)
    image = np.zeros((391, 323))
    image[rng.integers(0, 391, 200), rng.integers(0, 323, 200)] = rng.uniform(1e3, 1e5, 200)
    return np.asarray(gaussian_filter(image, 1.2) + 100)


@pytest.fixture
def fine(tmp_path: Path) -> Path:
    """A frame with a noise plane, flags and holes, one of them across the borders of blocks."""
    image = sky()
    image[60:75, 100:170] = np.nan
    image[300, 20] = np.nan
    quality = np.zeros(image.shape, np.int32)
    quality[125:131, 190:196] = 4
    variance = 9 + np.maximum(np.nan_to_num(image), 0) / 3
    hdus = [fits.ImageHDU(image.astype("f4"), name="SCI"), fits.ImageHDU(quality, name="DQ")]
    hdus.append(fits.ImageHDU(variance.astype("f4"), name="VAR"))
    hdus[0].header.update({"BUNIT": "electron", "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRPIX1": 10.0,
                           "CRPIX2": 20.0, "CRVAL1": 3.0, "CRVAL2": 4.0, "CDELT1": -1e-4, "CDELT2": 1e-4})  # fmt: skip
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(tmp_path / "fine.fits")
    return tmp_path / "fine.fits"


@pytest.fixture
def in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 96 fine px instead of 2048."""
    monkeypatch.setattr(blocks, "CORE", 96)


def both(fine: Path, monkeypatch: pytest.MonkeyPatch, options: DegradeOptions) -> tuple[Path, Path]:
    """The frame degraded whole, and in blocks."""
    whole, parts = fine.with_name("whole.fits"), fine.with_name("parts.fits")
    assert run(fine, whole, options)["blocks"] == 1
    monkeypatch.setattr(blocks, "CORE", 96)
    assert run(fine, parts, options)["blocks"] > 9
    return whole, parts


@pytest.mark.parametrize(
    ("scale", "more"),
    [
        (2, {"kernel": "moffat:fwhm=2px,beta=4"}),
        (3, {"kernel": KERNEL}),
        (4, {"kernel": KERNEL}),
        (4, {"recipe": "bicubic"}),
    ],
)
def test_in_blocks_it_is_what_it_is_whole(
    fine: Path, monkeypatch: pytest.MonkeyPatch, scale: int, more: dict[str, Any]
) -> None:
    whole, parts = both(fine, monkeypatch, DegradeOptions(scale, **more))
    with fits.open(whole) as a, fits.open(parts) as b:
        names = {hdu.name for hdu in a}
        assert names == {hdu.name for hdu in b} and {"SCI", "DQ", "VAR", "KERNEL"} <= names
        assert a["SCI"].header.tostring() == b["SCI"].header.tostring()
        np.testing.assert_array_equal(a["DQ"].data, b["DQ"].data)
        np.testing.assert_array_equal(a["KERNEL"].data, b["KERNEL"].data)
        np.testing.assert_array_equal(np.isnan(a["SCI"].data), np.isnan(b["SCI"].data))
        np.testing.assert_allclose(a["SCI"].data, b["SCI"].data, rtol=3e-7)  # a float32 step after float64 rounding
        known = ~np.isnan(a["SCI"].data)  # inside a hole the variance is that of what fills it
        np.testing.assert_allclose(a["VAR"].data[known], b["VAR"].data[known], rtol=3e-7)  # likewise


@pytest.mark.usefixtures("in_blocks")
def test_the_noise_is_a_function_of_the_place(fine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = DegradeOptions(2, kernel=KERNEL, gain=2.0, read_noise=5.0)
    run(fine, tmp_path / "a.fits", options)
    straight = degrade_blocks.plan_blocks
    monkeypatch.setattr("sciresdiff.jobs.degrade.job.plan_blocks", lambda *given: straight(*given)[::-1])
    run(fine, tmp_path / "b.fits", options)
    assert (tmp_path / "a.fits").read_bytes() == (tmp_path / "b.fits").read_bytes()
    run(fine, tmp_path / "c.fits", replace(options, seed=1))
    assert (tmp_path / "a.fits").read_bytes() != (tmp_path / "c.fits").read_bytes()


def test_the_noise_has_the_stated_variance_and_every_block_its_own(
    fine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(fine, tmp_path / "clean.fits", DegradeOptions(2, kernel=KERNEL))
    monkeypatch.setattr(blocks, "CORE", 96)
    run(fine, tmp_path / "noisy.fits", DegradeOptions(2, kernel=KERNEL, gain=2.0, read_noise=5.0))
    clean, noisy = io.read(tmp_path / "clean.fits"), io.read(tmp_path / "noisy.fits")
    assert noisy.variance is not None
    pull = ((noisy.pixels - clean.pixels) / np.sqrt(noisy.variance))[0]
    known = pull[np.isfinite(pull)]
    assert known.mean() == pytest.approx(0, abs=5 / np.sqrt(known.size))  # 5 standard errors
    assert known.var() == pytest.approx(1, abs=5 * np.sqrt(2 / known.size))
    one, other = pull[100:140, :40].ravel(), pull[100:140, 48:88].ravel()
    assert abs(np.corrcoef(one, other)[0, 1]) < 5 / np.sqrt(one.size)  # 5 standard errors


@pytest.mark.usefixtures("in_blocks")
def test_no_array_of_the_whole_frame_is_made(fine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    most: list[int] = []
    straight = io.open_source

    @contextmanager
    def watched(path: str | Path, **options: Any) -> Iterator[Source]:
        with straight(path, **options) as source:

            def cut(plane: int, region: Region) -> Any:
                most.append(region.shape[0] * region.shape[1])
                return source.window(plane, region)

            yield Source(source.frame, cut)

    monkeypatch.setattr(io, "open_source", watched)
    monkeypatch.setattr("sciresdiff.jobs.degrade.job.STRIP", 96**2)
    monkeypatch.setattr(degrade_blocks, "SAMPLE", 32)
    monkeypatch.setattr("sciresdiff.observation.bands.BAND", 96**2)
    monkeypatch.setattr("sciresdiff.observation.sample.WHOLE", 96**2)
    monkeypatch.setattr("sciresdiff.observation.sample.SIDE", 24)
    record = run(fine, tmp_path / "low.fits", DegradeOptions(2, recipe="astro", kernel=KERNEL))
    assert record["blocks"] > 9
    # a core, 2.5 times the kernel's 8 px, and what decides whether a pixel is data
    assert max(most) <= (96 + 2 * (20 + MARGIN)) ** 2


@pytest.mark.usefixtures("in_blocks")
def test_a_part_without_a_value_stays_without(tmp_path: Path) -> None:
    image = sky()
    image[:200, :200] = np.nan
    fits.PrimaryHDU(image.astype("f4")).writeto(tmp_path / "fine.fits")
    run(tmp_path / "fine.fits", tmp_path / "low.fits", DegradeOptions(2, kernel=KERNEL, gain=1.0))
    low = io.read(tmp_path / "low.fits")
    empty = np.zeros(low.mask[0].shape, bool)
    empty[:100, :100] = True
    np.testing.assert_array_equal(np.isnan(low.pixels[0]), empty)
    np.testing.assert_array_equal(low.mask[0], empty)


def test_a_map_of_the_gain_belongs_to_its_place(fine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gains = np.linspace(1, 9, 195 * 161).reshape(195, 161)
    fits.PrimaryHDU(gains).writeto(fine.with_name("gain.fits"))
    options = DegradeOptions(2, gain=str(fine.with_name("gain.fits")), read_noise=4.0)
    whole, parts = (io.read(path) for path in both(fine, monkeypatch, options))
    assert whole.variance is not None and parts.variance is not None
    known = np.isfinite(whole.pixels)
    np.testing.assert_allclose(parts.variance[known], whole.variance[known], rtol=3e-7)  # a float32 step


@pytest.mark.parametrize("name", ["astro", "first-order"])
def test_what_a_recipe_asks_of_the_frame_is_measured_on_windows(
    fine: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    whole, parts = (io.read(path) for path in both(fine, monkeypatch, DegradeOptions(2, recipe=name, seed=1)))
    assert whole.variance is not None and parts.variance is not None
    known = np.isfinite(whole.pixels)
    ratio = np.median(parts.variance[known] / whole.variance[known])
    assert ratio == pytest.approx(1, abs=0.02)  # the windows cover this frame several times over


def test_chains_that_need_the_whole_frame_get_it_or_say_so(fine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "CORE", 96)
    out = fine.with_name("low.fits")
    for name in ("second-order", "real-esrgan", "star"):
        assert run(fine, out, DegradeOptions(2, recipe=name, overwrite=True))["blocks"] == 1
    out.unlink()
    monkeypatch.setattr(degrade_blocks, "WHOLE", 300)
    with pytest.raises(UsageError, match="--recipe: second-order blurs or bins noise.*up to 300 px.*390 x 322.*cut it"):
        run(fine, out, DegradeOptions(2, recipe="second-order"))
    with pytest.raises(UsageError, match="codes JPEG|resizes to a grid between"):
        run(fine, out, DegradeOptions(2, recipe="real-esrgan"))
    assert not out.exists()


def test_which_chains_go_by_blocks() -> None:
    step, blur = chain.Step, chain.Step("blur", {"kernel": KERNEL})
    coarse = step("resize", {"to": "coarse", "filter": "area"})
    assert degrade_blocks.needs_whole([blur, coarse, step("detector")]) == ""
    assert degrade_blocks.needs_whole([coarse, blur, step("gaussian", {"sigma": 3})]) == ""
    assert "noise of the fine grid" in degrade_blocks.needs_whole([step("gaussian"), coarse])
    assert "levels" in degrade_blocks.needs_whole([coarse, step("poisson", {"strength": 1})])


@pytest.mark.usefixtures("in_blocks")
@pytest.mark.parametrize("at", [1, 7])
def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(
    fine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    options = DegradeOptions(2, kernel=KERNEL, gain=2.0, read_noise=5.0)
    run(fine, tmp_path / "whole.fits", options)
    worked: list[int] = []

    straight = degrade_blocks.degrade_block

    def stopping(plan: degrade_blocks.FramePlan, block: blocks.Block, window: Frame) -> degrade_blocks.Degraded:
        if block.number == at and len(worked) == at:
            raise OSError(28, "No space left on device", "out.fits")
        worked.append(block.number)
        return straight(plan, block, window)

    monkeypatch.setattr(degrade_blocks, "degrade_block", stopping)
    with pytest.raises(ResourceError) as caught:
        run(fine, tmp_path / "out.fits", options)
    assert f"{at} of " in caught.value.__notes__[0]
    assert not (tmp_path / "out.fits").exists()
    with pytest.raises(UsageError, match=r"begun by another job \(not the same: --seed\)"):
        run(fine, tmp_path / "out.fits", replace(options, seed=3))
    worked[:] = [-1] * 100
    said = run(fine, tmp_path / "out.fits", options)["said"]
    assert f"resumed: {at} of 20 blocks were done before" in said
    assert worked[100:] == [0, *range(at, 20)], "the first tells what all have in common"
    assert (tmp_path / "out.fits").read_bytes() == (tmp_path / "whole.fits").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fine.fits", "out.fits", "whole.fits"]


@pytest.mark.usefixtures("in_blocks")
@pytest.mark.parametrize("more", [{"gain": 2.0, "read_noise": 5.0}, {"recipe": "astro"}], ids=["stated", "recipe"])
def test_shards_write_the_bytes_of_one_run(fine: Path, tmp_path: Path, more: dict[str, Any]) -> None:
    options = DegradeOptions(2, kernel=KERNEL, **more)
    whole = run(fine, tmp_path / "whole.fits", options)
    records = [run(fine, tmp_path / "out.fits", options, shard=Shard(n, 3)) for n in (2, 3, 1)]
    assert [record.get("status") for record in records] == ["waiting", "waiting", None]
    assert (tmp_path / "out.fits").read_bytes() == (tmp_path / "whole.fits").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fine.fits", "out.fits", "whole.fits"]
    names = set(whole) - {"output", "files"}
    assert {name: records[2][name] for name in names} == {name: whole[name] for name in names}


@pytest.mark.usefixtures("in_blocks")
def test_pairs_are_added_once_by_the_last_shard(fine: Path, tmp_path: Path) -> None:
    options = DegradeOptions(2, kernel=KERNEL, pairs=str(tmp_path / "set.h5"), patch=64)
    waiting = run(fine, tmp_path / "out.fits", options, shard=Shard(1, 2))
    assert waiting["status"] == "waiting" and not (tmp_path / "set.h5").exists()
    assert run(fine, tmp_path / "out.fits", options, shard=Shard(2, 2))["pairs"]["added"] > 5


@pytest.mark.usefixtures("in_blocks")
def test_an_input_that_changes_while_it_is_read_is_refused(
    fine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = degrade_blocks.degrade_block

    def changing(plan: degrade_blocks.FramePlan, block: blocks.Block, window: Frame) -> degrade_blocks.Degraded:
        if block.number == 3:
            data = fine.read_bytes()
            fine.unlink()
            fine.write_bytes(data[:-1] + b"\1")  # behind the last array
        return straight(plan, block, window)

    monkeypatch.setattr(degrade_blocks, "degrade_block", changing)
    with pytest.raises(InputError, match=r"fine\.fits: changed while it was read \(input\)"):
        run(fine, tmp_path / "out.fits", DegradeOptions(2, kernel=KERNEL))
    assert not (tmp_path / "out.fits").exists()

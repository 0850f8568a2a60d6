"""Degrading: planes, recipes and whole files."""

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from sciresdiff import io
from sciresdiff.degradation import chain, grids, recipe
from sciresdiff.degradation import degrade as physics
from sciresdiff.errors import InputError, UsageError
from sciresdiff.frame import Frame, PixelSize
from sciresdiff.io.hdf5.read import read_pairs
from sciresdiff.jobs.degrade.job import DegradeOptions, run
from sciresdiff.physics import psf
from sciresdiff.physics.detector import Detector


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def judge(high: np.ndarray, scale: int, sigma: float) -> np.ndarray:
    """The outside judge's forward model."""
    h, w = (n // scale * scale for n in high.shape)
    blurred = gaussian_filter(high[:h, :w], sigma, mode="reflect", truncate=5)
    return blurred.reshape(h // scale, scale, w // scale, scale).sum((1, 3))


def made(high: np.ndarray, scale: int = 4, sigma: float = 2.4, **more: object) -> chain.DegradedPlane:
    kernel = psf.render(f"gaussian:sigma={sigma}px", None, integrate=False)
    told = {"quantity": "sum", "detector": None, "rng": rng(), **more}
    return physics.degrade(high, scale=scale, kernel=kernel, **told)  # type: ignore[arg-type]


@pytest.mark.parametrize(("scale", "sigma"), [(2, 1.2), (4, 2.4), (3, 1.0)])
def test_without_noise_it_is_the_outside_judges_model(scale: int, sigma: float) -> None:
    high = rng().random((131, 90)) * 1e4
    low = made(high, scale, sigma)
    np.testing.assert_allclose(low.pixels, judge(high, scale, sigma), rtol=1e-12)  # float64 rounding
    assert low.variance is None and not low.mask.any()
    mean = made(high, scale, sigma, quantity="mean")
    np.testing.assert_allclose(mean.pixels * scale**2, low.pixels, rtol=1e-12)


def test_flux_is_kept() -> None:
    high = rng().random((64, 64))
    assert made(high).pixels.sum() == pytest.approx(high.sum(), rel=1e-12)  # borders reflect


def test_added_noise_has_the_stated_variance_and_no_bias() -> None:
    high = gaussian_filter(rng().random((800, 800)), 4) * 400 - 180
    camera = Detector(gain=3.0, read_noise=6.0, sky=50.0, dark=4.0, offset=100.0)
    low = made(high, detector=camera)
    pull = (low.pixels - low.expected) / np.sqrt(low.variance)
    assert pull.mean() == pytest.approx(0, abs=5 / np.sqrt(pull.size))  # 5 standard errors: sky and offset are off
    assert pull.var() == pytest.approx(1, abs=5 * np.sqrt(2 / pull.size))


def test_inherited_variance_is_that_of_many_frames() -> None:
    frames = np.stack([made(rng(i).standard_normal((48, 48))).pixels for i in range(300)])
    stated = made(np.zeros((48, 48)), variance=np.ones((48, 48))).variance
    inner = np.s_[3:-3, 3:-3]
    assert frames.var(0)[inner].mean() == pytest.approx(stated[inner].mean(), rel=0.05)  # 10^4 correlated numbers
    alone = grids.propagate_variance(rng().random((8, 8)), 2, None, "mean")
    assert alone.shape == (4, 4)
    np.testing.assert_allclose(grids.propagate_variance(np.ones((8, 8)), 2, None, "sum"), 4)
    np.testing.assert_allclose(grids.propagate_variance(np.ones((8, 8)), 2, None, "mean"), 0.25)


def test_nan_masks_its_coarse_pixel_and_no_other() -> None:
    high = np.full((64, 64), 5.0)
    high[21, 30] = np.nan
    low = made(high)
    assert np.argwhere(np.isnan(low.pixels)).tolist() == [[5, 7]]
    assert np.argwhere(low.mask).tolist() == [[5, 7]]
    np.testing.assert_allclose(low.pixels[~low.mask], 80, rtol=1e-12)  # the neighbours know nothing of it
    flagged = np.zeros((64, 64), bool)
    flagged[0, 0] = True
    assert np.argwhere(made(np.ones((64, 64)), mask=flagged).mask).tolist() == [[0, 0]]


def test_flags_are_joined_by_or() -> None:
    bits = np.zeros((4, 4), np.int32)
    bits[0, 0], bits[1, 1], bits[3, 3] = 1, 4, 8
    assert grids.block_or(bits, 2).tolist() == [[5, 0], [0, 8]]


def test_saturation_is_flagged_and_masked() -> None:
    high = np.zeros((64, 64))
    high[32, 32] = 1e6
    low = made(high, detector=Detector(gain=1.0, full_well=2e4))
    assert low.saturated.any() and (low.mask == low.saturated).all()
    assert low.pixels.max() == pytest.approx(2e4)


def test_images_that_hold_no_coarse_pixel_or_no_value() -> None:
    with pytest.raises(InputError, match="--scale 4"):
        made(np.ones((3, 64)))
    with pytest.raises(InputError, match="no pixel has a finite value"):
        made(np.full((64, 64), np.nan))


# Recipes


@pytest.mark.parametrize("name", ["astro", "micro", "second-order"])
def test_recipes_draw_the_same_from_the_same_seed_and_stay_in_range(name: str) -> None:
    loaded = recipe.load(name)
    draws = [recipe.draw(loaded, np.random.default_rng([0, 5, i]), 4) for i in range(40)]
    again = [recipe.draw(loaded, np.random.default_rng([0, 5, i]), 4) for i in range(40)]
    assert [d.record() for d in draws] == [d.record() for d in again]
    assert len({str(d.record()) for d in draws}) == 40
    low, high, _ = loaded.stages[-1].tables["blur"]["numbers"]["fwhm"]
    blurs = [psf.parse([s for s in d.steps if s.name == "blur"][-1].numbers["kernel"]) for d in draws]
    widths = [blur.params["fwhm"][0] / 4 for blur in blurs if blur.params]
    assert all(low - 1e-5 <= w <= high + 1e-5 for w in widths)  # a SPEC has six digits
    for blur in blurs[:8]:
        assert psf.render(blur, None, integrate=False).sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[noise]\ngian = 2", "unknown key 'gian'"),
        ("[kernel]\nshapes = { gaussian = 1 }", "kernel.fwhm is missing"),
        ("[noise]\ngain = [3, 1]", "give a number"),
        ('[noise]\ngain = [0, 1, "log"]', "reaches below"),
        ("[noise]\nread_noise = -1", "reaches below"),
        ("stages = 3", "give 1 or 2"),
        ("[[stage]]\nblur = {}", "does not end on the coarse grid"),
        ('[[stage]]\nresize = { to = "fine" }', "resize.to = 'fine'"),
        ("[[stage]]\nresize = { range = [2, 3], up = 1 }", "ratios of a grid lie about 1"),
        ('[[stage]]\nresize = { to = "coarse" }\nblur = { shapes = { iso = 1 }, sigma = 1 }', "kernel.side is missing"),
        ('[[stage]]\nresize = { to = "coarse" }\nblur = { shapes = { iso = 1 }, sigma = 1, side = 8 }', "an odd side"),
        ('[[stage]]\nresize = { to = "coarse" }\nnoise = { kinds = { gaussian = 1 } }', "noise.sigma is missing"),
        ('[[stage]]\nresize = { to = "coarse" }\njpeg = { quality = [5, 200] }', "JPEG has 1 to 100"),
        ('[[stage]]\nresize = { to = "coarse" }\nblur = {}\norder = ["resize"]', "each has to name blur, resize"),
        ('[[stage]]\nprobability = 2\nresize = { to = "coarse" }', "a number from 0 to 1"),
        ('[[stage]]\nresize = { to = "coarse", filters = { lanczos = 1 } }', "unknown key 'lanczos'"),
        ("percentiles = [9, 1]\n[[stage]]\nresize = { to = 'coarse' }", "give a number"),
        ("stage = 3", "begin every stage"),
        ("[noise", "not a TOML file"),
    ],
)
def test_recipes_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(UsageError, match=message):
        recipe.load(str(tmp_path / "r.toml"))


def test_recipes_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean astro.*give astro, micro"):
        recipe.load("asstro")
    with pytest.raises(UsageError, match="No such file"):
        recipe.load(str(tmp_path / "r.toml"))


# Files


@pytest.fixture
def fine(tmp_path: Path) -> Path:
    path = tmp_path / "fine.fits"
    pixels = (rng().random((1, 130, 128)) * 1000).astype(np.float32)
    frame = Frame(
        pixels, np.zeros(pixels.shape, bool), "astro", quantity="sum", unit="electron", shape=(130, 128),
        pixel_size=PixelSize(0.1, 0.1, "arcsec"),
    )  # fmt: skip
    io.write(path, frame)
    return path


def test_a_file_carries_its_kernel_noise_and_pixel_size(fine: Path, tmp_path: Path) -> None:
    out = tmp_path / "low.fits"
    options = DegradeOptions(4, kernel="gaussian:sigma=2.4px", gain=2.0, read_noise=5.0, sky=20.0)
    record = run(fine, out, options)
    assert any("2 rows and 0 columns" in line for line in record["said"])
    assert any("noise that was added" in line for line in record["said"])
    low, high = io.read(out), io.read(fine)
    assert low.pixels.shape == (1, 32, 32) and low.kernel_scale == 4
    np.testing.assert_allclose(low.kernel, psf.render("gaussian:sigma=2.4px", None, integrate=False), atol=1e-15)
    assert low.pixel_size is not None and low.pixel_size.x == pytest.approx(0.4)
    expected = judge(high.pixels[0].astype(float), 4, 2.4)
    np.testing.assert_allclose(low.variance[0], (expected * 2 + 20 + 25) / 4, rtol=1e-6)  # float32
    chi2 = float(((low.pixels[0] - expected) ** 2 / low.variance[0]).mean())
    assert chi2 == pytest.approx(1, abs=5 * np.sqrt(2 / 1024))  # 5 standard errors


def test_without_noise_options_nothing_is_added(fine: Path, tmp_path: Path) -> None:
    run(fine, tmp_path / "low.fits", DegradeOptions(2, kernel="gaussian:sigma=1.2px"))
    low = io.read(tmp_path / "low.fits")
    assert low.variance is None
    np.testing.assert_allclose(
        low.pixels[0], judge(io.read(fine).pixels[0].astype(float), 2, 1.2), rtol=1e-6
    )  # float32
    run(fine, tmp_path / "bare.fits", DegradeOptions(2))
    assert io.read(tmp_path / "bare.fits").kernel == "none"


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(fine: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(fine, tmp_path / f"{name}.fits", DegradeOptions(2, recipe="astro", seed=seed))
    a, b, c = ((tmp_path / f"{name}.fits").read_bytes() for name in "abc")
    assert a == b != c


@pytest.mark.parametrize("name", ["second-order", "micro"])
def test_recipes_state_the_noise_that_they_add(fine: Path, tmp_path: Path, name: str) -> None:
    run(fine, tmp_path / "low.fits", DegradeOptions(2, recipe=name, seed=4))
    low, high = io.read(tmp_path / "low.fits"), io.read(fine)
    kernel = low.kernel if isinstance(low.kernel, np.ndarray) else None
    truth = physics.degrade(
        high.pixels[0], scale=2, kernel=kernel, quantity="sum", detector=None, rng=rng()
    ).pixels  # fmt: skip
    inner = np.s_[8:-8, 8:-8]
    pull = ((low.pixels[0] - truth) / np.sqrt(low.variance[0]))[inner]
    assert pull.std() == pytest.approx(1, abs=0.1)  # 2,000 pixels, correlated where noise came before the blur


def test_pairs_are_added_once(fine: Path, tmp_path: Path) -> None:
    path = tmp_path / "set.h5"
    options = DegradeOptions(2, recipe="astro", pairs=str(path), patch=32, overwrite=True)
    first = run(fine, tmp_path / "low.fits", options)
    assert first["pairs"] == {"file": str(path), "added": 16, "total": 16}
    assert run(fine, tmp_path / "low.fits", options)["pairs"]["added"] == 0
    found = read_pairs(path)
    assert found.low.shape == (16, 16, 16) and found.scale == 2 and found.quantity == "sum"
    np.testing.assert_allclose(found.kernel.sum((1, 2)), 1)
    assert len({k.tobytes() for k in found.kernel}) > 8  # every patch has draws of its own
    for low, high, kernel, variance in zip(found.low, found.high, found.kernel, found.variance, strict=True):
        expected = physics.degrade(high, scale=2, kernel=kernel[16:-16, 16:-16] if len(kernel) > 63 else kernel,
                                   quantity="sum", detector=None, rng=rng()).pixels  # fmt: skip
        assert np.abs((low - expected) / np.sqrt(variance)).mean() < 1.2  # 0.8 for a Gaussian
    with pytest.raises(UsageError, match="holds other pairs .patch 32 there, 64 here"):
        run(fine, tmp_path / "other.fits", DegradeOptions(2, pairs=str(path), patch=64))
    assert not (tmp_path / "other.fits").exists()


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"sky": 3.0}, "--sky: is in electrons and needs --gain"),
        ({"full_well": 3.0}, "--full-well"),
        ({"pairs": "set.h5", "patch": 33}, "no multiple of --scale 2"),
        ({"kernel": "box"}, "is not known"),
        ({"recipe": "nope"}, "--recipe"),
        ({"gain": -1.0}, "--gain"),
        ({"gain": 2.0, "recipe": "bicubic"}, "--gain: recipe bicubic has no detector"),
        ({"kernel": "none", "recipe": "real-esrgan"}, "--kernel: recipe real-esrgan has a blur of its own"),
    ],
)
def test_options_that_do_not_fit(fine: Path, tmp_path: Path, told: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run(fine, tmp_path / "low.fits", DegradeOptions(2, **told))  # type: ignore[arg-type]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fine.fits"]


def test_an_output_that_exists_and_a_map_that_does_not_fit(fine: Path, tmp_path: Path) -> None:
    out = tmp_path / "low.fits"
    run(fine, out, DegradeOptions(2))
    with pytest.raises(UsageError, match="exists"):
        run(fine, out, DegradeOptions(2))
    with pytest.raises(InputError, match=r"--gain: .* shape \(130, 128\)"):
        run(fine, out, DegradeOptions(2, gain=str(fine), overwrite=True))


def test_a_real_frame_keeps_its_flags(sample_data: Path, tmp_path: Path) -> None:
    high = io.read(sample_data / "47tuc.fits")
    run(sample_data / "47tuc.fits", tmp_path / "low.fits", DegradeOptions(4, kernel="gaussian:sigma=2.4px", gain=10.0))
    low = io.read(tmp_path / "low.fits")
    assert high.dq is not None and low.dq is not None
    assert (low.dq[0] & grids.block_or(high.dq[0], 4) == grids.block_or(high.dq[0], 4)).all()
    assert (low.mask[0] >= grids.block_any(high.mask[0], 4)).all()
    clean = judge(high.pixels[0].astype(float), 4, 2.4)
    assert float(np.median((low.pixels[0] - clean) ** 2 / low.variance[0])) == pytest.approx(
        0.455, abs=0.06
    )  # chi2 of 1

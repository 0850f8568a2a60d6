"""Chains of degradation: kernels, grids, noise and coding against formulae; registration, flux and draws of recipes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from astropy.io import fits
from astropy.wcs import WCS
from scipy import integrate, special

from sciresdiff import io
from sciresdiff.degradation import chain, eightbit, grids, kernels, recipe, resize
from sciresdiff.degradation.chain import Step
from sciresdiff.frame import Frame, PixelSize
from sciresdiff.io.hdf5.read import read_pairs
from sciresdiff.jobs.degrade.job import DegradeOptions, plan, run
from sciresdiff.physics.operators import Operator

SCALES = (2, 3, 4)


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed or 0)


def linear(high: np.ndarray, steps: list[Step], scale: int, quantity: str = "sum") -> chain.DegradedPlane:
    return chain.run_chain(high, steps, scale=scale, quantity=quantity, rng=None)  # type: ignore[arg-type]


def star(side: int, scale: int, y: float, x: float, sigma: float) -> np.ndarray:
    """A Gaussian star of ``sigma`` coarse px at a place in coarse px, sampled finely enough that sums are integrals."""
    line = (np.arange(side * scale) + 0.5) / scale - 0.5
    return np.exp(-(((line[:, None] - y) ** 2) + (line[None, :] - x) ** 2) / (2 * sigma**2))


def centroid(image: np.ndarray) -> np.ndarray:
    y, x = np.indices(image.shape)
    return np.array([(image * y).sum(), (image * x).sum()]) / image.sum()


# Kernels


def test_families_are_their_formulae() -> None:
    told = {"side": 9, "sigma_x": 2.0, "sigma_y": 0.7, "theta": 30.0, "beta": 1.7}
    made = {name: kernels.family_kernel(name, {**told, "cutoff": 1.3}) for name in kernels.FAMILIES}
    turn = np.deg2rad(30.0)
    axes = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    inverse = np.linalg.inv(axes @ np.diag([4.0, 0.49]) @ axes.T)
    place = np.stack(np.meshgrid(np.arange(-4, 5), np.arange(-4, 5)), -1).astype(float)  # (x, y)
    q = np.einsum("...i,ij,...j", place, inverse, place)
    radius2 = (place**2).sum(-1) / 4
    for name, expected in (
        ("iso", np.exp(-radius2 / 2)),
        ("aniso", np.exp(-q / 2)),
        ("generalised-iso", np.exp(-(radius2**1.7) / 2)),
        ("generalised-aniso", np.exp(-(q**1.7) / 2)),
        ("plateau-iso", 1 / (1 + radius2**1.7)),
        ("plateau-aniso", 1 / (1 + q**1.7)),
    ):
        np.testing.assert_allclose(made[name], expected / expected.sum(), rtol=1e-12)  # float64 rounding
    r = np.hypot(*np.moveaxis(place, -1, 0))
    disc = lambda r: integrate.quad(lambda k: k * special.j0(k * r) / (2 * np.pi), 0, 1.3)[0]  # noqa: E731
    expected = np.vectorize(disc)(r)  # the transform of a disc of radius 1.3 in the plane of frequencies
    np.testing.assert_allclose(made["sinc"], expected / expected.sum(), atol=1e-10)  # quadrature


def test_an_airy_pattern_has_its_first_dark_ring_at_the_radius() -> None:
    kernel = kernels.kernel_from_numbers({"kernel": str(kernels.airy_from_first_ring(20.0))})
    assert kernel is not None
    line = kernel[len(kernel) // 2, len(kernel) // 2 :]
    assert line[20] < 1e-4 * line[0] and line[20] < min(line[18], line[22])  # of the peak


# Grids


@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_an_antialiased_reduction_is_a_kernel_and_the_pixel(name: str, scale: int) -> None:
    x = rng().random((12 * scale, 10 * scale))
    kernel = resize.antialias_kernel(name, scale)
    assert kernel is not None and kernel.shape[0] % 2 == 1
    measured = Operator((12, 10), scale, kernel, "mean", torch.float64).apply(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(measured, resize.resize_image(x, (12, 10), name, True), atol=1e-13)  # float64 rounding
    torch_way = torch.nn.functional.interpolate(torch.from_numpy(x)[None, None], (12, 10), mode=name, antialias=True)
    inner = np.s_[2:-2, 2:-2]  # torch cuts the filter at the border, here it reflects
    np.testing.assert_allclose(measured[inner], torch_way[0, 0].numpy()[inner], atol=1e-13)
    assert measured.sum() * scale**2 == pytest.approx(x.sum(), rel=1e-12)


@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
@pytest.mark.parametrize("shape", [(17, 50), (61, 9)])
def test_resizing_is_torchs_for_a_given_size(name: str, shape: tuple[int, int]) -> None:
    x = rng().random((40, 36))
    torch_way = torch.nn.functional.interpolate(torch.from_numpy(x)[None, None], shape, mode=name)[0, 0].numpy()
    inner = np.s_[4:-4, 2:-2]  # borders reflect here
    np.testing.assert_allclose(resize.resize_image(x, shape, name)[inner], torch_way[inner], atol=1e-13)


@pytest.mark.parametrize("shape", [(7, 9), (13, 80), (40, 36)])
def test_area_keeps_the_flux_at_every_ratio(shape: tuple[int, int]) -> None:
    x = rng().random((40, 36))
    assert resize.resize_image(x, shape, "area").mean() == pytest.approx(x.mean(), rel=1e-13)


def test_a_dilated_kernel_before_the_sum_is_the_kernel_after_it() -> None:
    x, kernel = rng().random((48, 36)), rng(1).random((5, 3))
    kernel /= kernel.sum()
    after = Operator((16, 12), 1, kernel, "sum", torch.float64).apply(
        Operator((16, 12), 3, None, "sum", torch.float64).apply(torch.from_numpy(x))
    )
    wide = grids.dilate_kernel(kernel, 3)
    before = Operator((16, 12), 3, wide, "sum", torch.float64).apply(torch.from_numpy(x))
    np.testing.assert_allclose(before.numpy(), after.numpy(), rtol=1e-12)


# Registration and flux


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", recipe.RECIPES)
def test_a_star_lands_where_the_wcs_says(name: str, scale: int) -> None:
    loaded = recipe.load(name)
    coarsest = max(1 / 0.15, scale / 0.3)  # fine px of a pixel of the coarsest grid that a recipe passes
    sigma = 2.2 * coarsest / scale  # sampled well enough there, so that sums are integrals
    side = int(16 * sigma)  # light reflected at the border stays below 1e-10
    place = side / 2 + 0.3, side / 2 - 1.4
    high = star(side, scale, *place, sigma)
    for draw in range(2):
        low = linear(high, list(recipe.draw(loaded, rng(draw), scale).steps), scale)
        assert np.abs(centroid(low.pixels) - place).max() < 1e-3  # coarse px; all but real-esrgan are right to 1e-10
        if name != "real-esrgan":  # whose point-sampled filters keep flux to a few 1e-4 here
            assert low.pixels.sum() == pytest.approx(high.sum(), rel=1e-9)  # float64 rounding


def test_a_star_in_a_file_lands_where_the_header_says(tmp_path: Path) -> None:
    header = fits.Header({
        "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRPIX1": 100.5, "CRPIX2": 90.0, "CRVAL1": 10.0, "CRVAL2": -5.0,
        "CD1_1": -1e-5, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 1e-5, "BUNIT": "electron",
    })  # fmt: skip
    high = star(48, 4, 22.3, 25.1, 3.0)
    fits.writeto(tmp_path / "high.fits", high.astype(np.float32), header)
    truth = WCS(header).all_pix2world([centroid(high)[::-1]], 0)
    for name in ("bicubic", "star"):
        run(tmp_path / "high.fits", tmp_path / f"{name}.fits", DegradeOptions(4, recipe=name))
        with fits.open(tmp_path / f"{name}.fits") as hdus:
            low, coarse = hdus["SCI"].data.astype(float), WCS(hdus["SCI"].header)
        found = coarse.all_world2pix(truth, 0)[0][::-1]
        bright = low if name == "bicubic" else np.where(low > 0.05 * low.max(), low, 0)
        assert np.abs(centroid(bright) - found).max() < (1e-4 if name == "bicubic" else 0.05)  # float32; photons


@pytest.mark.parametrize("name", [n for n in recipe.RECIPES if n != "real-esrgan"])
def test_flux_is_kept_where_a_recipe_says_so(name: str) -> None:
    high = np.zeros((96, 96))
    high[40:56, 40:56] = rng().random((16, 16))  # whatever structure, away from the border
    for draw in range(4):
        steps = list(recipe.draw(recipe.load(name), rng(draw), 2).steps)
        for quantity, factor in (("sum", 1), ("mean", 4)):
            low = linear(high, steps, 2, quantity)
            assert low.pixels.sum() * factor == pytest.approx(high.sum(), rel=1e-5)  # of the operator's few terms


def test_the_stated_kernel_is_what_a_chain_does() -> None:
    high = rng().random((96, 90))
    for name in ("astro", "first-order", "second-order", "bicubic", "star"):
        for draw in range(3):
            low = linear(high, list(recipe.draw(recipe.load(name), rng(draw), 3).steps), 3)
            assert not low.unknown
            whole = Operator((32, 30), 3, low.kernel, "sum", torch.float64).apply(torch.from_numpy(high)).numpy()
            inner = np.s_[11:-11, 11:-11]  # one reflection is not two where kernels are oblique
            assert np.abs(whole - low.pixels)[inner].max() < 2e-4 * low.pixels.max()  # of the operator's few terms


def test_the_mean_of_many_noises_is_the_linear_part() -> None:
    high = star(24, 2, 11.5, 12.0, 3.0) * 50 + 3
    for name in ("first-order", "star"):
        steps = list(recipe.draw(recipe.load(name), rng(3), 2).steps)
        lows = [chain.run_chain(high, steps, scale=2, quantity="sum", rng=rng(7, i)) for i in range(120)]
        mean, clean = np.mean([low.pixels for low in lows], 0), linear(high, steps, 2).pixels
        variance = lows[0].variance
        assert variance is not None
        pull = (mean - clean) / np.sqrt(variance / 120)
        assert abs(pull.mean()) < 0.4 and pull.std() < 1.3  # correlated pixels: fewer than 576 independent ones
        scatter = np.var([low.pixels for low in lows], 0)[4:-4, 4:-4]
        assert (scatter / variance[4:-4, 4:-4]).mean() == pytest.approx(1, abs=0.08)  # 120 frames, correlated pixels


# Noise and coding


def test_poisson_noise_has_its_moments_and_grey_planes_share_it() -> None:
    light = np.full((300, 300), 0.3)
    numbers = {"strength": 2.0, "electrons": 64.0}
    noise, variance = eightbit.poisson_noise(light, numbers, rng(), None)
    assert variance[0, 0] == pytest.approx(4 * 0.3 / 64)
    assert noise.mean() == pytest.approx(0, abs=5 * np.sqrt(variance[0, 0]) / 300)  # 5 standard errors
    assert noise.var() == pytest.approx(variance[0, 0], rel=5 * np.sqrt(2) / 300)
    grey = {**numbers, "grey": True, "place": 1}
    planes = [eightbit.poisson_noise(light * f, grey, rng(i), (1, 2))[0] for i, f in enumerate((1.0, 0.8))]
    assert np.corrcoef(planes[0].ravel(), planes[1].ravel())[0, 1] > 0.9
    apart = [eightbit.poisson_noise(light, numbers, rng(i), (1, 2))[0] for i in (0, 1)]
    assert abs(np.corrcoef(apart[0].ravel(), apart[1].ravel())[0, 1]) < 0.02  # 6 standard errors
    assert eightbit.count_levels(np.arange(100) / 255) == 128


def test_jpeg_rounds_to_its_levels_and_cuts_what_lies_beyond() -> None:
    high = np.tile(np.linspace(100.0, 300.0, 64), (64, 1))
    high[10, 10] = 1e4
    steps = [Step("jpeg", {"quality": 100}), Step("resize", {"filter": "area"})]
    low = chain.run_chain(high, steps, scale=2, quantity="mean", rng=rng(), percentiles=(0, 99.9))
    assert low.saturated[5, 5] and low.mask[5, 5] and low.saturated.sum() == 1
    clean = high.copy()
    clean[10, 10] = 300
    error = low.pixels - linear(clean, steps[1:], 2, "mean").pixels
    assert np.abs(error).max() < 4 * 200 / 255  # a few codes at quality 100
    assert low.unknown == {"variance": "JPEG", "kernel": "JPEG"} and low.variance is None and low.kernel is None


def test_noise_that_is_blurred_twice_has_no_stated_variance() -> None:
    blur, noise = Step("blur", {"kernel": "gaussian:sigma=1px"}), Step("gaussian", {"sigma": 5.0})
    down = Step("resize", {"filter": "area"})
    high = rng().random((40, 40))
    one = chain.run_chain(high, [noise, blur, down], scale=2, quantity="sum", rng=rng())
    assert one.variance is not None and one.unknown == {}
    two = chain.run_chain(high, [noise, blur, down, blur], scale=2, quantity="sum", rng=rng())
    assert two.variance is None and "correlated" in two.unknown["variance"]
    assert two.kernel is not None  # blurs stay blurs


@pytest.mark.parametrize("high", [np.zeros((16, 16)), np.full((16, 16), -7.0), np.pad([[np.nan]], 8)[:16, :16]])
@pytest.mark.parametrize("name", recipe.RECIPES)
def test_flat_and_holed_images_pass(name: str, high: np.ndarray) -> None:
    low = chain.run_chain(high, recipe.draw(recipe.load(name), rng(1), 2).steps, scale=2, quantity="sum", rng=rng())
    assert low.pixels.shape == (8, 8) and np.isnan(low.pixels).sum() == np.isnan(high).sum()


# Draws


def test_real_esrgan_draws_with_its_published_probabilities() -> None:
    loaded, count = recipe.load("real-esrgan"), 4000
    draws = [recipe.draw(loaded, rng(1, i), 4).record() for i in range(count)]
    first = [d[0] for d in draws]
    share = lambda name: sum(s["kernel"] == name for s in first) / count  # noqa: E731
    published = {"iso": 0.45, "aniso": 0.25, "generalised-iso": 0.12, "generalised-aniso": 0.03, "plateau-iso": 0.12,
                 "plateau-aniso": 0.03}  # fmt: skip
    for name, p in published.items():
        assert share(name) == pytest.approx(0.9 * p, abs=4 * np.sqrt(p / count))  # 4 standard errors
    assert share("sinc") == pytest.approx(0.1, abs=0.02)
    assert {s["side"] for s in first} == set(range(7, 22, 2))
    ratios = np.array([d[1]["ratio"] for d in draws])
    assert ((ratios > 1).mean(), (ratios < 1).mean()) == pytest.approx((0.2, 0.7), abs=0.03)
    assert 0.15 <= ratios.min() < 0.17 and 1.48 < ratios.max() <= 1.5
    twice = [d for d in draws if sum(s["step"] == "resize" for s in d) == 3]
    assert len(twice) / count == pytest.approx(0.5, abs=0.03)
    blurred = [s["kernel"] != "none" for d in twice for s in d[4:5]]
    assert np.mean(blurred) == pytest.approx(0.8, abs=0.04)
    strong = [s["sigma"] for d in draws for s in d[2:3] if s["step"] == "gaussian"]
    assert len(strong) / count == pytest.approx(0.5, abs=0.03) and min(strong) >= 1 and 29 < max(strong) <= 30
    assert np.mean([s["grey"] for d in draws for s in d[2:3]]) == pytest.approx(0.4, abs=0.03)
    last = [d[-1]["step"] for d in draws]
    assert np.mean([s == "jpeg" for s in last]) == pytest.approx(0.5, abs=0.03)
    quality = [s["quality"] for d in draws for s in d if s["step"] == "jpeg"]
    assert (min(quality), max(quality)) == (30, 95)
    betas = [s["beta"] for s in first if s["kernel"].startswith("generalised")]
    assert np.mean(np.array(betas) < 1) == pytest.approx(0.5, abs=0.1) and max(betas) <= 4 and min(betas) >= 0.5


def fine(path: Path, side: int = 96) -> Path:
    pixels = (rng(side).random((1, side, side)) * 1000).astype(np.float32)
    frame = Frame(
        pixels, np.zeros(pixels.shape, bool), "astro", quantity="sum", unit="electron", shape=(side, side),
        pixel_size=PixelSize(0.1, 0.1, "arcsec"),
    )  # fmt: skip
    io.write(path, frame)
    return path


@pytest.mark.parametrize("name", recipe.RECIPES)
def test_files_and_sets_of_every_recipe_say_what_is_known(name: str, tmp_path: Path) -> None:
    source, low, pairs = fine(tmp_path / "fine.fits"), tmp_path / "low.fits", tmp_path / "set.h5"
    options = DegradeOptions(2, recipe=name, pairs=str(pairs), patch=32, seed=5)
    told = run(source, low, options)
    frame, found = io.read(low), read_pairs(pairs)
    assert frame.pixels.shape == (1, 48, 48) and len(found) == 9
    if name == "real-esrgan":
        assert frame.variance is None and frame.kernel is None and frame.kernel_scale is None
        assert found.variance is None and found.kernel is None
        assert set(told["unknown"]) == {"variance", "kernel"} and told["unknown"]["variance"] == "JPEG"
        assert sum("none is written" in line for line in told["said"]) == 2
    else:
        assert frame.kernel is not None and frame.kernel_scale == 2 and told["unknown"] == {}
        assert (frame.variance is None) == (name == "bicubic")
        assert found.kernel is not None and np.isfinite(found.kernel).all()
    steps = [step["step"] for step in told["drawn"]["steps"]]
    assert [line.split()[0] for line in plan(source, options)["steps"]] == steps


@pytest.mark.parametrize("name", ["real-esrgan", "star", "second-order"])
def test_every_draw_follows_from_seed_frame_and_patch(name: str, tmp_path: Path) -> None:
    """A patch's pair does not depend on what else is degraded, nor on the order."""
    a, b = fine(tmp_path / "a.fits"), fine(tmp_path / "b.fits", side=64)
    for order, files in (("ab", (a, b)), ("ba", (b, a))):
        for path in files:
            run(path, tmp_path / f"{order}_{path.stem}.fits",
                DegradeOptions(2, recipe=name, pairs=str(tmp_path / f"{order}.h5"), patch=32))  # fmt: skip
    for stem in "ab":
        assert (tmp_path / f"ab_{stem}.fits").read_bytes() == (tmp_path / f"ba_{stem}.fits").read_bytes()
    sets = [read_pairs(tmp_path / f"{order}.h5") for order in ("ab", "ba")]
    rows = [{(low.tobytes(), high.tobytes()) for low, high in zip(s.low, s.high, strict=True)} for s in sets]
    assert rows[0] == rows[1] and len(rows[0]) == 13
    run(a, tmp_path / "other.fits", DegradeOptions(2, recipe=name, seed=1))
    assert (tmp_path / "other.fits").read_bytes() != (tmp_path / "ab_a.fits").read_bytes()


def test_an_unknown_pair_in_a_set_is_marked(tmp_path: Path) -> None:
    source, pairs = fine(tmp_path / "fine.fits"), tmp_path / "set.h5"
    for i, name in enumerate(("star", "real-esrgan")):
        run(source, tmp_path / f"{i}.fits", DegradeOptions(2, recipe=name, pairs=str(pairs), patch=48))
    found = read_pairs(pairs)
    assert found.variance is not None and found.kernel is not None and len(found) == 8
    assert np.isfinite(found.variance[:4]).all() and np.isnan(found.variance[4:]).all()
    assert np.isfinite(found.kernel[:4]).all() and np.isnan(found.kernel[4:]).all()
    np.testing.assert_allclose(found.kernel[:4].sum((1, 2)), 1)


def test_real_frames_pass_every_recipe(sample_data: Path, tmp_path: Path) -> None:
    for name in recipe.RECIPES:
        run(sample_data / "47tuc.fits", tmp_path / f"{name}.fits", DegradeOptions(4, recipe=name))
        low, high = io.read(tmp_path / f"{name}.fits"), io.read(sample_data / "47tuc.fits")
        assert low.pixels.shape[1] == high.pixels.shape[1] // 4 and np.isfinite(low.pixels[~low.mask]).all()


def test_a_colour_image_of_the_shared_set_is_degraded_plane_by_plane(shared_data: Path, tmp_path: Path) -> None:
    found = sorted((shared_data / "micro").rglob("*.tif"))
    frames = [p for p in found if "hela" in p.name.lower()]
    if not frames:
        pytest.skip("no HeLa colour frame in the shared set")
    run(frames[0], tmp_path / "low.tif", DegradeOptions(2, recipe="real-esrgan", seed=2))
    assert io.read(tmp_path / "low.tif").planes == 3

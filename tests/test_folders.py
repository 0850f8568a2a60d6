"""The user's data in training: sets, folders of pairs in their layouts, pictures, frames through a recipe."""

from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from scipy.ndimage import gaussian_filter

from sciresdiff import io
from sciresdiff.cli.train import find_data
from sciresdiff.degradation import resize
from sciresdiff.errors import InputError, UsageError
from sciresdiff.frame import Frame
from sciresdiff.io.hdf5.read import read_pairs, write_pairs
from sciresdiff.jobs.degrade.job import DegradeOptions, run
from sciresdiff.physics import psf
from sciresdiff.physics.operators import Operator
from sciresdiff.restoration.prior import Prior, PriorConfig
from sciresdiff.training import image_pair as pairing
from sciresdiff.training import images, layouts, simulate
from sciresdiff.training.batch import Batch
from sciresdiff.training.data import Pairs
from sciresdiff.training.folders import UserData
from sciresdiff.training.kernel_terms import kernel_terms
from sciresdiff.training.pair import CoarseImage, Pair
from sciresdiff.training.recipe import DataRecipe

SMALL = {"scale": 2, "patch": 16, "scene_px": 64, "pool": 2}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def pairs_of(*paths: Path, **more: object) -> Pairs:
    """Pairs of a user's data alone."""
    recipe = DataRecipe(**{**SMALL, "real_share": 1.0, **more})  # type: ignore[arg-type]
    return Pairs(recipe, 5, UserData(tuple(map(str, paths))))


def scene(side: int = 128, seed: int = 0) -> np.ndarray:
    """A smooth scene of 0 ... 1."""
    image = gaussian_filter(rng(seed).random((side, side)), 2.5, mode="reflect")
    return (image - image.min()) / np.ptp(image)


def fits(path: Path, pixels: np.ndarray) -> Path:
    planes = np.asarray(pixels, np.float32).reshape(-1, *pixels.shape[-2:])
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = Frame(planes, np.zeros(planes.shape, bool), "astro", quantity="sum", unit="electron", shape=pixels.shape)
    io.write(path, frame)
    return path


def png(path: Path, codes: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(imagecodecs.png_encode(np.ascontiguousarray(codes)))
    return path


def codes(image: np.ndarray, top: int = 255) -> np.ndarray:
    return np.rint(np.clip(image, 0, 1) * top).astype(np.uint8 if top == 255 else np.uint16)


def reduced(image: np.ndarray, scale: int = 2) -> np.ndarray:
    return resize.resize_image(image, (image.shape[0] // scale, image.shape[1] // scale), "bicubic", True)


def checked(batch: Batch) -> Batch:
    """What every batch promises."""
    assert batch.truth.shape[-1] == 2 * batch.data.y.shape[-1] and batch.kernel.shape == (len(batch.truth), 4)
    assert all(bool(torch.isfinite(t).all()) for t in (batch.data.y, batch.data.noise, batch.truth, batch.kernel))
    assert bool((batch.data.noise > 0).all()) and bool((batch.data.y[batch.data.valid == 0] == 0).all())
    return batch


# Without sets and folders


def arrays_of(pair: Pair) -> dict[str, np.ndarray]:
    """The arrays of a pair by name, those of its coarse image or noise too."""
    return {name: np.asarray(x) for name, x in {**vars(pair), **vars(pair.coarse)}.items() if name != "coarse"}


def drawn_alone(pairs: Pairs, pair: int) -> dict[str, np.ndarray]:
    """The draw of a pair from simulated scenes and images in memory, without sets and folders."""
    recipe, draws = pairs.recipe, np.random.default_rng([pairs.seed, 2, pair])
    log = lambda low, high: float(np.exp(draws.uniform(np.log(low), np.log(high))))  # noqa: E731
    chosen = pairs.real and draws.random() < recipe.real_share
    image = pairs.real[int(draws.integers(len(pairs.real)))] if chosen else pairs.scenes.draw(pair, draws)
    truth = simulate.crop(image, recipe.patch * recipe.scale, draws) / (log(*recipe.noise) * recipe.scale)
    slope = log(*recipe.photon)
    if draws.random() < recipe.grain_share:
        truth = truth + simulate.draw_grain(truth, slope, draws, recipe)
    left = log(*recipe.pedestal) * draws.uniform(-0.05, 1) / recipe.scale**2
    kernel = simulate.draw_kernel(draws, recipe)
    terms = kernel_terms(kernel, simulate.RANK, 2 * int(5 * recipe.sigma[1] * recipe.scale) + 1)
    sky, normal = log(0.5, 2), draws.standard_normal((recipe.patch, recipe.patch), dtype=np.float32)
    valid = simulate.draw_valid((recipe.patch, recipe.patch), draws)
    found = {"truth": truth + left, "terms": terms, "slope": slope, "sky": sky, "normal": normal, "valid": valid}
    return {name: np.asarray(x, np.float32) for name, x in found.items()}


def test_pairs_drawn_on_the_fly_are_the_bytes_they_were() -> None:
    real = [rng().standard_normal((90, 80)).astype(np.float32)]
    for images_, more in (([], {}), (real, {"real_share": 0.5}), (real, {"real_share": 0.0})):
        pairs = Pairs(DataRecipe(**SMALL, **more), 5, images_)  # type: ignore[arg-type]
        for n in range(12):
            told, before = arrays_of(pairs.draw(n)), drawn_alone(pairs, n)
            assert all(np.array_equal(told[name], before[name]) for name in before)
        found = [drawn_alone(pairs, n) for n in range(8)]
        stack = {key: torch.from_numpy(np.stack([d[key] for d in found])) for key in found[0]}
        truth, normal, valid = (stack[key][:, None] for key in ("truth", "normal", "valid"))
        sky, slope = (stack[key][:, None, None, None] for key in ("sky", "slope"))
        clean = Operator.batch((16, 16), 2, stack["terms"]).apply(truth)
        noise, batch = sky + slope * clean.clamp_min(0), pairs.batch(0, 8)
        assert torch.equal(batch.data.noise, noise)
        assert torch.equal(batch.data.y, (clean + normal * noise.sqrt()) * valid)
        assert torch.equal(batch.truth, truth) and torch.equal(batch.data.valid, valid)


# Sets


@pytest.mark.parametrize("name", ["astro", "second-order", "star"])
def test_a_set_is_read_with_its_noise_and_kernels(name: str, tmp_path: Path) -> None:
    source = fits(tmp_path / "fine.fits", 1000 * scene(256) + 50)
    run(source, tmp_path / "low.fits", DegradeOptions(2, recipe=name, pairs=str(tmp_path / "set.h5"), patch=64, seed=3))
    pairs = pairs_of(tmp_path / "set.h5", patch=32)
    batch = checked(pairs.batch(0, 48))
    chi2 = batch.data.chi2(batch.truth)
    assert float(chi2.median()) == pytest.approx(1, abs=0.15)  # correlated noise; 48 draws of 16 patches
    few, whole = pairs.batch(0, 2), Prior(PriorConfig(2, "resnet", stages=1, width=8, depth=1))
    assert torch.isfinite(whole(few.data, few.kernel)[-1].x).all()


def test_a_set_says_when_it_does_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "set.h5"
    low, high = rng().random((3, 20, 20)), rng().random((3, 40, 40))
    write_pairs(path, low, high, scale=2)
    with pytest.raises(InputError, match="set.h5: the blur of this pair is not stated.*kernel in --recipe"):
        pairs_of(path)
    assert len(checked(pairs_of(path, kernel="area").batch(0, 3)).truth) == 3
    with pytest.raises(UsageError, match=r"--recipe: \[data\] kernel = 'box'"):
        pairs_of(path, kernel="box")
    with pytest.raises(InputError, match="pairs of scale 2, but --scale is 4"):
        pairs_of(path, kernel="area", scale=4)
    with pytest.raises(InputError, match="smaller than a training patch of 32"):
        pairs_of(path, kernel="area", patch=32)
    write_pairs(path, np.ones((1, 20, 20)), np.ones((1, 40, 40)), scale=2, overwrite=True)
    with pytest.raises(InputError, match="pair 0: the low image is constant"):
        pairs_of(path, kernel="area").batch(0, 1)


def test_pairs_after_jpeg_need_a_kernel_and_get_their_noise_measured(tmp_path: Path) -> None:
    source = fits(tmp_path / "fine.fits", 1000 * scene(128))
    options = DegradeOptions(2, recipe="real-esrgan", pairs=str(tmp_path / "set.h5"), patch=64)
    run(source, tmp_path / "low.fits", options)
    assert read_pairs(tmp_path / "set.h5").variance is None
    with pytest.raises(InputError, match="not stated"):
        pairs_of(tmp_path / "set.h5")
    checked(pairs_of(tmp_path / "set.h5", kernel="gaussian:fwhm=2.5px").batch(0, 4))


# Pairs in noise units


def test_measured_noise_is_the_noise_and_not_the_slope() -> None:
    y, x = np.indices((200, 200))
    noise = rng().normal(0, 3, (200, 200))
    bad = np.zeros((200, 200), bool)
    bad[50, :] = True
    flat = np.where(bad, 1e6, 40 * x - 7 * y + noise)
    assert pairing.measure_noise(flat, bad) == pytest.approx(3, rel=0.03)  # 3 standard errors of a median of 40,000


@pytest.mark.parametrize("quantity", ["sum", "mean"])
def test_a_pair_is_in_units_of_its_noise_and_sums(quantity: str) -> None:
    high, scale = 500 * scene(96) + 30, 3
    kernel = psf.render("gaussian:sigma=1.5px", None, integrate=False)
    low = Operator((32, 32), scale, kernel, quantity, torch.float64).apply(torch.from_numpy(high)).numpy()  # type: ignore[arg-type]
    variance = np.full((32, 32), 16.0)
    variance[3, 4] = np.nan
    noisy = low + 4 * rng().standard_normal(low.shape)
    pair = pairing.normalize_pair("x", noisy, high, kernel=kernel, quantity=quantity, variance=variance)  # type: ignore[arg-type]
    again = Operator((32, 32), scale, kernel, "sum").apply(torch.from_numpy(pair.high)).numpy()
    assert ((pair.low - again) ** 2 / pair.variance).mean() == pytest.approx(1, abs=5 * np.sqrt(2 / 1024))  # 5 errors
    assert pair.variance[0, 0] == 1 and pair.variance[3, 4] == 1  # the others' median where it is not stated


def test_patches_turn_with_their_kernel_and_leave_out_what_comes_from_beyond() -> None:
    high = scene(160, 4).astype(np.float32)
    kernel = psf.render("gaussian:sigma=3px,ratio=0.4,theta=20deg", None, integrate=False)
    low = Operator((80, 80), 2, kernel, "sum", torch.float64).apply(torch.from_numpy(high).double()).numpy()
    pair = pairing.ImagePair(
        low.astype(np.float32), high, np.ones((80, 80), np.float32), np.ones((80, 80), np.float32), kernel
    )
    shares = []
    for seed in range(12):
        drawn = pairing.crop_pair(pair, 40, rng(seed))
        operator = Operator.batch((40, 40), 2, torch.from_numpy(drawn.terms)[None])
        again = operator.apply(torch.from_numpy(drawn.truth)[None, None])[0, 0].numpy()
        error = np.abs(again - drawn.coarse.y)
        assert error[drawn.valid > 0].max() < 0.02 * np.ptp(low)  # BEYOND, and six terms of an oblique kernel
        shares.append(drawn.valid.mean())
    assert 0.4 < np.mean(shares) < 0.95
    whole = pairing.crop_pair(pair, 80, rng())
    assert whole.valid.all()  # the image's own border reflects


# Folders


def made(root: Path, layout: str, count: int = 3, colours: int = 3) -> Path:
    """A folder of PNG pairs in one of the layouts."""
    fine, coarse, name = {
        "div2k": ("DIV2K_train_HR", "DIV2K_train_LR_bicubic/X2", "{}x2"),
        "plain": ("HR", "LR", "{}"),
        "marked": ("GT", "LQ", "{}_LR"),
        "factors": ("X1", "X2", "{}"),
        "upwards": ("X2", "X1", "{}"),
    }[layout]
    for i in range(count):
        image = np.stack([scene(64 + 8 * i, 10 * i + c) for c in range(colours)], -1)
        stem = f"{i + 1:04d}"
        high = f"{stem}_HR" if layout == "marked" else stem
        png(root / fine / f"{high}.png", codes(image))
        small = np.stack([reduced(codes(image[..., c]) / 255) for c in range(colours)], -1)
        png(root / coarse / f"{name.format(stem)}.png", codes(small))
    return root


@pytest.mark.parametrize("layout", ["div2k", "plain", "marked", "factors", "upwards"])
def test_layouts_of_pairs(layout: str, tmp_path: Path) -> None:
    folder = made(tmp_path / "data", layout)
    assert layouts.is_paired(folder)
    assert find_data([str(folder)]) == (str(folder),)
    pairs = pairs_of(folder, kernel="bicubic", light="linear")
    batch = checked(pairs.batch(0, 12))
    chi2 = batch.data.chi2(batch.truth)
    assert float(chi2.median()) < 1.5  # rounding, and the noise that texture pretends to be, explain the low image
    again, first = (arrays_of(p.draw(7)) for p in (pairs_of(folder, kernel="bicubic", light="linear"), pairs))
    assert all(np.array_equal(first[k], again[k]) for k in again)


def test_all_files_of_a_folder_have_their_turn(tmp_path: Path) -> None:
    folder = made(tmp_path, "plain", count=24, colours=1)
    pairs = pairs_of(folder, kernel="bicubic", reuse=2)
    seen = {pairs.files.draw(n, 2, rng(n)).high.tobytes() for n in range(100)}
    assert len(pairs.files) == 24 == len(seen) and len(pairs.files.cache) <= 20


def test_eight_and_sixteen_bits_and_floats_of_any_shape(tmp_path: Path) -> None:
    image = np.stack([scene(64, c) for c in range(4)], -1)
    linear = lambda name, pixels: images.read(png(tmp_path / name, pixels))  # noqa: E731
    grey = linear("grey.png", codes(image[..., 0]))
    assert grey.pixels.shape == (1, 64, 64) and grey.step == pytest.approx(1 / 255)
    np.testing.assert_allclose(grey.pixels[0], codes(image[..., 0]) / 255, rtol=1e-6)  # float32
    deep = linear("deep.png", codes(image[..., :3], 65535))
    np.testing.assert_allclose(deep.pixels, np.moveaxis(codes(image[..., :3], 65535) / 65535, -1, 0), rtol=1e-6)
    assert linear("alpha.png", codes(image)).pixels.shape == (3, 64, 64)
    assert linear("greyalpha.png", codes(image[..., :2])).pixels.shape == (1, 64, 64)
    tifffile.imwrite(tmp_path / "colour.tif", codes(image[..., :3]), photometric="rgb")
    colour = images.read(tmp_path / "colour.tif")
    np.testing.assert_array_equal(colour.pixels, linear("colour.png", codes(image[..., :3])).pixels)
    planes = image.transpose(2, 0, 1).astype(np.float32)
    tifffile.imwrite(tmp_path / "planes.ome.tif", planes, metadata={"axes": "CYX"}, photometric="minisblack")
    assert images.read(tmp_path / "planes.ome.tif").pixels.shape == (4, 64, 64)
    (tmp_path / "photo.jpg").write_bytes(imagecodecs.jpeg8_encode(codes(image[..., :3]), level=95))
    assert np.abs(images.read(tmp_path / "photo.jpg").pixels - colour.pixels).max() < 0.2  # chroma is coarser


def test_colour_codes_become_linear_light_and_their_rounding_with_them() -> None:
    code = np.linspace(0, 1, 256)
    np.testing.assert_allclose(
        images.srgb_to_linear(np.array([0.0, 0.04045, 0.5, 1.0])), [0, 0.0031308, 0.2140411, 1], atol=1e-7
    )
    numeric = np.gradient(images.srgb_to_linear(code), code)
    np.testing.assert_allclose(images.srgb_slope(code)[1:-1], numeric[1:-1], atol=5e-3)  # of central differences


def test_one_line_names_the_file_that_does_not_fit(tmp_path: Path) -> None:
    folder = made(tmp_path / "a", "div2k")
    told = {"kernel": "bicubic"}
    with pytest.raises(InputError, match="0001x2.png: the blur of this pair is not stated"):
        pairs_of(folder)
    with pytest.raises(InputError, match="LR_bicubic: has X2, but --scale is 4"):
        pairs_of(folder, scale=4, **told)
    small = folder / "DIV2K_train_LR_bicubic" / "X2" / "0002x2.png"
    png(small, codes(np.stack([scene(30)] * 3, -1)))
    with pytest.raises(InputError, match=r"0002x2.png: 30 x 30 px in 3 planes does not fit .*0002.png of 72 x 72"):
        pairs_of(folder, **told).batch(0, 32)
    small.write_bytes(small.read_bytes()[:200])
    with pytest.raises(InputError, match="0002x2.png: not a whole PNG"):
        pairs_of(folder, **told).batch(0, 32)
    small.unlink()
    with pytest.raises(InputError, match="0002.png: no partner in .*X2; looked for 0002, 0002x2"):
        pairs_of(folder, **told)
    (folder / "DIV2K_train_HR" / "0002.png").unlink()
    (folder / "DIV2K_train_HR" / "0003.png").unlink()
    with pytest.raises(InputError, match="0003x2.png: no partner in .*HR"):
        pairs_of(folder, **told)
    with pytest.raises(UsageError, match="light = 'gamma'; give auto, linear, srgb"):
        pairs_of(folder, light="gamma", **told)
    bare = tmp_path / "bare"
    for name in ("HR", "LR"):
        (bare / name).mkdir(parents=True)
    with pytest.raises(InputError, match="no image in this folder"):
        pairs_of(bare, **told)
    (bare / "LR_unknown").mkdir()
    with pytest.raises(InputError, match="LR and LR_unknown both hold coarse images"):
        pairs_of(bare, **told)


def test_fits_pairs_bring_their_own_variance_mask_and_kernel(tmp_path: Path) -> None:
    image = 1000 * scene(96) + 100
    image[40, 40] = np.nan
    source = fits(tmp_path / "HR" / "a.fits", image)
    (tmp_path / "LR").mkdir()
    run(source, tmp_path / "LR" / "a.fits", DegradeOptions(2, kernel="gaussian:sigma=1.2px", gain=2.0, read_noise=4.0))
    pairs = pairs_of(tmp_path, patch=48)
    batch = checked(pairs.batch(0, 6))
    assert float(batch.data.chi2(batch.truth).mean()) == pytest.approx(1, abs=0.15)  # one frame of 2304 px, NaN filled
    assert bool((batch.data.valid == 0).flatten(1).sum(1).eq(1).all())


# Frames and pictures


def test_frames_go_through_a_recipe_on_the_fly(sample_data: Path) -> None:
    pairs = pairs_of(sample_data / "47tuc.fits", degradation="second-order")
    batch = checked(pairs.batch(0, 32))
    assert float(batch.data.chi2(batch.truth).median()) == pytest.approx(1, abs=0.2)  # correlated noise, 256 px each
    assert np.array_equal(
        pairs.draw(9).coarse.y, pairs_of(sample_data / "47tuc.fits", degradation="second-order").draw(9).coarse.y
    )
    for name, why in (("real-esrgan", "after JPEG noise and blur are not known"), ("bicubic", "it adds no noise")):
        with pytest.raises(UsageError, match=f"degradation = '{name}': {why}"):
            pairs_of(sample_data / "47tuc.fits", degradation=name)


def test_a_folder_of_pictures_is_scenes(tmp_path: Path) -> None:
    for i in range(3):
        png(tmp_path / "pictures" / f"{i}.png", codes(np.stack([scene(64, i)] * 3, -1)))
    assert find_data([str(tmp_path / "pictures")]) == (str(tmp_path / "pictures"),)
    pairs = pairs_of(tmp_path / "pictures")
    batch = checked(pairs.batch(0, 16))
    assert len(pairs.files) == 3
    assert float(batch.data.chi2(batch.truth).mean()) == pytest.approx(1, abs=5 * np.sqrt(2 / 4096))  # 5 errors
    with pytest.raises(InputError, match="png: .* smaller than a training patch of 128"):
        pairs_of(tmp_path / "pictures", patch=64).batch(0, 16)


def test_data_joins_the_simulated_scenes_by_half(tmp_path: Path) -> None:
    folder = made(tmp_path, "plain", colours=1)
    drawn = [pairs_of(folder, kernel="bicubic", real_share=None).draw(n) for n in range(60)]
    assert 15 < sum(isinstance(d.coarse, CoarseImage) for d in drawn) < 45  # 30 expected, 4 standard errors
    checked(pairs_of(folder, kernel="bicubic", real_share=None).batch(0, 16))  # both kinds in one batch


def test_real_microscope_frames_of_the_shared_set(shared_data: Path, tmp_path: Path) -> None:
    frame = shared_data / "micro" / "zerocost_fa" / "FA_-_0488_Evolve.tif"
    (tmp_path / "GT").mkdir()
    (tmp_path / "LQ").mkdir()
    (tmp_path / "GT" / "fa.tif").write_bytes(frame.read_bytes())
    run(frame, tmp_path / "LQ" / "fa.tif", DegradeOptions(2, recipe="micro", seed=1))
    batch = checked(pairs_of(tmp_path, patch=40).batch(0, 16))
    assert float(batch.data.chi2(batch.truth).median()) == pytest.approx(1, abs=0.2)  # one frame's noise, 1600 px each

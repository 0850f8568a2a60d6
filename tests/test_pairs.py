"""Pairs of the user's: brightness that differs, displacement, clipping; dry runs; pairs of one size."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from scipy.ndimage import gaussian_filter, shift
from typer.testing import CliRunner

from sciresdiff.cli.app import app
from sciresdiff.errors import InputError, UsageError
from sciresdiff.io.hdf5.read import write_pairs
from sciresdiff.physics.operators import Operator
from sciresdiff.restoration.prior import Prior, PriorConfig
from sciresdiff.training.data import Pairs
from sciresdiff.training.folders import UserData
from sciresdiff.training.given_pair import GivenPair
from sciresdiff.training.options import TrainOptions
from sciresdiff.training.recipe import DataRecipe, LoopOptions, read_recipe, table_arguments


def fine(seed: int, side: int = 128) -> np.ndarray:
    """A smooth scene of 100 ... 1000."""
    image = gaussian_filter(np.random.default_rng(seed).random((side, side)), 2.5, mode="reflect")
    return 100 + 900 * (image - image.min()) / np.ptp(image)


def reduced(image: np.ndarray, scale: int) -> np.ndarray:
    h, w = image.shape
    return image.reshape(h // scale, scale, w // scale, scale).mean((1, 3))


def given(
    seed: int, gain: float = 1, offset: float = 0, scale: int = 2, blur: float = 0, moved: float = 0
) -> GivenPair:
    """A pair with photon noise; ``moved`` in coarse px."""
    truth = fine(seed)
    seen = gaussian_filter(truth, blur) if blur else truth
    seen = reduced(shift(seen, (moved * scale, 0), order=3, mode="nearest"), scale)
    low = np.random.default_rng(seed).poisson(seen) * gain + offset
    return GivenPair("x", low.astype(np.float32), truth.astype(np.float32), None, "mean")


def folder(root: Path, *pairs: GivenPair) -> Path:
    for i, pair in enumerate(pairs):
        for name, image in (("HR", pair.high), ("LR", pair.low)):
            (root / name).mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(root / name / f"{i}.tif", image)
    return root


def opened(path: Path, scale: int = 2, **more: object) -> Pairs:
    settings = {"scale": scale, "patch": 32, "scene_px": 64, "pool": 2, "real_share": 1.0, "kernel": "none", **more}
    return Pairs(DataRecipe(**settings), 5, UserData((str(path),)))  # type: ignore[arg-type]


def mean_misfit(pairs: Pairs) -> float:
    """chi2 per pixel of the pairs' own truth."""
    batch = pairs.batch(0, 8)
    return float(batch.data.chi2(batch.truth).mean())


# Brightness


@pytest.mark.parametrize(("gain", "offset"), [(0.72, 9), (1.3, -20), (0.5, 0), (1, 40), (250, 1000), (3e-6, 0)])
@pytest.mark.parametrize("scale", [1, 2, 4])
def test_gain_and_offset_are_found(gain: float, offset: float, scale: int) -> None:
    found = given(3, gain, offset, scale).compare(register=True).intensity
    assert found is not None and found.differs and found.is_known
    assert found.gain == pytest.approx(gain, abs=max(5 * found.gain_error, 0.01 * gain))  # 5 errors, noise in x
    at = found.gain * 500 + found.offset
    assert at == pytest.approx(gain * 500 + offset, rel=0.01)


@pytest.mark.parametrize("blur", [0, 1, 2])
def test_equal_pairs_say_nothing_even_where_the_blur_is_misstated(blur: float, tmp_path: Path) -> None:
    pairs = opened(folder(tmp_path, *(given(seed, blur=blur) for seed in range(4))))
    assert not pairs.notes


@pytest.mark.parametrize(("gain", "offset"), [(0.72, 9), (1.3, -20), (0.5, 0)])
def test_what_is_trained_on_is_matched_and_said(gain: float, offset: float, tmp_path: Path) -> None:
    equal = opened(folder(tmp_path / "equal", *(given(seed) for seed in range(4))))
    pairs = opened(folder(tmp_path / "set", *(given(seed, gain, offset) for seed in range(4))))
    (line,) = pairs.notes
    assert "4 of 4 pairs differ in brightness: low = " in line and "matched" in line and not pairs.notes.warnings
    assert mean_misfit(pairs) == pytest.approx(mean_misfit(equal), rel=0.1)  # texture counts as noise in both


def test_gains_that_scatter_are_warned_of_and_each_pair_is_matched_by_itself(tmp_path: Path) -> None:
    gains = (0.5, 1.3, 1, 0.72)
    pairs = opened(folder(tmp_path, *(given(seed, gain) for seed, gain in enumerate(gains))))
    (line,) = pairs.notes.warnings
    assert "differs from pair to pair, 0." in line and "... 1.3" in line
    assert mean_misfit(pairs) < 1.2


def test_a_pair_without_contrast_is_matched_as_most_are(tmp_path: Path) -> None:
    flat = np.random.default_rng(9).poisson(np.full((64, 64), 400)) * 0.72 + 9
    blank = GivenPair("x", flat.astype(np.float32), np.full((128, 128), 400, np.float32), None, "mean")
    pairs = opened(folder(tmp_path, *(given(seed, 0.72, 9) for seed in range(3)), blank))
    assert "3 of 4 pairs differ" in next(iter(pairs.notes))
    (last,) = pairs.files.loads[3]()
    assert abs(float(np.mean(last.high))) < 0.1  # type: ignore[union-attr]  # at the sky, as its low image


def test_sets_are_matched_by_one_relation(tmp_path: Path) -> None:
    pairs = [given(seed, 0.72, 9) for seed in range(6)]
    low, high = (np.stack([getattr(p, side) for p in pairs]) for side in ("low", "high"))
    write_pairs(tmp_path / "set.h5", low, high, scale=2, quantity="mean")
    found = opened(tmp_path / "set.h5")
    assert "6 of 6 pairs differ in brightness: low = 0.7" in next(iter(found.notes))
    assert mean_misfit(found) < 1.2
    write_pairs(tmp_path / "set.h5", low[::-1], high, scale=2, quantity="mean", overwrite=True)
    with pytest.raises(InputError, match="set.h5: the low images do not show what the high ones show"):
        opened(tmp_path / "set.h5")


def test_clipped_pixels_are_left_out_and_do_not_bend_the_line(tmp_path: Path) -> None:
    pairs = [given(seed, 0.72, 9) for seed in range(3)]
    pairs = [replace(p, low=np.minimum(p.low, 400)) for p in pairs]
    found = pairs[0].compare(register=False).intensity
    assert found is not None and found.gain == pytest.approx(0.72, abs=0.02) and found.clipped.sum() > 50
    opened_pairs = opened(folder(tmp_path, *pairs))
    assert any("are cut at their largest or least value" in line for line in opened_pairs.notes.warnings)
    (first,) = opened_pairs.files.loads[0]()
    top = pairs[0].low == 400
    beyond = top & (0.72 * reduced(pairs[0].high, 2) + 9 > 480)  # 5 noises
    assert beyond.sum() > 20 and not first.valid[beyond].any() and first.valid[~top].all()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda low: 1200 - low, "is dark where .*0.tif is bright"),
        (lambda low: low[::-1], "does not show what .*0.tif shows"),
        (lambda low: low[:, ::-1], "neither turned nor mirrored"),
        (lambda low: np.roll(low, 3, 0), r"lies \(\+3.0, .*register the two images"),
    ],
)
def test_images_of_something_else_are_refused(change: object, why: str, tmp_path: Path) -> None:
    pair = given(1)
    with pytest.raises(InputError, match=why):
        opened(folder(tmp_path, replace(pair, low=change(pair.low))))  # type: ignore[operator]


def test_a_small_displacement_is_warned_of(tmp_path: Path) -> None:
    pairs = opened(folder(tmp_path, *(given(seed, moved=0.25) for seed in range(4))))
    (line,) = pairs.notes.warnings
    assert "the low images lie (+0.2" in line


def test_a_periodic_pattern_is_not_taken_for_a_displacement(tmp_path: Path) -> None:
    stripes = 500 + 400 * np.sin(2 * np.pi * np.arange(128) / 12)[None, :] * np.ones((128, 1))
    low = np.random.default_rng(1).poisson(reduced(stripes, 2))
    pair = GivenPair("x", low.astype(np.float32), stripes.astype(np.float32), None, "mean")
    assert not opened(folder(tmp_path, pair)).notes


def test_cores_that_are_missing_in_the_fine_image_do_not_bend_the_line() -> None:
    y, x = np.indices((128, 128))
    kernel = np.exp(-0.5 * ((y[:13, :13] - 6) ** 2 + (x[:13, :13] - 6) ** 2) / 1.5**2)
    kernel /= kernel.sum()
    places = np.random.default_rng(2).integers(10, 118, (40, 2))
    high = np.full((128, 128), 50.0)
    for k, (a, b) in enumerate(places):
        high += 300 * (1 + 100 * (k < 4)) * np.exp(-0.5 * ((y - a) ** 2 + (x - b) ** 2) / 1.2**2)
    seen = Operator((64, 64), 2, kernel, "mean", torch.float64).apply(torch.from_numpy(high)).numpy()
    low = np.random.default_rng(3).poisson(seen).astype(float)
    found = GivenPair("x", low, np.where(high > 5000, np.nan, high), kernel, "mean").compare(register=True).intensity
    assert found is not None and not found.differs


# Dry runs


def ends(*words: object) -> tuple[int, str]:
    """Exit status and last line of a command."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    return result.exit_code, (result.stderr.strip().splitlines() or [""])[-1]


def spoil(root: Path, name: str) -> None:
    """One fault in a folder of pairs."""
    low, high = root / "set" / "LR" / "1.tif", root / "set" / "HR" / "1.tif"
    match name:
        case "damaged":
            low.write_bytes(low.read_bytes()[:9000])
        case "missing":
            low.unlink()
        case "no multiple":
            tifffile.imwrite(low, np.ones((50, 60), np.float32))
        case "small":
            tifffile.imwrite(low, np.ones((20, 20), np.float32))
            tifffile.imwrite(high, np.ones((40, 40), np.float32))
        case "constant":
            tifffile.imwrite(low, np.ones((64, 64), np.float32))
        case "exists":
            (root / "m.safetensors").write_text("precious")
        case "state":
            (root / "m.state").write_bytes(b"123")
        case "key":
            (root / "r.toml").write_text("[data]\nkernle = 'none'\n")
        case "type":
            (root / "r.toml").write_text("[data]\npatch = 'x'\n")
        case "no kernel":
            (root / "r.toml").write_text("")
        case "one size":
            tifffile.imwrite(low, tifffile.imread(high))


@pytest.mark.parametrize(
    ("fault", "status", "why"),
    [
        ("damaged", 3, "1.tif: not a whole TIFF"),
        ("missing", 3, "1.tif: no partner"),
        ("no multiple", 3, "50 x 60 px .* does not fit"),
        ("small", 3, "smaller than a training patch"),
        ("constant", 3, "constant or free of noise"),
        ("exists", 2, "--output: .*m.safetensors exists"),
        ("state", 3, "m.state: a training cannot be resumed"),
        ("key", 2, "no key 'kernle'"),
        ("type", 2, "patch = 'x'; allowed is a whole number"),
        ("no kernel", 3, "the blur of this pair is not stated"),
        ("one size", 3, "these fit --scale 1"),
    ],
)
def test_a_dry_run_refuses_what_a_run_refuses_in_the_same_words(
    fault: str, status: int, why: str, tmp_path: Path
) -> None:
    folder(tmp_path / "set", *(given(seed) for seed in range(2)))
    (tmp_path / "r.toml").write_text("[data]\nkernel = 'none'\n")
    spoil(tmp_path, fault)
    before = sorted(tmp_path.iterdir())
    words = ["train-prior", tmp_path / "set", "-o", tmp_path / "m.safetensors", "--scale", 2, "--preset", "tiny"]
    words += ["--recipe", tmp_path / "r.toml", "--images", 8]
    dry, real = ends(*words, "--dry-run"), ends(*words)
    assert dry == real and dry[0] == status
    assert re.search(why, dry[1])
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ({"sigma": 3}, "two numbers above 0"),
        ({"sigma": [2.0, 1.0]}, "the first number is the lower"),
        ({"real_share": 1.5}, "a share of 0"),
        ({"real_share": "all"}, "allowed is a number"),
        ({"patch": 2}, "allowed is 8 or more"),
        ({"patch": True}, "a whole number"),
        ({"shapes": "airy"}, "a list of texts"),
        ({"kernel": 2}, "a text"),
    ],
)
def test_values_of_a_recipe_are_checked(table: dict[str, object], why: str) -> None:
    with pytest.raises(UsageError, match=f"--recipe: .data. {next(iter(table))}.*{why}"):
        table_arguments({"data": table}, "data", DataRecipe)


@pytest.mark.parametrize(
    ("recipe", "why"),
    [
        ("shapes = ['foo']", "shapes = 'foo'; allowed are gaussian"),
        ("kind = 'foo'", "kind = 'foo'; allowed are"),
        ("patch = 200", "needs scenes of 400 px"),
    ],
)
def test_scenes_that_cannot_be_drawn_are_refused(recipe: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(f"[data]\n{recipe}\n")
    with pytest.raises(UsageError, match=why):
        read_recipe(TrainOptions(output="m", scale=2, recipe=str(tmp_path / "r.toml")))


def test_a_table_that_is_none_or_trains_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="batch = 0; allowed is 1 or more"):
        table_arguments({"loop": {"batch": 0}}, "loop", LoopOptions)
    with pytest.raises(UsageError, match="loop = 3"):
        table_arguments({"loop": 3}, "loop", LoopOptions)


# Pairs of one size


def test_pairs_of_one_size_train_a_model_of_scale_one(tmp_path: Path) -> None:
    pairs = opened(folder(tmp_path, *(given(seed, scale=1) for seed in range(2))), scale=1)
    batch = pairs.batch(0, 2)
    assert batch.truth.shape == batch.data.y.shape == (2, 1, 32, 32)
    assert not pairs.notes and mean_misfit(pairs) < 1.2
    prior = Prior(PriorConfig(1, "resnet", stages=1, width=8, depth=1))
    out = prior(batch.data, batch.kernel)[-1].x
    assert out.shape == batch.truth.shape and torch.isfinite(out).all()


def test_physics_restores_at_scale_one(tmp_path: Path) -> None:
    from sciresdiff import io

    pair = given(4, scale=1, blur=1.5)
    tifffile.imwrite(tmp_path / "low.tif", pair.low)
    told = ends(
        "upscale", tmp_path / "low.tif", "--scale", 1, "--model", "physics", "--psf", "gaussian:sigma=1.5px", "-o",
        tmp_path / "out.tif",
    )  # fmt: skip
    assert told[0] == 0
    out = io.read(tmp_path / "out.tif").pixels[0]
    assert out.shape == pair.low.shape
    rms = [float(np.sqrt(np.mean((image - pair.high) ** 2))) for image in (out, pair.low)]
    assert rms[0] < 0.9 * rms[1]
    assert float(out.mean()) == pytest.approx(float(pair.low.mean()), rel=0.01)

"""Which models restore a file: two in a row, a refiner run by another method, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from astropy.io import fits

from sciresdiff.diffusion import method as methods
from sciresdiff.errors import UsageError
from sciresdiff.jobs.upscale import job as upscale
from sciresdiff.jobs.upscale.options import UpscaleOptions
from sciresdiff.restoration import model as models
from sciresdiff.restoration.model import Model
from sciresdiff.restoration.refiner import refiner_for
from sciresdiff.training import prior as prior_training
from sciresdiff.training import refiner as refiner_training
from sciresdiff.training.options import TrainOptions
from sciresdiff.training.refiner import refiner_config

TOLD: dict[str, Any] = {"kernel": "none", "variance": "VAR", "samples": 2, "quantity": "sum"}


@pytest.fixture
def low(tmp_path) -> Path:
    rng = np.random.default_rng(0)
    pixels = (40 + 3 * rng.normal(size=(24, 32)) + 900 * (rng.random((24, 32)) > 0.98)).astype("f4")
    path = tmp_path / "low.fits"
    fits.HDUList([fits.PrimaryHDU(pixels), fits.ImageHDU(np.full_like(pixels, 9), name="VAR")]).writeto(path)
    return path


def saved(folder: Path, name: str) -> str:
    """The file of an untrained refiner of a method on the shipped prior."""
    torch.manual_seed(0)
    prior, method = models.load("astro-x2"), methods.load(name)
    refiner = refiner_for(method, refiner_config(method, 2, method.network(), "tiny"))
    path = folder / f"{name}.safetensors"
    models.save(Model(prior.prior, refiner, method, {**models.prior_card(prior.card), "name": name}), path)
    return str(path)


def run(low: Path, **told: Any) -> tuple[dict[str, Any], fits.HDUList]:
    output = low.with_name("high.fits")
    record = upscale.run(low, output, UpscaleOptions(**{**TOLD, "overwrite": True, **told}))
    with fits.open(output) as file:
        return record, fits.HDUList([hdu.copy() for hdu in file])


def test_two_models_in_a_row_multiply_their_scales(low):
    record, image = run(low, model="astro-x2", then="astro-x2", save_samples=True)
    header = image["SCI"].header
    assert record["scale"] == 4 and image["ERR"].data.shape == (96, 128) and len(image["DRAWS"].data) == 2
    assert header["SRDTHEN"].startswith("astro-x2 ") and header["SRDMODEL"] == "astro-x2"
    assert header["SRDMETH"] == "sciresdiff, then sciresdiff" and "not for two in a row" in header["SRDTRUST"]
    assert "TRUST" not in image and any("then astro-x2, draw by draw" in line for line in record["said"])
    assert record["flux_ratio"][0] == pytest.approx(1, abs=1e-5)  # cells are closed in three rounds


@pytest.mark.parametrize(
    ("told", "match"),
    [
        ({"then": "astro-x2"}, "--then astro-x2: needs a model to go first; name it with --model"),
        ({"then": "astro-x2", "model": "physics"}, "--then astro-x2: needs a model to go first"),
        ({"then": "astro-x2", "model": "astro-x2", "scale": 2}, "--scale 2: models of x2 and x2 in a row give x4"),
        ({"then": "astro-x2", "model": "astro-x2", "refine": False}, "--then: .* --no-refine is not allowed"),
        ({"method": "sr3"}, "--method sr3: the prediction is eps, but the model was trained with x0"),
        ({"method": "sinsr"}, "--method sinsr: "),
        ({"method": "resshft"}, "--method: no method or file 'resshft'; .*nearest: resshift"),
        ({"method": "resshift-4", "model": "physics"}, "--method resshift-4: .* --model physics draws with none"),
        ({"method": "resshift-4", "refine": False}, "--method resshift-4: .* --no-refine draws with none"),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line(low, told, match):
    with pytest.raises(UsageError, match=match) as caught:
        run(low, **told)
    assert "\n" not in str(caught.value)


def test_a_refiner_is_run_by_another_method(low, tmp_path):
    file = tmp_path / "calm.toml"
    file.write_text(
        'name = "calm"\n'
        + Path(str(methods._folder() / "sciresdiff.toml")).read_text().replace('name = "ancestral"', 'name = "ddim"')
    )
    usual, image = run(low, scale=2)
    other, changed = run(low, scale=2, method=str(file))
    assert usual["provenance"]["SRDMETH"] == "sciresdiff" and other["provenance"]["SRDMETH"] == "calm"
    assert any(line.startswith("method: calm on what was trained with sciresdiff") for line in other["said"])
    assert str(tmp_path) not in str(changed["SCI"].header)  # headers hold no paths
    assert np.abs(image["SCI"].data - changed["SCI"].data).max() > 0


def test_a_students_refiner_is_not_run_by_another_method(low, tmp_path):
    student = saved(tmp_path, "sinsr")
    with pytest.raises(UsageError, match="--method resshift: the distillation is none, but .* one-step"):
        run(low, model=student, method="resshift")


RECIPE = """
[data]
patch = 12
scene_px = 64
pool = 2
[loop]
batch = 4
warmup = 8
interval = 1e9
bf16 = false
"""


def test_a_chain_is_trained_and_run(low, tmp_path, monkeypatch):
    monkeypatch.setattr(prior_training, "Validation", lambda pairs: lambda prior: {"gain_db": 0.0})
    monkeypatch.setattr(refiner_training, "validation", lambda *_: lambda refiner: {"held_out": 0.0})
    (tmp_path / "recipe.toml").write_text(RECIPE)
    told = {"scale": 2, "recipe": str(tmp_path / "recipe.toml"), "preset": "tiny", "images": 16}
    prior, stage = tmp_path / "prior.safetensors", tmp_path / "stage.safetensors"
    prior_training.train(TrainOptions(output=str(prior), **told), lambda line: None)
    second = TrainOptions(output=str(stage), prior=str(prior), method="cdm", calibrate=False, **told)
    refiner_training.train(second, lambda line: None)
    trained = models.load(str(stage))
    assert trained.method is not None and trained.method.augment == {"sigma": (0.1, 1.0), "use": 0.5}
    record, image = run(low, model=str(stage), then=str(stage), steps=4)
    assert record["provenance"]["SRDMETH"] == "cdm, then cdm" and record["scale"] == 4
    assert np.isfinite(image["SCI"].data).all() and record["flux_ratio"][0] == pytest.approx(
        1, abs=1e-4
    )  # untrained: wide

"""Steps that are taken, steps that are refused, and what the user is told of decoders."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from astropy.io import fits

from sciresdiff.diffusion import method as methods
from sciresdiff.diffusion.sampler import sample
from sciresdiff.errors import UsageError
from sciresdiff.jobs.upscale import job as upscale
from sciresdiff.jobs.upscale.options import UpscaleOptions
from sciresdiff.jobs.upscale.sampling import check_steps, count_steps, warn_codec
from sciresdiff.restoration import model as models
from sciresdiff.restoration.model import Model
from sciresdiff.restoration.prior import Prior, PriorConfig
from sciresdiff.restoration.refiner import refiner_for
from sciresdiff.training.refiner import refiner_config


def model_of(name: str) -> Model:
    torch.manual_seed(0)
    method = methods.load(name)
    refiner = refiner_for(method, refiner_config(method, 2, method.network(), "tiny"))
    prior = Prior(PriorConfig(2, width=8, depth=1, stages=1))
    card = {"name": "m", "kind": "astro", "scale": 2, "target_fwhm_px": 2.0}
    return Model(prior, refiner, method, card).to(torch.device("cpu"))


@pytest.mark.parametrize("name", methods.names())
def test_the_steps_that_are_told_are_the_estimates_of_a_solver_of_one_each(name: str) -> None:
    method = replace(methods.load(name), weight="scale", weight_params={}, hooks=(), solver_params={})
    if method.solver not in ("one-step", "consistency"):
        method = replace(method, solver="ddim", eta=0.0)
    asked = []
    zero = torch.zeros(1, 1, 2, 2)

    def denoise(x: torch.Tensor, t: float) -> torch.Tensor:
        asked.append(t)
        return x

    steps = min(6, method.steps or method.training_path().T)
    sample(method, denoise, zero, zero + 1, lambda t: zero + 1, steps, prior=zero)
    assert len(asked) == count_steps(method, steps)


def test_steps_that_make_no_sense_are_refused_before_anything_is_computed() -> None:
    check_steps(None, UpscaleOptions(steps=9))
    check_steps(model_of("sinsr"), UpscaleOptions(steps=1))
    with pytest.raises(UsageError, match=r"^--steps 5: sinsr draws in one step; leave the option out"):
        check_steps(model_of("sinsr"), UpscaleOptions(steps=5))
    with pytest.raises(UsageError, match=r"^--steps 16: this method has 15 steps; give 1 to 15"):
        check_steps(model_of("resshift"), UpscaleOptions(steps=16))
    check_steps(model_of("resshift"), UpscaleOptions(steps=16, refine=False))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "their mean has the data's flux in cells of 16 x 16"),
        ({"samples": 1}, "--samples 2 closes it"),
        ({"consistency": "exact"}, "their mean has the data's flux in every input px"),
        ({"consistency": "off"}, "--consistency off leaves their mean like them"),
    ],
)
def test_a_decoder_is_told_of_with_what_keeps_the_flux(options: dict[str, object], said: str) -> None:
    lines = warn_codec(model_of("ldm"), UpscaleOptions(**options)).lines  # type: ignore[arg-type]
    assert len(lines) == 1 and lines[0].startswith("WARNING flux: ldm draws through a decoder (latent)")
    assert said in lines[0]
    for other in (None, model_of("sciresdiff")):
        assert not warn_codec(other, UpscaleOptions()).lines
    assert not warn_codec(model_of("ldm"), UpscaleOptions(refine=False)).lines


@pytest.mark.parametrize(("consistency", "cells"), [("noise", 16), ("exact", 1)])
def test_what_is_told_of_the_flux_holds(tmp_path: Path, consistency: str, cells: int) -> None:
    yy, xx = np.mgrid[:32, :48]
    low = 50 * np.exp(-((yy - 12) ** 2 + (xx - 20) ** 2) / 8) + np.random.default_rng(0).normal(size=yy.shape)
    fits.PrimaryHDU(low.astype("f4")).writeto(tmp_path / "low.fits")
    fits.PrimaryHDU(np.ones_like(low, "f4")).writeto(tmp_path / "var.fits")
    models.save(model_of("ldm"), tmp_path / "ldm.safetensors")
    options = UpscaleOptions(
        model=str(tmp_path / "ldm.safetensors"), kernel="none", variance=str(tmp_path / "var.fits"), quantity="sum",
        samples=2, steps=4, checks=False, consistency=consistency,  # type: ignore[arg-type]
    )  # fmt: skip
    record = upscale.run(tmp_path / "low.fits", tmp_path / "high.fits", options)
    assert any(line.startswith("WARNING flux: ldm") for line in record["said"])
    with fits.open(tmp_path / "high.fits") as file:
        mean, history = file["SCI"].data.astype(float), "".join(str(v) for v in file[0].header["HISTORY"])
        assert file[0].header["SRDSTEPS"] == 4
    assert "drawsthroughadecoder" in history.replace(" ", "")  # cards end within words

    def total(image: np.ndarray, side: int) -> np.ndarray:
        h, w = (n // side for n in image.shape)
        return image.reshape(h, side, w, side).sum((1, 3))

    off = np.abs(total(mean, 2 * cells) - total(low.astype("f4").astype(float), cells))
    assert off.max() < 1e-3  # float32 sums of 50 and more

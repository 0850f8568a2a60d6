"""Refiners that diffuse a code: latent diffusion and DiffIR, from training to a restored frame."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sciresdiff.diffusion import method as methods
from sciresdiff.errors import UsageError
from sciresdiff.lab.latent.refiner import LatentRefiner, VectorRefiner
from sciresdiff.observation.observation import Observation
from sciresdiff.physics.consistency import Data
from sciresdiff.physics.operators import Operator
from sciresdiff.restoration.model import Model, load, save
from sciresdiff.restoration.posterior import gaussian
from sciresdiff.restoration.prior import Estimate, Prior, PriorConfig
from sciresdiff.restoration.refiner import REFINERS, Refiner, RefinerConfig, condition, refiner_for, refiner_from_card
from sciresdiff.restoration.residual_space import residual_space
from sciresdiff.restoration.restore import restore
from sciresdiff.restoration.settings import Settings
from sciresdiff.tiling import run_at_once
from sciresdiff.training import refiner as training
from sciresdiff.training.options import TrainOptions

RECIPE = """
[data]
patch = 12
scene_px = 64
pool = 2
sigma = [0.4, 0.7]
focus = [0.4, 0.7]
[loop]
batch = 4
warmup = 8
interval = 1e9
bf16 = false
"""
SMALL = {"width": 8, "depth": 1}


def noise(like, step):
    return gaussian(like, 0, 0, step)


def scene(scale=2, side=12):
    """Data, the truth, and a prior's estimate that is wrong by about its scale; noise units."""
    truth = 3 * torch.randn(1, 1, scale * side, scale * side)
    operator = Operator((side, side), scale)
    clean = operator.apply(truth)
    data = Data(clean + torch.randn(clean.shape), torch.ones_like(clean), torch.ones_like(clean), operator)
    x = truth + 0.5 * torch.randn(truth.shape)
    return data, truth, Estimate(x, torch.full_like(x, 0.5), x)


def refiner_of(name, scale=2, **changes):
    method = methods.load(name)
    method = replace(method, **changes)
    config = RefinerConfig(scale, **SMALL, prediction=method.prediction)
    return method, REFINERS[method.space].for_method(method, config).requires_grad_(False)


def settings_of(method, data, prior):
    space = residual_space(method, data, prior)
    return space, condition(data, prior, torch.zeros(1, 4))


@pytest.mark.parametrize("name", ["ldm", "diffir"])
def test_an_untrained_refiner_draws_finite_images(name):
    method, refiner = refiner_of(name)
    data, _, prior = scene()
    space, known = settings_of(method, data, prior)
    x = refiner.draw(method, space, known, noise, run_at_once, 4)
    assert x.shape == prior.x.shape and torch.isfinite(x).all()
    if name == "diffir":  # its network starts as zero
        assert torch.equal(x, prior.x)


def test_a_perfect_denoiser_of_the_code_returns_the_truth():
    whole = {"factor": 2, "channels": 4}  # as many numbers as pixels, untrained: nothing is lost on the way
    method, refiner = refiner_of("ldm", space_params=whole)
    data, truth, prior = scene()
    space, known = settings_of(method, data, prior)
    code = refiner.encode(space.truth(truth), run_at_once)

    def perfect(u, levels, known, run):
        a, s, _ = (v.view(-1, 1, 1, 1) for v in levels.split(1, dim=1))
        return (u - a * code) / s  # the noise that is in the state; the anchor's part is off, b = 0

    refiner.forward = perfect
    x = refiner.draw(method, space, known, noise, run_at_once, 10)
    torch.testing.assert_close(x, truth, rtol=0, atol=2e-3)  # float32; the first estimate divides by a = 0.07


def test_the_latent_method_codes_fewer_numbers_than_pixels():
    _, refiner = refiner_of("ldm")
    image = torch.randn(1, 1, 24, 24)
    code = refiner.encode(image, run_at_once)
    assert code.numel() < image.numel()
    back = refiner.decode(code, run_at_once)
    torch.testing.assert_close(
        refiner.encode(back, run_at_once), code, rtol=0, atol=1e-4
    )  # untrained it is a projection
    assert float((back - image).square().mean()) == pytest.approx(1 / 4, rel=0.2)  # one of four numbers of white noise


@pytest.mark.parametrize(("scale", "factor", "channels"), [(2, 2, 3), (4, 2, 2), (3, 3, 4), (4, 1, 1)])
def test_codes_have_their_shape_and_fit_the_coarse_grid(scale, factor, channels):
    _, refiner = refiner_of("ldm", scale, space_params={"factor": factor, "channels": channels})
    z = torch.randn(2, 1, 6 * scale, 5 * scale)
    code = refiner.encode(z, run_at_once)
    assert code.shape == (2, channels, 6 * scale // factor, 5 * scale // factor)
    torch.testing.assert_close(code, refiner.codec.encode(z), rtol=0, atol=1e-5)  # the same by another way
    assert refiner.decode(code, run_at_once).shape == z.shape


@pytest.mark.parametrize(("scale", "numbers"), [(3, {"factor": 2, "channels": 2}), (2, {"factor": 2, "channels": 5})])
def test_codes_that_do_not_fit_are_refused(scale, numbers):
    with pytest.raises(UsageError, match=r"\[space\] factor = 2, channels = \d: at scale"):
        refiner_of("ldm", scale, space_params=numbers)


def test_hooks_are_refused():
    with pytest.raises(UsageError, match=r"--method ldm: hooks = \['consistency'\] act on images"):
        refiner_of("ldm", hooks=("consistency",))


def test_the_chain_of_the_vector_starts_at_the_true_vector_and_has_no_noise_on_the_way():
    method, refiner = refiner_of("diffir")
    seen, true = torch.randn(2, 1, 256)
    states = []
    path = method.training_path()
    end = path.at(path.T)

    def perfect(x, _, levels):
        states.append(x)
        return true

    refiner.guess.forward = perfect
    eps = torch.randn(true.shape)
    out = refiner.run_chain(method, seen, lambda t: eps + end.a / end.s * true if t == path.T else 100 * eps, None)
    assert torch.equal(out, true) and len(states) == 4  # T = 4 in the paper
    torch.testing.assert_close(states[0], end.a * true + end.s * eps)
    beta = np.linspace(0.1**0.5, 0.99**0.5, 4) ** 2  # as published
    keep = np.cumprod(1 - beta)
    mean = (keep[2] ** 0.5 * beta[3] * true + (1 - beta[3]) ** 0.5 * (1 - keep[2]) * states[0]) / (1 - keep[3])
    torch.testing.assert_close(states[1], mean.float(), rtol=1e-4, atol=1e-5)  # posterior mean of DDPM, Eq. 7


def test_the_vector_is_the_frames_and_not_the_tiles():
    _, refiner = refiner_of("diffir")
    known = torch.randn(1, refiner.sees.head.in_channels, 20, 24)
    whole = refiner.vector(refiner.sees, [known], run_at_once)
    assert abs(float(whole.mean())) < 1e-4 and abs(float(whole.std()) - 1) < 0.01  # normalised
    other = refiner.vector(refiner.sees, [known[..., :12]], run_at_once)
    assert float((whole - other).abs().max()) > 1e-3


@pytest.mark.parametrize("name", ["ldm", "diffir"])
def test_model_files_keep_them(name, tmp_path):
    method, refiner = refiner_of(name)
    for parameter in refiner.parameters():
        parameter.add_(0.01)
    save(
        Model(Prior(PriorConfig(2, **SMALL)), refiner, method, {"name": "m", "kind": "astro"}),
        tmp_path / "m.safetensors",
    )
    again = load(str(tmp_path / "m.safetensors"))
    assert type(again.refiner) is type(refiner) and again.method == method
    for key, value in refiner.state_dict().items():
        assert torch.equal(again.refiner.state_dict()[key], value)


def test_other_methods_and_old_cards_make_the_usual_refiner():
    assert type(refiner_for(methods.load("sciresdiff"), RefinerConfig(2, **SMALL))) is Refiner
    assert (
        type(refiner_from_card({"scale": 2, "backbone": "resnet", "width": 8, "depth": 1, "prediction": "x0"}))
        is Refiner
    )


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Method -> a model after a few steps."""
    monkeypatch.setattr(training, "validation", lambda *_: lambda refiner: {"held_out": 0.0})
    (tmp_path / "recipe.toml").write_text(RECIPE)
    torch.manual_seed(0)
    prior = Model(Prior(PriorConfig(2, **SMALL)), card={"name": "p", "kind": "astro", "trained": {}})
    save(prior, tmp_path / "prior.safetensors")

    def train(name, images=32, **changes):
        output = tmp_path / f"{name}{images}.safetensors"
        small = {
            "scale": 2,
            "recipe": str(tmp_path / "recipe.toml"),
            "preset": "tiny",
            "calibrate": False,
            "method": name,
        }
        options = TrainOptions(
            str(output), prior=str(tmp_path / "prior.safetensors"), images=images, **small, **changes
        )
        said = []
        training.train(options, said.append)
        return load(str(output)), said

    return train


@pytest.mark.parametrize(("name", "kind"), [("ldm", LatentRefiner), ("diffir", VectorRefiner)])
def test_trains_and_restores_reproducibly(trained, name, kind):
    model, said = trained(name)
    assert isinstance(model.refiner, kind)
    assert any("codec trained" in line for line in said) == (name == "ldm")
    data, _, _ = scene(side=20)
    pixels, variance = data.y[0, 0].numpy(), data.noise[0, 0].numpy()

    def restored(tile, seed=0):
        settings = Settings(samples=2, steps=4, tile=tile, seed=seed, keep_draws=True)
        return restore(Observation.of_arrays(pixels, variance, 2), model, settings)

    first, again, tiled, other = restored(0), restored(0), restored(8), restored(0, seed=1)
    assert np.array_equal(first.draws, again.draws)
    assert np.isfinite(first.draws).all() and not np.array_equal(first.draws, other.draws)
    np.testing.assert_allclose(tiled.draws, first.draws, rtol=0, atol=1e-3)  # float32 of values of 10


def test_a_resumed_run_keeps_its_codec(trained, tmp_path):
    first, _ = trained("ldm", 8)
    (tmp_path / "ldm8.state").rename(tmp_path / "ldm24.state")
    again, said = trained("ldm", 24)
    assert not any("codec trained" in line for line in said)
    kept = first.refiner.codec.state_dict()
    assert all(torch.equal(v, kept[k]) for k, v in again.refiner.codec.state_dict().items())


@pytest.mark.parametrize("name", ["ldm", "diffir"])
def test_training_lowers_the_loss(name):
    method, refiner = refiner_of(name)
    for part in (refiner.codec,) if name == "ldm" else ():
        part.settle(torch.randn(4, 1, 24, 24))
    parameters = [p.requires_grad_(True) for n, p in refiner.named_parameters() if not n.startswith("codec")]
    optimizer = torch.optim.Adam(parameters, lr=3e-3)
    data, truth, prior = scene()
    space, known = settings_of(method, data, prior)
    valid = F.interpolate(data.valid, scale_factor=2.0)
    losses = []
    for n in range(60):
        generator = torch.Generator().manual_seed(n % 4)
        value = refiner.loss(method, space, known, space.truth(truth), valid, generator, run_at_once)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(float(value.detach()))
    assert np.mean(losses[-4:]) < 0.8 * np.mean(losses[:4])

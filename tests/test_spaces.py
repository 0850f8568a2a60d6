"""Units and bases of a diffusion: there and back, one state in both units, weights that do not depend on them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sciresdiff.diffusion import method as methods
from sciresdiff.diffusion.path import marginal
from sciresdiff.physics.consistency import Data
from sciresdiff.physics.operators import Operator
from sciresdiff.restoration.prior import Estimate
from sciresdiff.restoration.refiner import REFINERS
from sciresdiff.restoration.residual_space import CUT, noise_scale, residual_space

SCALE, SHAPE = 2, (20, 24)
FINE = tuple(SCALE * n for n in SHAPE)
IMAGES = [name for name in methods.names() if methods.load(name).space not in REFINERS]
ROUNDING = {"rtol": 1e-11, "atol": 1e-11}  # float64


def unit_noise(seed, *shape):
    return torch.randn(1, 1, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def frame():
    """Data without a mask, and a prior's estimate of them."""
    data = Data(
        20 + 5 * unit_noise(0, *SHAPE), torch.ones(1, 1, *SHAPE, dtype=torch.float64),
        torch.ones(1, 1, *SHAPE, dtype=torch.float64), Operator(SHAPE, SCALE, dtype=torch.float64),
    )  # fmt: skip
    x = 5 + unit_noise(1, *FINE)
    return data, Estimate(x, 0.5 + unit_noise(2, *FINE).abs(), x)


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_comes_back_from_its_units(frame, name):
    space = residual_space(methods.load(name), *frame)
    x = space.mean + space.scale * unit_noise(3, *FINE).clamp(-2, 2)
    torch.testing.assert_close(space.image(space.truth(x)), x, **ROUNDING)


@pytest.mark.parametrize("name", IMAGES)
def test_a_state_of_the_image_is_a_state_in_its_units(frame, name):
    # a x0 + b mu + s (scale w) eps, brought to units, is a z0 + b mu_z + s w eps: sampling and training agree
    method = methods.load(name)
    space, path = residual_space(method, *frame), method.training_path()
    x0, eps = frame[1].x + unit_noise(4, *FINE).clamp(-2, 2), unit_noise(5, *FINE)
    for t in sorted({1, (path.T + 1) // 2, path.T}):
        seen = marginal(path, t, x0, space.image(space.mu), space.scale * space.w, eps)
        trained = marginal(path, t, (x0 - space.mean) / space.scale, space.mu, space.w, eps)
        torch.testing.assert_close(space.state(seen, path.at(t)), trained, **ROUNDING)


@pytest.mark.parametrize("name", IMAGES)
def test_anchors_are_the_images_that_the_file_names(frame, name):
    data, prior = frame
    method = methods.load(name)
    space = residual_space(method, *frame)
    up = F.interpolate(data.y, scale_factor=float(SCALE), mode="bicubic") / SCALE**2
    wanted = {"prior": prior.x, "up": up, "zero": 0 * up}[method.anchor]
    torch.testing.assert_close(space.image(space.mu), wanted, **ROUNDING)
    torch.testing.assert_close(space.up, up, **ROUNDING)


def test_a_residual_is_the_gain_times_the_difference_to_its_base(frame):
    data, prior = frame
    up = F.interpolate(data.y, scale_factor=float(SCALE), mode="bicubic") / SCALE**2
    for base, image in (("up", up), ("prior", prior.x)):
        method = replace(
            methods.load("srdiff"), space_params={"base": base, "gain": 2.0, "clip": 1.0}, space="residual"
        )
        space, x = residual_space(method, data, prior), prior.x + unit_noise(6, *FINE)
        r = (2 * (x - image) / prior.w).clamp(-1, 1)  # SRDiff: clip(2 (x - up), -1, 1)
        torch.testing.assert_close(space.truth(x), r, **ROUNDING)
        torch.testing.assert_close(space.image(r), image + r * prior.w / 2, **ROUNDING)


def test_details_beyond_the_clip_are_cut(frame):
    method = methods.load("srdiff")
    space = residual_space(method, *frame)
    limit = method.space_params["clip"]
    bright = space.mean + 2 * limit * space.scale
    assert torch.equal(space.truth(bright), torch.full_like(bright, limit))
    assert residual_space(methods.load("sciresdiff"), *frame).cut == CUT


def test_the_plain_units_are_the_priors(frame):
    _, prior = frame
    space = residual_space(methods.load("sciresdiff"), *frame)
    assert torch.equal(space.mean, prior.x) and torch.equal(space.scale, prior.w)
    assert torch.equal(space.mu, 0 * prior.x) and torch.equal(space.w, 0 * prior.x + 1)


@pytest.mark.parametrize("name", IMAGES)
def test_weights_are_the_same_in_the_units_of_sampling_and_of_training(frame, name):
    method = methods.load(name)
    space, path = residual_space(method, *frame), method.training_path()
    alpha = torch.tensor(0.3, dtype=torch.float64)
    seen, trained = (noise_scale(method, space, alpha, image=image) for image in (True, False))
    if isinstance(seen, torch.Tensor):
        torch.testing.assert_close(seen, space.scale * trained, **ROUNDING)
        return
    t = max(1, path.T // 2)
    x = frame[1].x + unit_noise(7, *FINE)
    later = seen.at(path, t, x).w, trained.at(path, t, space.state(x, path.at(t))).w
    torch.testing.assert_close(seen.w, space.scale * trained.w, **ROUNDING)
    torch.testing.assert_close(later[0], space.scale * later[1], **ROUNDING)


def test_a_masked_frame_has_finite_units(frame):
    data, prior = frame
    masked = replace(data, y=0 * data.y, valid=0 * data.valid)
    for name in IMAGES:
        space = residual_space(methods.load(name), masked, prior)
        assert all(bool(torch.isfinite(v).all()) for v in vars(space).values() if isinstance(v, torch.Tensor))


def test_units_scale_with_the_image(frame):
    # a frame k times as bright, with a prior k times as wide, has the same state: no unit of the file enters
    data, prior = frame
    k = 7.0
    for name in IMAGES:
        method = methods.load(name)
        if method.weight in ("upsr", "ones"):  # their own docstrings say that these depend on the unit
            continue
        one = residual_space(method, data, prior)
        two = residual_space(
            method, replace(data, y=k * data.y), Estimate(*(v if v is None else k * v for v in vars(prior).values()))
        )
        for a, b in ((one.mu, two.mu), (one.w, two.w)):
            np.testing.assert_allclose(b, a, rtol=1e-9, atol=1e-9)  # sums in float64

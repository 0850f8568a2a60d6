"""Hooks: each is held to its formula by dense algebra, autograd or scipy; what each leaves alone is left alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from sciresdiff.diffusion import method as methods
from sciresdiff.diffusion.method_file import HOOKS as NAMES
from sciresdiff.diffusion.path import NoiseLevel
from sciresdiff.lab.hooks import atrous_low_band, sobel
from sciresdiff.physics.consistency import Data
from sciresdiff.physics.operators import Operator
from sciresdiff.restoration.hooks import HOOKS, Args, apply_hooks, apply_training_hooks
from sciresdiff.restoration.prior import Estimate
from sciresdiff.restoration.residual_space import residual_space

SCALE, SHAPE = 2, (7, 9)
KERNEL = np.outer([1, 4, 6, 4, 1], [1, 3, 5, 3, 1]) / (16 * 13)
METHOD = methods.load("sciresdiff")
ROUNDING = {"rtol": 0, "atol": 1e-11}  # float64 of values of order 10


def args(kernel=None, p=(0.6, 0.4, 0.5), q=(0.9, 0.1, 0.2), seed=0, **numbers):
    """A frame with one masked pixel, a prior, and two levels (a, b, s), all float64."""
    g = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(1, 1, *shape, generator=g, dtype=torch.float64)  # noqa: E731
    fine = tuple(SCALE * n for n in SHAPE)
    valid = torch.ones(1, 1, *SHAPE, dtype=torch.float64)
    valid[..., 2, 3] = 0
    data = Data(
        5 + 3 * draw(*SHAPE), 0.5 + draw(*SHAPE).square(), valid, Operator(SHAPE, SCALE, kernel, "sum", torch.float64)
    )
    prior = Estimate(1 + draw(*fine), 0.3 + draw(*fine).abs(), draw(*fine))
    p, q = (NoiseLevel(a, b, s, 1.0, 1.0) for a, b, s in (p, q))
    usual = {key: value for table in NAMES.values() for key, value in table.items()}
    return Args(data, prior, residual_space(METHOD, data, prior), p, q, {**usual, **numbers})


def image(given, seed=9):
    return torch.randn(given.prior.x.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def dense(data):
    """A without its masked rows, as a matrix, and y and N of these rows."""
    count = data.y.numel() * SCALE**2
    columns = data.operator.apply(torch.eye(count, dtype=torch.float64).view(count, 1, *(SCALE * n for n in SHAPE)))
    seen = data.valid.flatten() > 0
    return columns.flatten(1).T[seen].numpy(), data.y.flatten()[seen].numpy(), data.noise.flatten()[seen].numpy()


def test_every_name_of_the_grammar_has_its_function():
    assert set(HOOKS) == set(NAMES)


@pytest.mark.parametrize("name", HOOKS)
def test_hooks_keep_shape_type_and_finite_values_in_inference(name):
    with torch.inference_mode():
        given = args(KERNEL)
        out = HOOKS[name](image(given), given)
    assert out.shape == given.prior.x.shape and out.dtype == torch.float64
    assert bool(torch.isfinite(out).all())


def test_consistency_is_the_best_linear_estimate():
    given = args()
    x, p = image(given), given.p
    sigma = np.diag((given.prior.w.square() * p.s**2 / (p.a**2 + p.s**2)).flatten().numpy())
    a, y, n = dense(given.data)
    flat = x.flatten().numpy()
    expected = flat + sigma @ a.T @ np.linalg.solve(a @ sigma @ a.T + np.diag(n), y - a @ flat)
    np.testing.assert_allclose(HOOKS["consistency"](x, given).flatten(), expected, **ROUNDING)
    assert torch.equal(apply_training_hooks(METHOD, given.data, x, given.prior.w, p), HOOKS["consistency"](x, given))


def test_projection_meets_the_data_and_leaves_the_null_space_alone():
    given = args()
    x = image(given)
    out = HOOKS["project"](x, given)
    np.testing.assert_allclose(given.data.residual(out), 0, **ROUNDING)
    a, y, _ = dense(given.data)
    flat, pseudo = x.flatten().numpy(), np.linalg.pinv(a)
    np.testing.assert_allclose(out.flatten(), flat - pseudo @ (a @ flat - y), **ROUNDING)
    np.testing.assert_allclose(HOOKS["project"](out, given), out, **ROUNDING)  # a projection


def test_projection_of_float32_meets_bright_data_to_their_rounding():
    given = args()
    data, prior = given.data, given.prior
    y = (1e5 * data.y.abs()).float()
    data = Data(y, data.noise.float(), data.valid.float(), Operator(SHAPE, SCALE))
    x = (1e4 * image(given)).float()
    out = HOOKS["project"](
        x, replace(given, data=data, prior=Estimate(*(v if v is None else v.float() for v in vars(prior).values())))
    )
    size = data.operator.apply(out.abs())
    assert float((data.residual(out).abs() / size).max()) < 1e-6  # a few roundings of float32


def test_projection_through_a_kernel_moves_only_what_the_data_see():
    given = args(KERNEL)
    x = image(given)
    out = HOOKS["project"](x, given)
    a, _, _ = dense(given.data)
    moved = (out - x).flatten().numpy()
    np.testing.assert_allclose(np.linalg.pinv(a) @ a @ moved, moved, rtol=0, atol=1e-9)  # A A^T is conditioned to 1e3
    assert float(given.data.chi2(out)) < 0.01 * float(given.data.chi2(x))


def test_the_noisy_projection_is_the_plain_one_while_the_state_is_noisier_than_the_data():
    given = args(q=(0.1, 0.9, 100.0))
    x = image(given)
    np.testing.assert_allclose(HOOKS["project-noise"](x, given), HOOKS["project"](x, given), **ROUNDING)


def test_the_noisy_projection_takes_the_share_that_the_next_state_can_hide():
    # with w = 1 everywhere: lambda = min(1, s_r d / (a_r sigma_y)), d = scale (DDNM+, equation 17)
    given = args(q=(0.8, 0.2, 0.3))
    flat = torch.ones_like(given.prior.x)
    given = replace(given, space=replace(given.space, scale=flat, w=flat))
    x = image(given)
    a, y, n = dense(given.data)
    share = np.minimum(1, 0.3 * SCALE / (0.8 * np.sqrt(n)))
    assert share.min() < 1 == share.max()  # both cases are met
    vector = x.flatten().numpy()
    expected = vector - np.linalg.pinv(a) @ (share * (a @ vector - y))
    np.testing.assert_allclose(HOOKS["project-noise"](x, given).flatten(), expected, **ROUNDING)


def test_the_noisy_projection_leaves_the_last_estimate_alone():
    given = args(q=(1.0, 0.0, 0.0))
    x = image(given)
    assert torch.equal(HOOKS["project-noise"](x, given), x)


def test_clipping_cuts_at_the_limit_and_nothing_else():
    given = args(clip_limit=0.7)
    x = image(given)
    z, cut = (v.sub(given.space.mean) / given.space.scale for v in (x, HOOKS["clip"](x, given)))
    np.testing.assert_allclose(cut, z.clamp(-0.7, 0.7), **ROUNDING)
    assert float(z.abs().max()) > 0.7  # the test has something to cut
    np.testing.assert_allclose(HOOKS["clip"](x, args(clip_limit=1e6)), x, **ROUNDING)


def test_sobel_is_the_usual_one():
    x = image(args())
    dy, dx = (ndimage.sobel(x[0, 0].numpy(), axis, mode="nearest") / 8 for axis in (0, 1))
    np.testing.assert_allclose(sobel(x)[0, 0], np.hypot(dy, dx), **ROUNDING)


def test_guidance_to_the_prior_is_a_step_down_its_gradient():
    given = args(prior_strength=0.3)
    x = image(given).requires_grad_()
    g = given.prior
    # 2 x 2 sums of the gradient in units of the prior's scale, the border repeated
    steep = np.pad((sobel(g.x) / g.w)[0, 0].numpy(), (0, 1), mode="edge")
    total = steep[:-1, :-1] + steep[1:, :-1] + steep[:-1, 1:] + steep[1:, 1:]
    weight = torch.from_numpy(1 - np.tanh(total))
    (0.5 * weight * (x - g.x).square()).sum().backward()
    np.testing.assert_allclose(HOOKS["guide-prior"](x.detach(), given), x.detach() - 0.3 * x.grad, **ROUNDING)
    np.testing.assert_allclose(HOOKS["guide-prior"](g.x, given), g.x, **ROUNDING)


@pytest.mark.parametrize("shape", [(6, 8), (7, 9), (7, 8)], ids=str)
def test_guidance_by_the_spectrum_is_a_step_down_its_gradient(shape):
    given = args(frequency_strength=0.2)
    cut = lambda v: v[..., : shape[0], : shape[1]]  # noqa: E731 (odd and even sides)
    given = replace(given, prior=Estimate(*(v if v is None else cut(v) for v in vars(given.prior).values())))
    x = image(given).requires_grad_()
    seen, wanted = (torch.fft.fft2(v, norm="ortho").abs() for v in (x, given.prior.x))
    distance = (seen - wanted).abs()
    (distance.sum() - distance[..., 0, 0].sum()).backward()
    out = HOOKS["guide-frequency"](x.detach(), given)
    np.testing.assert_allclose(out, x.detach() - 0.2 * given.prior.w * x.grad, **ROUNDING)
    assert float(x.grad.sum()) == pytest.approx(0, abs=1e-12)  # rounding: the total is not touched where w is flat
    assert torch.equal(HOOKS["guide-frequency"](given.prior.x, given), given.prior.x)


@pytest.mark.parametrize("levels", [1, 3])
def test_the_low_band_is_that_of_the_a_trous_transform(levels):
    x = image(args())
    expected = x[0, 0].numpy()
    for k in range(levels):
        line = np.zeros(2 ** (k + 1) + 1)
        line[[0, 2**k, -1]] = 0.25, 0.5, 0.25
        for axis in (0, 1):
            expected = ndimage.correlate1d(expected, line, axis, mode="nearest")
    np.testing.assert_allclose(atrous_low_band(x, levels)[0, 0], expected, **ROUNDING)


def test_the_low_band_becomes_the_priors_and_the_rest_is_kept():
    given = args(low_levels=2)
    x, g = image(given), given.prior.x
    out = HOOKS["low-frequency"](x, given)
    np.testing.assert_allclose(out - atrous_low_band(g, 2), x - atrous_low_band(x, 2), **ROUNDING)
    assert torch.equal(HOOKS["low-frequency"](g, given), g)


def test_low_bands_of_frames_below_the_reach_of_the_filter_are_finite():
    x = torch.randn(1, 1, 2, 3, dtype=torch.float64)
    assert bool(torch.isfinite(atrous_low_band(x, 5)).all())
    np.testing.assert_allclose(atrous_low_band(0 * x + 4, 5), 4, **ROUNDING)


def test_hooks_are_applied_in_the_order_of_the_file():
    given = args(clip_limit=0.5)
    x = image(given)
    both = [apply_hooks(replace(METHOD, hooks=names), x, given) for names in (("project", "clip"), ("clip", "project"))]
    assert torch.equal(both[0], HOOKS["clip"](HOOKS["project"](x, given), given))
    assert torch.equal(both[1], HOOKS["project"](HOOKS["clip"](x, given), given))
    assert not torch.equal(*both)
    assert torch.equal(apply_hooks(replace(METHOD, hooks=()), x, given), x)

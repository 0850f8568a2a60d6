"""Hooks: what each does to an estimate, held to its formula."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sciresdiff.diffusion import method as methods
from sciresdiff.diffusion.method_file import HOOKS as NAMES
from sciresdiff.hooks import HOOKS, Args, applied, guide_frequency, guide_prior, project, project_noise, smoothed, sobel
from sciresdiff.physics.consistency import Data
from sciresdiff.physics.operators import Operator
from sciresdiff.prior import Estimate
from sciresdiff.spaces import framed

SCALE = 2
NUMBERS = {key: value for numbers in NAMES.values() for key, value in numbers.items()}
GAUSSIAN = np.exp(-0.5 * np.add.outer(np.arange(-4, 5) ** 2, np.arange(-4, 5) ** 2) / 1.2**2)


def args_of(kernel: Any = None, shape: tuple[int, int] = (12, 10), level: int = 8, name: str = "ddpm") -> Args:
    """Data of noise about a gradient, and a prior beside them."""
    generator = torch.Generator().manual_seed(1)
    h, w = shape
    y = torch.randn(1, 1, h, w, generator=generator) + torch.linspace(0, 40, w)
    operator = Operator(shape, SCALE, None if kernel is None else kernel / kernel.sum())
    data = Data(y, torch.full_like(y, 2.0), torch.ones_like(y), operator)
    x = operator.adjoint(y) / SCALE**2 + 0.3 * torch.randn(1, 1, SCALE * h, SCALE * w, generator=generator)
    prior = Estimate(x, torch.full_like(x, 0.5), x)
    path = methods.load(name).path(20)
    method = methods.load(name)
    return Args(data, prior, framed(method, data, prior), path.at(level), path.at(level - 1), NUMBERS)


def estimate(args: Args, seed: int = 3) -> Tensor:
    return args.prior.x + torch.randn(args.prior.x.shape, generator=torch.Generator().manual_seed(seed))


def test_every_hook_of_the_grammar_is_there() -> None:
    assert set(HOOKS) == set(NAMES)


@pytest.mark.parametrize("name", HOOKS)
@pytest.mark.parametrize("kernel", [None, GAUSSIAN], ids=["pixels", "kernel"])
def test_a_hook_keeps_shape_and_is_finite_and_the_prior_or_the_data_attract(name: str, kernel: Any) -> None:
    args = args_of(kernel)
    x = estimate(args)
    found = HOOKS[name](x, args)
    assert found.shape == x.shape and bool(torch.isfinite(found).all())
    if name in ("guide-prior", "low-frequency"):
        assert float((found - args.prior.x).norm()) < float((x - args.prior.x).norm())
    if name in ("consistency", "project", "project-noise"):
        assert float(args.data.chi2(found)) < float(args.data.chi2(x))


def test_a_projection_agrees_with_the_data_and_leaves_what_they_cannot_see() -> None:
    args = args_of()
    x = estimate(args)
    found = project(x, args)
    left = args.data.operator.apply(found) - args.data.y
    assert float(left.abs().max()) < 2e-5 * float(args.data.y.abs().max())  # float32, sums of four
    moved = found - x
    flat = args.data.operator.adjoint(args.data.operator.apply(moved)) / SCALE**2
    assert torch.allclose(moved, flat, atol=1e-5)  # float32: all of the change lies in the range of A^T


def test_masked_pixels_are_not_projected() -> None:
    args = args_of()
    valid = torch.ones_like(args.data.y)
    valid[..., 4, 5] = 0
    args = replace(args, data=replace(args.data, valid=valid))
    x = estimate(args)
    assert torch.equal(project(x, args)[..., 8:10, 10:12], x[..., 8:10, 10:12])


def test_a_noisy_projection_goes_as_far_as_the_next_state_is_noisy() -> None:
    args, shares = args_of(), []
    x = estimate(args)
    whole = project(x, args) - x
    for s in (1e-6, 0.5, 1e3):
        part = project_noise(x, replace(args, q=args.q._replace(s=s, a=1.0))) - x
        shares.append(float((part * whole).sum() / whole.square().sum()))
    # lambda = s_r w d / sigma_y = 0.5 * 0.5 * 2 / sqrt(2)
    assert shares == pytest.approx([0, 0.5 / np.sqrt(2), 1], abs=1e-4)  # float32


def test_guidance_to_the_prior_is_the_gradient_of_its_weighted_distance() -> None:
    args = args_of()
    x = estimate(args).requires_grad_()
    steep = 4 * torch.nn.functional.avg_pool2d(
        torch.nn.functional.pad(sobel(args.prior.x) / args.prior.w, (0, 1, 0, 1), mode="replicate"), 2, stride=1
    )
    ((1 - torch.tanh(steep)) * (x - args.prior.x).square() / 2).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    expected = x.detach() - NUMBERS["prior_strength"] * x.grad
    assert torch.allclose(guide_prior(x.detach(), args), expected, atol=1e-6)  # float32


def test_guidance_in_frequency_is_the_gradient_of_the_amplitudes_distance() -> None:
    args = args_of(shape=(8, 9))
    x = estimate(args).double().requires_grad_()
    near = torch.fft.fft2(args.prior.x.double(), norm="ortho").abs()
    seen = torch.fft.fft2(x, norm="ortho").abs()
    keep = torch.ones_like(seen)
    keep[..., 0, 0] = 0
    (keep * (seen - near).abs()).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    double = replace(args, prior=Estimate(*(v.double() for v in (args.prior.x, args.prior.w, args.prior.x))))
    found = (x.detach() - guide_frequency(x.detach(), double)) / (NUMBERS["frequency_strength"] * 0.5)
    assert torch.allclose(found, x.grad, atol=1e-9)  # float64


def test_the_sobel_gradient_of_a_ramp_is_its_slope() -> None:
    ramp = 3.0 * torch.arange(8.0).expand(1, 1, 6, 8)
    assert torch.allclose(sobel(ramp)[..., 1:-1, 1:-1], torch.tensor(3.0))


def test_the_low_band_keeps_constants_and_takes_the_finest_checkers() -> None:
    flat, checkers = torch.full((1, 1, 8, 8), 7.0), (-1.0) ** torch.arange(8).view(-1, 1).add(torch.arange(8))
    assert torch.allclose(smoothed(flat, 3), flat)
    assert float(smoothed(checkers[None, None], 1)[..., 1:-1, 1:-1].abs().max()) < 1e-6  # (1 2 1) / 4 is 0 there
    args = args_of()
    x = estimate(args)
    kept = HOOKS["low-frequency"](x, args)
    assert torch.allclose(smoothed(kept - args.prior.x, 3), smoothed(smoothed(x - args.prior.x, 0), 3) - smoothed(
        smoothed(x - args.prior.x, 3), 3), atol=1e-5)  # fmt: skip  # linear, float32


def test_a_clip_is_in_the_units_of_the_method() -> None:
    args = args_of()
    far = args.around.image(torch.full_like(args.prior.x, 50.0))
    limited = HOOKS["clip"](far, args)
    assert torch.allclose(args.around.truth(limited), torch.full_like(far, NUMBERS["clip_limit"]), rtol=1e-5)


def test_hooks_are_applied_in_order() -> None:
    args, method = args_of(), methods.load("diffbir")
    x = estimate(args)
    assert torch.equal(applied(method, x, args), HOOKS["low-frequency"](HOOKS["guide-prior"](x, args), args))


def test_a_residual_space_has_its_base_and_gain() -> None:
    args = args_of(name="srdiff")
    around = args.around
    assert torch.equal(around.mean, around.up)
    assert torch.allclose(around.scale * 2, args.prior.w) and around.cut == 20
    x = estimate(args)
    assert torch.allclose(around.image(around.truth(x)), x, atol=1e-4)  # float32, nothing beyond the cut

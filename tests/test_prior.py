"""The prior: scale-free inputs, bounded corrections, physics alone when untrained, and tiles that agree."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sciresdiff.physics.consistency import Data
from sciresdiff.physics.operators import Operator
from sciresdiff.physics.psf.field import PSF
from sciresdiff.physics.richardson_lucy import pedestal
from sciresdiff.restoration.ops import asinh, box_mean, local_contrast, pixel_unshuffle, psf_features
from sciresdiff.restoration.prior import Prior, PriorConfig, starting_estimates


def gaussian(sigma: float) -> np.ndarray:
    radius = int(5 * sigma + 0.5)
    g = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    return np.outer(g, g) / g.sum() ** 2


@pytest.fixture
def stars():
    rng = np.random.default_rng(0)
    x = torch.zeros(1, 1, 64, 96)
    for y, c, f in zip(rng.integers(4, 60, 12), rng.integers(4, 92, 12), 10 ** rng.uniform(1, 5, 12), strict=True):
        x[..., y, c] = float(f)
    op = Operator((32, 48), 2, gaussian(1.2))
    clean = op.apply(x)
    noise = 1 + 0.01 * clean.clamp_min(0)
    y = clean + noise.sqrt() * torch.from_numpy(rng.normal(size=clean.shape)).float()
    return Data(y, noise, torch.ones_like(y), op)


def tiny(seed: int = 0) -> Prior:
    torch.manual_seed(seed)
    prior = Prior(PriorConfig(2, width=8, depth=1))
    for parameter in prior.parameters():  # an untrained network is the physics alone; here it must do something
        torch.nn.init.normal_(parameter, std=0.05)
    return prior.requires_grad_(False)


def test_untrained_prior_is_the_physics(stars):
    prior = Prior(PriorConfig(2, width=8, depth=1)).requires_grad_(False)
    kernel = torch.zeros(1, 4)
    _, sharp = starting_estimates(stars, 4, 12)
    assert torch.equal(prior(stars, kernel)[0].guess, sharp)


def test_correction_is_bounded_by_the_local_contrast(stars):
    prior = tiny()
    for parameter in prior.parameters():
        parameter.mul_(100)
    _, sharp = starting_estimates(stars, 4, 12)
    _, amplitude = local_contrast(sharp, stars.noise, 2)
    moved = (prior(stars, torch.zeros(1, 4))[0].guess - sharp).abs()
    assert bool((moved <= 3.001 * amplitude).all())  # bound of the configuration, and float32


def test_explains_the_data_better_than_its_guess(stars):
    for estimate in tiny()(stars, torch.zeros(1, 4), iterations=40):
        assert float(stars.chi2(estimate.x)) < float(stars.chi2(estimate.guess))


def test_masked_pixels_do_not_matter(stars):
    valid = torch.ones_like(stars.y)
    valid[..., 10:13, 20:25] = 0
    kernel, prior = torch.zeros(1, 4), tiny()
    outputs = []
    for value in (0.0, 1e9):
        y = torch.where(valid > 0, stars.y, torch.tensor(value))
        outputs.append(prior(Data(y, stars.noise, valid, stars.operator), kernel)[-1].x)
    assert torch.isfinite(outputs[0]).all()
    assert torch.equal(*outputs)


def test_pedestal_makes_all_but_outliers_positive(stars):
    lifted = stars.y + pedestal(stars)
    assert float((lifted > 0).float().mean()) > 0.999


@pytest.mark.parametrize("sigma", [0.8, 2.0, 5.0])
def test_psf_features_grow_with_the_kernel(sigma):
    narrow, wide = (psf_features(PSF.constant(k), 4) for k in (gaussian(sigma), gaussian(1.3 * sigma)))
    assert (wide[[0, 1, 3]] > narrow[[0, 1, 3]]).all()


def test_psf_features_do_not_depend_on_padding():
    kernel = gaussian(1.5)
    np.testing.assert_allclose(*(psf_features(PSF.constant(k), 4) for k in (np.pad(kernel, 6), kernel)), atol=1e-6)


@pytest.mark.parametrize("radius", [1, 2, 8])
@pytest.mark.parametrize("shape", [(1, 1), (3, 20), (17, 12)])
def test_box_is_the_mean_of_the_pixels_inside(radius, shape):
    v = torch.randn(2, 1, *shape, dtype=torch.float64)
    wanted = F.avg_pool2d(v, 2 * radius + 1, stride=1, padding=radius, count_include_pad=False)
    torch.testing.assert_close(box_mean(v, radius), wanted, rtol=0, atol=1e-14)  # the same sums in another order


@torch.no_grad()
def test_asinh_is_that_of_torch_at_every_size():
    x = torch.cat([10.0 ** torch.linspace(-30, 17, 1000), torch.tensor([0.0, 1e30, 3e38])])
    x = torch.cat([x, -x])
    got = asinh(x.clone().view(1, -1))[0]
    assert bool(((got - torch.asinh(x.double())).abs() <= 3e-7 * got.abs())[x.abs() < 1e18].all())  # 3 ulp
    assert bool(got.isfinite().all())


def test_unshuffled_is_pixel_unshuffle():
    v = torch.randn(2, 1, 12, 8)
    assert torch.equal(pixel_unshuffle(v, 4), F.pixel_unshuffle(v, 4))

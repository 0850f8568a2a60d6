"""The map of edges and high frequencies: what it answers to, when it is renewed, and what learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from sciresdiff.diffusion.method import load
from sciresdiff.diffusion.path import marginal
from sciresdiff.diffusion.sampler import sample, train_pair
from sciresdiff.diffusion.schedule import SCHEDULES
from sciresdiff.diffusion.weight import WEIGHTS
from sciresdiff.lab.weights import edges, high_pass, is_due, start_staged

SIZE = 48


def picture() -> Tensor:
    """A disc with a sharp edge on a slope, and a faint texture in one corner, (1, 1, 48, 48) float64."""
    y, x = np.mgrid[:SIZE, :SIZE]
    image = 0.02 * x + 3.0 * (np.hypot(y - 20, x - 24) < 9)
    image[36:, 36:] += 0.3 * np.random.default_rng(1).normal(size=(12, 12))
    return torch.from_numpy(image)[None, None]


def keyed(t: int) -> Tensor:
    """Unit noise, a pure function of t."""
    return torch.randn(1, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(t), dtype=torch.float64)


@pytest.mark.parametrize("f", [edges, high_pass])
def test_maps_are_free_of_scale_and_level_and_lie_between_0_and_1(f) -> None:
    image = picture()
    found = f(image)
    assert found.shape == image.shape and float(found.min()) >= 0 and float(found.max()) < 1
    torch.testing.assert_close(f(1e4 * image + 77), found, rtol=1e-6, atol=1e-6)  # 77 takes digits off 0.02
    torch.testing.assert_close(f(image[0, 0]), found[0, 0])
    torch.testing.assert_close(f(image.flip(-1)), found.flip(-1))
    torch.testing.assert_close(f(image.mT), found.mT)


@pytest.mark.parametrize("f", [edges, high_pass])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (3, 3)])
def test_flat_and_small_images_have_no_structure(f, shape) -> None:
    assert torch.equal(f(torch.full((2, 1, *shape), 5.0)), torch.zeros(2, 1, *shape))


def test_edges_are_sobel_and_high_pass_is_binomial() -> None:
    from scipy import ndimage

    image = picture()[0, 0].numpy()
    gradient = np.hypot(ndimage.sobel(image, 0, mode="nearest"), ndimage.sobel(image, 1, mode="nearest"))
    kernel = np.array([1, 4, 6, 4, 1]) / 16
    low = ndimage.correlate1d(ndimage.correlate1d(image, kernel, 0, mode="nearest"), kernel, 1, mode="nearest")
    ones = ndimage.uniform_filter(np.ones_like(image), 33, mode="constant")
    for size, given in ((gradient, edges(picture())), (abs(image - low), high_pass(picture()))):
        about = ndimage.uniform_filter(size, 33, mode="constant") / ones  # mean of what lies inside the image
        np.testing.assert_allclose(given[0, 0].numpy(), size / (size + about), atol=1e-9)  # running sums


def test_the_edge_weighs_more_than_the_plain_and_the_floor_holds() -> None:
    image = picture()
    w = WEIGHTS["edge-frequency"](image, torch.ones_like(image), image, alpha=0.5, floor=0.2)[0, 0]
    assert float(w[20, 15]) > 1.3 and float(w[20, 24]) < 0.3  # the disc's edge, and its middle
    assert float(w.min()) >= 0.2 and float(w.max()) <= 1.8
    half = WEIGHTS["edge-frequency"](image, 0.5 * torch.ones_like(image), image)[0, 0]
    torch.testing.assert_close(half, 0.5 * w)


def test_renewal_is_rare_while_noisy_and_frequent_at_the_end() -> None:
    path = SCHEDULES["resshift"](T=15)
    assert [t for t in range(15, 0, -1) if is_due(path, t)] == [12, 10, 8, 6, 5, 4, 3, 2, 1]


def test_the_map_follows_the_image_as_it_appears() -> None:
    """From a blank interpolated frame, the map of the end is that of the image which the estimates show."""
    image, blank = picture(), torch.zeros(1, 1, SIZE, SIZE, dtype=torch.float64)
    method = load("edge-frequency")
    live = method.dynamic_scale(torch.ones_like(image), blank)
    assert live is not None and load("resshift").dynamic_scale(image, image) is None
    path, w = method.path(), []
    weigh = live.following(path)
    for t in range(path.T, 0, -1):
        w.append(weigh(t, marginal(path, t, image, blank, 0.01, keyed(0))))
    assert w[0] is w[1] is w[2] and torch.equal(w[0], torch.full_like(w[0], 0.2))  # 15, 14, 13: not yet due
    goal = WEIGHTS["edge-frequency"](image, torch.ones_like(image), image)
    away = [float((v - goal).abs().mean()) for v in w]
    assert away[-1] < 0.25 * away[0]
    assert all(late <= early + 1e-12 for early, late in zip(away[3:], away[4:], strict=False))


def test_smoothing_is_exponential() -> None:
    image, blank = picture(), torch.zeros(1, 1, SIZE, SIZE, dtype=torch.float64)
    path = SCHEDULES["resshift"](T=4)
    first = start_staged(torch.ones_like(image), blank, smooth=0.75)
    p = path.at(2)
    mixture = p.a / (p.a + p.s) * image
    torch.testing.assert_close(first.at(path, 2, image).edge, 0.25 * edges(mixture))
    twice = first.at(path, 2, image).at(path, 2, image)
    torch.testing.assert_close(twice.edge, (1 - 0.75**2) * edges(mixture))


def test_alpha_learns_through_the_state_and_nothing_else_does() -> None:
    image = picture()
    alpha = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    method = load("edge-frequency")
    w = method.dynamic_scale(torch.ones_like(image), 0.5 * image, alpha)
    assert w is not None
    t = torch.tensor([4, 11])
    pair = [torch.cat([v, v]) for v in (image, 0.5 * image, keyed(1))]
    both = method.dynamic_scale(torch.ones_like(pair[0]), pair[1], alpha)
    x, target, _ = train_pair(method, pair[0], pair[1], both, t, pair[2])
    assert torch.equal(target, pair[0]) and x.shape == pair[0].shape
    x.square().sum().backward()
    assert alpha.grad is not None and float(alpha.grad) != 0
    alone, _, _ = train_pair(method, image, 0.5 * image, w, 4, keyed(1))
    torch.testing.assert_close(alone, x[:1])


def test_a_draw_is_the_same_twice_and_ends_at_the_truth() -> None:
    image = picture()
    method = load("edge-frequency")
    w = method.dynamic_scale(torch.ones_like(image), 0.5 * image)
    assert torch.equal(sample(method, lambda x, t: image, 0.5 * image, w, keyed), image)
    once, again = (sample(method, lambda x, t: torch.tanh(x), 0.5 * image, w, keyed) for _ in range(2))
    assert torch.equal(once, again)
    first = torch.as_tensor(method.noise_scale(image, torch.ones_like(image), 0.5 * image))
    assert torch.equal(w.w, first)  # what a caller without the state machine gets is its first map


def test_units_of_the_image_do_not_matter() -> None:
    """A state in units of the prior's scale, with shift and stretch, has the same map as one in the image's units."""
    image, scale = picture(), 0.5 + torch.rand(1, 1, SIZE, SIZE, dtype=torch.float64)
    method = load("edge-frequency")
    plain = method.dynamic_scale(scale, image)
    units = method.dynamic_scale(torch.ones_like(scale), image, shift=image, stretch=scale)
    z, path = keyed(3), method.path()
    given, expected = units.at(path, 5, z).w * scale, plain.at(path, 5, image + scale * z).w
    torch.testing.assert_close(given, expected, rtol=1e-9, atol=1e-9)  # a + b = 1 within rounding

"""The autoencoder: a cosine transform at the start, better than interpolation once trained."""

import pytest
import torch
import torch.nn.functional as F

from sciresdiff import tiling
from sciresdiff.lab.latent.codec import Codec, cosines
from sciresdiff.lab.latent.train_codec import fit_codec
from sciresdiff.training.data import Pairs
from sciresdiff.training.recipe import DataRecipe

RECIPE = DataRecipe(kind="micro", scale=2, patch=16, scene_px=96, pool=8, grain_share=0.0)


def patches(seed):
    """Number of a batch -> simulated scenes, (8, 1, 32, 32), of mean 0 and spread 1."""
    pairs = Pairs(RECIPE, seed)

    def batch(n):
        truth = pairs.batch(8 * n, 8).truth
        middle = truth.mean((1, 2, 3), keepdim=True)
        return (truth - middle) / (truth - middle).square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-6)

    return batch


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_cosines_are_orthonormal(factor):
    rows = cosines(factor, factor**2).double()
    torch.testing.assert_close(rows @ rows.T, torch.eye(factor**2).double(), rtol=0, atol=1e-6)  # stored in float32
    torch.testing.assert_close(rows[0], torch.full((factor**2,), 1 / factor).double(), rtol=0, atol=1e-6)


def test_with_as_many_numbers_as_pixels_an_untrained_codec_loses_nothing():
    x = torch.randn(2, 1, 12, 8)
    torch.testing.assert_close(Codec(2, 4, width=4, depth=1)(x), x, rtol=0, atol=1e-5)  # float32


def test_settling_gives_codes_of_unit_spread_and_the_same_images():
    codec, x = Codec(2, 2, width=4, depth=1).requires_grad_(False), 5 + 3 * torch.randn(4, 1, 16, 16)
    before = codec(x)
    codec.settle(x)
    code = codec.encode(x)
    assert float(code.mean((0, 2, 3)).abs().max()) < 1e-4 and float((code.std((0, 2, 3)) - 1).abs().max()) < 1e-4
    torch.testing.assert_close(codec(x), before, rtol=0, atol=1e-4)  # float32 of values of 10
    codec.settle(x)
    torch.testing.assert_close(codec.encode(x), code, rtol=0, atol=1e-4)


def test_a_constant_image_settles():
    codec = Codec(2, 2, width=4, depth=1)
    codec.settle(torch.ones(1, 1, 8, 8))
    assert torch.isfinite(codec.encode(torch.ones(1, 1, 8, 8))).all()


@pytest.mark.parametrize("way", ["encoder", "decoder"])
def test_tiles_agree(way):
    net = getattr(Codec(2, 2, width=4, depth=1), way)
    torch.nn.init.normal_(net.tail.weight)
    x = torch.randn(1, net.head.in_channels, 21, 40)
    plan = tiling.plan((21, 40), 8, net.receptive_px)
    torch.testing.assert_close(tiling.run(net, x, plan), net(x), rtol=0, atol=1e-5)  # convolutions of another size


@pytest.mark.parametrize("channels", [1, 2])
def test_a_little_training_beats_bicubic(channels):
    codec, x = Codec(2, channels, width=16, depth=1), patches(9)(0)
    untrained = float((codec(x) - x).detach().square().mean())
    lost = fit_codec(codec, patches(0), 80, None, lambda line: None)
    mine = float((codec(x) - x).square().mean())
    small = F.interpolate(x, scale_factor=0.5, mode="bicubic", antialias=True)
    bicubic = float((F.interpolate(small, scale_factor=2.0, mode="bicubic") - x).square().mean())
    assert mine < 0.9 * bicubic and mine < untrained
    assert 0 < lost < 1 and not any(p.requires_grad for p in codec.parameters())

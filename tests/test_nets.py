"""Every backbone: its shape, its zero start, its reach, and tiles that agree."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sciresdiff import tiling
from sciresdiff.lab.backbones.branch import pad_to_multiple
from sciresdiff.lab.backbones.freq import haar, high_pass
from sciresdiff.lab.backbones.modulation import Code, FiLM
from sciresdiff.lab.backbones.nafnet import ChannelNorm, LocalAttention
from sciresdiff.nets import BACKBONES
from sciresdiff.physics.consistency import Data
from sciresdiff.physics.operators import Operator
from sciresdiff.restoration.prior import Prior, PriorConfig, starting_estimates

INPUTS, OUTPUTS, WIDTH, DEPTH = 9, 2, 16, 1
EXACT = [name for name in BACKBONES if BACKBONES[name](INPUTS, OUTPUTS, WIDTH, DEPTH).tile_exact]
CONVOLUTIONAL = ["resnet", "unet", "srcnn", "edsr", "rrdb", "rird", "nafnet", "freq", "two-branch"]
MODULATED = ["nafnet", "freq", "two-branch"]


def awake(name: str, width: int = WIDTH, depth: int = DEPTH) -> torch.nn.Module:
    """A network whose zeroed layers have learned something."""
    net = BACKBONES[name](INPUTS, OUTPUTS, width, depth)
    for parameter in net.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return net


def frame(h: int, w: int, batch: int = 1) -> torch.Tensor:
    """Noise, and three constant maps at the end."""
    numbers = torch.tensor([0.8, 0.6, 0.4])[:, None, None].expand(batch, -1, h, w)
    return torch.cat([torch.randn(batch, INPUTS - 3, h, w), numbers], dim=1)


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (13, 6), (16, 24)])
def test_any_size_goes_in_and_comes_out(name, shape):
    with torch.no_grad():
        out = awake(name)(frame(*shape, batch=2))
    assert out.shape == (2, OUTPUTS, *shape)
    assert bool(out.isfinite().all())


@pytest.mark.parametrize("name", BACKBONES)
def test_starts_as_zero(name):
    net = BACKBONES[name](INPUTS, OUTPUTS, WIDTH, DEPTH)
    assert not net(frame(9, 14)).any()


@pytest.mark.parametrize("name", BACKBONES)
def test_gradient_reaches_every_parameter(name):
    net = awake(name, depth=2)
    net(frame(16, 24, batch=2)).square().sum().backward()
    idle = [key for key, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert not idle


@pytest.mark.parametrize("name", BACKBONES)
def test_an_untrained_network_learns(name):
    net = BACKBONES[name](INPUTS, OUTPUTS, WIDTH, DEPTH)
    x = frame(16, 16, batch=2)
    target = x[:, :OUTPUTS] * 0.5
    steps = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(25):
        loss = (net(x) - target).square().mean()
        steps.zero_grad()
        loss.backward()
        steps.step()
    assert float(loss.detach()) < 0.8 * float(target.square().mean())  # a dead start stays at 1


def poisoned(net: torch.nn.Module, size: int, y: int, x: int) -> int:
    """How far a NaN at (y, x) spreads: what is structurally connected, whatever the weights are."""
    image = torch.zeros(1, INPUTS, size, size, dtype=torch.float64)  # float64: no Winograd, which reads further
    image[0, 0, y, x] = float("nan")
    with torch.no_grad():
        rows, columns = net(image)[0].isnan().any(0).nonzero(as_tuple=True)
    return int(max((rows - y).abs().max(), (columns - x).abs().max()))


@pytest.mark.parametrize("name", EXACT)
def test_reach_is_a_bound_and_not_a_loose_one(name):
    net = awake(name).double()
    size = 2 * net.receptive_px + 5 + 2 * net.multiple_of
    middle = size // 2
    places = sorted({0, net.multiple_of // 2, net.multiple_of - 1})  # within a cell of the coarsest grid
    reach = max(poisoned(net, size, middle + k, middle + k) for k in places)
    assert reach <= net.receptive_px < 2 * reach


@pytest.mark.parametrize("name", CONVOLUTIONAL)
@pytest.mark.parametrize("depth", [1, 3])
def test_reach_of_convolutions_is_exact(name, depth):
    net = awake(name, 4, depth).double()
    size = 2 * net.receptive_px + 5 + 2 * net.multiple_of
    middle = tiling.rounded_up(size // 2, net.multiple_of)
    reach = max(poisoned(net, size, middle + k, middle + k) for k in range(net.multiple_of))
    assert reach == net.receptive_px


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("dtype, rounding", [(torch.float32, 2e-5), (torch.float64, 1e-12)])
def test_tiles_agree(name, turned, dtype, rounding):
    net = awake(name).to(dtype)
    h, w = 21, 2 * net.receptive_px + 45  # so that windows end inside the frame
    x = frame(*((w, h) if turned else (h, w))).to(dtype)
    tiles = tiling.plan(tuple(x.shape[-2:]), 16, net.receptive_px, net.multiple_of)
    assert any(t.window.shape != tuple(x.shape[-2:]) for t in tiles)
    with torch.no_grad():
        whole, parts = net(x), tiling.run(net, x, tiles)
    assert float((whole - parts).abs().max()) <= rounding * float(whole.abs().max())  # sums in another order


@pytest.mark.parametrize("name", BACKBONES)
def test_says_how_it_is_tiled(name):
    net = BACKBONES[name](INPUTS, OUTPUTS, WIDTH, DEPTH)
    assert isinstance(net.tile_exact, bool)
    assert net.receptive_px >= 0 and net.multiple_of >= 1


def test_convolutions_are_tile_exact():
    assert set(CONVOLUTIONAL) <= set(EXACT)


def far_change(net: torch.nn.Module) -> float:
    """What the numbers of the level at the first pixel do to an output out of that pixel's reach."""
    x = frame(3, net.receptive_px + 9)
    other = x.clone()
    other[:, -3:, 0, 0] = torch.tensor([0.1, 0.9, 0.9])
    with torch.no_grad():
        return float((net(other) - net(x))[..., -4:].abs().max())


@pytest.mark.parametrize("name", MODULATED)
def test_the_level_modulates_everywhere(name):
    assert far_change(awake(name)) > 1e-4


@pytest.mark.parametrize("name", [name for name in CONVOLUTIONAL if name not in MODULATED])
def test_the_others_see_the_level_as_a_channel_only(name):
    assert far_change(awake(name)) == 0


@pytest.mark.parametrize("name", BACKBONES)
def test_bfloat16_stays_near(name):
    net, x = awake(name), frame(16, 24)
    with torch.no_grad():
        exact = net(x)
        with torch.autocast("cpu", torch.bfloat16):
            rough = net(x).float()
    assert bool(rough.isfinite().all())
    assert float((rough - exact).std()) < 0.1 * float(exact.std())  # 8 bits a product, some tens of layers


@pytest.mark.parametrize("name", BACKBONES)
def test_channels_last_changes_rounding_only(name):
    net, x = awake(name), frame(17, 22)
    with torch.no_grad():
        plain = net(x)
        last = net.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last))
    assert float((plain - last).abs().max()) <= 2e-5 * float(plain.abs().max())  # sums in another order


@pytest.mark.parametrize("name", BACKBONES)
def test_a_state_dictionary_comes_back(name):
    net, x = awake(name), frame(8, 12)
    other = BACKBONES[name](INPUTS, OUTPUTS, WIDTH, DEPTH)
    other.load_state_dict(net.state_dict())
    with torch.no_grad():
        assert torch.equal(net.eval()(x), other.eval()(x))


@pytest.mark.parametrize("name", BACKBONES)
def test_works_as_a_prior_of_one_stage(name):
    prior = Prior(PriorConfig(2, backbone=name, stages=1, width=WIDTH, depth=1))
    y = 5 + torch.randn(1, 1, 11, 14)
    data = Data(y, torch.ones_like(y), torch.ones_like(y), Operator((11, 14), 2, None))
    with torch.no_grad():
        (estimate,) = prior(data, torch.zeros(1, 4))
    assert torch.equal(estimate.guess, starting_estimates(data, 4, 12)[1])  # untrained, it is the physics alone
    assert bool(estimate.x.isfinite().all())


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_the_docstring_counts_the_parameters(name):
    net = BACKBONES[name](28, 8, 64, 5)
    millions = sum(p.numel() for p in net.parameters()) / 1e6
    text = " ".join((net.__doc__ or "").split())
    assert any(f"{millions:.{digits}f} million parameters at base" in text for digits in (1, 2)), millions


def test_film_is_the_formula_and_starts_as_nothing():
    film, v = FiLM(6).double(), torch.randn(2, 6, 4, 5, dtype=torch.float64)
    code = Code().double()(frame(4, 5, batch=2).double())
    assert torch.equal(film(v, code), v)
    torch.nn.init.normal_(film.linear.weight)
    w, b = film.linear.weight.detach().numpy(), film.linear.bias.detach().numpy()
    line = code.detach().numpy() @ w.T + b
    expected = v.numpy() * (1 + line[:, :6, None, None]) + line[:, 6:, None, None]
    np.testing.assert_allclose(film(v, code).detach().numpy(), expected, rtol=0, atol=1e-12)  # float64


def test_levels_of_any_size_give_a_code_of_order_one():
    x = torch.zeros(4, 3, 1, 1)
    x[:, 1, 0, 0] = torch.tensor([0.0, 1e-3, 1.0, 1e3])
    assert float(Code()(x).detach().abs().max()) < 10  # asinh(1000) is 7.6, and two layers of weights below 1


def test_high_pass_knows_its_frequencies():
    n = 16
    k = torch.arange(n, dtype=torch.float64)
    for turns in (0, 2, 4, 8):
        wave = torch.cos(2 * torch.pi * turns * k / n)
        gain = 1 - 0.5 * (1 + np.cos(2 * np.pi * turns / n))  # one minus the response of (1, 2, 1)/4
        out = high_pass(wave[None, None, None].expand(1, 1, n, n))[0, 0, :, 2:-2]
        np.testing.assert_allclose(out.numpy(), (gain * wave)[2:-2].expand(n, -1).numpy(), atol=1e-12)  # float64


def test_haar_bands_and_means_are_the_image():
    x = torch.randn(2, 3, 8, 10, dtype=torch.float64)
    mean = torch.nn.functional.avg_pool2d(x, 2)
    across, down, both = haar(x).chunk(3, dim=1)
    signs = {(0, 0): (1, 1, 1), (0, 1): (-1, 1, -1), (1, 0): (1, -1, -1), (1, 1): (-1, -1, 1)}
    for (i, j), (p, q, r) in signs.items():
        back = mean + p * across + q * down + r * both
        torch.testing.assert_close(back, x[..., i::2, j::2], rtol=0, atol=1e-14)  # float64


def test_channel_norm_looks_at_one_pixel():
    v = torch.randn(1, 8, 3, 4, dtype=torch.float64)
    expected = (v - v.mean(1, keepdim=True)) / (v.var(1, unbiased=False, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(ChannelNorm(8).double()(v), expected, rtol=0, atol=1e-12)  # float64


def test_local_attention_averages_inside_the_image():
    attention = LocalAttention(1, 2).double()
    torch.nn.init.ones_(attention.mix.weight)
    torch.nn.init.zeros_(attention.mix.bias)
    v = torch.randn(1, 1, 6, 7, dtype=torch.float64)
    out = attention(v)[0, 0].detach()
    for y, x in ((0, 0), (3, 3), (5, 6)):
        mean = v[0, 0, max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3].mean()
        assert float((out[y, x] - v[0, 0, y, x] * mean).abs()) < 1e-14  # float64


def test_padding_repeats_the_edge():
    x = pad_to_multiple(torch.arange(6.0).view(1, 1, 2, 3), 4)
    assert x[0, 0].tolist() == [[0, 1, 2, 2], [3, 4, 5, 5], [3, 4, 5, 5], [3, 4, 5, 5]]

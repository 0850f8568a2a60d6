"""bfloat16 inside residual blocks, and memory that is kept."""

import pytest
import torch

from sciresdiff import malloc
from sciresdiff.nets import BACKBONES, half


@pytest.fixture
def net(monkeypatch):
    torch.manual_seed(0)
    net = BACKBONES["resnet"](11, 8, 16, 3)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    monkeypatch.setattr(half, "has_fast_bfloat16", lambda device: True)
    return net.eval()


def test_branches_round_and_sums_do_not(net):
    x = torch.randn(1, 11, 24, 20)
    with torch.no_grad():
        wanted = net(x)
        half.use_bfloat16(net, torch.device("cpu"))
        got = net(x)
    assert got.dtype == torch.float32
    error = float((got - wanted).std() / wanted.std())
    assert 1e-6 < error < 1e-2  # bfloat16 rounds to 2^-9: inputs, weights and results of six convolutions


def test_gradients_are_those_of_float32(net):
    x = torch.randn(1, 11, 12, 12)
    wanted = net(x)
    half.use_bfloat16(net, torch.device("cpu"))
    assert torch.equal(net(x), wanted)


def test_without_hardware_nothing_changes(net, monkeypatch):
    monkeypatch.setattr(half, "has_fast_bfloat16", lambda device: False)
    half.use_bfloat16(net, torch.device("cpu"))
    assert not any(getattr(part, "half_branch", False) for part in net.modules())


def test_settings_of_the_environment_win(monkeypatch):
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    assert malloc.keep_freed.__wrapped__() is False


@torch.no_grad()
def test_channels_may_be_told_beforehand():
    torch.manual_seed(1)
    net = BACKBONES["resnet"](11, 8, 16, 2)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x = torch.randn(1, 11, 9, 7)
    known = net.partial_head(x[:, 4:8], 4)
    got = net.forward_from_head(torch.cat([x[:, :4], x[:, 8:], known], dim=1), 4, 4)
    torch.testing.assert_close(got, net(x), rtol=1e-5, atol=1e-5)  # one sum in two parts, float32 rounding

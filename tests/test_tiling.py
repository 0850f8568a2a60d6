"""Tiles cover a frame once, and what a tile-exact network answers does not depend on them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sciresdiff.errors import UsageError
from sciresdiff.nets import BACKBONES
from sciresdiff.tiling import halo_for, plan, run


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 100), st.integers(0, 30), st.sampled_from([1, 2, 4, 8]))
def test_cores_cover_the_frame_once_within_their_windows(h: int, w: int, tile: int, halo: int, stride: int) -> None:
    cover = torch.zeros(h, w)
    for t in plan((h, w), tile, halo, stride):
        cover[t.core.slices] += 1
        assert max(t.core.shape) <= -(-tile // stride) * stride
        core, window = t.core, t.window
        for a, b, ra, rb, length in (
            (core.y0, core.y1, window.y0, window.y1, h),
            (core.x0, core.x1, window.x0, window.x1, w),
        ):
            assert 0 <= ra <= a < b <= rb <= length
            assert a % stride == 0 and ra % stride == 0
            assert ra == 0 or a - ra >= halo
            assert rb == length or (rb - b >= halo and rb % stride == 0)
    assert (cover == 1).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 40), st.integers(0, 9), st.integers(1, 3))
def test_an_identity_model_gives_the_frame_back(h: int, w: int, tile: int, halo: int, scale: int) -> None:
    x = torch.arange(2.0 * h * w).reshape(1, 2, h, w)

    def finer(v: torch.Tensor) -> torch.Tensor:
        return v.repeat_interleave(scale, -1).repeat_interleave(scale, -2)

    assert torch.equal(run(finer, x, plan((h, w), tile, halo), scale), finer(x))


def awake(net: nn.Module) -> nn.Module:
    """A network whose every weight is random (an untrained one of ours answers zero)."""
    torch.manual_seed(1)
    for p in net.parameters():
        nn.init.normal_(p, std=0.1)
    return net.eval()


@pytest.mark.parametrize("tile", [16, 24, 33])
@pytest.mark.parametrize("name", ["resnet", "unet"])  # all of them: test_nets
def test_networks_answer_the_same_in_every_tiling(name: str, tile: int) -> None:
    net = awake(BACKBONES[name](2, 3, 8, 1))
    x = torch.randn(1, 2, 90, 101)
    tiles = plan((90, 101), tile, int(net.receptive_px), int(net.multiple_of))
    assert len(tiles) > 8
    with torch.inference_mode():
        whole, parts = net(x), run(net, x, tiles)
    assert whole.abs().max() > 0.05
    assert (whole - parts).abs().max() < 2e-6 * whole.abs().max()  # order of summation in float32


@pytest.mark.parametrize("tile", [8, 13, 40])
def test_zero_padding_at_the_border_and_a_finer_output(tile: int) -> None:
    first, last = nn.Conv2d(1, 4, 5, padding=2), nn.Conv2d(4, 9, 3, padding=1)
    net = awake(nn.Sequential(first, nn.Tanh(), last, nn.PixelShuffle(3)))
    x = torch.randn(2, 1, 37, 50, dtype=torch.float64)
    net.double()
    with torch.inference_mode():
        whole, parts = net(x), run(net, x, plan((37, 50), tile, 3), scale=3)
        short = run(net, x, plan((37, 50), tile, 2), scale=3)
    assert (whole - parts).abs().max() < 1e-13  # order of summation in float64
    assert (whole - short).abs().max() > 1e-4  # a halo below the receptive field of 3 px shows


def test_halo_is_the_receptive_field_in_strides() -> None:
    assert [halo_for(r, m) for r, m in ((0, 4), (1, 4), (12, 4), (13, 4), (13, 1))] == [0, 4, 12, 16, 13]


def test_one_tile_is_the_frame_itself() -> None:
    (tile,) = plan((30, 50), 64, 8, 4)
    assert (tile.window.slices, tile.core.scaled(2).slices, tile.inside(2)) == (
        (slice(0, 30), slice(0, 50)),
        (slice(0, 60), slice(0, 100)),
        (slice(0, 60), slice(0, 100)),
    )


def test_cores_are_nearly_equal() -> None:
    assert [t.core.shape[1] for t in plan((1, 257), 256, 8)] == [129, 128]


@pytest.mark.parametrize(("shape", "tile", "halo"), [((4, 4), 0, 1), ((4, 4), -3, 1), ((0, 4), 8, 1), ((4, 4), 8, -1)])
def test_impossible_tiles_are_refused(shape: tuple[int, int], tile: int, halo: int) -> None:
    with pytest.raises(UsageError, match=r"--tile .* at least 1 pixel|sides and stride start at 1"):
        plan(shape, tile, halo)

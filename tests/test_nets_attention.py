"""Networks with attention: windows that keep to the grid of the frame, and every formula against a plain derivation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sciresdiff import tiling
from sciresdiff.lab.backbones.atd import (
    GROUP,
    TOKENS,
    DictionaryAttention,
    attend_in_categories,
    category_order,
    refine_tokens,
)
from sciresdiff.lab.backbones.attention import (
    RelativeBias,
    WindowAttention,
    attend,
    beyond_map,
    down,
    heads_for,
    looks,
    merge_shifted,
    positions,
    reach,
    split_shifted,
    up,
    within,
)
from sciresdiff.lab.backbones.ditsr import AdaFM, filter_windows
from sciresdiff.lab.backbones.modulation import CODE
from sciresdiff.lab.backbones.twostream import JointAttention, TwoStreamBlock
from sciresdiff.lab.backbones.uvit import PATCH
from sciresdiff.nets import BACKBONES
from sciresdiff.restoration.refiner import LEVELS, Refiner, RefinerConfig, known_channels

INPUTS, OUTPUTS, WIDTH = 9, 2, 16
WINDOWED = ["swinir", "dit-sr", "two-stream"]
WHOLE = ["atd", "u-vit"]
NAMES = [*WINDOWED, *WHOLE]
Floats = NDArray[np.float64]


def awake(module: torch.nn.Module) -> torch.nn.Module:
    """A module whose zeroed layers have learned something, in float64."""
    for parameter in module.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return module.double()


def network(name: str, depth: int = 1, width: int = WIDTH) -> torch.nn.Module:
    """A backbone that is awake."""
    return awake(BACKBONES[name](INPUTS, OUTPUTS, width, depth))


def frame(h: int, w: int) -> torch.Tensor:
    """Noise, and three constant maps at the end."""
    numbers = torch.tensor([0.8, 0.6, 0.4], dtype=torch.float64)[:, None, None].expand(1, -1, h, w)
    return torch.cat([torch.randn(1, INPUTS - 3, h, w, dtype=torch.float64), numbers], dim=1)


def softmax(logits: Floats) -> Floats:
    """Over the last axis."""
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def linear(layer: torch.nn.Linear, x: Floats) -> Floats:
    """x W^T + b."""
    return x @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()


def asked(q: Floats, k: Floats, v: Floats, heads: int, bias: Floats | None = None) -> Floats:
    """Attention of (places, C), head by head; bias (heads, places, keys)."""
    d = q.shape[-1] // heads
    parts = [slice(n * d, (n + 1) * d) for n in range(heads)]
    zero = np.zeros((heads, len(q), len(k)))
    biases = zero if bias is None else bias
    return np.hstack(
        [softmax(q[:, s] @ k[:, s].T / np.sqrt(d) + b) @ v[:, s] for s, b in zip(parts, biases, strict=True)]
    )


def windows_of(h: int, w: int, side: int, shift: int) -> list[list[tuple[int, int]]]:
    """The pixels of every window of the frame, those inside the frame only."""
    found: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for y, x in itertools.product(range(h), range(w)):
        found.setdefault(((y + shift) // side, (x + shift) // side), []).append((y, x))
    return list(found.values())


def offsets(bias: RelativeBias, side: int, pixels: list[tuple[int, int]]) -> Floats:
    """The learned bias of every pair of pixels, (heads, places, keys), from their offset alone."""
    table = bias.table.detach().numpy()
    rows = [[(a - c + side - 1) * (2 * side - 1) + b - d + side - 1 for c, d in pixels] for a, b in pixels]
    return table[np.array(rows)].transpose(2, 0, 1)


def close(ours: torch.Tensor, expected: Floats) -> None:
    """Equal but for the rounding of float64."""
    np.testing.assert_allclose(ours.detach().numpy(), expected, rtol=0, atol=1e-12)  # sums of some hundred products


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("depth", [1, 3])
def test_gradient_reaches_every_parameter_at_any_depth(name, depth):
    net = network(name, depth)
    net(frame(16, 20)).square().sum().backward()
    assert not [key for key, p in net.named_parameters() if p.grad is None or not p.grad.any()]


@pytest.mark.parametrize("name", NAMES)
def test_the_mark_is_honest(name):
    net, x = network(name), frame(37, 91)
    with torch.no_grad():
        whole = net(x)
        parts = [
            tiling.run(net, x, tiling.plan((37, 91), tile, net.receptive_px, net.multiple_of)) for tile in (8, 16, 24)
        ]
    apart = max(float((whole - part).abs().max() / whole.abs().max()) for part in parts)
    assert net.tile_exact == (name in WINDOWED)
    assert apart < 1e-12 if net.tile_exact else apart > 1e-3  # float64; that far is no rounding


@pytest.mark.parametrize("name", WINDOWED)
def test_tiles_agree_at_depth(name):
    net, shape = network(name, 2, 8), (19, 301)
    x = frame(*shape)
    with torch.no_grad():
        whole = net(x)
        for tile in (32, 100):
            tiles = tiling.plan(shape, tile, net.receptive_px, net.multiple_of)
            assert any(t.window.shape[1] < shape[1] for t in tiles)
            assert float((whole - tiling.run(net, x, tiles)).abs().max() / whole.abs().max()) < 1e-12  # float64


@pytest.mark.parametrize("name", WINDOWED)
def test_a_halo_that_is_too_small_shows(name):
    net, shape = network(name), (8, 2 * BACKBONES[name](INPUTS, OUTPUTS, WIDTH, 1).receptive_px + 45)
    x = frame(*shape)
    with torch.no_grad():
        cut_short = tiling.run(net, x, tiling.plan(shape, 16, 0, net.multiple_of))
        assert float((net(x) - cut_short).abs().max()) > 1e-6


@pytest.mark.parametrize("name", WINDOWED)
def test_reach_is_exact(name):
    net = network(name, 1, 8)
    w = 2 * net.receptive_px + 3 * net.multiple_of
    first = tiling.rounded_up(w // 2 - net.multiple_of // 2, net.multiple_of)
    far = 0
    for x in range(first, first + net.multiple_of):  # every place of a window
        image = torch.zeros(1, INPUTS, 8, w, dtype=torch.float64)
        image[0, :-LEVELS, 3, x] = float("nan")  # spreads to all that is connected, whatever the weights
        with torch.no_grad():
            columns = net(image)[0].isnan().any(0).any(0).nonzero()[:, 0]
        far = max(far, int((columns - x).abs().max()))
    assert far == net.receptive_px


def test_reach_of_steps_by_hand():
    assert reach([looks(1), looks(2)], 1) == 3
    assert reach([within(8)], 8) == 7
    assert reach([within(8), within(8, 4)], 8) == 11  # 0..7, then the shifted windows -4..3 and 4..11
    assert reach([down(2), looks(1), up(2)], 2) == 3  # pixel 0 is in cell 0, cells -1..1 are pixels -2..3


@pytest.mark.parametrize("name", NAMES)
def test_the_level_modulates_everywhere(name):
    net, x = network(name), frame(3, 120)
    other = x.clone()
    other[:, -3:, 0, 0] = torch.tensor([0.1, 0.9, 0.9], dtype=torch.float64)
    with torch.no_grad():
        assert float((net(other) - net(x))[..., -4:].abs().max()) > 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_images_of_a_batch_do_not_meet(name):
    net, a, b = network(name, 2), frame(11, 18), frame(11, 18)
    with torch.no_grad():
        both = net(torch.cat([a, b]))
        torch.testing.assert_close(both, torch.cat([net(a), net(b)]), rtol=0, atol=1e-12)  # float64


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", [2, 3])
def test_works_as_a_refiner(name, scale):
    refiner = Refiner(RefinerConfig(scale, name, width=8, depth=1, prediction="flow"))
    u, known = torch.randn(2, 1, scale * 9, scale * 10), torch.randn(2, known_channels(scale), 9, 10)
    levels = torch.tensor([[0.6, 0.8, 0.57]]).expand(2, LEVELS)
    with torch.no_grad():
        out = refiner(u, levels, known)
    torch.testing.assert_close(out, 0.2 * u, rtol=0, atol=1e-5)  # s - a over s^2 + a^2: untrained, the Gaussian answer


@pytest.mark.parametrize("name", NAMES)
def test_the_docstring_counts_the_parameters(name):
    net = BACKBONES[name](28, 8, 64, 5)
    millions = sum(p.numel() for p in net.parameters()) / 1e6
    text = " ".join((net.__doc__ or "").split())
    assert any(f"{millions:.{digits}f} million parameters at base" in text for digits in (1, 2)), millions


@pytest.mark.parametrize("heads", [1, 3])
def test_attention_is_the_formula(heads):
    q, k, v = torch.randn(3, 2, 10, 12, dtype=torch.float64)
    bias = torch.randn(2, heads, 10, 10, dtype=torch.float64)
    bias[:, :, :, 4] = -torch.inf
    out = attend(q, k, v, heads, bias)
    for n in range(2):
        close(out[n], asked(q[n].numpy(), k[n].numpy(), v[n].numpy(), heads, bias[n].numpy()))


@pytest.mark.parametrize("shift", [0, 4])
def test_window_attention_is_that_of_windows_on_the_grid_of_the_frame(shift):
    attention, (h, w), c = awake(WindowAttention(32, shift)), (16, 24), 32
    x = torch.randn(1, h, w, 3 * c, dtype=torch.float64)
    image, expected = x[0].numpy(), np.empty((h, w, c))
    for pixels in windows_of(h, w, 8, shift):
        y, z = np.array(pixels).T
        q, k, v = np.split(image[y, z], 3, axis=1)
        expected[y, z] = linear(attention.proj, asked(q, k, v, 2, offsets(attention.bias, 8, pixels)))
    close(attention(x)[0], expected)


def test_windows_are_cut_and_put_back():
    x = torch.randn(2, 16, 24, 3)
    for shift in (0, 3, 4):
        assert torch.equal(merge_shifted(split_shifted(x, 8, shift), 8, shift, 16, 24), x)


def test_only_places_beyond_the_map_are_absent():
    assert beyond_map(16, 24, 8, 0, torch.device("cpu")) is None
    gone = beyond_map(16, 24, 8, 4, torch.device("cpu"))
    assert gone is not None and gone.shape == (3 * 4, 64)
    assert int((~gone).sum()) == 16 * 24
    assert not gone.all(dim=1).any()  # a window without a single key would have no softmax


@pytest.mark.parametrize("width, heads", [(1, 1), (8, 1), (16, 1), (32, 2), (48, 3), (64, 4), (50, 2), (37, 1)])
def test_heads_divide_the_width(width, heads):
    assert heads_for(width) == heads


def test_positions_are_the_formula_and_all_different():
    h, w, c = 5, 7, 18
    table = positions(h, w, c).numpy()
    rate = 1e4 ** (-np.arange(4) / 4)
    for y, x in itertools.product(range(h), range(w)):
        expected = [f(n * rate) for n in (y, x) for f in (np.sin, np.cos)]
        np.testing.assert_allclose(table[y * w + x], [*np.concatenate(expected), 0, 0], atol=2e-6)  # float32
    assert len(np.unique(table.round(4), axis=0)) == h * w


@pytest.mark.parametrize("p", [4, 8, 5])
def test_adafm_is_the_transform_of_every_window(p):
    v = torch.randn(2, 3 * p, 2 * p, 3, dtype=torch.float64)
    gains = torch.randn(2, p, p, dtype=torch.float64)
    out, image = filter_windows(v, gains).numpy(), v.numpy()
    for n, i, j, c in itertools.product(range(2), range(3), range(2), range(3)):
        at = (n, slice(i * p, (i + 1) * p), slice(j * p, (j + 1) * p), c)
        expected = np.fft.ifft2(gains[n].numpy() * np.fft.fft2(image[at])).real
        np.testing.assert_allclose(out[at], expected, rtol=0, atol=1e-12)  # float64


def test_adafm_by_the_definition_of_the_transform():
    p = 4
    n = np.arange(p)
    dft = np.exp(-2j * np.pi * np.outer(n, n) / p)
    v, gains = torch.randn(p, p, dtype=torch.float64), torch.randn(p, p, dtype=torch.float64)
    expected = (dft.conj() @ (gains.numpy() * (dft @ v.numpy() @ dft)) @ dft.conj()).real / p**2
    close(filter_windows(v[None, :, :, None], gains[None])[0, :, :, 0], expected)


def test_adafm_of_ones_is_the_identity_as_it_is_at_the_start():
    v = torch.randn(2, 16, 8, 5, dtype=torch.float64)
    close(filter_windows(v, torch.ones(2, 8, 8, dtype=torch.float64)), v.numpy())
    close(AdaFM().double()(v, torch.randn(2, CODE, dtype=torch.float64)), v.numpy())


def test_adafm_of_the_lowest_frequency_is_the_mean_of_the_window():
    v, gains = torch.randn(1, 8, 16, 2, dtype=torch.float64), torch.zeros(1, 8, 8, dtype=torch.float64)
    gains[:, 0, 0] = 1
    means = v.unflatten(2, (2, 8)).mean(dim=(1, 3))[:, None, :, None].expand(-1, 8, -1, 8, -1).flatten(2, 3)
    close(filter_windows(v, gains), means.numpy())


def test_adafm_transforms_half_precision_in_float32():
    v, gains = torch.randn(1, 8, 8, 2).bfloat16(), torch.rand(1, 8, 8)
    out = filter_windows(v, gains)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, filter_windows(v.float(), gains).bfloat16())


def test_sorting_by_category_is_stable():
    category = torch.randint(0, 5, (3, 4096))  # ties everywhere
    order = category_order(category)
    for ours, numbers in zip(order, category, strict=True):
        assert ours.tolist() == sorted(range(4096), key=lambda place: int(numbers[place]))  # Python's sort is stable
    assert torch.equal(category_order(torch.zeros(1, 700, dtype=torch.long)), torch.arange(700)[None])


def test_attention_in_categories_by_hand():
    n, c, heads = 3 * GROUP, 8, 2
    qkv, category = torch.randn(1, n, 3 * c, dtype=torch.float64), torch.randint(0, 4, (1, n))
    out = attend_in_categories(qkv, category, heads)[0]
    numbers, pixels = category[0].tolist(), qkv[0].numpy()
    line = [place for wanted in range(4) for place in range(n) if numbers[place] == wanted]
    for start in range(0, n, GROUP):
        group = line[start : start + GROUP]
        close(out[group], asked(*np.split(pixels[group], 3, axis=1), heads))


def test_what_a_category_is_called_changes_nothing():
    qkv, category = torch.randn(1, 4 * GROUP, 24), torch.randint(0, 6, (1, 4 * GROUP))
    once = attend_in_categories(qkv, category, 1)
    assert torch.equal(once, attend_in_categories(qkv, category, 1))
    assert torch.equal(once, attend_in_categories(qkv, 10 * category + 3, 1))


def test_pixels_of_equal_value_have_equal_groups_in_every_run():
    net = BACKBONES["atd"](INPUTS, OUTPUTS, WIDTH, 1)
    torch.nn.init.normal_(net.tail.weight)
    x = torch.zeros(1, INPUTS, 24, 40)  # one category, ties only
    with torch.no_grad():
        first = net(x)
        assert all(torch.equal(first, net(x)) for _ in range(3))


def test_dictionary_attention_is_the_formula():
    ask = DictionaryAttention(16).double()
    ask.tau.data = torch.linspace(-0.5, 1.5, TOKENS, dtype=torch.float64)  # beyond the clip on both sides
    x, tokens = torch.randn(1, 7, 16, dtype=torch.float64), torch.randn(1, TOKENS, 16, dtype=torch.float64)
    out, likeness = ask(x, tokens)
    q, k = linear(ask.q, x[0].numpy()), linear(ask.k, tokens[0].numpy())
    cosines = q @ k.T / np.outer(np.linalg.norm(q, axis=1), np.linalg.norm(k, axis=1))
    logits = cosines * (1 + np.clip(np.linspace(-0.5, 1.5, TOKENS), 0, 1) * np.log(TOKENS))
    close(likeness[0], logits)
    close(out[0], softmax(logits) @ linear(ask.v, tokens[0].numpy()))


def test_a_dictionary_is_refined_by_the_pixels_that_ask_it():
    tokens, likeness, x = (torch.randn(1, *shape, dtype=torch.float64) for shape in ((3, 4), (50, 3), (50, 4)))
    share = torch.tensor([[0.0], [0.3], [1.0]], dtype=torch.float64)
    a = likeness[0].numpy()
    weights = softmax(((a - a.mean(0)) / np.sqrt(a.var(0) + 1e-5)).T)
    expected = (1 - share.numpy()) * tokens[0].numpy() + share.numpy() * (weights @ x[0].numpy())
    close(refine_tokens(tokens, likeness, x, share)[0], expected)


@pytest.mark.parametrize("name", WHOLE)
def test_a_far_pixel_changes_what_claims_no_bound(name):
    net, x = network(name), frame(8, 4 * BACKBONES[name](INPUTS, OUTPUTS, WIDTH, 1).receptive_px)
    other = x.clone()
    other[:, 0, :, :8] += 3
    with torch.no_grad():
        assert float((net(other) - net(x))[..., -8:].abs().max()) > 1e-9  # float64: no rounding


def test_a_tile_of_256_pixels_is_4096_tokens():
    net = BACKBONES["u-vit"](INPUTS, OUTPUTS, 8, 1)
    tokens: list[int] = []
    net.middle.register_forward_pre_hook(lambda _, given: tokens.append(given[0].shape[1]))
    with torch.no_grad():
        net(torch.zeros(1, INPUTS, 256, 256))
    assert tokens == [(256 // PATCH) ** 2 + 1]
    assert tokens[0] - 1 <= 4096


def test_long_skips_join_the_last_kept_first():
    net = BACKBONES["u-vit"](INPUTS, OUTPUTS, 8, 5)
    kept: list[torch.Tensor] = []
    joined: list[torch.Tensor] = []
    for block in net.left:
        block.register_forward_hook(lambda _, given, out: kept.append(out))
    for block in net.right:
        block.register_forward_pre_hook(lambda _, given: joined.append(given[1]))
        assert block.join.weight.shape == (32, 64)
    with torch.no_grad():
        net(frame(8, 12).float())
    assert len(kept) == len(joined) == 2
    assert all(a is b for a, b in zip(kept, reversed(joined), strict=True))


def joint(attention: JointAttention, state: Floats, condition: Floats) -> Floats:
    """Joint attention within one window by hand: pixels of the state first, then those of the condition."""
    both = linear(attention.qkv, np.vstack([state, condition]))
    both[len(state) :] += linear(attention.extra, condition)
    pixels = list(itertools.product(range(8), range(8)))
    bias = np.tile(offsets(attention.bias, 8, pixels), (1, 2, 2))
    return asked(*np.split(both, 3, axis=1), attention.heads, bias)


def test_joint_attention_is_the_formula():
    attention = awake(JointAttention(32, 0))
    state, condition = torch.randn(2, 1, 8, 8, 32, dtype=torch.float64)
    told, heard = attention(state, condition)
    expected = joint(attention, state[0].flatten(0, 1).numpy(), condition[0].flatten(0, 1).numpy())
    close(torch.cat([told.flatten(0, 2), heard.flatten(0, 2)]), expected)


@pytest.mark.parametrize("part", ["query", "key", "value"])
def test_the_condition_asks_and_answers_with_what_is_its_own(part):
    attention = JointAttention(32, 4).double()
    state, condition = torch.randn(2, 1, 16, 8, 32, dtype=torch.float64)
    before = attention(state, condition)
    rows = {"query": slice(0, 32), "key": slice(32, 64), "value": slice(64, 96)}[part]
    torch.nn.init.normal_(attention.extra.weight[rows].detach())
    changed = [not torch.allclose(a, b) for a, b in zip(before, attention(state, condition), strict=True)]
    assert changed == [part != "query", True]  # a network that loses the condition's keys would say False for "key"


def test_streams_inform_each_other():
    block = awake(TwoStreamBlock(16, 4, last=False))
    state, condition = (v.requires_grad_() for v in torch.randn(2, 1, 8, 8, 16, dtype=torch.float64).unbind())
    code = torch.randn(1, CODE, dtype=torch.float64)
    for out, other in zip(block(state, condition, code), (condition, state), strict=True):
        (slope,) = torch.autograd.grad(out.square().sum(), other, retain_graph=True)
        assert bool(slope.any())


def test_at_the_start_nothing_is_injected_and_the_condition_takes_nothing():
    block = TwoStreamBlock(16, 0, last=False).double()
    state, other, condition = torch.randn(3, 1, 8, 8, 16, dtype=torch.float64)
    code = torch.randn(1, CODE, dtype=torch.float64)
    assert torch.equal(block(state, condition, code)[1], block(other, condition, code)[1])
    assert not block.inject.weight.any() and not block.attention.extra.weight.any()
    assert block.inject.groups == block.inject.in_channels and block.inject.kernel_size == (3, 3)


def test_the_first_channels_are_the_state():
    net = BACKBONES["two-stream"](INPUTS, OUTPUTS, WIDTH, 1)
    assert (net.state.in_channels, net.condition.in_channels) == (OUTPUTS, INPUTS - OUTPUTS)
    seen: list[torch.Tensor] = []
    net.state.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    x = frame(8, 16).float()
    with torch.no_grad():
        net(x)
    assert torch.equal(seen[0], x[:, :OUTPUTS])

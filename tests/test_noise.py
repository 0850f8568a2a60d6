"""Noise that is a pure function of its place: tiles agree bit for bit, and it is white in every direction."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sciresdiff.diffusion import noise
from sciresdiff.diffusion.noise import field, gaussian, key_of, mix

SIDE = 512
WHOLE = gaussian(7, 0, 3, 0, 0, 0, SIDE, SIDE)
LIMIT = 5 / SIDE  # 5 sigma of a mean, or of a correlation, of SIDE^2 independent values


def correlation(a: Tensor, b: Tensor) -> float:
    """Of two fields of mean 0 and variance 1."""
    return float((a.double() * b.double()).mean())


@settings(max_examples=60, deadline=None)
@given(st.integers(0, SIDE - 1), st.integers(0, SIDE - 1), st.integers(1, 200), st.integers(1, 200))
def test_a_window_is_the_crop_of_the_whole_field(y: int, x: int, h: int, w: int) -> None:
    h, w = min(h, SIDE - y), min(w, SIDE - x)
    assert torch.equal(gaussian(7, 0, 3, 0, y, x, h, w), WHOLE[y : y + h, x : x + w])


def test_coordinates_may_be_far_away_or_negative() -> None:
    far = gaussian(0, 0, 0, 0, 10**9, 10**9 + 1, 8, 8)
    assert torch.equal(far[3:, 2:5], gaussian(0, 0, 0, 0, 10**9 + 3, 10**9 + 3, 5, 3))
    across = gaussian(0, 0, 0, 0, -4, -5, 9, 9)
    assert torch.equal(across[4:, 5:], gaussian(0, 0, 0, 0, 0, 0, 5, 4))
    assert torch.equal(across[1:3, 2:5], gaussian(0, 0, 0, 0, -3, -3, 2, 3))


def test_the_result_does_not_depend_on_how_the_rows_are_grouped(monkeypatch: pytest.MonkeyPatch) -> None:
    for chunk in (1, 1000, 1 << 30):
        monkeypatch.setattr(noise, "CHUNK", chunk)
        assert torch.equal(gaussian(7, 0, 3, 0, 0, 0, 64, 128), WHOLE[:64, :128])


@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**63, 2**64 + 1, 10**40, -1])
def test_moments(seed: int) -> None:
    f = gaussian(seed, 0, 0, 0, 0, 0, SIDE, SIDE).double()
    n = SIDE**2
    assert f.dtype == torch.float64 and torch.isfinite(f).all()
    assert abs(float(f.mean())) < LIMIT
    assert abs(float(f.var()) - 1) < 5 * math.sqrt(2 / n)  # 5 sigma of a variance
    assert abs(float((f**3).mean())) < 5 * math.sqrt(15 / n)  # 5 sigma of the third moment
    assert abs(float((f**4).mean()) - 3) < 5 * math.sqrt(96 / n)  # 5 sigma of the fourth moment


def test_distribution_is_normal_and_reaches_far() -> None:
    f = WHOLE.double().flatten().sort().values
    n = f.numel()
    cdf = 0.5 * (1 + torch.erf(f / math.sqrt(2)))
    grid = torch.arange(1, n + 1, dtype=torch.float64) / n
    assert float((cdf - grid).abs().max()) < 1.95 / math.sqrt(n)  # Kolmogorov-Smirnov at 1e-3
    assert 4.0 < float(f.abs().max()) < 6.5  # of 3e5 normals the largest lies there but for 1 in 1e4


@pytest.mark.parametrize(("dy", "dx"), [(0, 1), (1, 0), (1, 1), (0, 2), (1, -1), (0, 3), (7, 0), (0, 64)])
def test_neighbours_are_independent(dy: int, dx: int) -> None:
    shifted = gaussian(7, 0, 3, 0, dy, dx, SIDE, SIDE)
    assert abs(correlation(WHOLE, shifted)) < LIMIT
    squares = (WHOLE**2 - 1) / math.sqrt(2), (shifted**2 - 1) / math.sqrt(2)
    assert abs(correlation(*squares)) < LIMIT * 1.6  # heavier tails: 5 sigma is 8 of a normal correlation's


@pytest.mark.parametrize(
    "key",
    [
        (8, 0, 3, 0),
        (6, 0, 3, 0),
        (0, 0, 3, 0),
        (7, 1, 3, 0),
        (7, 0, 4, 0),
        (7, 0, 3, 1),
        (7, 3, 0, 0),
        (0, 7, 3, 0),
        (7 + 2**64, 0, 3, 0),
        (-7, 0, 3, 0),
    ],
)
def test_seeds_draws_steps_and_channels_are_independent(key: tuple[int, int, int, int]) -> None:
    other = gaussian(*key, 0, 0, SIDE, SIDE)
    assert abs(correlation(WHOLE, other)) < LIMIT
    assert abs(correlation(WHOLE, gaussian(*key, 1, 2, SIDE, SIDE))) < LIMIT  # nor a shifted copy


def test_spectrum_is_flat() -> None:
    power = torch.fft.rfft2(WHOLE.double()).abs().square() / SIDE**2
    rows, columns = power[:, 1:-1].mean(1), power[1:].mean(0)
    assert abs(rows - 1).max() < 6 / math.sqrt(SIDE / 2 - 1)  # exponential values: 6 sigma, 512 rows
    assert abs(columns - 1).max() < 6 * math.sqrt(2 / SIDE)  # conjugate pairs in two of the columns


def test_field_stacks_channels() -> None:
    f = field(7, 0, 3, 3, 5, 6, 20, 30)
    assert f.shape == (3, 20, 30) and f.dtype == torch.float32
    assert torch.equal(f[0], WHOLE[5:25, 6:36])
    assert torch.equal(field(7, 0, 3, (2, 0), 5, 6, 20, 30), f[[2, 0]])


def test_key_depends_on_place_size_and_sign() -> None:
    keys = [key_of(*v) for v in ((0, 0), (0,), (1, 0), (0, 1), (-1, 0), (2**64 - 1, 0), (2**64, 0), (2**128, 0))]
    assert len(set(keys)) == len(keys)


def test_tensor_hash_is_the_integer_hash() -> None:
    """The published finaliser: SplitMix64 seeded with 0 starts with this value."""
    assert mix(0) == 0xE220A8397B1DCDAF
    hashed = noise._hash_range(key_of(5), -2, 6, "cpu").tolist()
    mask = (1 << 64) - 1
    assert [v & mask for v in hashed] == [mix(key_of(5) ^ (i & mask)) for i in range(-2, 4)]


@pytest.mark.gpu
def test_an_accelerator_draws_the_same_noise() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no accelerator")
    other = gaussian(7, 0, 3, 0, 0, 0, SIDE, SIDE, "cuda").cpu()
    assert float((other - WHOLE).abs().max()) <= 5e-7  # one last bit of a float32 below 8
    assert float((other != WHOLE).float().mean()) < 1e-5  # doubles that differ in their last bit round alike

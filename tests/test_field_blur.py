"""The blur by a PSF that changes over the field: patches, principal components, windows, the bound, what it costs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sciresdiff.physics.consistency import row_sum_bound
from sciresdiff.physics.field_blur import ERROR, FieldBlur, LocalKernels, fold, reflected_line, room_of, split
from sciresdiff.physics.operators import Operator
from sciresdiff.physics.psf.field import PSF, SmoothMaps
from sciresdiff.region import Region

Array = NDArray[np.float64]


def turned(fwhm: float, e: float, angle: float, coma: float = 0.0, side: int = 21) -> Array:
    """An elongated, turned Moffat with coma."""
    line = np.arange(side) - side // 2
    y, x = np.meshgrid(line, line, indexing="ij")
    a, b = np.cos(angle), np.sin(angle)
    q = np.exp(e / 2)
    r2 = ((x * a + y * b) / q) ** 2 + ((y * a - x * b) * q) ** 2
    image = (1 + 4 * (2 ** (1 / 3) - 1) * r2 / fwhm**2) ** -3.0
    image = np.clip(image * (1 + coma * x / fwhm * np.exp(-r2 / fwhm**2)), 0, None)
    return image / image.sum()


def telescope(size: tuple[int, int], step: int = 8, side: int = 21) -> PSF:
    """Width, ellipticity, angle and coma that change over the field: nine kernels, bilinear between them."""
    places = np.linspace(-1, 1, 3)
    kernels = np.stack([
        turned(3 + v + 0.5 * u, 0.3 * np.hypot(v, u), np.arctan2(v, u), 0.3 * u, side) for v in places for u in places
    ])  # fmt: skip

    def weights(y: Array, x: Array) -> Array:
        shares = []
        for at, n in ((y, size[0]), (x, size[1])):
            place = np.clip(at / (n - 1), 0, 1) * 2
            shares.append([np.clip(1 - np.abs(place - k), 0, None) for k in range(3)])
        return np.stack([a * b for a in shares[0] for b in shares[1]])

    return PSF(kernels, SmoothMaps.of_function(weights, size, step))


def whole(psf: PSF, image: Array) -> Array:
    """sum_j P_j (w_j x), every kernel by itself over all of the frame."""
    from scipy.signal import fftconvolve

    r, c = (n // 2 for n in psf.kernels.shape[1:])
    assert psf.maps is not None
    wide = [np.pad(w * image, ((r, r), (c, c)), mode="symmetric") for w in psf.maps.astype(np.float64)]
    return np.asarray(sum(fftconvolve(v, k, mode="valid") for v, k in zip(wide, psf.kernels, strict=True)))


@pytest.mark.parametrize("size", [(64, 64), (200, 320), (30, 500), (16, 16)])
def test_what_is_left_out_is_within_the_stated_error(size: tuple[int, int]) -> None:
    psf, rng = telescope(size), np.random.default_rng(0)
    image = rng.exponential(size=size)
    got = FieldBlur(psf, size, torch.float64).apply(torch.from_numpy(image)).numpy()
    # every source misplaces at most that share of its light, so that the sum of differences is below that of the light
    assert np.abs(got - whole(psf, image)).sum() <= ERROR * image.sum()
    point = np.zeros(size)
    point[size[0] // 3, size[1] // 4] = 1
    got = FieldBlur(psf, size, torch.float64).apply(torch.from_numpy(point)).numpy()
    assert np.abs(got - whole(psf, point)).sum() <= ERROR


@pytest.mark.parametrize("size", [(64, 96), (200, 320)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_adjoint_is_the_transpose(size: tuple[int, int], dtype: torch.dtype) -> None:
    blur = FieldBlur(telescope(size), size, dtype)
    x, y = (torch.randn(2, 1, *size, dtype=dtype, generator=torch.Generator().manual_seed(i)) for i in (0, 1))
    left, right = (float((a * b).double().sum()) for a, b in ((blur.apply(x), y), (x, blur.adjoint(y))))
    assert left == pytest.approx(right, abs=1e-6 if dtype == torch.float32 else 1e-12, rel=0) or left == pytest.approx(
        right, rel=2e-4 if dtype == torch.float32 else 1e-11
    )


def test_flux_is_kept_where_the_local_kernels_have_sum_one() -> None:
    size = (128, 160)
    x = torch.zeros(size, dtype=torch.float64)
    x[10:-10, 10:-10] = torch.rand(108, 140)  # a border reflects, and a kernel with coma then keeps no flux there
    got = float(FieldBlur(telescope(size), size, torch.float64).apply(x).sum())
    assert got == pytest.approx(float(x.sum()), rel=ERROR)  # that of the principal components


def test_a_window_of_the_field_sees_its_own_part() -> None:
    size, inside = (240, 256), Region(60, 180, 100, 256)
    psf = telescope(size)
    x = torch.rand(size, dtype=torch.float64)
    part = FieldBlur(psf.window(inside), inside.shape, torch.float64).apply(x[inside.slices])
    all_ = FieldBlur(psf, size, torch.float64).apply(x)[inside.slices]
    inner = slice(10, -10)  # away from the window's own border, which reflects
    assert float((part - all_)[inner, inner].abs().max()) < 2 * ERROR
    np.testing.assert_array_equal(psf.window(inside).at(7.5, 3.0), psf.at(67.5, 103.0))


def test_the_bound_lies_close_above_the_absolute_values() -> None:
    size = (48, 40)
    rng = np.random.default_rng(1)
    field = telescope(size, side=11)
    lobes = np.stack([k - 0.02 * np.roll(k, 2, 0) for k in field.kernels])  # kernels with negative lobes
    for psf in (field, PSF(lobes, field.weights), PSF(lobes, np.asarray(field.maps))):
        op = Operator((24, 20), 2, psf, dtype=torch.float64)
        columns = torch.eye(size[0] * size[1], dtype=torch.float64)[rng.permutation(1920)[:300]].view(300, *size)
        matrix, bound = op.apply(columns), op.magnitude.apply(columns)
        assert float((bound - matrix.abs()).min()) > -1e-12  # float64 rounding
        assert float(bound.sum() / matrix.abs().sum()) < 1.2
    ones = torch.ones(24, 20, dtype=torch.float64)
    assert bool((row_sum_bound(Operator((24, 20), 2, field), torch.ones(size), ones.float()) > 1).all())


def test_local_kernels_are_the_sums_that_they_stand_for() -> None:
    psf = telescope((100, 100))
    assert psf.maps is not None
    weights = psf.maps[:, 20:40, 25:45].reshape(9, -1).astype(np.float64)
    found = LocalKernels.of_psf(psf.kernels).principal(weights)
    assert len(found.modes) < 9
    flat = found.modes.reshape(len(found.modes), -1)
    off = np.abs(weights.T @ psf.kernels.reshape(9, -1) - weights.T @ found.mixing @ flat).sum(1)
    assert off.max() <= ERROR
    exact = LocalKernels.of_psf(psf.kernels).principal(weights, 0.0)
    off = np.abs(
        weights.T @ psf.kernels.reshape(9, -1) - weights.T @ exact.mixing @ exact.modes.reshape(len(exact.modes), -1)
    )
    assert off.max() < 1e-12


@pytest.mark.parametrize(("size", "margin"), [(5, 2), (5, 5), (5, 12), (1, 3)])
def test_folding_is_the_transpose_of_reflecting(size: int, margin: int) -> None:
    line = reflected_line(size, margin)
    wide, short = torch.randn(2, len(line), dtype=torch.float64), torch.randn(2, size, dtype=torch.float64)
    left, right = float((short[:, torch.from_numpy(line)] * wide).sum()), float((short * fold(wide, size, -1)).sum())
    assert left == pytest.approx(right, rel=1e-12, abs=1e-12)


def test_parts_cover_a_length_and_transforms_hold_the_reach() -> None:
    for count in (1, 3, 16):
        parts = split(100, count, 21)
        assert (
            parts[0][0] == 0
            and parts[-1][1] == 100
            and all(a[1] == b[0] for a, b in zip(parts, parts[1:], strict=False))
        )
    m, n = room_of((100, 37), (21, 21))
    assert m >= 120 and n >= 57


def test_weights_that_are_the_same_everywhere_make_one_kernel() -> None:
    psf = telescope((32, 32))
    same = PSF(psf.kernels, np.broadcast_to(psf.maps[:, :1, :1], (9, 32, 32)))  # type: ignore[index]
    op = Operator((16, 16), 2, same)
    assert op.blur is None and op.terms
    assert not same.simplest.varies and psf.simplest is psf

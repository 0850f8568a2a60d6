"""The measurement operator: exact adjoint, registration, borders, and what it conserves."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import convolve, gaussian_filter

from sciresdiff.errors import InputError
from sciresdiff.physics.operators import Operator
from sciresdiff.physics.separable import separable_terms


def gaussian(sigma: float) -> np.ndarray:
    radius = int(5 * sigma + 0.5)
    g = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    return np.outer(g, g) / g.sum() ** 2


def lopsided(rng: np.random.Generator, side: int = 7) -> np.ndarray:
    kernel = rng.random((side, side - 2))
    return kernel / kernel.sum()


@pytest.mark.parametrize("quantity", ["sum", "mean"])
@pytest.mark.parametrize("shape", [(9, 12), (70, 33)])
@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_adjoint_is_the_transpose(quantity, shape, scale):
    rng = np.random.default_rng(0)
    op = Operator(shape, scale, lopsided(rng), quantity, torch.float64)
    x = torch.from_numpy(rng.normal(size=(shape[0] * scale, shape[1] * scale)))
    y = torch.from_numpy(rng.normal(size=shape))
    left, right = float((op.apply(x) * y).sum()), float((x * op.adjoint(y)).sum())
    assert left == pytest.approx(right, rel=1e-11, abs=1e-11)  # float64 rounding of a few thousand terms


@given(seed=st.integers(0, 2**32 - 1), scale=st.integers(1, 4), height=st.integers(4, 40), width=st.integers(4, 40))
@settings(max_examples=25, deadline=None)
def test_equals_convolution_then_block_sum(seed, scale, height, width):
    rng = np.random.default_rng(seed)
    kernel = lopsided(rng, 5 if min(height, width) * scale > 5 else 3)
    x = rng.normal(size=(height * scale, width * scale))
    low = convolve(x, kernel, mode="reflect").reshape(height, scale, width, scale).sum((1, 3))
    got = Operator((height, width), scale, kernel, dtype=torch.float64).apply(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(got, low, atol=1e-9)  # the SVD is cut at 1e-5 only where that many terms are left


def test_gaussian_equals_the_outside_judge():
    x = np.random.default_rng(1).random((160, 120))
    low = gaussian_filter(x, 2.4, mode="reflect", truncate=5).reshape(40, 4, 30, 4).sum((1, 3))
    got = Operator((40, 30), 4, gaussian(2.4), dtype=torch.float64).apply(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(got, low, rtol=1e-12)


@pytest.mark.parametrize("scale", [2, 4])
def test_no_half_pixel_shift(scale):
    x = torch.zeros(40 * scale, 40 * scale, dtype=torch.float64)
    x[20 * scale : 21 * scale, 17 * scale : 18 * scale] = 1  # the area of coarse pixel (20, 17)
    y = Operator((40, 40), scale, gaussian(0.6 * scale), dtype=torch.float64).apply(x)
    rows, columns = y.sum(1) / y.sum(), y.sum(0) / y.sum()
    at = torch.arange(40, dtype=torch.float64)
    assert float((rows * at).sum()) == pytest.approx(20, abs=1e-9)  # symmetric kernel: exact but for rounding
    assert float((columns * at).sum()) == pytest.approx(17, abs=1e-9)


def test_sum_conserves_flux_even_at_the_border():
    x = torch.rand(64, 64, dtype=torch.float64)
    y = Operator((16, 16), 4, gaussian(3.0), dtype=torch.float64).apply(x)
    assert float(y.sum()) == pytest.approx(float(x.sum()), rel=1e-12)  # reflection loses nothing


def test_mean_conserves_a_constant():
    y = Operator((16, 16), 4, gaussian(3.0), "mean", torch.float64).apply(
        torch.full((64, 64), 7.0, dtype=torch.float64)
    )
    assert float((y - 7).abs().max()) < 1e-12


def test_batch_equals_one_by_one():
    rng = np.random.default_rng(2)
    kernels = [lopsided(rng), lopsided(rng), gaussian(0.7)]
    terms = [separable_terms(k) for k in kernels]
    rank, side = max(len(t) for t in terms), max(t.shape[-1] for t in terms)
    padded = np.stack([np.pad(t, ((0, rank - len(t)), (0, 0), 2 * ((side - t.shape[-1]) // 2,))) for t in terms])
    x = torch.from_numpy(rng.normal(size=(3, 1, 24, 32)))
    got = Operator.batch((12, 16), 2, torch.from_numpy(padded)).apply(x)
    for i, k in enumerate(kernels):
        one = Operator((12, 16), 2, k, dtype=torch.float64).apply(x[i])
        torch.testing.assert_close(got[i], one, rtol=0, atol=1e-10)


def test_separable_keeps_the_sum_when_it_is_cut():
    kernel = np.random.default_rng(3).random((15, 15))
    kernel /= kernel.sum()
    terms = separable_terms(kernel, max_rank=2)
    assert (terms[:, 0].sum(-1) * terms[:, 1].sum(-1)).sum() == pytest.approx(1, abs=1e-12)


def test_refuses_even_kernels():
    with pytest.raises(InputError, match="sides must be odd"):
        Operator((8, 8), 2, np.ones((4, 4)))


@pytest.mark.parametrize("shape", [(1, 20), (3, 4), (20, 2), (40, 3)])
@pytest.mark.parametrize("scale", [1, 2, 3])
def test_a_kernel_may_be_larger_than_the_frame(shape, scale):
    """Reflected as often as it takes."""
    rng = np.random.default_rng(4)
    kernel = np.outer(rng.random(17), rng.random(9))
    kernel /= kernel.sum()
    fine = (shape[0] * scale, shape[1] * scale)
    x = rng.random(fine)
    op = Operator(shape, scale, kernel, dtype=torch.float64)
    low = op.apply(torch.from_numpy(x)[None, None])[0, 0].numpy()
    wide = np.pad(x, ((8, 8), (4, 4)), mode="symmetric")
    want = convolve(wide, kernel, mode="constant")[8:-8, 4:-4]
    want = want.reshape(shape[0], scale, shape[1], scale).sum((1, 3))
    np.testing.assert_allclose(low, want, rtol=0, atol=1e-12 * want.max())


@pytest.mark.parametrize("shape", [(9, 12), (70, 33)])
@pytest.mark.parametrize("rank", [1, 3])
def test_the_weighted_gram_is_the_adjoint_the_weight_and_the_operator(shape, rank):
    rng = np.random.default_rng(3)
    kernel = gaussian(1.0) if rank == 1 else lopsided(rng)
    op = Operator(shape, 3, kernel, dtype=torch.float64)
    assert len(op.terms) >= rank
    w2 = torch.from_numpy(rng.random((1, 1, 3 * shape[0], 3 * shape[1])))
    y = torch.from_numpy(rng.normal(size=(1, 1, *shape)))
    wanted = op.apply(w2 * op.adjoint(y))
    with torch.no_grad():
        got = op.apply_weighted_gram(y, w2)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-13)  # the same products, summed in another order


@pytest.mark.parametrize("shape", [(9, 12), (70, 33), (32, 48)])
def test_strips_in_one_batched_product_are_the_strips_one_by_one(shape):
    rng = np.random.default_rng(4)
    (rows, _), *_ = Operator(shape, 2, gaussian(1.0), dtype=torch.float64).terms
    for matrix in (rows.matrix, rows.transpose):
        x = torch.from_numpy(rng.normal(size=(2, 1, matrix.shape[1], 5)))
        torch.testing.assert_close(
            matrix.multiply_batched(x), matrix.multiply(x), rtol=0, atol=1e-13
        )  # summed in another order

"""A PSF that changes over the field: the noun, and the operator that it makes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sciresdiff.errors import InputError
from sciresdiff.physics.consistency import Data, solve_covariance
from sciresdiff.physics.operators import Operator
from sciresdiff.physics.psf import PSF
from sciresdiff.physics.separable import separable_terms
from sciresdiff.region import Region


def gaussian(sigma: float, side: int = 11) -> np.ndarray:
    g = np.exp(-0.5 * ((np.arange(side) - side // 2) / sigma) ** 2)
    return np.outer(g, g) / g.sum() ** 2


def widening(shape: tuple[int, int], narrow: float = 0.9, wide: float = 1.8, side: int = 11) -> PSF:
    """A narrow Gaussian in one corner, a wide one in the other, between them a mixture."""
    y, x = np.meshgrid(*(np.linspace(0, 1, n) for n in shape), indexing="ij")
    share = 0.5 * (y + x)
    return PSF(np.stack([gaussian(narrow, side), gaussian(wide, side)]), np.stack([1 - share, share]))


def signed(rng: np.random.Generator, shape: tuple[int, int], count: int = 3) -> PSF:
    """A mean and modes of both signs, as a principal component analysis gives them."""
    kernels = rng.normal(size=(count, 5, 5))
    kernels[0] = np.abs(kernels[0])
    kernels[0] /= kernels[0].sum()
    kernels[1:] -= kernels[1:].mean((1, 2), keepdims=True)  # modes without flux
    weights = 0.1 * rng.normal(size=(count, *shape))
    weights[0] = 1
    return PSF(kernels, weights)


def reflect(index: int, size: int) -> int:
    """About the pixel edge, d c b a | a b c d | d c b a."""
    index %= 2 * size
    return min(index, 2 * size - 1 - index)


def source_by_source(psf: PSF, x: np.ndarray, scale: int) -> np.ndarray:
    """Every fine pixel is drawn with its own kernel; the borders reflect the image and its weights."""
    h, w = x.shape
    r, c = (side // 2 for side in psf.kernels.shape[1:])
    out = np.zeros((h // scale, w // scale))
    for y in range(-r, h + r):
        for z in range(-c, w + c):
            place = reflect(y, h), reflect(z, w)
            kernel = psf.at(*place) * x[place]
            for i in range(max(y - r, 0), min(y + r + 1, h)):
                for j in range(max(z - c, 0), min(z + c + 1, w)):
                    out[i // scale, j // scale] += kernel[i - y + r, j - z + c]
    return out


@pytest.mark.parametrize("quantity", ["sum", "mean"])
@pytest.mark.parametrize("scale", [1, 2, 3])
def test_adjoint_is_the_transpose(scale, quantity):
    rng = np.random.default_rng(0)
    psf = signed(rng, (13 * scale, 21 * scale))
    op = Operator((13, 21), scale, psf, quantity, torch.float64)
    x = torch.from_numpy(rng.normal(size=(13 * scale, 21 * scale)))
    y = torch.from_numpy(rng.normal(size=(13, 21)))
    left, right = float((op.apply(x) * y).sum()), float((x * op.adjoint(y)).sum())
    assert left == pytest.approx(right, rel=1e-12, abs=1e-12)  # float64 rounding


@pytest.mark.parametrize("scale", [1, 2])
@pytest.mark.parametrize("kind", ["widening", "signed"])
def test_equals_the_sum_of_a_kernel_for_every_source(scale, kind):
    rng = np.random.default_rng(1)
    shape = (12, 14)
    psf = widening(shape, side=7) if kind == "widening" else signed(rng, shape)
    x = rng.random(shape)
    op = Operator((shape[0] // scale, shape[1] // scale), scale, psf, dtype=torch.float64)
    got = op.apply(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(got, source_by_source(psf, x, scale), rtol=0, atol=1e-12)  # float64 rounding


def test_keeps_the_flux_where_the_local_kernels_have_sum_one():
    x = torch.rand(64, 48, dtype=torch.float64)
    y = Operator((16, 12), 4, widening((64, 48)), dtype=torch.float64).apply(x)
    assert float(y.sum()) == pytest.approx(float(x.sum()), rel=1e-12)  # reflection loses nothing


def test_one_kernel_is_the_operator_of_that_kernel_bit_by_bit():
    kernel, x = gaussian(1.3), torch.rand(64, 64)
    one, other = Operator((16, 16), 4, kernel), Operator((16, 16), 4, PSF.constant(kernel))
    assert torch.equal(one.apply(x), other.apply(x))
    assert isinstance(other.kernel, np.ndarray) and not other.pure and other.magnitude is other


def test_a_weight_of_one_everywhere_is_a_constant_psf():
    kernel, x = gaussian(1.3), torch.rand(2, 3, 64, 64, dtype=torch.float64)
    varying = Operator((16, 16), 4, PSF(kernel[None], np.ones((1, 64, 64))), dtype=torch.float64)
    fixed = Operator((16, 16), 4, kernel, dtype=torch.float64)
    torch.testing.assert_close(varying.apply(x), fixed.apply(x), rtol=0, atol=0)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=10, deadline=None)
def test_a_window_of_the_field_sees_what_the_field_sees(seed):
    rng = np.random.default_rng(seed)
    scale, shape = 2, (60, 80)
    psf = signed(rng, shape)
    x = torch.from_numpy(rng.normal(size=shape))
    y0, x0 = (int(rng.integers(0, 10)) for _ in "yx")
    low = Region(y0, y0 + 18, x0, x0 + 22)
    fine = low.scaled(scale)
    whole = Operator((30, 40), scale, psf, dtype=torch.float64)
    part = Operator(low.shape, scale, psf.window(fine), dtype=torch.float64)
    inner = (..., slice(2, -2), slice(2, -2))  # away from the window's own borders, which reflect
    torch.testing.assert_close(part.apply(x[fine.slices])[inner], whole.apply(x)[low.slices][inner], rtol=0, atol=1e-12)
    y = torch.from_numpy(rng.normal(size=(30, 40)))
    inner = (..., slice(4, -4), slice(4, -4))
    torch.testing.assert_close(
        part.adjoint(y[low.slices])[inner], whole.adjoint(y)[fine.slices][inner], rtol=0, atol=1e-12
    )
    w2 = torch.ones_like(x)
    gram = part.apply_weighted_gram(y[low.slices], w2[fine.slices])[..., 4:-4, 4:-4]
    torch.testing.assert_close(gram, whole.apply_weighted_gram(y, w2)[low.slices][..., 4:-4, 4:-4], rtol=0, atol=1e-12)


def test_the_magnitude_bounds_the_matrix():
    rng = np.random.default_rng(5)
    psf = signed(rng, (16, 16))
    op = Operator((8, 8), 2, psf, dtype=torch.float64)
    columns = torch.eye(256, dtype=torch.float64).view(256, 16, 16)
    matrix, bound = op.apply(columns), op.magnitude.apply(columns)
    assert float((bound - matrix.abs()).min()) > -1e-12  # float64 rounding


def test_the_iteration_of_the_consistency_step_converges():
    rng = np.random.default_rng(6)
    psf = widening((48, 48))
    op = Operator((24, 24), 2, psf, dtype=torch.float64)
    y = torch.from_numpy(rng.normal(size=(24, 24)))
    data = Data(y, torch.ones_like(y), torch.ones_like(y), op)
    w2 = torch.full((48, 48), 4.0, dtype=torch.float64)
    q = solve_covariance(data, w2, y, 300)
    back = op.apply(w2 * op.adjoint(q)) + q
    torch.testing.assert_close(back, y, rtol=0, atol=1e-9)  # exp(-2 n sqrt(e)) for n = 300, e = 0.002


def test_local_kernels_windows_and_width():
    psf = widening((40, 60))
    np.testing.assert_allclose(psf.at(0, 0), gaussian(0.9))
    np.testing.assert_allclose(psf.at(39, 59), gaussian(1.8))
    region = Region(8, 30, 10, 50)
    np.testing.assert_array_equal(psf.window(region).at(3, 4), psf.at(11, 14))
    assert PSF.constant(gaussian(1.8, 15)).width == pytest.approx(1.8, rel=1e-3)  # sampled out to 4 sigma
    assert psf.at(0, 0).sum() == pytest.approx(1) and 0.9 < psf.width < 1.8
    fixed = PSF.constant(gaussian(0.9))
    assert fixed.window(region) is fixed and not fixed.varies and psf.varies


def test_identity_is_that_of_the_values():
    psf = widening((20, 20))
    assert psf == widening((20, 20)) and hash(psf) == hash(widening((20, 20)))
    assert psf != widening((20, 20), wide=1.9) and psf != PSF.constant(gaussian(0.9))
    assert psf.window(Region(0, 9, 0, 9)) == psf.window(Region(0, 9, 0, 9)) != psf


def test_refuses_shapes_that_do_not_fit():
    with pytest.raises(InputError, match="odd K and L"):
        PSF(np.ones((1, 4, 4)))
    with pytest.raises(InputError, match="without weights"):
        PSF(np.ones((2, 3, 3)))
    with pytest.raises(InputError, match="2 kernels"):
        PSF(np.ones((2, 3, 3)), np.ones((3, 8, 8)))
    with pytest.raises(InputError, match="NaN"):
        PSF(np.ones((1, 3, 3)), np.full((1, 8, 8), np.nan))
    with pytest.raises(InputError, match="take its window"):
        Operator((8, 8), 2, widening((20, 20)))


def test_a_basis_kernel_without_flux_stays_one():
    derivative = np.outer(gaussian(1.0)[5], np.gradient(gaussian(1.0)[5]))
    terms = separable_terms(derivative)
    got = np.einsum("ry,rx->yx", terms[:, 0], terms[:, 1])
    np.testing.assert_allclose(got, derivative, atol=1e-5 * np.abs(derivative).sum())  # where the sum of terms is cut

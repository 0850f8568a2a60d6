"""The solver cannot diverge: its spectrum lies in (0, 1] for every kernel, brightness and mask; the residual falls."""

import numpy as np
import pytest
import torch

from sciresdiff.errors import InputError
from sciresdiff.physics.consistency import (
    Data,
    apply_covariance,
    close_flux,
    refuse_divergence,
    row_sum_bound,
    solve_covariance,
)
from sciresdiff.physics.operators import Operator
from sciresdiff.physics.psf.field import PSF
from sciresdiff.physics.psf.kernel import render
from sciresdiff.physics.separable import (
    FEW_TERMS,
    MOST_TERMS,
    PEAK_ERROR,
    bounding_terms,
    rank_one_bound,
    separable_terms,
    sum_terms,
    truncation,
)

SHAPE, SCALE = (12, 14), 2


def hard(seed: int, side: int = 25) -> np.ndarray:
    """A kernel of full rank: a core and noise of both signs in its wings."""
    y, x = np.mgrid[:side, :side] - side // 2
    kernel = np.exp(-0.5 * (y**2 + x**2) / 4) + 1e-3 * np.random.default_rng(seed).normal(size=(side, side))
    return kernel / kernel.sum()


def lobes() -> np.ndarray:
    """The difference of a wide and a narrow Gaussian: a core in a dark ring."""
    y, x = np.mgrid[-15:16, -15:16]
    kernel = 1.5 * np.exp(-0.5 * (y**2 + x**2) / 4) / 4 - 0.5 * np.exp(-0.5 * (y**2 + x**2) / 9) / 9
    return kernel / kernel.sum()


def drawn(spec: str) -> np.ndarray:
    return render(spec, None, integrate=True)


KERNELS = {
    "tilted Gaussian": drawn("gaussian:fwhm=7.7px,ratio=0.4167,theta=120deg"),
    "long tilted Gaussian": drawn("gaussian:fwhm=9px,ratio=0.2,theta=20deg"),
    "Moffat": drawn("moffat:fwhm=4.8px,beta=3"),
    "Moffat less a floor": drawn("moffat:fwhm=4.8px,beta=3") - 1e-7,
    "tilted Moffat": drawn("moffat:fwhm=6px,beta=2.5,ratio=0.5,theta=30deg"),
    "Airy": drawn("airy:fwhm=5px"),
    "lobes": lobes(),
    "full rank": hard(1),
    "round Gaussian": drawn("gaussian:fwhm=5px"),
}


def bright(kernel, dtype=torch.float32, peak=1e5, masked=False, seed=0) -> tuple[Data, torch.Tensor]:
    """Two stars of 10^5 sigma on a sky of 1, its data with photon noise, and the scale that is believed of them."""
    rng = np.random.default_rng(seed)
    op = Operator(SHAPE, SCALE, kernel, dtype=dtype)
    x = rng.random((1, 1, SHAPE[0] * SCALE, SHAPE[1] * SCALE))
    x[..., 9, 8], x[..., 15, 20] = peak, 0.3 * peak
    high = torch.from_numpy(x).to(dtype)
    clean = op.apply(high)
    noise = 1 + clean.abs()
    valid = torch.ones_like(noise)
    if masked:
        valid = (clean < 0.2 * clean.max()).to(dtype)
    y = clean + noise.sqrt() * torch.from_numpy(rng.normal(size=noise.shape)).to(dtype)
    return Data(torch.where(valid > 0, y, 0), noise, valid, op), high


def preconditioned(data: Data, w2: torch.Tensor) -> np.ndarray:
    """M^-1/2 (A Sigma A^T + N) M^-1/2 of the matrix that is applied, in float64."""
    h, w = data.operator.shape
    eye = torch.eye(h * w, dtype=data.y.dtype).view(h * w, 1, h, w)
    a = data.operator.adjoint(eye).reshape(h * w, -1).double().numpy()
    m = row_sum_bound(data.operator, w2, data.noise).double().numpy().ravel()
    assert (m > 0).all()
    b = (a * w2.double().numpy().ravel()) @ a.T + np.diag(data.noise.double().numpy().ravel())
    return b / np.sqrt(m[:, None] * m)


def varying() -> PSF:
    """A tilted PSF that turns into a Moffat over the field, and a mode of both signs."""
    first, second = KERNELS["tilted Gaussian"], KERNELS["Moffat"]
    side = max(*first.shape, *second.shape)
    stack = [np.pad(k, [((side - n) // 2,) * 2 for n in k.shape]) for k in (first, second)]
    ramp = np.broadcast_to(np.linspace(0, 1, SHAPE[1] * SCALE), (SHAPE[0] * SCALE, SHAPE[1] * SCALE))
    return PSF(np.stack([stack[0], stack[1] - stack[0]]), np.stack([np.ones(ramp.shape), ramp]))


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("power", [1, 3, 5])
def test_the_spectrum_lies_in_zero_to_one(name, power):
    """Also where w^2 is 10^10 times the noise, and in the type that the solver works in."""
    data, x = bright(KERNELS[name], peak=10.0**power)
    values = np.linalg.eigvalsh(preconditioned(data, (x / np.e).square()))
    assert values.min() > -1e-6 * values.max()  # a product of a matrix and its transpose, but for rounding
    assert values.max() <= 1 + 1e-5  # float32 of M and N


def test_the_spectrum_of_a_psf_that_varies():
    data, x = bright(varying(), peak=1e4)
    assert np.linalg.eigvalsh(preconditioned(data, x.square())).max() <= 1 + 1e-5


def test_the_spectrum_of_a_batch():
    """Each sample has its own kernel, and its own bound."""
    kernels = [KERNELS["tilted Gaussian"], KERNELS["round Gaussian"], KERNELS["Moffat"]]
    terms = [separable_terms(k) for k in kernels]
    rank, side = max(len(t) for t in terms), max(t.shape[-1] for t in terms)
    wide = [np.pad(t, ((0, rank - len(t)), (0, 0), ((side - t.shape[-1]) // 2,) * 2)) for t in terms]
    op = Operator.batch(SHAPE, SCALE, torch.from_numpy(np.stack(wide)).float())
    _, x = bright(None)
    w2 = x.square().expand(3, 1, -1, -1)
    noise = torch.ones(3, 1, *SHAPE)
    m = row_sum_bound(op, w2, noise)
    for k, kernel in enumerate(kernels):
        alone = row_sum_bound(Operator(SHAPE, SCALE, kernel), w2[:1], noise[:1])
        torch.testing.assert_close(m[k : k + 1], alone, rtol=2e-3, atol=0)  # the spare term bounds 1e-6 of the light


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("masked", [False, True])
def test_the_residual_falls(name, masked):
    data, x = bright(KERNELS[name], masked=masked)
    w2 = (x / np.e).square()
    inverse = data.valid / row_sum_bound(data.operator, w2, data.noise)
    r = data.residual(0.8 * x)
    norms = [float((r.double().square() * inverse).sum())]
    with torch.no_grad():
        for steps in (4, 16, 64):
            left = (r - apply_covariance(data, w2, solve_covariance(data, w2, r, steps, steps))) * data.valid
            norms.append(float((left.double().square() * inverse).sum()))
    assert norms[0] > norms[1] > norms[2] and norms[3] < 1.01 * norms[2]


@pytest.mark.parametrize("name", KERNELS)
def test_closing_the_flux_does_not_make_it_worse(name):
    data, x = bright(KERNELS[name], masked=True)
    wrong = 0.9 * x
    before, after = (float(data.residual(v).double().sum().abs()) for v in (wrong, close_flux(data, wrong, x.square())))
    assert np.isfinite(after) and after < 0.2 * before


def test_gradients_pass_the_bound():
    data, x = bright(KERNELS["tilted Gaussian"], peak=100)
    w = (x / np.e).requires_grad_()
    solve_covariance(data, w.square(), data.residual(0.8 * x), 6).square().sum().backward()
    assert w.grad is not None and bool(w.grad.isfinite().all()) and float(w.grad.abs().max()) > 0


@pytest.mark.parametrize("name", KERNELS)
def test_bounding_terms_lie_nowhere_below(name):
    terms = separable_terms(KERNELS[name])
    bound = sum_terms(bounding_terms(terms, 6e-8))
    applied = np.abs(sum_terms(terms))
    assert (bound >= applied * (1 - 1e-9)).all()
    assert bound.sum() <= 1.05 * applied.sum()  # close, or the iteration is slow


def test_a_rank_one_bound():
    matrix = np.random.default_rng(0).normal(size=(9, 9))
    matrix[:, 3] = 0
    a, b = rank_one_bound(matrix)
    assert (np.outer(a, b) >= np.abs(matrix)).all()


def test_terms_follow_the_kernel():
    """Few for smooth kernels; beyond 12 as many as the peak asks for, and no more than allowed."""
    assert len(separable_terms(KERNELS["round Gaussian"])) == 1
    assert FEW_TERMS <= len(separable_terms(KERNELS["long tilted Gaussian"])) <= MOST_TERMS
    assert truncation(KERNELS["long tilted Gaussian"])[1] <= PEAK_ERROR
    noise = np.abs(np.random.default_rng(1).normal(size=(101, 101)))
    assert len(separable_terms(noise)) == MOST_TERMS and truncation(noise)[1] > PEAK_ERROR


def test_a_residual_that_grows_is_refused():
    r, inverse = torch.ones(1, 1, 4, 4), torch.ones(1, 1, 4, 4)
    with torch.no_grad():
        refuse_divergence(r, r, inverse)
        for left in (2 * r, r * float("nan"), r * float("inf")):
            with pytest.raises(InputError, match="solver: the misfit"):
                refuse_divergence(left, r, inverse)

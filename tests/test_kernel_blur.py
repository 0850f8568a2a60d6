"""The blur by one kernel through its Fourier transform, against the banded matrices of `Operator`."""

import numpy as np
import pytest
import torch

from sciresdiff.errors import InputError
from sciresdiff.physics.exposures import ExposuresOperator, Seen
from sciresdiff.physics.kernel_blur import KernelBlur
from sciresdiff.physics.operators import Operator
from sciresdiff.physics.resample import corners_of, resample

SIZE = (40, 53)


def kernel_of(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    """A kernel without any symmetry, of sum 1."""
    kernel = np.random.default_rng(seed).random(shape)
    return kernel / kernel.sum()


def image_of(seed: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).random((1, 1, *SIZE)))


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (3, 11)])
@pytest.mark.parametrize("margin", [(5, 5), (6, 9)])
def test_it_is_the_banded_operator(shape, margin):
    blur = KernelBlur(kernel_of(shape), SIZE, margin, torch.float64)
    banded = Operator(SIZE, 1, kernel_of(shape), dtype=torch.float64)
    image = image_of(1)
    # the banded terms leave 1e-9 of the kernel out
    assert torch.allclose(blur.apply(image), banded.apply(image), atol=1e-8)
    assert torch.allclose(blur.adjoint(image), banded.adjoint(image), atol=1e-8)


def test_the_adjoint_is_the_transpose():
    blur = KernelBlur(kernel_of((9, 7)), SIZE, (8, 8), torch.float64)
    x, y = image_of(2), image_of(3)
    assert float((blur.apply(x) * y).sum()) == pytest.approx(float((x * blur.adjoint(y)).sum()), rel=1e-13)


def test_flux_is_kept():
    blur = KernelBlur(kernel_of((9, 7)), SIZE, (4, 3), torch.float64)
    image = torch.zeros(1, 1, *SIZE, dtype=torch.float64)
    image[..., 8:-8, 8:-8] = image_of(4)[..., 8:-8, 8:-8]  # at a border a kernel without symmetry reflects other light
    assert float(blur.apply(image).sum()) == pytest.approx(float(image.sum()), rel=1e-13)


def test_single_precision_rounds_by_the_root_mean_square():
    kernel, image = kernel_of((9, 7)), image_of(5)
    image[0, 0, 20, 20] = 1e6
    single = KernelBlur(kernel, SIZE, (4, 3)).apply(image.float())
    exact = KernelBlur(kernel, SIZE, (4, 3), torch.float64).apply(image)
    assert float((single - exact).abs().max()) < 2e-6 * float(image.square().mean().sqrt())


@pytest.mark.parametrize("shape", [(4, 5), (5, 4), (13, 5)])
def test_a_kernel_beyond_the_margin_is_refused(shape):
    with pytest.raises(InputError, match="odd"):
        KernelBlur(kernel_of(shape), SIZE, (5, 5))


def test_exposures_that_share_transforms_see_what_each_sees_alone():
    def place(angle):
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        return lambda at: 2 * (at - 9) @ turn.T + 19.5

    pixels = [resample(corners_of((18, 18), place(angle)), SIZE, torch.float64) for angle in (0, 0.1, 0.2)]
    kernels = [kernel_of((5, 7), 1), kernel_of((3, 3), 2)]
    blurs = [KernelBlur(kernel, SIZE, (2, 3), torch.float64) for kernel in kernels]
    blurs.append(KernelBlur(kernels[0], SIZE, (4, 4), torch.float64))
    together = ExposuresOperator([Seen(b, p) for b, p in zip(blurs, pixels, strict=True)], 2.0)
    image, seen = image_of(6), torch.rand(1, 3, 18, 18, dtype=torch.float64)
    each = [p.apply(b.apply(image)) for b, p in zip(blurs, pixels, strict=True)]
    assert torch.allclose(together.apply(image), torch.cat(each, 1), atol=1e-12)
    back = sum(b.adjoint(p.adjoint(seen[:, k : k + 1])) for k, (b, p) in enumerate(zip(blurs, pixels, strict=True)))
    assert torch.allclose(together.adjoint(seen), back, atol=1e-12)


def test_the_magnitude_bounds_a_kernel_with_negative_lobes():
    kernel = kernel_of((5, 5)) - 0.03
    blur = KernelBlur(kernel, SIZE, (2, 2), torch.float64)
    image = image_of(7) - 0.5
    assert bool((blur.apply(image).abs() <= blur.magnitude.apply(image.abs()) + 1e-12).all())

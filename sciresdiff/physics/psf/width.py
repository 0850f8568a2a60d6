"""The width of a kernel, from the second moments of its square, which far wings do not decide.

===================== ================================================ =========================================
function              what it gives                                    who uses it
===================== ================================================ =========================================
`moments_of_square`   the moments themselves                           the features that a network is told
`sigma_of_square`     one sigma, mean over directions                  the range that a model was trained on
`narrowest_sigma`     sigma along the narrowest direction              whether a kernel can be split in two stages
===================== ================================================ =========================================

`image.fwhm` measures the half-maximum instead, which is what users name and what is compared with the target's.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def moments_of_square(kernel: Array) -> tuple[float, float, float]:
    """Second moments of k^2 / sum k^2 about the centre: (yy, xx, xy) in px^2.

    Of a Gaussian they are half of its own variances.  The square keeps far wings from deciding; **negative lobes count
    like positive ones**.

    Parameters
    ----------
    kernel : (K, L) array
        Odd sides, centred.
    """
    weight = kernel**2 / (kernel**2).sum()
    y, x = (np.arange(n) - n // 2 for n in kernel.shape)
    return float((weight.sum(1) * y**2).sum()), float((weight.sum(0) * x**2).sum()), float(y @ weight @ x)


def sigma_of_square(kernel: Array) -> float:
    """sqrt(yy + xx) of `moments_of_square`, px: of a round Gaussian its sigma.  Negative lobes are left out.

    Parameters
    ----------
    kernel : (K, L) array
        Odd sides, centred, positive somewhere.
    """
    yy, xx, _ = moments_of_square(np.clip(kernel, 0, None))
    return float(np.sqrt(yy + xx))


def narrowest_sigma(kernel: Array) -> float:
    """Sigma along the kernel's narrowest direction, px; of a Gaussian the true one.

    sqrt(2 lambda) with lambda the smaller eigenvalue of the matrix of `moments_of_square`.

    Parameters
    ----------
    kernel : (K, L) array
        Odd sides, centred.
    """
    yy, xx, xy = moments_of_square(kernel)
    return float(np.sqrt(2 * max(np.linalg.eigvalsh([[yy, xy], [xy, xx]])[0], 0.0)))

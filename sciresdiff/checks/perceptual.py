"""Perceptual similarity: MicroSSIM, and the distances LPIPS and FID of deep features with weights that the user brings.

LPIPS and FID need the optional extra ``perceptual`` and weights in a folder that an environment variable names; nothing
is ever downloaded. Their networks have seen photographs only.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.checks.arrays import Array, Mask
from sciresdiff.checks.check import Check, UnmeasuredError
from sciresdiff.checks.evidence import Evidence
from sciresdiff.checks.result import Result
from sciresdiff.checks.spectrum import truth_and_image
from sciresdiff.region import Region

WINDOW = 7
"""Side of the uniform windows that MicroSSIM's gain is fitted in, px."""
SIGMA, REACH = 1.5, 5
"""Sigma and half the side of the Gaussian windows that MicroSSIM is taken in, px."""
DARK = 3.0
"""Percentile that is MicroSSIM's background."""
LARGEST_GAIN = 10.0
"""MicroSSIM's gain is searched between this and its inverse, times the ratio of the variations."""
SAMPLE = 1_000_000
"""Most windows that the gain is fitted on."""
SHOWN = (0.1, 99.9)
"""Percentiles of the truth that become black and white for a network."""
TILE = 512
"""Side of the tiles that LPIPS is averaged over, px."""
SHORTEST = 64
"""Least side of an image for LPIPS's network, px."""
PATCH = 64
"""Side of the patches that FID is taken over, px."""
FEATURES = 2048
"""Features of a patch."""
FEWEST = FEATURES + 1
"""Patches from which their covariance can have full rank."""
LPIPS_FOLDER = "SCIRESDIFF_LPIPS"
"""Environment variable: the folder with torchvision's AlexNet weights."""
LPIPS_FILE = "alexnet-owt-7be5be79.pth"
FID_FOLDER = "SCIRESDIFF_FID"
"""Environment variable: the folder with the Inception weights of the original FID, as torch-fidelity has them."""
FID_FILE = "weights-inception-2015-12-05-6726825d.pth"

Distance = Callable[[NDArray[np.float32], NDArray[np.float32]], float]
Extractor = Callable[[NDArray[np.uint8]], Array]


@dataclass(frozen=True, eq=False)
class Windows:
    """Means, variances and covariance of truth (x) and image (y) in windows, flat."""

    mx: Array
    my: Array
    vx: Array
    vy: Array
    cxy: Array

    def similarity(self, gain: float, span: float) -> float:
        """Compute the mean SSIM of the truth and the image times a gain (Wang et al. 2004, equation 13).

        Parameters
        ----------
        gain : a.
        span : data range R; C1 = (0.01 R)^2 and C2 = (0.03 R)^2.
        """
        c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
        my, vy, cxy = gain * self.my, gain**2 * self.vy, gain * self.cxy
        light = (2 * self.mx * my + c1) / (self.mx**2 + my**2 + c1)
        return float(np.mean(light * (2 * cxy + c2) / (self.vx + vy + c2)))


def microssim(evidence: Evidence) -> Result:
    """Structural similarity after background and gain were taken out (MicroSSIM, Ashesh et al. 2024, arXiv 2408.08747).

    x = (t - P3(t)) / M and y = (i - P3(i)) / M with P3 the 3rd percentile over the judged pixels and
    M = max(t) - P3(t); the mean over Gaussian windows (sigma 1.5 px, 11 x 11) of
    (2 a mx my + C1) (2 a cxy + C2) / ((mx^2 + a^2 my^2 + C1) (vx + a^2 vy + C2)), C1 = (0.01 R)^2, C2 = (0.03 R)^2,
    R the range of x; 1 is best. The gain a is the one for which the same mean over uniform 7 x 7 windows is largest, as
    in the authors' library; it is fitted on this image alone (on every nth window of a large one), where the library
    fits one over a data set. Masked pixels are the truth's; the windows on them and at the border are left out.
    **Blind to gain and to background: look at ``si_gain``.**
    """
    truth, image = truth_and_image(evidence)
    if min(truth.shape) <= 2 * REACH + 1:
        raise UnmeasuredError(f"needs more than {2 * REACH + 1} px on each side")
    good = evidence.good_high
    dark, ours = float(np.percentile(truth[good], DARK)), float(np.percentile(image[good], DARK))
    top = float(truth[good].max()) - dark
    if top <= 0:
        raise UnmeasuredError("the truth has nothing above its background")
    pair = (truth - dark) / top, (image - ours) / top
    windows = windows_of(*pair, good, uniform=False)
    if windows.mx.size == 0:
        raise UnmeasuredError("every window is masked")
    span = float(np.ptp(truth[good])) / top
    gain = best_gain(windows_of(*pair, good, uniform=True), span)
    meaning = f"after the best gain, {gain:.4g}, fitted on this image, and backgrounds of {dark:.4g} and {ours:.4g}"
    value = windows.similarity(gain, span)
    return Result("microssim", value, "", "all", meaning=meaning, weight=windows.mx.size)


def windows_of(truth: Array, image: Array, good: Mask, uniform: bool) -> Windows:
    """Measure means, unbiased variances and covariance in windows that lie within the plane.

    Parameters
    ----------
    truth, image : (Y, X).
    good : (Y, X); windows about the other pixels are left out.
    uniform : 7 x 7 px of equal weight, else a Gaussian of sigma 1.5 px in 11 x 11.
    """
    from scipy.ndimage import gaussian_filter, uniform_filter

    edge = WINDOW // 2 if uniform else REACH
    inner, n = (slice(edge, -edge), slice(edge, -edge)), (2 * edge + 1) ** 2
    chosen = good[inner]

    def mean(plane: Array) -> Array:
        smooth = uniform_filter(plane, WINDOW) if uniform else gaussian_filter(plane, SIGMA, radius=REACH)
        return np.asarray(smooth[inner][chosen], np.float64)

    mx, my = mean(truth), mean(image)
    vx, vy, cxy = (
        (mean(a * b) - p * q) * (n / (n - 1))
        for a, b, p, q in ((truth, truth, mx, mx), (image, image, my, my), (truth, image, mx, my))
    )
    return Windows(mx, my, vx, vy, cxy)


def best_gain(windows: Windows, span: float) -> float:
    """Find the gain of largest similarity, between 0.1 and 10 times the ratio of the variations.

    Parameters
    ----------
    windows : statistics of truth and image.
    span : data range of the truth.
    """
    from scipy.optimize import minimize_scalar

    # the mean over a million windows fixes the gain to far more digits than matter
    step = max(1, windows.mx.size // SAMPLE)
    some = Windows(*(part[::step] for part in (windows.mx, windows.my, windows.vx, windows.vy, windows.cxy)))
    theirs, ours = (float(np.mean(v + m**2)) for v, m in ((some.vx, some.mx), (some.vy, some.my)))
    middle = np.log(np.sqrt(theirs / ours)) if theirs > 0 and ours > 0 else 0.0
    width = np.log(LARGEST_GAIN)
    found = minimize_scalar(
        lambda log: -some.similarity(float(np.exp(log)), span),
        bounds=(middle - width, middle + width),
        method="bounded",
        options={"xatol": 1e-4},
    )
    return float(np.exp(found.x))


def find_weights(variable: str, name: str, what: str) -> Path:
    """Find the file of weights in the folder that an environment variable names.

    Parameters
    ----------
    variable : environment variable.
    name : of the file.
    what : what the weights are, for the message.

    Raises
    ------
    UnmeasuredError : the variable is not set, or the file is not there; it says which.
    """
    folder = os.environ.get(variable)
    if not folder:
        raise UnmeasuredError(f"needs {what}: set {variable} to the folder that holds {name}")
    file = Path(folder) / name
    if not file.is_file():
        raise UnmeasuredError(f"needs {what}: {variable} names {folder}, which holds no {name}")
    return file


def _library(name: str, make: Callable[[], Any]) -> Any:
    """What an optional library makes; UnmeasuredError where it is missing, or where it or its weights are broken."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return make()
    except ImportError as problem:
        raise UnmeasuredError(
            f"needs the package {name} (pip install 'sciresdiff[perceptual]'; {problem.name or problem})"
        ) from problem
    except (OSError, RuntimeError, LookupError, ValueError, UnpicklingError) as problem:
        raise UnmeasuredError(f"{name} cannot be used ({' '.join(str(problem).split())[:200]})") from problem


@lru_cache(maxsize=1)
def _lpips_of(file: Path) -> Distance:
    """The distance of two images (Y, X) in -1..1."""
    import torch
    from lpips import LPIPS

    # pnet_rand builds the trunk without fetching its weights; the linear layers come with the package
    network = LPIPS(net="alex", pnet_rand=True, verbose=False)
    stored = torch.load(file, map_location="cpu", weights_only=True)
    own = {key: stored[f"features.{key.split('.', 1)[1]}"] for key in network.net.state_dict()}
    network.net.load_state_dict(own)
    network.eval()

    def distance(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
        with torch.inference_mode():
            pair = (torch.from_numpy(plane).expand(1, 3, *plane.shape) for plane in (one, other))
            return float(network(*pair))

    return distance


def to_display_range(evidence: Evidence) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Scale truth and image (Y, X) for a network: 0..1 between two percentiles of the truth, **clipped there**."""
    truth, image = truth_and_image(evidence)
    low, high = np.percentile(truth[evidence.good_high], SHOWN)
    if high <= low:
        raise UnmeasuredError(f"the truth is constant between its percentiles {SHOWN[0]:g} and {SHOWN[1]:g}")
    ours, theirs = (np.clip((plane - low) / (high - low), 0, 1).astype(np.float32) for plane in (truth, image))
    return ours, theirs


def lpips(evidence: Evidence) -> Result:
    """Learned perceptual image patch similarity (Zhang et al. 2018, arXiv 1801.03924, version 0.1, AlexNet); 0 is best.

    Image and truth between the truth's 0.1 and 99.9 percentiles, clipped, as three equal channels; the mean over tiles
    of up to 512 px by their area. Needs the package lpips and the file alexnet-owt-7be5be79.pth (torchvision's weights)
    in the folder that SCIRESDIFF_LPIPS names. **The network has learnt from photographs; it sees neither the flux nor
    anything outside the percentiles, and an invention that looks right is no difference to it.**
    """
    file = find_weights(LPIPS_FOLDER, LPIPS_FILE, "AlexNet's weights")
    if min(evidence.high.shape) < SHORTEST:
        raise UnmeasuredError(f"needs {SHORTEST} px on each side")
    truth, image = to_display_range(evidence)
    distance: Distance = _library("lpips", lambda: _lpips_of(file))
    regions = [tile.slices for tile in split_tiles(*truth.shape)]
    parts = [(distance(2 * image[at] - 1, 2 * truth[at] - 1), truth[at].size) for at in regions]
    value = sum(d * area for d, area in parts) / sum(area for _, area in parts)
    meaning = f"AlexNet, version 0.1, between the truth's percentiles {SHOWN[0]:g} and {SHOWN[1]:g}"
    return Result("lpips", float(value), "", "all", meaning=f"{meaning}, {len(parts)} tiles", weight=evidence.mpix)


def split_tiles(height: int, width: int) -> Iterator[Region]:
    """Yield tiles of about equal size, at most 512 px a side, that cover a plane once."""
    ys, xs = (np.linspace(0, side, -(-side // TILE) + 1).round().astype(int) for side in (height, width))
    for top, bottom in zip(ys, ys[1:], strict=False):
        for left, right in zip(xs, xs[1:], strict=False):
            yield Region(int(top), int(bottom), int(left), int(right))


@lru_cache(maxsize=1)
def _inception_of(file: Path) -> Extractor:
    """Features (n, 2048) of patches (n, Y, X) of bytes."""
    import torch
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    torch.load(file, map_location="cpu", weights_only=True)  # the library would run code that a file may hold
    network = FeatureExtractorInceptionV3(
        "inception-v3-compat", [str(FEATURES)], feature_extractor_weights_path=str(file)
    )

    def extract(patches: NDArray[np.uint8]) -> Array:
        with torch.inference_mode():
            batches = torch.from_numpy(patches)[:, None].expand(-1, 3, -1, -1).split(32)
            return np.concatenate([network(batch)[0].numpy() for batch in batches]).astype(np.float64)

    return extract


def frechet(one: Array, other: Array) -> float:
    """Frechet distance |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) of features (n, d) (Heusel et al. 2017, eq. 6).

    The trace of the root is the sum of the roots of the eigenvalues of S1^(1/2) S2 S1^(1/2), which is symmetric.
    """
    apart = one.mean(0) - other.mean(0)
    first, second = (np.atleast_2d(np.cov(f, rowvar=False)) for f in (one, other))
    # S1^(1/2) from the eigenvalues of S1; those below 0 are rounding
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    mixed = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ second @ root), 0)).sum()
    return float(apart @ apart + np.trace(first) + np.trace(second) - 2 * mixed)


def split_patches(plane: NDArray[np.float32], good: Mask) -> NDArray[np.uint8]:
    """Cut a plane (Y, X) of 0..1 into patches of bytes, those without a masked pixel.

    Returns
    -------
    (n, 64, 64), side by side; incomplete patches at the far borders are left out.
    """
    rows, columns = (side // PATCH for side in plane.shape)

    def split(whole: NDArray[Any]) -> NDArray[Any]:
        blocks = whole[: rows * PATCH, : columns * PATCH].reshape(rows, PATCH, columns, PATCH)
        return blocks.swapaxes(1, 2).reshape(-1, PATCH, PATCH)

    return np.ascontiguousarray(np.rint(split(plane) * 255).astype(np.uint8)[split(good).all((1, 2))])


def fid(evidence: Evidence) -> Result:
    """Frechet distance of Inception features of patches of image and truth (Heusel et al. 2017, arXiv 1706.08500).

    FID is a distance of two sets of images. Its covariance of 2048 features has full rank from 2049 images on, and with
    fewer its bias is larger than what it is to measure (Chong and Forsyth 2020, arXiv 1911.07023). One frame is no set:
    here its patches of 64 px are, and it is computed from 2049 patches on, which a frame of 2900 x 2900 px has; with
    fewer it is not computed, and no number is invented. Values as in `lpips`, as bytes. Needs the package
    torch-fidelity and the file weights-inception-2015-12-05-6726825d.pth in the folder that SCIRESDIFF_FID names.
    **Patches of one frame are not independent; the distance is not comparable with that of other papers, and is blind
    to where structure is.**
    """
    file = find_weights(FID_FOLDER, FID_FILE, "Inception's weights")
    truth, image = to_display_range(evidence)
    ours, theirs = (split_patches(plane, evidence.good_high) for plane in (image, truth))
    if len(ours) < FEWEST:
        raise UnmeasuredError(f"needs {FEWEST} patches of {PATCH} px without masked pixels, has {len(ours)}")
    extract: Extractor = _library("torch-fidelity", lambda: _inception_of(file))
    value = frechet(extract(ours), extract(theirs))
    return Result("fid", value, "", "all", meaning=f"{len(ours)} patches of {PATCH} px of one frame; not independent")


CHECKS = {
    "microssim": Check(
        microssim,
        "How alike image and truth look in small windows, after background and gain are removed; 1 is identical.",
        "A wrong background or photometric scale.",
        ("truth",),
    ),
    "lpips": Check(
        lpips,
        "How different image and truth look to a network trained on photographs; 0 is identical.",
        "Flux, faint structure, and inventions that look right.",
        ("truth",),
    ),
    "fid": Check(
        fid,
        "Distance of the image's patches from the truth's as populations, to a network trained on photographs.",
        "Positions: an image of another field may have the same distance.",
        ("truth",),
        rivals=False,
    ),
}

"""The blur of an exposure on the output's grid: the light of a star lies where its PSF says, or it is said."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sciresdiff.errors import InputError
from sciresdiff.observation.placement import Placement
from sciresdiff.observation.psf_on_grid import centroid_offset, draw_star, hold_light, misplaced_light, psf_on_grid
from sciresdiff.observation.resolve_joint import own_scale
from sciresdiff.physics.consistency import Data
from sciresdiff.physics.exposures import ExposuresOperator, Seen
from sciresdiff.physics.kernel_blur import KernelBlur
from sciresdiff.physics.psf.field import PSF, SmoothMaps
from sciresdiff.physics.psf.kernel import gaussian, kernel_from_psf, target_psf
from sciresdiff.physics.psf.point_sources import Field
from sciresdiff.physics.psf.profile_fit import same_size
from sciresdiff.physics.psf.regrid import regrid_kernels
from sciresdiff.physics.resample import resample
from sciresdiff.physics.richardson_lucy import pedestal, richardson_lucy, update_weight
from sciresdiff.physics.source_list import find_sources
from sciresdiff.region import Region

CANVAS = Region(-8, 160, -8, 160)


def turned(scale: float, degrees: float, side: int = 60) -> Placement:
    """An exposure in the middle of the output, half a pixel of it off."""
    t, middle = np.radians(degrees), (side - 1) / 2
    turn = scale * np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]])
    return Placement.of_function(lambda p: (p - middle) @ turn.T + scale * side / 2, (side, side))


def lopsided(side: int = 21) -> NDArray[np.float64]:
    """The image of a PSF of FWHM 2 px with a tail, on the pixels of an exposure."""
    u = (np.arange(side * 8) + 0.5) / 8 - side / 2
    image = np.zeros((side, side))
    for share, y, x, sigma in ((0.7, -0.15, -0.2, 0.75), (0.3, 0.35, 0.5, 1.3)):
        lines = [np.exp(-0.5 * ((u - at) / sigma) ** 2).reshape(side, 8).sum(1) for at in (y, x)]
        image += share * np.outer(*lines) / np.outer(*lines).sum()
    return image


def ringed(side: int = 21) -> NDArray[np.float64]:
    """The image of a PSF of FWHM 1.8 px with a first ring, as of a telescope near its sampling limit."""
    y, x = np.mgrid[:side, :side] - side // 2
    r = np.hypot(y, x)
    image = np.exp(-0.5 * (r / 0.76) ** 2) + 0.04 * np.exp(-0.5 * ((r - 3) / 0.6) ** 2)
    return image / image.sum()


@pytest.mark.parametrize(
    "scale, degrees", [(2, 0), (2, 0.4), (2, 30), (2, -45), (1.5, 0), (1.5, 20), (3, 100), (2.37, 5)]
)
@pytest.mark.parametrize("image", [lopsided, ringed])
def test_the_light_of_a_star_lies_where_the_psf_says(image, scale, degrees):
    own, place = own_scale(scale), turned(scale, degrees)
    psf = PSF.constant(kernel_from_psf(image(), pixel=None, scale=own, target_fwhm_px_fine=2 * own / scale))
    blur = psf_on_grid(psf, own, place, CANVAS)
    assert blur.mean.sum() == pytest.approx(1, abs=1e-12)
    # half-way between the output's pixels; a star of FWHM 2.7 output px, at scale 1.5, has 1.2 %
    assert misplaced_light(psf, blur, own, place, CANVAS, 2.0) < (0.015 if scale == 1.5 else 0.007)


@pytest.mark.parametrize("share, least", [(0.5, 0.0), (0.7, 0.1), (0.85, 1.4)])
def test_negative_lobes_stay(share, least):
    """A wanted image nearly as sharp as the exposure: the kernel between the two has negative light."""
    place = turned(2, 30)
    kernel = kernel_from_psf(
        "moffat:fwhm=3px,beta=3,ratio=0.7,theta=30deg", pixel=None, scale=2, target_fwhm_px_fine=6 * share
    )
    blur = psf_on_grid(PSF.constant(kernel), 2, place, CANVAS)
    below = [-np.minimum(k, 0).sum() for k in (kernel, blur.mean)]
    assert below[0] >= least and below[1] == pytest.approx(below[0], rel=0.02, abs=0.03)  # sampled elsewhere
    assert misplaced_light(PSF.constant(kernel), blur, 2, place, CANVAS, 6 * share) < 1e-3


def test_other_pixels_change_what_the_pixel_adds():
    """The kernel of a Gaussian sky blur, integrated over pixels of one size and of another."""
    for scale, degrees in ((1.7, 0), (1.7, 25), (0.8, 0)):
        sigma, t = 2.4, np.radians(degrees)
        y, x = np.mgrid[-15:16, -15:16]
        bend = (1 + 0.5 * (y**2 / sigma**2 - 1) / (12 * sigma**2)) * (1 + 0.5 * (x**2 / sigma**2 - 1) / (12 * sigma**2))
        own = np.exp(-0.5 * (y**2 + x**2) / sigma**2) * bend  # integrals over pixels, to fourth order
        matrix = scale * np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]])
        found = regrid_kernels(own[None], matrix)[0]
        wide = same_size(gaussian(2.3548 * sigma * scale), found.shape)
        np.testing.assert_allclose(found / found.sum(), wide, atol=2e-3 * wide.max())
        assert found.sum() == pytest.approx(own.sum(), rel=1e-12)


def test_a_single_pixel_stays_one_and_grids_that_agree_change_nothing():
    one = np.zeros((1, 5, 5))
    one[0, 2, 2] = 1
    kernels = np.random.default_rng(1).random((3, 7, 9))
    assert regrid_kernels(kernels, np.eye(2)) is kernels
    quarter = regrid_kernels(one, np.array([[0.0, -1.0], [1.0, 0.0]]))[0]
    assert quarter[quarter.shape[0] // 2, quarter.shape[1] // 2] == pytest.approx(1, abs=1e-6)
    assert np.abs(quarter).sum() == pytest.approx(1, abs=1e-5)


def test_weights_follow_a_distortion():
    """The weights are those of the place in the exposure from which the output's pixel is, by a strong distortion."""
    side = 60

    def place(p: NDArray[np.float64]) -> NDArray[np.float64]:
        away = p - (side - 1) / 2
        return 2 * (p + 0.5) - 0.5 + 4e-3 * away**2 * np.sign(away)  # 3.5 output px at the borders

    placement = Placement.of_function(place, (side, side))
    kernels = np.stack([target_psf(2.0), target_psf(2.0)])
    share = np.linspace(0, 1, 2 * side)[None, :] * np.ones((2 * side, 1))
    psf = PSF(kernels, np.stack([1 - share, share]))
    blur = psf_on_grid(psf, 2, placement, CANVAS)
    assert isinstance(blur.weights, SmoothMaps)
    for at in (6.0, 20.0, 45.0, 54.0):
        there = placement(np.array([30.0, at]))
        expected = (2 * (at + 0.5) - 0.5) / (2 * side - 1)
        # linear between knots of 8 px, over which the distortion bends by 0.03 px; the affine map alone is 0.02 off
        assert blur.weights.at(*(there + 8))[1] == pytest.approx(expected, abs=5e-4)


def test_light_that_the_grid_misplaces_is_told_or_refused():
    assert not hold_light("a.fits", 0.01)
    (line,) = hold_light("a.fits", 0.03)
    assert line.startswith("WARNING psf: a.fits") and "3 %" in line and "--target-fwhm" in line
    with pytest.raises(InputError, match=r"psf: a.fits.*12 %.*10 % are allowed"):
        hold_light("a.fits", 0.12)
    # a pixel alone, seen half-way between pixels of its own size, on an image of FWHM 1.5 px
    place = turned(1, 0, side=61)
    blur = psf_on_grid(None, 1, place, CANVAS)
    assert misplaced_light(None, blur, 1, place, CANVAS, 1.5) > 0.1


def test_richardson_lucy_with_lobes_keeps_fluxes():
    """Exposures, one turned, whose kernels have negative light of 0.4 times their sum; borders are seen in part."""
    side, target, spec = 32, 4.5, "moffat:fwhm=3px,beta=3,ratio=0.7,theta=30deg"
    size, parts = (2 * side + 40, 2 * side + 40), []
    kernel = kernel_from_psf(spec, pixel=None, scale=2, target_fwhm_px_fine=target)
    assert -np.minimum(kernel, 0).sum() > 0.35
    for degrees in (0.0, 30.0):
        place = turned(2, degrees, side).moved(-20, -20)
        blur = psf_on_grid(PSF.constant(kernel), 2, place, Region.of_shape(size)).kernels[0]
        margin = blur.shape[0] // 2, blur.shape[1] // 2
        corners = place.corners(Region.of_shape((side, side)))
        parts.append(Seen(KernelBlur(blur, size, margin), resample(corners, size)))
    operator = ExposuresOperator(parts, 2.0)
    truth, places = np.zeros(size), [(40.0, 45.5), (60.3, 52.0), (50.6, 70.2)]
    for (y, x), flux in zip(places, (3e3, 3e4, 3e5), strict=True):
        truth += flux * draw_star(size, np.array([y, x]), target)
    clean = operator.apply(torch.from_numpy(truth.astype("f4"))[None, None])
    noise = clean.clamp_min(0) + 25
    y = clean + noise.sqrt() * torch.randn(clean.shape, generator=torch.Generator().manual_seed(2))
    scale = 5.0  # noise of the sky, which is the unit of the data
    data = Data(y / scale, noise / scale**2, operator.coverage, operator)
    image = next(islice(richardson_lucy(data, pedestal(data).amax(1, keepdim=True)), 24, None))[0, 0].numpy() * scale
    yy, xx = np.indices(size)
    for y_, x_ in places:
        near = np.hypot(yy - y_, xx - x_) < 5
        error = 5 * np.sqrt(near.sum() / 4 + truth[near].sum() / 25)
        # three errors of the sum, and 1 % of what is still not converged
        assert abs(image[near].sum() - truth[near].sum()) < 3 * error + 0.01 * truth[near].sum()
    assert image.max() < 1.1 * truth.max()


def test_what_only_a_shallow_exposure_sees_is_restored_at_full_steps():
    size = (60, 110)
    parts = []
    for left in (-8.0, 42.0):  # of 30 x 30 px; the second one reaches beyond the first
        place = Placement.of_function(lambda p, left=left: 2 * p + np.array([0.5, left + 8.5]), (30, 30))
        corners = place.corners(Region.of_shape((30, 30)))
        parts.append(Seen(KernelBlur(gaussian(3.0), size, (8, 8)), resample(corners, size)))
    operator = ExposuresOperator(parts, 2.0)
    valid, weight = operator.coverage, torch.tensor([1.0, 1e-5]).view(1, 2, 1, 1)
    data = Data(torch.ones_like(valid), torch.ones_like(valid), valid, operator, weight=weight)
    known = valid.clamp_min(1e-3) * weight
    step, rest = update_weight(data, known)
    assert rest is not None
    alone = (slice(None), slice(None), slice(10, 50), slice(75, 95))
    torch.testing.assert_close((step * operator.adjoint(known))[alone], torch.ones(1, 1, 40, 20))
    assert float(rest[alone].abs().max()) == 0


@pytest.mark.parametrize("degrees", [0, 30, 180])
@pytest.mark.parametrize("scale", [1.5, 2])
def test_the_centroid_of_a_lopsided_star_is_known(degrees, scale):
    """It is that of the image of its PSF on the pixels, however these are turned, for that turns with them."""
    own, place = own_scale(scale), turned(scale, degrees)
    psf = PSF.constant(kernel_from_psf(lopsided(), pixel=None, scale=own, target_fwhm_px_fine=2.0 * own / scale))
    blur = psf_on_grid(psf, own, place, CANVAS)
    image = np.pad(lopsided(), 12)
    noise = 1e-3 * image.max()
    seen = Field(image, np.full(image.shape, noise**2), np.zeros(image.shape, bool), noise)
    wanted = find_sources(seen, 2.2).places[0] - image.shape[0] // 2
    assert np.hypot(*wanted) > 0.1
    assert centroid_offset(blur, place, CANVAS, 2.0, 2.2) == pytest.approx(wanted, abs=0.02)


def test_the_centroid_of_a_round_star_is_its_place():
    place = turned(2, 30)
    blur = psf_on_grid(PSF.constant(gaussian(2.5)), 2, place, CANVAS)
    assert centroid_offset(blur, place, CANVAS, 2.0, 2.0) == pytest.approx(np.zeros(2), abs=5e-3)

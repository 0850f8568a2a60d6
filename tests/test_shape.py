"""Adaptive moments against their oracle, and the checks of width, size and shape."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from sciresdiff import checks
from sciresdiff.checks import psf_matching, shape
from sciresdiff.checks.adaptive_moments import adaptive_moments
from sciresdiff.checks.check import UnmeasuredError
from sciresdiff.checks.evidence import Evidence
from sciresdiff.checks.result import Result
from sciresdiff.checks.source_lists import image_sources

Array = NDArray[np.float64]
SIDE = 300


def ellipse(shape_: tuple[int, int], x: float, y: float, covariance: tuple[float, float, float]) -> Array:
    """A Gaussian of height 1 with moments xx, yy, xy, sampled."""
    yy, xx = np.indices(shape_)
    mxx, myy, mxy = covariance
    dx, dy = xx - x, yy - y
    return np.asarray(np.exp(-(myy * dx**2 - 2 * mxy * dx * dy + mxx * dy**2) / (2 * (mxx * myy - mxy**2))))


def field(sigma: float | Array, e: Array | None = None, seed: int = 0, noise: float = 0.3, spacing: int = 37) -> Array:
    """Sources apart, 100 to 1000 high, on a sky of 10; e is (n, 2) distortions, sigma (det M)^(1/4)."""
    rng = np.random.default_rng(seed)
    image = np.full((SIDE, SIDE - 40), 10.0)
    grid = [(x, y) for y in range(25, SIDE - 22, spacing) for x in range(25, SIDE - 62, spacing)]
    sigmas = np.broadcast_to(sigma, len(grid))
    for k, (x, y) in enumerate(grid):
        e1, e2 = (0.0, 0.0) if e is None else e[k % len(e)]
        trace = 2 * sigmas[k] ** 2 / np.sqrt(1 - e1**2 - e2**2)
        moments = (trace * (1 + e1) / 2, trace * (1 - e1) / 2, trace * e2 / 2)
        dx, dy = rng.uniform(-0.5, 0.5, 2)
        image += rng.uniform(100, 1000) * ellipse(image.shape, x + dx, y + dy, moments)
    return np.asarray(image + noise * np.random.default_rng([seed, 1]).normal(size=image.shape))


def named(results: Result | list[Result], name: str) -> float:
    """The value of a result."""
    found = results if isinstance(results, list) else [results]
    value = next(r for r in found if r.name == name).value
    assert value is not None
    return value


@pytest.mark.parametrize("covariance", [(4.0, 4.0, 0.0), (6.0, 2.5, 1.5), (2.0, 3.0, -0.8)])
@pytest.mark.parametrize("centre", [(20.0, 20.0), (20.37, 19.81)])
def test_moments_of_a_gaussian_are_its_own(covariance: tuple[float, float, float], centre: tuple[float, float]) -> None:
    found = adaptive_moments(ellipse((41, 41), *centre, covariance), np.array([[20.0, 20.0]]), half=18)
    assert found.ok.all()
    got = (found.mxx[0], found.myy[0], found.mxy[0])
    assert got == pytest.approx(
        covariance, rel=1e-5
    )  # the sums over pixels stand for integrals, of sigma 1.2 px or more
    assert tuple(found.xy[0]) == pytest.approx(centre, abs=1e-6)  # as above
    assert found.rho4[0] == pytest.approx(2, abs=1e-4)  # as above
    xx, yy, xy = covariance
    assert (found.e1[0], found.e2[0]) == pytest.approx(((xx - yy) / (xx + yy), 2 * xy / (xx + yy)), abs=1e-5)
    assert found.sigma[0] == pytest.approx((xx * yy - xy**2) ** 0.25, rel=1e-5)


def test_moments_agree_with_galsim() -> None:
    galsim = pytest.importorskip("galsim", reason="the oracle of adaptive moments is galsim's hsm; pip install galsim")
    rng, compared = np.random.default_rng(0), 0
    for i in range(36):
        profile = [
            galsim.Gaussian(sigma=rng.uniform(0.9, 2.5)),
            galsim.Moffat(beta=2.5, fwhm=rng.uniform(2, 4)),
            galsim.Exponential(half_light_radius=rng.uniform(1.5, 3)),
        ][i % 3]
        g1, g2, x, y = rng.uniform(-0.3, 0.3, 4)
        image = profile.shear(g1=g1, g2=g2).shift(x, y).drawImage(nx=41, ny=41, scale=1).array.astype(float)
        image += rng.normal(size=image.shape) * (5e-4 if i % 2 else 0)
        theirs = galsim.hsm.FindAdaptiveMom(galsim.Image(image, scale=1.0), strict=False)
        ours = adaptive_moments(image, np.array([[20.0, 20.0]]), half=20)
        if theirs.error_message:
            continue
        compared += 1
        assert ours.ok[0]
        assert ours.sigma[0] == pytest.approx(theirs.moments_sigma, rel=1e-5)  # both stop at 1e-6 or so
        shear = (theirs.observed_shape.e1, theirs.observed_shape.e2)
        assert (ours.e1[0], ours.e2[0]) == pytest.approx(shear, abs=1e-5)  # as above
        assert ours.rho4[0] == pytest.approx(theirs.moments_rho4, abs=1e-4)  # as above
        assert ours.xy[0, 0] + 1 == pytest.approx(theirs.moments_centroid.x, abs=1e-5)  # their first pixel is 1
    assert compared > 30


def test_what_is_no_source_is_said_not_to_converge() -> None:
    planes = [np.zeros((41, 41)), -ellipse((41, 41), 20, 20, (4, 4, 0)), np.ones((41, 41))]
    for plane in planes:
        found = adaptive_moments(plane, np.array([[20.0, 20.0]]), half=15)
        assert not found.ok[0] and np.isnan(found.mxx[0]) and np.isnan(found.rho4[0])
    assert len(adaptive_moments(planes[0], np.empty((0, 2)), half=15).ok) == 0


@pytest.mark.parametrize("sigma", [0.85, 1.3, 2.2])
def test_fwhm_is_that_of_the_stars_and_is_held_to_the_target(sigma: float) -> None:
    image = Evidence(field(sigma), 1)
    found = shape.fwhm_px(image)
    fwhm = shape.FWHM_PER_SIGMA * sigma
    assert named(found, "fwhm_px") == pytest.approx(fwhm, rel=0.01)  # 0.3 / 100 of noise on 5 px or more, 40 stars
    assert named(found, "fwhm_scatter_px") < 0.02 * fwhm  # as above, one star
    for target, passed in ((fwhm, True), (1.1 * fwhm, True), (1.25 * fwhm, False), (0.75 * fwhm, False)):
        one = checks.check(replace(image, target_fwhm_px=target), names=["fwhm_px"])[0]
        assert one.passed is passed


def test_fwhm_of_a_gaussian_agrees_with_photutils() -> None:
    from photutils.psf import fit_fwhm

    image = field(1.7, noise=0.0) - 10
    xy = shape.bright_isolated(image_sources(Evidence(image, 1)), 0.3, np.ones(image.shape, bool))
    theirs = np.median(fit_fwhm(image, xypos=xy, fit_shape=9))
    pixel = 1 / 12  # theirs is integrated over the pixel, ours has the pixel in it
    ours = np.median(shape.measure_shapes(image, xy).fwhm)
    expected = np.sqrt(theirs**2 + shape.FWHM_PER_SIGMA**2 * pixel)
    assert ours == pytest.approx(expected, rel=2e-3)  # the pixel's box is no Gaussian


def test_stars_are_told_from_wider_sources_and_galaxies_are_not_taken_for_stars() -> None:
    mixed = np.where(np.arange(42) % 2, 1.3, np.random.default_rng(3).uniform(1.7, 3.5, 42))
    found = shape.star_widths(Evidence(field(mixed), 1))
    assert found.image == pytest.approx(1.3 * shape.FWHM_PER_SIGMA, rel=0.01)  # as above
    assert len(found.xy) < 0.6 * found.candidates
    with pytest.raises(UnmeasuredError, match="equally wide|equal width"):
        shape.star_widths(Evidence(field(np.random.default_rng(4).uniform(1.3, 4, 42)), 1))


def test_saturated_masked_and_near_sources_are_left_out() -> None:
    image = field(1.3)
    every = len(shape.shape_positions(Evidence(image, 1)))
    assert every == 42
    cut = np.minimum(image, 400.0)
    assert 5 < len(shape.shape_positions(Evidence(cut, 1))) < every  # those above have flat tops
    mask = np.zeros(image.shape, bool)
    mask[25, 25] = True
    assert len(shape.shape_positions(Evidence(image, 1, mask_high=mask))) == every - 1
    pair = image + 300 * ellipse(image.shape, 25 + 9, 25, (1.7, 1.7, 0))
    assert len(shape.shape_positions(Evidence(pair, 1))) == every - 1


def test_shape_checks_find_blur_rounding_and_a_tilted_psf() -> None:
    rng = np.random.default_rng(5)
    angle, length = rng.uniform(0, 2 * np.pi, 42), rng.uniform(0.2, 0.4, 42)
    e = np.stack([length * np.cos(angle), length * np.sin(angle)], 1)
    truth = field(1.6, e)
    same = Evidence(truth, 1, truth=truth)
    for name in ("ellipticity_bias", "size_bias"):
        assert all(r.value == 0 and r.passed for r in checks.check(same, names=[name]))
    blurry = same.with_image(psf_matching.gaussian_blur(truth, 0.8))
    expected = np.sqrt(1 + 0.8**2 / 1.6**2) - 1
    assert named(shape.size_bias(blurry), "size_bias") == pytest.approx(expected, abs=0.02)  # (det M)^(1/4) of ellipses
    rounder = same.with_image(field(1.6, 0.7 * e))
    results = checks.check(rounder, names=["ellipticity_bias"])
    assert named(results, "ellipticity_bias") == pytest.approx(-0.3 * float(np.median(length)), abs=0.01)  # noise
    assert [r.passed for r in results] == [False, True]  # shorter all around is no direction
    tilted = same.with_image(field(1.6, e + np.array([0.05, -0.03])))
    offset = named(shape.ellipticity_bias(tilted), "ellipticity_offset")
    assert offset == pytest.approx(np.hypot(0.05, 0.03), abs=0.005)  # noise


def test_shape_checks_say_why_they_are_silent() -> None:
    noise = np.random.default_rng(0).normal(size=(120, 90))
    one = noise + 500 * ellipse(noise.shape, 45, 60, (2, 2, 0))
    cases = {
        "no source": Evidence(noise, 1, truth=noise.copy()),
        "constant": Evidence(noise, 1, truth=np.full(noise.shape, -3.0)),
        "every pixel is masked": Evidence(noise, 1, truth=noise.copy(), mask_high=np.ones(noise.shape, bool)),
        "1 bright isolated": Evidence(one, 1, truth=one.copy()),
        "": Evidence(noise[:20, :17], 1, truth=noise[:20, :17].copy()),
    }
    for words, evidence in cases.items():
        for result in checks.check(evidence, names=["ellipticity_bias", "size_bias", "fwhm_px"]):
            assert result.value is None and result.passed is None
            assert words in result.meaning or result.name == "fwhm_px"
            assert result.meaning.startswith("not computed: ")
    with pytest.raises(UnmeasuredError, match="microscope"):
        shape.star_widths(Evidence(one, 1, kind="micro"))


def test_matching_gives_stars_the_same_share_in_the_aperture() -> None:
    truth = field(1.3)
    same = Evidence(truth, 1, truth=truth)
    assert "alike" in psf_matching.match_psfs(same)[2]
    image = psf_matching.gaussian_blur(truth, 1.8)
    flat, true, said = psf_matching.match_psfs(same.with_image(image))
    assert said.startswith("the truth blurred to the image's PSF: FWHM 5.2")
    xy = shape.shape_positions(same)
    shares = [psf_matching.aperture_share(psf_matching.median_star(plane, xy)) for plane in (flat, true)]
    assert shares[0] == pytest.approx(shares[1], abs=0.002)  # bisection on the median star, sampled
    assert "the image blurred to the truth's PSF" in psf_matching.match_psfs(Evidence(truth, 1, truth=image))[2]


def test_real_stars_have_the_width_of_their_telescope(shared_data: object) -> None:
    from astropy.io import fits

    path = f"{shared_data}/astro/hst_47tuc/j8bt06nyq_flt.fits"
    image = fits.getdata(path, 1).astype(float)[256:768, 256:768]
    mask = fits.getdata(path, "DQ")[256:768, 256:768] != 0
    found = shape.star_widths(Evidence(image, 1, mask_high=mask))
    assert 1.9 < found.image < 2.5  # ACS/HRC at 606 nm: 0.050 to 0.06 arcsec, 0.025 arcsec a pixel
    assert found.scatter < 0.1 * found.image and len(found.xy) > 50

"""Point spread functions: the SPEC, what is drawn of it, and the kernel between two of them."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_moments import kernel_moments
from scipy.ndimage import gaussian_filter
from scipy.signal import fftconvolve

from sciresdiff.errors import InputError, UsageError
from sciresdiff.frame import PixelSize
from sciresdiff.physics import psf
from sciresdiff.physics.psf.image import difference_kernel

DRAWN = (
    "gaussian:fwhm=3px", "gaussian:sigma=1.1px,ratio=0.6,theta=30", "moffat:fwhm=3px,beta=2.5", "airy:fwhm=3px",
    "moffat:fwhm=3px,beta=4,ratio=0.8,theta=100deg", "optical:fwhm=3px,obstruction=0.3,spiders=4,defocus=0.05",
)  # fmt: skip


def box_sum(image: np.ndarray, scale: int) -> np.ndarray:
    """A star in every position of a coarse pixel: sums of scale x scale about each half-pixel place."""
    return fftconvolve(image, np.ones((scale, scale)))


def shared(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    n = max(*a.shape, *b.shape)
    grow = [np.pad(k, [((n - side) // 2,) * 2 for side in k.shape]) for k in (a, b)]
    return grow[0], grow[1]


@pytest.mark.parametrize("sigma", [0.5, 0.9, 2.4, 3.3])
def test_a_sampled_gaussian_is_scipys(sigma: float) -> None:
    kernel = psf.render(f"gaussian:sigma={sigma}px", None, integrate=False)
    r = int(5 * sigma + 0.5)
    spike = np.zeros((2 * r + 31, 2 * r + 31))
    spike[r + 15, r + 15] = 1
    wanted = gaussian_filter(spike, sigma, truncate=5)[15:-15, 15:-15]
    np.testing.assert_allclose(kernel, wanted, atol=1e-12)  # float64 rounding


@pytest.mark.parametrize("integrate", [False, True])
@pytest.mark.parametrize("spec", DRAWN)
def test_every_shape_is_odd_and_has_sum_one(spec: str, integrate: bool) -> None:
    kernel = psf.render(spec, None, integrate=integrate)
    assert all(n % 2 for n in kernel.shape)
    assert kernel.sum() == pytest.approx(1, abs=1e-12)  # float64 rounding
    if "spiders" not in spec:
        np.testing.assert_allclose(kernel, kernel[::-1, ::-1], atol=1e-12)  # centred: point symmetry


@pytest.mark.parametrize("spec", DRAWN[:1] + DRAWN[2:4])
def test_the_width_is_the_one_named(spec: str) -> None:
    assert psf.fwhm(psf.render(spec, None, integrate=False)) == pytest.approx(3, rel=5e-3)  # spline interpolation
    assert psf.fwhm(psf.render(spec, None, integrate=True, oversample_of=4)) == pytest.approx(12, rel=1e-2)


def test_integration_equals_fine_sampling() -> None:
    fine = psf.render("gaussian:fwhm=2px", None, integrate=False, oversample_of=15)
    r = fine.shape[0] // 2 // 15 - 1
    cut = fine[fine.shape[0] // 2 - 15 * r - 7 : fine.shape[0] // 2 + 15 * r + 8]
    cut = cut[:, fine.shape[1] // 2 - 15 * r - 7 : fine.shape[1] // 2 + 15 * r + 8]
    mean = cut.reshape(2 * r + 1, 15, 2 * r + 1, 15).sum((1, 3))
    got, wanted = shared(psf.render("gaussian:fwhm=2px", None, integrate=True), mean)
    np.testing.assert_allclose(got, wanted, atol=2e-4)  # midpoint rule with 15 points
    turned = psf.render("gaussian:fwhm=2px,ratio=0.9999999,theta=45", None, integrate=True)
    np.testing.assert_allclose(turned, psf.render("gaussian:fwhm=2px", None, integrate=True), atol=1e-6)  # quadrature


def test_orientation_and_ellipticity() -> None:
    along_x = kernel_moments(psf.render("gaussian:fwhm=6px,ratio=0.5,theta=0", None, integrate=False))
    assert along_x.e1 == pytest.approx((1 - 0.25) / (1 + 0.25), abs=1e-4)  # sampled, cut at 5 sigma
    assert along_x.fwhm == pytest.approx(6, rel=1e-3)
    up_right = kernel_moments(psf.render("gaussian:fwhm=6px,ratio=0.5,theta=45deg", None, integrate=False))
    assert up_right.e2 > 0.5 and abs(up_right.e1) < 1e-6


def test_diffraction_by_telescope_and_microscope() -> None:
    wide = psf.parse("airy:aperture=2.4m,wavelength=606nm,obstruction=0.33")
    kernel = psf.render(wide, PixelSize(0.01, 0.01, "arcsec"), integrate=False)
    first_zero = 1.22 * 606e-9 / 2.4 * 206265 / 0.01  # unobstructed; an obstruction narrows the core
    assert 0.35 * first_zero < psf.fwhm(kernel) / 1 < 0.85 * first_zero
    micro = psf.render("airy:na=1.4,wavelength=525nm", PixelSize(0.02, 0.02, "um"), integrate=False)
    assert psf.fwhm(micro) == pytest.approx(0.5145 * 525 / 1.4 / 20, rel=5e-3)  # 0.51 lambda / NA
    pupil = psf.render("optical:fwhm=4px", None, integrate=False)
    airy = psf.render("airy:fwhm=4px", None, integrate=False)
    assert np.abs(pupil - airy).max() < 3e-3 * airy.max()  # a pupil of 64 pixels


def test_unequal_pixels_draw_an_ellipse() -> None:
    kernel = psf.render("gaussian:fwhm=0.1arcsec", PixelSize(0.02, 0.04, "arcsec"), integrate=False)
    found = kernel_moments(kernel)
    assert found.e1 == pytest.approx((0.25 - 1) / (0.25 + 1), abs=1e-2)  # sigma of 1.06 px along x is coarse
    assert kernel.shape[0] > kernel.shape[1]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("gausian:fwhm=2px", "is not known; give gaussian"),
        ("gaussian", "give fwhm or sigma"),
        ("gaussian:fwhm=2", "allowed: px, arcsec"),
        ("gaussian:fwhm=2px,sigma=1px", "one of them"),
        ("gaussian:fwhm=-2px", "out of range"),
        ("gaussian:fwhm=nanpx", "no number"),
        ("gaussian:width=2px", "it takes fwhm, sigma"),
        ("gaussian:fwhm=2px,fwhm=3px", "given twice"),
        ("gaussian:fwhm=2px,ratio=1.5", "out of range"),
        ("moffat:fwhm=2px", "give beta"),
        ("moffat:fwhm=2px,beta=0.5", "out of range"),
        ("airy:na=1.4", "a wavelength goes with"),
        ("airy:fwhm=2px,wavelength=500nm", "a wavelength goes with"),
        ("", "is not known"),
    ],
)
def test_nonsense_is_refused_with_what_is_allowed(spec: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        psf.parse(spec)


def test_what_needs_more_than_a_spec() -> None:
    with pytest.raises(InputError, match="no such file"):
        psf.parse("nowhere.fits[PSF]")
    with pytest.raises(UsageError, match="pixel size is unknown"):
        psf.render("gaussian:fwhm=1arcsec", None, integrate=True)
    with pytest.raises(UsageError, match="pixel size is in um"):
        psf.render("gaussian:fwhm=1arcsec", PixelSize(0.1, 0.1, "um"), integrate=True)
    with pytest.raises(UsageError, match="needs a frame"):
        psf.render("measure", None, integrate=True)
    assert psf.kernel_from_psf("none", pixel=None, scale=2) is None
    assert psf.render("none", None, integrate=True).shape == (1, 1)


@given(fwhm=st.floats(0.5, 20), ratio=st.floats(0.3, 1), theta=st.floats(-180, 180))
@settings(max_examples=20, deadline=None)
def test_a_spec_comes_back_from_its_text(fwhm: float, ratio: float, theta: float) -> None:
    given_ = psf.parse(f"gaussian:fwhm={fwhm:.6g}px,ratio={ratio:.6g},theta={theta:.6f}deg")
    back = psf.parse(str(given_))
    for key, (value, unit) in given_.params.items():
        assert back.params[key][1] == unit
        assert back.params[key][0] == pytest.approx(value, rel=1e-5, abs=1e-12)  # six digits are written


# The difference kernel


@pytest.mark.parametrize("target", [2.0, 3.0])
@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize(
    ("spec", "error"),
    [
        ("gaussian:fwhm=2px", 2e-4),  # closed form: what is sampled is not band-limited
        ("gaussian:fwhm=3px,ratio=0.7,theta=30deg", 2e-4),
        ("moffat:fwhm=2.5px,beta=3", 1e-3),  # wings tapered at the border
        ("airy:fwhm=2px", 4e-3),  # wider wings tapered
    ],
)
def test_target_and_kernel_make_the_psf(spec: str, error: float, scale: int, target: float) -> None:
    kernel = psf.kernel_from_psf(spec, pixel=None, scale=scale, target_fwhm_px_fine=target)
    whole = psf.render(spec, None, integrate=True, oversample_of=scale)
    made, wanted = shared(fftconvolve(kernel, psf.target_psf(target)), whole)
    assert np.abs(made - wanted).max() < error * wanted.max()
    assert kernel.sum() == pytest.approx(1, abs=1e-12)  # flux is kept


def test_closed_form_and_division_agree() -> None:
    spec = "gaussian:fwhm=2.5px,ratio=0.8,theta=20deg"
    closed = psf.kernel_from_psf(spec, pixel=None, scale=4)
    divided = difference_kernel(psf.render(spec, None, integrate=True, oversample_of=4), psf.target_psf(2.0))
    a, b = shared(closed, divided)
    assert np.abs(a - b).max() < 1e-3 * a.max()  # PSF cut at 5 sigma, divided by a response of down to 1e-3


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_an_effective_psf_is_not_integrated_again(scale: int) -> None:
    spec = "moffat:fwhm=3.2px,beta=3,ratio=0.85,theta=20deg"
    low = psf.render(spec, None, integrate=True)
    kernel = psf.kernel_from_psf(low, pixel=None, scale=scale)
    seen = box_sum(fftconvolve(kernel, psf.target_psf(2.0)), scale)
    made, wanted = shared(seen, box_sum(psf.render(spec, None, integrate=True, oversample_of=scale), scale))
    # stars in every place within a coarse pixel; the PSF's wings are tapered, frequencies below 1e-3 left out
    assert np.abs(made - wanted).max() < 5e-3 * wanted.max()
    optical = psf.kernel_from_psf(spec, pixel=None, scale=scale)
    a, b = kernel_moments(kernel), kernel_moments(optical)
    assert a.fwhm == pytest.approx(b.fwhm, rel=0.01)  # integrating twice would widen it by 4 % and more
    assert (a.e1, a.e2) == (pytest.approx(b.e1, abs=0.01), pytest.approx(b.e2, abs=0.01))


def test_a_psf_narrower_than_the_target_is_refused() -> None:
    with pytest.raises(InputError, match=r"FWHM 2\..* narrower than the target's 3; give a smaller --target-fwhm"):
        psf.kernel_from_psf("gaussian:fwhm=1.1px", pixel=None, scale=2, target_fwhm_px_fine=3)
    with pytest.raises(InputError, match="narrower"):
        psf.kernel_from_psf("moffat:fwhm=1.1px,beta=3", pixel=None, scale=2, target_fwhm_px_fine=4)
    with pytest.raises(InputError, match="narrower"):
        psf.kernel_from_psf("gaussian:fwhm=1.5px,ratio=0.5", pixel=None, scale=2, target_fwhm_px_fine=3)


# Images of a PSF


@given(dy=st.floats(-1.5, 1.5), dx=st.floats(-1.5, 1.5), sky=st.floats(-2, 2), even=st.booleans())
@settings(max_examples=20, deadline=None)
def test_an_image_is_centred_and_its_sky_removed(dy: float, dx: float, sky: float, even: bool) -> None:
    line = np.arange(40.0 if even else 41.0) - 20
    star = 7 * np.exp(-0.5 * ((line[:, None] - dy) ** 2 + (line[None, :] - dx) ** 2) / 2.0**2)
    kernel = psf.centre_psf(star + sky)
    assert all(n % 2 for n in kernel.shape)
    found = kernel_moments(kernel)
    assert abs(found.y) < 5e-3 and abs(found.x) < 5e-3  # the centroid is that of the pixels above a thousandth
    assert found.fwhm == pytest.approx(2 * 2.3548, rel=2e-3)
    assert kernel.sum() == pytest.approx(1, abs=1e-12)  # float64 rounding


def test_negative_lobes_are_kept() -> None:
    line = np.arange(-15.0, 16.0)
    r2 = line[:, None] ** 2 + line[None, :] ** 2
    lobed = np.exp(-r2 / 8) - 0.2 * np.exp(-r2 / 32)
    kernel = psf.centre_psf(lobed)
    assert kernel.min() / kernel.max() == pytest.approx(lobed.min() / lobed.max(), rel=1e-2)


@pytest.mark.parametrize(
    ("image", "message"),
    [(np.zeros((9, 9)), "no flux"), (np.full((9, 9), np.nan), "NaN"), (np.zeros(9), "2-D"), (np.ones((2, 2)), "2-D")],
)
def test_images_that_are_no_psf(image: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        psf.centre_psf(image)


def test_a_file_is_a_kernel_as_it_is_and_a_psf_centred(tmp_path: Path) -> None:
    from astropy.io import fits

    image = np.zeros((21, 20))
    image[8:11, 9:12] = [[1, 2, 1], [2, 5, 2], [1, 2, 1]]
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(image, name="PSF")]).writeto(tmp_path / "p.fits")
    spec = f"{tmp_path / 'p.fits'}[PSF]"
    kernel = psf.render(spec, None, integrate=False)
    assert kernel.shape == (21, 21)
    np.testing.assert_allclose(kernel[:, :20], image / 17)
    whole = psf.render(spec, None, integrate=True)
    assert np.unravel_index(whole.argmax(), whole.shape) == (10, 10)


def test_real_psf_files_make_kernels(shared_data: Path) -> None:
    files = sorted((shared_data / "astro" / "scarlet_pair").glob("PSF_HST*.fits"))
    if not files:
        pytest.skip("no PSF file in scarlet_pair")
    kernel = psf.kernel_from_psf(str(files[0]), pixel=None, scale=1)
    assert kernel is not None and kernel.sum() == pytest.approx(1)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("side", [9, 25])
def test_a_single_bright_pixel_is_no_psf(scale: int, side: int) -> None:
    """On the low grid: no kernel that stays above zero lies between the target and it."""
    delta = np.zeros((side, side))
    delta[side // 2, side // 2] = 1
    with pytest.raises(InputError, match="finer detail than the target"):
        difference_kernel(delta, psf.target_psf(2.0), scale=scale)

"""Two instruments on one sky: ratio of fluxes, PSFs and displacement come back as they were planted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import NDArray
from scipy.special import erf

from sciresdiff.checks import registration as pure
from sciresdiff.checks.check import UnmeasuredError
from sciresdiff.errors import InputError, UsageError
from sciresdiff.frame import Frame, PixelSize
from sciresdiff.jobs.evaluate import image_plane
from sciresdiff.jobs.evaluate import job as evaluate
from sciresdiff.jobs.evaluate.overlap import differ_in_pixel_size
from sciresdiff.jobs.evaluate.register import register, register_truth
from sciresdiff.physics.registration import displacement

Array = NDArray[np.float64]
SIGMA = 1 / 2.354820
SOURCES = ((0.31, 0.22, 100.0, 0.3), (-1.9, 1.4, 60.0, 0.2), (1.6, -2.2, 45.0, 0.5), (-2.4, -2.0, 30.0, 0.1))
"""Arcsec north and east of the middle, flux, sigma in arcsec."""
ZERO_POINT = 3.2
"""Flux of ``high`` over flux of ``low``."""


def drawn(shape: tuple[int, int], wcs: WCS, side: float, fwhm: float, off: tuple[float, float] = (0, 0)) -> Array:
    """The sources in an image: analytic Gaussians, integrated over the pixel; moved by ``off``, px (y, x)."""
    image = np.zeros(shape)
    for north, east, flux, size in SOURCES:
        ra, dec = 150 + east / 3600 / np.cos(np.deg2rad(2)), 2 + north / 3600
        x, y = wcs.all_world2pix([[ra, dec]], 0)[0] + np.array(off)[::-1]
        sigma = float(np.hypot(size, fwhm * SIGMA)) / side * np.sqrt(2)
        lines = [
            np.diff(erf((np.arange(n + 1) - 0.5 - centre) / sigma)) / 2 for n, centre in zip(shape, (y, x), strict=True)
        ]
        image += flux * np.outer(*lines)
    return image


def header(shape: tuple[int, int], side: float, angle: float = 0.0, radesys: str = "ICRS") -> fits.Header:
    """A tangential projection about (150, 2), turned by ``angle`` degrees."""
    wcs = WCS(naxis=2)
    c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    wcs.wcs.ctype, wcs.wcs.crval = ["RA---TAN", "DEC--TAN"], [150, 2]
    wcs.wcs.crpix = [(shape[1] + 1) / 2 + 0.4, (shape[0] + 1) / 2 - 0.3]
    wcs.wcs.cd = np.array([[-c, s], [s, c]]) * side / 3600
    wcs.wcs.radesys = radesys
    if radesys == "FK5":
        wcs.wcs.equinox = 2000.0
    return wcs.to_header()


def pair(folder: Path, off: tuple[float, float] = (0.0, 0.0), angle: float = 25.0, radesys: str = "FK5") -> list[Path]:
    """A sharp frame of 0.05 arcsec px and a coarse one of 0.168, turned, which shows all things ``off`` px away."""
    rng, files = np.random.default_rng(3), []
    for name, shape, side, fwhm, turn, told, system, flux, noise in (
        ("high", (180, 164), 0.05, 0.12, 0.0, (0.0, 0.0), radesys, ZERO_POINT, 0.005),
        ("low", (60, 66), 0.168, 0.7, angle, off, "ICRS", 1.0, 0.005),
    ):
        cards = header(shape, side, turn, system)
        image = flux * drawn(shape, WCS(cards), side, fwhm, told) + 0.3 * side**2 + rng.normal(size=shape) * noise
        files.append(folder / f"{name}.fits")
        fits.PrimaryHDU(image.astype("f4"), cards).writeto(files[-1], overwrite=True)
    return files


PSFS = {"psf_high": "gaussian:fwhm=0.12arcsec", "psf_low": "gaussian:fwhm=0.7arcsec"}


@pytest.mark.parametrize("off", [(0.0, 0.0), (0.4, -0.25), (3.0, 2.0)])
def test_flux_ratio_shift_and_psfs_come_back(tmp_path: Path, off: tuple[float, float]) -> None:
    high, low = pair(tmp_path, off)
    found = register(high, low, **PSFS)
    assert found.flux_ratio == pytest.approx(ZERO_POINT, rel=0.01)  # noise of the sums, and the splines
    assert found.fitted_ratio == pytest.approx(ZERO_POINT, rel=0.01)  # likewise
    c, s = np.cos(np.deg2rad(25)), np.sin(np.deg2rad(25))
    # the coarse frame's axes in the fine one's: both are left-handed, and the coarse one is turned by 25 degrees
    expected = 0.168 * np.array([[c, s], [-s, c]]) @ off
    assert found.shift == pytest.approx(tuple(expected), abs=0.003)  # arcsec: the noise, 3 to 4 errors
    assert found.shift_error is not None and found.shift_error < 0.002
    assert (found.fwhm_high, found.fwhm_low) == pytest.approx((0.127, 0.714), rel=0.02)  # with the pixel in them
    assert found.correlation is not None and found.correlation > 0.99
    assert found.unit == "arcsec"


def test_icrs_and_fk5_are_one_and_the_difference_is_said(tmp_path: Path) -> None:
    found = register(*pair(tmp_path, radesys="FK5"), **PSFS)
    plain = register(*pair(tmp_path, radesys="ICRS"), **PSFS)
    assert found.shift == pytest.approx(plain.shift, abs=1e-6)  # the pixels are the same, and so is the grid
    assert any("RADESYS FK5 and ICRS" in line for line in found.notes)
    assert not any("RADESYS" in line for line in plain.notes)


def test_the_displacement_is_what_scikit_image_finds() -> None:
    from skimage.registration import phase_cross_correlation

    rng = np.random.default_rng(0)
    wcs = WCS(header((150, 170), 0.05))
    one = drawn((150, 170), wcs, 0.05, 0.4) + rng.normal(size=(150, 170)) * 0.001
    two = 0.37 * drawn((150, 170), wcs, 0.05, 0.4, (2.3, -1.6)) + 5 + rng.normal(size=(150, 170)) * 0.001
    found = displacement(one, two, np.ones(one.shape, bool))
    theirs, *_ = phase_cross_correlation(two - two.min(), one - one.min(), upsample_factor=50, normalization=None)
    assert (found.y, found.x) == pytest.approx((2.3, -1.6), abs=0.01)  # px: the noise
    assert (found.y, found.x) == pytest.approx(tuple(theirs), abs=0.05)  # theirs goes in steps of 0.02, and wraps
    assert found.slope == pytest.approx(0.37, rel=0.005)  # the noise


def test_masked_pixels_and_small_units_change_nothing(tmp_path: Path) -> None:
    high, low = pair(tmp_path)
    clean = register(high, low, **PSFS)
    with fits.open(low) as hdus:
        hdus[0].data[5:8, 7:9] = np.nan
        hdus[0].data *= 1e-11
        hdus.writeto(low, overwrite=True)
    with fits.open(high) as hdus:
        hdus[0].data[20, 30:34] = np.nan
        hdus[0].data *= 1e-11
        hdus.writeto(high, overwrite=True)
    dirty = register(high, low, **PSFS)
    assert dirty.flux_ratio == pytest.approx(clean.flux_ratio, rel=1e-3)  # the sky's ring has a few px less
    assert dirty.shift == pytest.approx(clean.shift, abs=1e-3)  # likewise


def test_without_psfs_they_are_measured_on_the_sources(tmp_path: Path) -> None:
    found = register(*pair(tmp_path), radius=2.5)
    assert found.fwhm_low == pytest.approx(0.7, rel=0.1)  # of five sources
    assert found.flux_ratio == pytest.approx(ZERO_POINT, rel=0.02)


def test_where_no_psf_can_be_measured_the_images_are_compared_as_they_are_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(*_: object, **__: object) -> None:
        raise InputError("psf: no source")

    monkeypatch.setattr(image_plane, "measure_plane", measure)
    found = register(*pair(tmp_path), radius=2.5)
    assert found.fwhm_low is None
    assert any("compared as they are" in line for line in found.notes)
    assert found.flux_ratio == pytest.approx(ZERO_POINT, rel=0.05)  # what the blurrier one has beyond 2.5 arcsec


def test_a_truth_is_registered_alike_from_both_sides(tmp_path: Path) -> None:
    from sciresdiff import io

    high, low = (io.read(path) for path in pair(tmp_path, (0.3, 0.2)))
    assert differ_in_pixel_size(high, low) and not differ_in_pixel_size(high, high)
    sharp, wide = PSFS.values()
    there, notes = register_truth(high, low, psf_image=sharp, psf_truth=wide)
    back, _ = register_truth(low, high, psf_image=wide, psf_truth=sharp)
    assert there["flux_ratio"] == pytest.approx(1 / ZERO_POINT, rel=0.01)  # truth over image; the noise
    assert there["finer"] == "image" and back["finer"] == "truth"
    assert there["flux_ratio"] == pytest.approx(1 / back["flux_ratio"], rel=1e-9)  # rounding
    assert there["shift"] == pytest.approx([-part for part in back["shift"]])
    assert any(line.startswith("registration: flux finer / coarser") for line in notes)


def constant(shape: tuple[int, int], side: float, value: float = 1.0) -> Frame:
    """A frame of one value, without coordinates."""
    pixels = np.full((1, *shape), value, np.float32)
    return Frame(pixels, ~np.isfinite(pixels), "astro", pixel_size=PixelSize(side, side, "arcsec"))


@pytest.mark.parametrize("shape", [(60, 50), (4, 5), (2, 2)])
def test_frames_with_nothing_in_them_are_not_measured_and_say_so(shape: tuple[int, int]) -> None:
    coarse = tuple(max(1, n // 2) for n in shape)
    found = register(constant(shape, 0.1), constant(coarse, 0.2))  # type: ignore[arg-type]
    assert found.shift is None and found.flux_ratio is None
    assert any(line.startswith("shift: not measured:") for line in found.notes)


def test_unlike_images_are_not_registered() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(UnmeasuredError, match="too little in common"):
        displacement(rng.normal(size=(40, 40)), rng.normal(size=(40, 40)), np.ones((40, 40), bool))


def test_what_cannot_be_registered_is_refused_in_one_line(tmp_path: Path) -> None:
    high, low = pair(tmp_path)
    fine, coarse = constant((40, 40), 0.1), constant((20, 20), 0.2)
    for give, error, words in (
        (lambda: register(low, high), InputError, "^low.fits: .* give the finer frame first"),
        (lambda: register(high, low, plane_low=5), InputError, "^low.fits: no plane 5; it has 1"),
        (lambda: register(high, low, radius=0), UsageError, "^radius: 0 is no radius"),
        (lambda: register(fine, constant((20, 20), 0.2, np.nan)), InputError, "every pixel is masked"),
        (lambda: register(fine.with_(pixel_size=None), constant((23, 20), 0.2)), InputError, "give --pixel-size"),
    ):
        with pytest.raises(error, match=words) as caught:
            give()
        assert "\n" not in str(caught.value)
    assert register(fine.with_(pixel_size=None), coarse).unit == "px"  # shapes of a whole ratio will do


def test_frames_of_different_skies_are_refused(tmp_path: Path) -> None:
    high, low = pair(tmp_path)
    with fits.open(low) as hdus:
        hdus[0].header["CRVAL1"] = 151.0
        hdus.writeto(low, overwrite=True)
    with pytest.raises(InputError, match="does not overlap"):
        register(high, low)


def test_a_psf_with_negative_wings_is_called_in_question(tmp_path: Path) -> None:
    y, x = np.indices((25, 25)) - 12
    core, wide = (np.exp(-(y**2 + x**2) / (2 * s**2)) / (2 * np.pi * s**2) for s in (1.5, 4.0))
    assert pure.negative_wings(core) == 0
    found = register(*pair(tmp_path), psf_high=core - 0.1 * wide, psf_low=PSFS["psf_low"])
    assert any("wings are negative" in line for line in found.notes)


# KiDS over SDSS, each the flux within a radius of 8 arcsec less the sky of a ring of 10 to 14
KIDS = {"G265911": 1.074, "G265940": 1.112, "G266033": 1.061, "G266035": 1.060, "G266662": 1.050}


@pytest.mark.parametrize("name", KIDS)
def test_sdss_and_kids_galaxies_have_the_ratios_that_are_known(shared_data: Path, name: str) -> None:
    folders = [shared_data / "astro/sdss_kids" / survey for survey in ("KiDS", "SDSS")]
    images, psfs = ([folder / f"{name}{what}.fits" for folder in folders] for what in ("fitim", "psfim"))
    sides = {"pixel_high": 0.2, "pixel_low": 0.339}
    found = register(*images, psf_high=psfs[0], psf_low=psfs[1], radius=8.0, **sides)
    assert found.flux_ratio == pytest.approx(KIDS[name], abs=0.005)  # what other splines or another sky would do
    # known as 1.04 to 1.11 for the five, on magnitude zero point 0 both; 0.02 is the sky's doubt
    assert found.flux_ratio is not None and 1.04 - 0.02 < found.flux_ratio < 1.11 + 0.02
    assert found.fwhm_low is not None and 1.0 < found.fwhm_low < 1.4  # arcsec, SDSS in r
    assert any("wings are negative" in line for line in found.notes)  # KiDS' PSF images have lost their sky
    assert found.flux_ratio == pytest.approx(_photutils(images, 8.0), abs=0.02)  # no matching, no resampling


def _photutils(images: list[Path], radius: float) -> float:
    """The same ratio by exact apertures on the frames' own pixels, about each frame's own brightest place."""
    from astropy.stats import sigma_clipped_stats
    from photutils.aperture import CircularAnnulus, CircularAperture
    from scipy.ndimage import gaussian_filter

    sums = []
    for path, side in zip(images, (0.2, 0.339), strict=True):
        plane = fits.getdata(path).astype(float)
        smooth = gaussian_filter(plane, 1 / side)
        inner = tuple(slice(n // 4, -(n // 4)) for n in plane.shape)
        y, x = np.add(np.unravel_index(np.argmax(smooth[inner]), smooth[inner].shape), [n // 4 for n in plane.shape])
        ring = CircularAnnulus((x, y), 1.25 * radius / side, 1.75 * radius / side).to_mask(method="center")
        sky = sigma_clipped_stats(ring.get_values(plane))[1]
        sums.append(CircularAperture((x, y), radius / side).do_photometry(plane - sky)[0][0])
    return float(sums[0] / sums[1])


def test_the_shift_between_hubble_and_subaru_is_a_tenth_of_an_arcsec(shared_data: Path) -> None:
    folder = shared_data / "astro/scarlet_pair"
    psfs = {"psf_high": folder / "PSF_HST.fits", "psf_low": folder / "PSF_HSC.fits"}
    for band in range(5):  # g r i z y
        found = register(folder / "Cut_HST.fits", folder / "Cut_HSC.fits", plane_low=band, **psfs)
        assert found.shift is not None and found.distance is not None and found.flux_ratio is not None
        if band == 2:  # i, which F814W is nearest to; in the others the colours of the blend move it
            assert found.distance == pytest.approx(0.09, abs=0.01)  # arcsec; the error is 0.01
            assert found.flux_ratio == pytest.approx(found.fitted_ratio, rel=0.05)  # the two skies differ by 3 %
    assert found.fwhm_high == pytest.approx(0.10, abs=0.01)  # arcsec, F814W


def test_evaluate_registers_a_truth_by_another_instrument_and_scores_nothing_by_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    for name, pixel, side in (("image", 0.1, 96), ("truth", 0.06, 160)):
        yy, xx = np.indices((side, side)) * pixel
        light = sum(1e3 * np.exp(-((yy - y) ** 2 + (xx - x) ** 2) / (2 * 0.2**2)) for y, x in rng.uniform(2, 7, (9, 2)))
        header = fits.Header({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 10.0, "CRVAL2": 0.0,
                              "CRPIX1": (side + 1) / 2, "CRPIX2": (side + 1) / 2, "CDELT1": -pixel / 3600,
                              "CDELT2": pixel / 3600, "CUNIT1": "deg", "CUNIT2": "deg"})  # fmt: skip
        fits.PrimaryHDU((light + rng.normal(size=light.shape)).astype("f4"), header).writeto(tmp_path / f"{name}.fits")
    record = evaluate.run(tmp_path / "image.fits", truth=tmp_path / "truth.fits", baselines="none")
    assert {"flux_ratio", "shift", "fwhm_image", "fwhm_truth"} <= set(record["registration"]) | {"said"}
    assert any(line.startswith("WARNING truth: ") for line in record["said"])
    assert next(r for r in record["results"] if r["name"] == "psnr")["value"] is None

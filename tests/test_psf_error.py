"""An error of the PSF's width: what the frame says of it, and what it does to noise and samples."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from sciresdiff.errors import UsageError
from sciresdiff.io.source import in_memory
from sciresdiff.notes import Notes
from sciresdiff.observation.noise import PER_PIXEL
from sciresdiff.observation.observation import Observation
from sciresdiff.observation.options import Stated
from sciresdiff.observation.psf_error import USUAL, error_of_kernel, resolve_psf_error, share_of, with_width_errors
from sciresdiff.observation.sample import samples_of_frame
from sciresdiff.options import Option
from sciresdiff.physics import psf
from sciresdiff.physics.operators import Operator
from sciresdiff.physics.psf.field import PSF
from sciresdiff.physics.psf.rescale import rescale_kernel
from sciresdiff.physics.psf.source_width import Profile, source_widths
from sciresdiff.physics.psf.width_error import WidthError
from sciresdiff.region import Region
from sciresdiff.restoration.kernel_width import KernelWidth, correct_width, weigh
from sciresdiff.restoration.posterior import width_of_draw
from sciresdiff.restoration.restore import restore
from sciresdiff.restoration.settings import Settings

Array = NDArray[Any]
SCALE, SIGMA = 4, 2.4


def gaussian(sigma: float) -> Array:
    return psf.render(f"gaussian:sigma={sigma}px", None, integrate=False)


@cache
def stars(sigma: float, seed: int = 3, side: int = 96, point: float = 2.0) -> tuple[Array, Array]:
    """Stars of FWHM ``point`` fine px, one in every 25 coarse pixels, blurred; with photon and read noise."""
    rng = np.random.default_rng(seed)
    image = np.zeros((SCALE * side, SCALE * side))
    count = side * side // 25
    y, x = rng.integers(0, SCALE * side, (2, count))
    image[y, x] = 10 ** rng.uniform(3, 5.5, count)
    seen = gaussian_filter(image, np.hypot(sigma, point / 2.3548), truncate=5)
    expected = seen.reshape(side, SCALE, side, SCALE).sum((1, 3))
    variance = 0.1 * expected + 32**2
    return expected + rng.normal(size=expected.shape) * np.sqrt(variance), variance


def observed(sigma: float, stated: float, error: float, origin: str, field: Array | None = None) -> Observation:
    """Stars blurred by ``sigma``, of which another width is stated, with an error."""
    pixels, variance = stars(sigma)
    observation = Observation.of_arrays(pixels if field is None else field, variance, SCALE, gaussian(stated))
    exposure = observation.exposure
    psfs, noise = with_width_errors((exposure.psf,), exposure.noise, SCALE, [error])
    exposure = replace(exposure, psf=psfs[0], noise=noise)
    return replace(observation, exposures=[exposure], notes=Notes(psf=origin))


def corrected(observation: Observation, point: float | None) -> Observation:
    frame = observation.exposure.plane
    exposure = replace(observation.exposure, image=in_memory(frame))
    return correct_width(replace(observation, exposures=[exposure]), samples_of_frame(frame), point)


def factor_of(observation: Observation) -> float:
    return float(observation.notes.origins.get("psf_factor", 1))


# --- a kernel of another width --------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.8, 1.2, 2.4])
@pytest.mark.parametrize("factor", [0.9, 1.05, 1.2])
def test_a_kernel_drawn_out_is_the_one_of_that_width(sigma: float, factor: float) -> None:
    kernel, wanted = (np.pad(gaussian(sigma), 12), np.pad(gaussian(sigma * factor), 12))
    n = max(len(kernel), len(wanted))
    kernel, wanted = (np.pad(k, (n - len(k)) // 2) for k in (kernel, wanted))
    change = np.abs(wanted - kernel).sum()
    assert np.abs(rescale_kernel(kernel, factor) - wanted).sum() < 0.1 * change  # what interpolation costs at 0.8 px
    assert rescale_kernel(kernel, factor).sum() == pytest.approx(1)


@pytest.mark.parametrize("sigma", [0.4, 0.6])
def test_a_kernel_that_is_too_narrow_to_be_interpolated_gets_the_moments(sigma: float) -> None:
    kernel = np.pad(gaussian(sigma), 4)
    line = np.arange(len(kernel)) - len(kernel) // 2
    variance = lambda k: float((k.sum(1) * line**2).sum())  # noqa: E731
    assert variance(rescale_kernel(kernel, 1.1)) == pytest.approx(1.21 * variance(kernel), rel=1e-6)


def test_nothing_changes_at_a_factor_of_1_and_of_a_single_pixel() -> None:
    kernel = gaussian(1.2)
    assert rescale_kernel(kernel, 1) is kernel
    assert np.array_equal(rescale_kernel(np.ones((1, 1)), 1.3), np.ones((1, 1)))


def test_the_operator_and_the_psf_are_drawn_out_alike() -> None:
    image = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 1, 40, 40)))
    weights = np.stack([np.linspace(0, 1, 40)[None].repeat(40, 0), np.linspace(1, 0, 40)[None].repeat(40, 0)])
    kernels = np.stack([gaussian(1.2), np.pad(gaussian(1.0), 1)])
    for kernel in (PSF.constant(gaussian(1.2)), PSF(kernels, weights)):
        operator = Operator((20, 20), 2, kernel, dtype=torch.float64)
        wider = Operator((20, 20), 2, kernel.rescale(1.1), dtype=torch.float64)
        assert torch.allclose(operator.rescale(1.1).apply(image), wider.apply(image))


# --- what it changes in the data ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", [gaussian(4.0), psf.gaussian(9.0, ratio=0.6, theta=30.0)])
def test_the_change_of_the_data_is_that_of_the_operators(kernel: Array) -> None:
    rng = np.random.default_rng(1)
    image = gaussian_filter(rng.normal(size=(128, 128)) ** 4, 3)
    apply = lambda k: Operator((64, 64), 2, k, dtype=torch.float64).apply(torch.from_numpy(image)[None, None])[0, 0]  # noqa: E731
    change = WidthError.of_kernel(kernel, 2, 0.05).change(apply(kernel).numpy(), np.zeros((64, 64), bool))
    true = ((apply(rescale_kernel(kernel, 1.02)) - apply(rescale_kernel(kernel, 0.98))) / 0.04).numpy()
    inside = np.s_[12:-12, 12:-12]
    assert np.corrcoef(change[inside].ravel(), true[inside].ravel())[0, 1] > 0.99
    assert change[inside].std() == pytest.approx(true[inside].std(), rel=0.12)  # second differences of a sampled image


def test_masked_pixels_and_their_neighbours_are_not_counted_as_light() -> None:
    light, bad = np.full((9, 9), 100.0), np.zeros((9, 9), bool)
    light[4, 4], bad[4, 4] = 1e9, True
    assert not WidthError(0.1, (1.0, 1.0, 0.3)).change(light, bad).any()


def test_windows_have_the_noise_of_the_frame() -> None:
    exposure = observed(SIGMA, SIGMA, 0.05, "--kernel").exposure
    whole = exposure.window(0, Region.of_shape(exposure.grid.shape)).variance
    part = Region(13, 50, 7, 61)
    assert np.array_equal(exposure.window(0, part).variance, whole[part.slices])


def test_noise_grows_in_cores_and_rings_and_not_in_the_sky() -> None:
    pixels, variance = stars(SIGMA)
    more = observed(SIGMA, SIGMA, 0.05, "--kernel").exposure.variance - variance
    brightest = np.unravel_index(np.argmax(pixels), pixels.shape)
    assert more[brightest] > 10 * variance[brightest]
    assert np.median(more / variance) < 0.1


def test_a_restoration_takes_the_smallest_part_for_noise_of_single_pixels() -> None:
    data, less = (observed(SIGMA, SIGMA, error, "--kernel").data() for error in (0.2, PER_PIXEL))
    assert torch.equal(data.noise, less.noise)
    assert data.width_error == 0.2


# --- where the error comes from -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("origin", "share"), [*USUAL.items(), ("--kernel", 0.0), ("file", 0.0)])
def test_the_usual_error_is_by_the_origin(origin: str, share: float) -> None:
    assert share_of(PSF.constant(gaussian(1.2)), Stated(), origin) == share


def test_what_is_stated_wins_over_what_was_measured_and_that_over_what_is_usual() -> None:
    measured = PSF(gaussian(1.2)[None], width_error=0.013)
    assert share_of(measured, Stated(), "measured") == 0.013
    assert share_of(measured, Stated(psf_error=0.0), "measured") == 0.0
    assert share_of(None, Stated(psf_error=0.07), "--kernel") == 0.07


def test_all_of_the_error_of_a_whole_psf_is_the_kernels() -> None:
    kernel = PSF.constant(gaussian(1.2))
    assert error_of_kernel(kernel, 0.05, 1.44) == pytest.approx(0.1, rel=1e-4)  # half of the variance is the target's


def test_an_exact_psf_leaves_noise_and_psf_as_they_are() -> None:
    observation = Observation.of_arrays(*stars(SIGMA), SCALE, gaussian(SIGMA))
    exposure = observation.exposure
    psfs, noise, notes = resolve_psf_error((exposure.psf, None), exposure.noise, Stated(), SCALE, None, "--kernel")
    assert (psfs, noise, tuple(notes)) == ((exposure.psf, None), exposure.noise, ())


def test_an_error_of_the_width_is_another_psf_to_a_run() -> None:
    kernel = gaussian(1.2)[None]
    assert PSF(kernel, width_error=0.05).digest != PSF(kernel).digest == PSF(kernel, width_error=0.0).digest


@pytest.mark.parametrize("value", [-0.1, 0.6, float("nan")])
def test_an_error_that_is_none_is_refused(value: float) -> None:
    with pytest.raises(UsageError, match="--psf-error"):
        Option.of(Stated, "psf_error").checked("--psf-error", value)


# --- what the frame says --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [0.93, 1.0, 1.08])
def test_sources_in_a_crowded_field_tell_the_width(width: float) -> None:
    pixels, variance = stars(SIGMA)
    whole = psf.render(f"gaussian:sigma={np.hypot(SIGMA, 2 / 2.3548) / width}px", None, integrate=False)
    found = source_widths(pixels, np.zeros(pixels.shape, bool), variance, whole, SCALE)
    assert len(found.widths) > 30
    assert np.median(found.widths) == pytest.approx(width, abs=0.01)


def test_a_profile_of_another_width_is_that_of_the_psf_drawn_out() -> None:
    narrow, wide = (Profile(np.pad(gaussian(sigma), 16), 2) for sigma in (2.0, 2.2))
    place = np.array([[0.3, -0.2]])
    assert narrow.at(place, 1.1, 6) == pytest.approx(
        wide.at(place, 1.0, 6), abs=5e-4
    )  # 0.4 % of the peak: sums over pixels, interpolated


@pytest.mark.parametrize("off", [-0.08, 0.08])
def test_a_width_is_corrected_where_the_wanted_image_is_stated(off: float) -> None:
    found = corrected(observed(SIGMA, SIGMA * (1 + off), 0.1, "--psf"), 2.0)
    assert factor_of(found) * (1 + off) == pytest.approx(1, abs=0.02)
    assert (found.exposure.psf.width_error or 1) < 0.02  # the stars know it better than the statement
    assert any("wider than stated" in line or "narrower than stated" in line for line in found.notes)


@pytest.mark.parametrize("off", [-0.1, 0.1])
def test_a_kernel_alone_is_corrected_by_half_at_least(off: float) -> None:
    found = corrected(observed(SIGMA, SIGMA * (1 + off), 0.1, "--kernel"), None)
    assert abs(factor_of(found) * (1 + off) - 1) < 0.05


@pytest.mark.parametrize(("origin", "point"), [("--psf", 2.0), ("--kernel", None)])
def test_a_width_that_is_right_stays(origin: str, point: float | None) -> None:
    found = corrected(observed(SIGMA, SIGMA, 0.1, origin), point)
    assert factor_of(found) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("origin", ["measured", "file", "blind"])
def test_a_measured_width_is_not_measured_again(origin: str) -> None:
    observation = observed(SIGMA, 1.1 * SIGMA, 0.1, origin)
    assert corrected(observation, 2.0).exposure.psf == observation.exposure.psf


def test_a_frame_without_fine_structure_tells_nothing() -> None:
    y, x = np.mgrid[:96, :96] / 20
    pixels, variance = stars(SIGMA)
    smooth = 3000 * (2 + np.sin(y) * np.cos(x)) + np.random.default_rng(0).normal(size=y.shape) * np.sqrt(variance)
    observation = observed(SIGMA, SIGMA, 0.1, "--kernel", smooth)
    assert factor_of(corrected(observation, None)) == 1


def test_sources_far_wider_than_the_psf_are_taken_for_their_own_size() -> None:
    assert weigh(0.05, KernelWidth(1.4, 0.02), "they show", extended=False)[0] == 1
    assert weigh(0.05, KernelWidth(1.08, 0.02), "they show", extended=True)[0] == 1
    assert weigh(0.05, KernelWidth(1.08, 0.02), "they show", extended=False)[0] > 1.05


def test_sources_far_narrower_than_the_psf_are_warned_of() -> None:
    factor, _, line = weigh(0.05, KernelWidth(0.7, 0.02), "they show", extended=True)
    assert line.startswith("WARNING psf:") and 0.9 <= factor < 0.95


# --- the samples ----------------------------------------------------------------------------------------------------


def test_the_widths_of_samples_have_mean_0_and_scatter_1() -> None:
    for seed in range(3):
        z = np.array([width_of_draw(seed, draw) for draw in range(64)])
        assert z.mean() == 0 and z[::2] == pytest.approx(-z[1::2])
        assert z.std() == pytest.approx(1, abs=0.1)  # of 32 pairs


def test_err_grows_with_the_error_of_the_width_where_there_is_light() -> None:
    pixels, _ = stars(SIGMA)
    known, doubted = (
        restore(observed(SIGMA, SIGMA, error, "--kernel"), None, Settings(samples=4)) for error in (PER_PIXEL, 0.1)
    )
    bright = np.kron(pixels > np.quantile(pixels, 0.99), np.ones((SCALE, SCALE))).astype(bool)
    assert np.median((doubted.err / known.err)[bright]) > 1.2
    # the mean is of pairs with opposite widths, so that their changes cancel
    assert doubted.mean == pytest.approx(known.mean, abs=0.02 * float(np.abs(known.mean).max()))

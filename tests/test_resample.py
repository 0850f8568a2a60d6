"""Resampling keeps light and places, has its transpose for an adjoint, and is the block sum where grids agree."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from astropy.wcs import WCS

from sciresdiff.errors import InputError
from sciresdiff.physics.affine import Affine
from sciresdiff.physics.resample import corners_of, density, light_before, resample


def placed(scale: float, angle: float = 0.0, shift: tuple[float, float] = (0.0, 0.0), middle: float = 15.5):
    """The map of exposure pixels to those of an image, ``scale`` of which are one of the exposure's."""
    t = np.radians(angle)
    turn = scale * np.array([[np.cos(t), np.sin(t)], [-np.sin(t), np.cos(t)]])
    centre = np.array([middle, middle])
    return lambda p: (p - centre) @ turn.T + scale * (centre + 0.5) - 0.5 + np.array(shift)


def star(size: int, y: float, x: float, sigma: float) -> np.ndarray:
    yy, xx = np.mgrid[:size, :size]
    return np.exp(-((yy - y) ** 2 + (xx - x) ** 2) / (2 * sigma**2)) / (2 * np.pi * sigma**2)


MAPS = {
    "shift": placed(2, 0, (0.3, -0.45)),
    "small turn": placed(2, 0.5, (0.2, 0.7)),
    "turn": placed(2, 33, (0.2, 0.7)),
    "decimal": placed(1.5, 0, (0.2, 0.1)),
    "large": placed(4, 12),
    "scale 1": placed(1, -8, (0.4, 0.4)),
}


@pytest.mark.parametrize("name", MAPS)
def test_the_adjoint_is_the_transpose(name: str) -> None:
    rng = np.random.default_rng(0)
    r = resample(corners_of((32, 32), MAPS[name]), (64, 64), torch.float64)
    x, y = (torch.from_numpy(rng.normal(size=(1, 1, n, n))) for n in (64, 32))
    assert float((r.apply(x) * y).sum()) == pytest.approx(float((x * r.adjoint(y)).sum()), rel=1e-12)


@pytest.mark.parametrize("name", MAPS)
def test_flux_and_place_of_a_star(name: str) -> None:
    place, size = MAPS[name], 144 if name == "large" else 64
    r = resample(corners_of((32, 32), place), (size, size), torch.float64)
    scale = np.sqrt(np.median(r.area[r.coverage]))
    image = star(size, *place(np.array([15.2, 16.1])), max(1.2, 0.65 * scale))  # which the exposure resolves
    seen = r.apply(torch.from_numpy(image)).numpy()
    assert seen.sum() == pytest.approx(image.sum(), rel=1e-6)
    yy, xx = np.mgrid[:32, :32]
    found = (seen * yy).sum() / seen.sum(), (seen * xx).sum() / seen.sum()
    # the density is exact for parabolas, and a star is none: 0.0021 px of the exposure at most here
    assert found == pytest.approx((15.2, 16.1), abs=3e-3)


def test_a_shift_does_not_blur() -> None:
    """The light of a star, integrated over pixels that lie between those of the image, against the exact integral."""
    from scipy.special import erf

    sigma, shift = 0.85, (0.5, 0.5)  # 2 px FWHM, the PSF of a restored image
    place = placed(2, 0, shift)
    r = resample(corners_of((32, 32), place), (64, 64), torch.float64)
    image = star(64, 31.4, 30.8, sigma)
    edges = 2 * (np.arange(33) - 0.5) + 0.5 + 0.5
    lines = [np.diff(0.5 * erf((edges - at) / (np.sqrt(2) * sigma))) for at in (31.4, 30.8)]
    exact = np.multiply.outer(*lines)
    seen = r.apply(torch.from_numpy(image)).numpy()
    wide = np.mean([np.roll(image, (-i, -j), (0, 1)) for i in (0, 1) for j in (0, 1)], axis=0)
    overlap = np.abs(wide.reshape(32, 2, 32, 2).sum((1, 3)) - exact).max()
    # half-way between pixels cubic convolution of a star of 2 px FWHM is 4.5 % too low, areas of overlap 14 %
    assert np.abs(seen - exact).max() < 0.05 * exact.max()
    assert np.abs(seen - exact).max() < 0.5 * overlap


@pytest.mark.parametrize("ratio", [1, 2, 3])
@pytest.mark.parametrize("turn", [0, 90, 180, 270, 1e-3])
def test_grids_that_agree_are_a_block_sum(ratio: int, turn: float) -> None:
    x = np.random.default_rng(1).normal(size=(ratio * 24, ratio * 24))
    place = placed(ratio, turn, middle=11.5)
    r = resample(corners_of((24, 24), place), (ratio * 24, ratio * 24), torch.float64)
    low = r.apply(torch.from_numpy(x)).numpy()
    block = x.reshape(24, ratio, 24, ratio).sum((1, 3))
    if turn == 1e-3:  # degrees: corners leave the image, and pixels lie 2e-4 px beside those of the block
        np.testing.assert_allclose(low[1:-1, 1:-1], block[1:-1, 1:-1], atol=5e-3)
    else:
        np.testing.assert_allclose(low, np.rot90(block, round(turn / 90)), atol=1e-12)


def test_weights_are_parabolas_with_the_light_of_every_pixel() -> None:
    """Against parabolas fitted to the light of pixels: their edges by a cubic through the light of four of them."""
    rng = np.random.default_rng(5)
    light = rng.normal(size=9)
    edges = np.arange(-0.5, 9)

    def before(k: int, x: float) -> float:
        """Light before x, by a polynomial through its sums at the five edges about edge k; its slope is the density."""
        some = np.arange(k - 2, k + 3)
        fitted = np.polynomial.Polynomial.fit(edges[some], np.append(0, light.cumsum())[some], 4)
        return float(fitted.deriv()(x))

    for k in (3, 4, 5):
        left, right = before(k, edges[k]), before(k + 1, edges[k + 1])
        # the parabola with these ends and the light of the pixel: three equations for its three coefficients
        system = np.array([[1, 0, 0], [1, 1, 1], [1, 1 / 2, 1 / 3]])
        one, two, three = np.linalg.solve(system, [left, right, light[k]])
        for t in (0.0, 0.2, 0.5, 0.9):
            expected = one + two * t + three * t**2
            assert density(np.array([k - 0.5 + t]), 9)[0] @ light == pytest.approx(expected)
            sums = light[:k].sum() + one * t + two * t**2 / 2 + three * t**3 / 3
            assert light_before(np.array([k - 0.5 + t]), 9)[0] @ light == pytest.approx(sums)


@pytest.mark.parametrize("angle", [0, 1, 10, 33])
def test_the_integral_over_a_turned_pixel(angle: float) -> None:
    """Of a parabola, which the density is exact for, against its closed integral over every pixel."""
    place = placed(2, angle, (0.3, -0.45), middle=9.5)
    corners = corners_of((20, 20), place)
    r = resample(corners, (44, 44), torch.float64)
    y, x = np.mgrid[:44, :44] - 20.0
    # light of f = 1 + y / 9 + x y / 50 + x^2 / 99 in the image's pixels; the integral of x^2 has 1/12 besides
    image = 1 + y / 9 + x * y / 50 + (x**2 + 1 / 12) / 99
    seen = r.apply(torch.from_numpy(image)).numpy()
    at, weight = np.polynomial.legendre.leggauss(3)  # exact for what is a parabola along every line
    expected = np.zeros((20, 20))
    i = np.mgrid[:20, :20].transpose(1, 2, 0)
    for dy, wy in zip(at / 2, weight / 2, strict=True):
        for dx, wx in zip(at / 2, weight / 2, strict=True):
            py, px = np.moveaxis(place(i + np.array([dy, dx])) - 20.0, -1, 0)
            expected += 4 * wy * wx * (1 + py / 9 + px * py / 50 + px**2 / 99)
    # near the border the image is reflected, which no parabola is, and its pixels are seen in part
    inner = (slice(4, -4),) * 2
    limit = {0: 1e-12, 1: 1e-8}.get(angle, 2e-2)  # of 8: kinks of the density cross pixels that are turned by more
    np.testing.assert_allclose(seen[inner], expected[inner], atol=limit)


@pytest.mark.parametrize("distortion", ["SIP", "none"])
def test_a_plate_solution_with_distortion(distortion: str) -> None:
    """A source at a place in the sky comes out there to 1 mas."""
    fine, low = WCS(naxis=2), WCS(naxis=2)
    for wcs, step, middle in ((fine, 0.05, 32.5), (low, 0.1, 16.5)):
        wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
        wcs.wcs.crval, wcs.wcs.crpix = [150.0, 2.0], [middle, middle]
        wcs.wcs.cd = np.array([[-step, 0.0], [0.0, step]]) / 3600
    if distortion == "SIP":
        from astropy.wcs import Sip

        a, b = np.zeros((3, 3)), np.zeros((3, 3))
        a[2, 0], b[0, 2], a[1, 1] = 2e-4, -3e-4, 1e-4
        low.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"]
        low.sip = Sip(a, b, None, None, low.wcs.crpix)

    def place(p: np.ndarray) -> np.ndarray:
        x, y = fine.all_world2pix(*low.all_pix2world(p[..., 1].ravel(), p[..., 0].ravel(), 0), 0)
        return np.stack([y, x], -1).reshape(p.shape)

    r = resample(corners_of((32, 32), place), (64, 64), torch.float64)
    at = np.array([14.3, 17.2])
    image = star(64, *place(at[None])[0], 1.2)
    seen = r.apply(torch.from_numpy(image)).numpy()
    yy, xx = np.mgrid[:32, :32]
    found = np.array([(seen * yy).sum(), (seen * xx).sum()]) / seen.sum()
    sky = [low.all_pix2world(*p[::-1], 0) for p in (found, at)]
    assert np.abs(np.subtract(*sky)).max() * 3600e3 < 1.0
    assert seen.sum() == pytest.approx(image.sum(), rel=1e-6)


def test_an_affine_map_serves() -> None:
    turn = Affine(2 * np.eye(2), np.array([0.5, 0.5]))
    r = resample(corners_of((16, 16), turn), (32, 32))
    assert r.coverage.all() and r.area == pytest.approx(np.full((16, 16), 4.0), rel=1e-3)


@pytest.mark.parametrize("corners", [np.full((3, 3, 2), np.nan), 1e4 * np.indices((3, 3)).transpose(1, 2, 0)])
def test_maps_that_are_none(corners: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"^wcs: "):
        resample(corners, (16, 16))

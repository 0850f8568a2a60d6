"""Resampling keeps light and places, has its transpose for an adjoint, and is the block sum where grids agree."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from astropy.wcs import WCS

from sciresdiff.errors import InputError
from sciresdiff.physics.affine import Affine
from sciresdiff.physics.resample import corners_of, resample


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
    scale = np.sqrt(np.median(r.area[r.covered]))
    image = star(size, *place(np.array([15.2, 16.1])), max(1.2, 0.65 * scale))  # which the exposure resolves
    seen = r.apply(torch.from_numpy(image)).numpy()
    assert seen.sum() == pytest.approx(image.sum(), rel=1e-6)
    yy, xx = np.mgrid[:32, :32]
    found = (seen * yy).sum() / seen.sum(), (seen * xx).sum() / seen.sum()
    # cubic convolution is exact for parabolas, and a star is none: 0.0013 px of the exposure at most here
    assert found == pytest.approx((15.2, 16.1), abs=2e-3)


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


def test_grids_that_agree_are_a_block_sum() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(64, 64))
    r = resample(corners_of((32, 32), placed(2)), (64, 64), torch.float64)
    low = r.apply(torch.from_numpy(x)).numpy()
    block = x.reshape(32, 2, 32, 2).sum((1, 3))
    # the interpolation is no pavement of squares: smooth images agree, and all keep their light
    smooth = star(64, 30, 33, 4.0)
    soft = r.apply(torch.from_numpy(smooth)).numpy()
    assert np.abs(soft - smooth.reshape(32, 2, 32, 2).sum((1, 3))).max() < 0.02 * soft.max()
    assert low.sum() == pytest.approx(block.sum(), abs=1e-6 * np.abs(x).sum())


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
    assert r.covered.all() and r.area == pytest.approx(np.full((16, 16), 4.0), rel=1e-3)


@pytest.mark.parametrize("corners", [np.full((3, 3, 2), np.nan), 1e4 * np.indices((3, 3)).transpose(1, 2, 0)])
def test_maps_that_are_none(corners: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"^wcs: "):
        resample(corners, (16, 16))

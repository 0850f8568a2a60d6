"""Colours of bands that --match-psf brings to one PSF, and of bands that are smoothed by hand: docs/how-to/bands.md.

    python docs/benchmarks/match_psf.py [--fields 4] [--scale 2] [--target-fwhm PX] [--depth 1]

Three bands of simulated fields: pixels of 0.10, 0.10 and 0.15 arcsec, FWHM of 0.22, 0.26 and 0.45 arcsec, shifts, and
rotations of up to 7 degrees; stars of known colours and galaxies whose bulges are redder than their discs. All profiles
are Gaussians, so that the light in every pixel and in every aperture is known. The rival is what is done by hand: cubic
interpolation on the same grid, and a Gaussian that widens every band to the widest PSF.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from astropy.wcs.utils import pixel_to_pixel
from numpy.typing import NDArray
from photutils.aperture import CircularAperture, aperture_photometry
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.special import erf

from sciresdiff.jobs.upscale.joint import run_joint
from sciresdiff.jobs.upscale.match import match_bands
from sciresdiff.jobs.upscale.options import UpscaleOptions

Array = NDArray[np.float64]
SIGMA = 2.354820045
SKY = 30.0
BANDS: dict[str, tuple[float, float, float, tuple[float, float], float, float]] = {
    "g": (0.10, 0.22, 0.0, (0.0, 0.0), 12.8, 5.0),
    "r": (0.10, 0.26, 3.0, (0.03, -0.21), 12.8, 5.0),
    "J": (0.15, 0.45, -7.0, (-0.11, 0.07), 15.0, 8.0),
}
"""Pixel and FWHM, arcsec; degrees; shift (y, x) and side, arcsec; noise of a pixel."""
COLOURS = {"g": (1.0, 1.0, 1.0), "r": (1.5, 1.2, 2.0), "J": (2.5, 1.4, 4.0)}
"""Light of stars (to a power), discs and bulges."""
Source = tuple[str, float, float, list[tuple[float, dict[str, float]]]]


def make_field(seed: int) -> list[Source]:
    """Kind, place (north, west; arcsec), and size (arcsec) and flux in every band of each part."""
    rng, found = np.random.default_rng(seed), []
    for k in range(36):
        y, x = (np.array(divmod(k, 6)) - 2.5) * 1.9 + rng.uniform(-0.3, 0.3, 2)
        flux, power = 10 ** rng.uniform(3.6, 4.6), rng.uniform(0.7, 1.3)
        if k % 3:
            parts = [(0.0, {band: flux * COLOURS[band][0] ** power for band in BANDS})]
        else:
            parts = [(0.06, {band: 0.9 * flux * COLOURS[band][2] for band in BANDS})]
            parts += [(0.25, {band: 2.1 * flux * COLOURS[band][1] for band in BANDS})]
        found.append(("star" if k % 3 else "galaxy", y, x, parts))
    return found


def header_of(band: str) -> fits.Header:
    """The WCS of a band."""
    pixel, _, degrees, shift, side, _ = BANDS[band]
    n, c, s = round(side / pixel), np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    cards = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.1, "CRVAL2": 2.2, "BUNIT": "electron"}
    cards |= {f"CRPIX{i}": (n + 1) / 2 + shift[2 - i] / pixel for i in (1, 2)}
    step = pixel / 3600
    return fits.Header({**cards, "CD1_1": -step * c, "CD1_2": step * s, "CD2_1": step * s, "CD2_2": step * c})


def places_on(header: fits.Header, field: list[Source]) -> Array:
    """(N, 2) of x and y, px."""
    matrix = np.array([[header["CD1_1"], header["CD1_2"]], [header["CD2_1"], header["CD2_2"]]])
    offsets = np.array([[-x, y] for _, y, x, _ in field]) / 3600
    return np.linalg.solve(matrix, offsets.T).T + [header["CRPIX1"] - 1, header["CRPIX2"] - 1]


def write_band(path: Path, band: str, field: list[Source], depth: float, rng: np.random.Generator) -> None:
    """One band with its noise."""
    pixel, fwhm, _, _, side, noise = BANDS[band]
    header, edges = header_of(band), np.arange(round(side / pixel) + 1) - 0.5
    image = np.full((len(edges) - 1,) * 2, SKY)
    for (x, y), (_, _, _, parts) in zip(places_on(header, field), field, strict=True):
        for size, flux in parts:
            wide = np.hypot(size, fwhm / SIGMA) / pixel * np.sqrt(2)
            image += depth * flux[band] * np.outer(*(np.diff(erf((edges - at) / wide)) / 2 for at in (y, x)))
    variance = image - SKY + noise**2
    noisy = image + rng.normal(size=image.shape) * np.sqrt(variance)
    planes = [fits.ImageHDU(noisy.astype("f4"), header, "SCI"), fits.ImageHDU(variance.astype("f4"), name="VAR")]
    fits.HDUList([fits.PrimaryHDU(), *planes]).writeto(path, overwrite=True)


def smooth_band(path: Path, band: str, grid: fits.Header, fwhm: float) -> Array:
    """The rival: a band on a grid, widened to a FWHM (arcsec)."""
    own, pixel = BANDS[band][1], BANDS[band][0]
    step = 3600 * float(np.hypot(grid["CD1_1"], grid["CD2_1"]))
    x, y = np.meshgrid(np.arange(grid["NAXIS1"]), np.arange(grid["NAXIS2"]))
    with fits.open(path) as file:
        u, v = pixel_to_pixel(WCS(grid), WCS(file["SCI"].header), x, y)
        image = map_coordinates(file["SCI"].data.astype(float), [v, u], order=3, mode="nearest") * (step / pixel) ** 2
    more = fwhm**2 - own**2 - SIGMA**2 * pixel**2 / 12
    return np.asarray(gaussian_filter(image, np.sqrt(max(more, 0)) / SIGMA / step))


def true_light(source: Source, band: str, fwhm: float, radius: float, depth: float) -> float:
    """Flux in an aperture at a Gaussian PSF, all in arcsec."""
    parts = source[3]
    wide = [(size**2 + (fwhm / SIGMA) ** 2, flux[band]) for size, flux in parts]
    return depth * sum(flux * (1 - np.exp(-(radius**2) / 2 / square)) for square, flux in wide)


def errors_of(planes: dict[str, Array], grid: fits.Header, field: list[Source], fwhm: float, radius: float,
              depth: float) -> dict[tuple[str, str], list[tuple[float, float]]]:  # fmt: skip
    """Errors of colours over g, and what the samples say of them, by band and kind; planes: image, then samples."""
    step = 3600 * float(np.hypot(grid["CD1_1"], grid["CD2_1"]))
    apertures = CircularAperture(places_on(grid, field), radius / step)
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    light = {}
    for band, stack in planes.items():
        sky = SKY * (step / BANDS[band][0]) ** 2
        light[band] = np.array([aperture_photometry(p - sky, apertures, method="exact")["aperture_sum"] for p in stack])
    for band in ("r", "J"):
        for k, source in enumerate(field):
            true = [true_light(source, b, fwhm, radius, depth) for b in (band, "g")]
            colours = light[band][:, k] / light["g"][:, k] / (true[0] / true[1])
            spread = [float(np.mean((light[b][1:, k] / light[b][0, k] - 1) ** 2)) if len(colours) > 1 else 0
                      for b in (band, "g")]  # fmt: skip
            found.setdefault((band, source[0]), []).append((float(colours[0] - 1), float(np.sqrt(sum(spread)))))
    return found


def measure(seed: int, folder: Path, given: argparse.Namespace) -> dict[Any, list[tuple[float, float]]]:
    """All colours of one field."""
    field, rng = make_field(seed), np.random.default_rng(seed + 100)
    paths = {band: folder / f"{band}.fits" for band in BANDS}
    for band, path in paths.items():
        write_band(path, band, field, given.depth, rng)
    psf = " | ".join(f"gaussian:fwhm={one[1]}arcsec" for one in BANDS.values())
    options = UpscaleOptions(match_psf=True, scale=given.scale, target_fwhm=given.target_fwhm, psf=psf,
                             cosmic=False, save_samples=True, overwrite=True)  # fmt: skip
    ours, rival, fwhm = {}, {}, 0.0
    for (band, path), one in zip(paths.items(), match_bands(list(paths.values()), options), strict=True):
        record = run_joint([path], out := folder / f"{band}_matched.fits", one)
        with fits.open(out) as file:
            ours[band] = np.concatenate([file["SCI"].data[None], file["DRAWS"].data]).astype(float)
            grid = file["SCI"].header.copy()
        fwhm = record["target_fwhm_px"] * 3600 * float(np.hypot(grid["CD1_1"], grid["CD2_1"]))
    widest = float(np.hypot(BANDS["J"][1], SIGMA * BANDS["J"][0] / np.sqrt(12)))
    for band, path in paths.items():
        rival[band] = smooth_band(path, band, grid, widest)[None]
    found = {}
    for name, planes, wide in (("--match-psf", ours, fwhm), ("by hand", rival, widest)):
        for share in (0.5, 1.0):
            for key, values in errors_of(planes, grid, field, wide, share * wide, given.depth).items():
                found[(f"{name}, FWHM {wide:.3f} arcsec", f"{share:g} FWHM", *key)] = values
    return found


def main() -> None:
    """Print a row of a table for every method, aperture, band and kind of source."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fields", type=int, default=4)
    parser.add_argument("--scale", type=float)
    parser.add_argument("--target-fwhm", type=float)
    parser.add_argument("--depth", type=float, default=1.0, help="light of all sources over the usual one's")
    given = parser.parse_args()
    rows: dict[Any, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(1, given.fields + 1):
            for key, values in measure(seed, Path(folder), given).items():
                rows.setdefault(key, []).extend(values)
    print("| method | radius | colour | sources | mean error | scatter | ERR of the samples | within |\n|" + "---|" * 8)
    for (method, radius, band, kind), values in rows.items():
        off, err = np.array(values).T
        said = f"{100 * np.sqrt((err**2).mean()):.2f} % | {np.mean(np.abs(off) < err):.2f}" if err.any() else "- | -"
        print(f"| {method} | {radius} | {band} - g | {len(off)} {kind} | {100 * off.mean():+.2f} "
              f"+- {100 * off.std() / len(off) ** 0.5:.2f} % | {100 * off.std():.2f} % | {said} |")  # fmt: skip


if __name__ == "__main__":
    main()

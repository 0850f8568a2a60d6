"""Bands of one field on one grid and with one PSF: their colours, and what cannot be matched."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from scipy.special import erf
from typer.testing import CliRunner

from sciresdiff.cli.app import app
from sciresdiff.jobs.upscale import joint as job
from sciresdiff.jobs.upscale.match import match_bands
from sciresdiff.jobs.upscale.options import UpscaleOptions
from sciresdiff.observation.origins import warn_instrument

SIGMA = 2.3548
"""FWHM of a Gaussian over its standard deviation."""
SKY = 30.0
BANDS = {"b": (0.10, 0.22, 0.0, (0.0, 0.0), 64), "h": (0.15, 0.45, -7.0, (-0.11, 0.07), 56)}
"""Pixel and FWHM, arcsec; degrees; shift (y, x), arcsec; side, px."""
REDDER = {"b": (1.0, 1.0), "h": (1.4, 4.0)}
"""Light of discs (and stars) and of bulges."""
PSF = " | ".join(f"gaussian:fwhm={fwhm}arcsec" for _, fwhm, *_ in BANDS.values())


def sources() -> list[tuple[float, float, list[tuple[float, int, float]]]]:
    """Places (north, west; arcsec) of stars and galaxies, with size (arcsec), colour and flux of their parts."""
    rng, found = np.random.default_rng(5), []
    for k in range(9):
        y, x = (np.array(divmod(k, 3)) - 1) * 1.9 + rng.uniform(-0.3, 0.3, 2)
        flux = 10 ** rng.uniform(4.6, 5.2)
        galaxy = [(0.06, 1, 0.6 * flux), (0.25, 0, 1.4 * flux)]
        found.append((y, x, galaxy if k % 3 == 1 else [(0.0, 0, flux)]))
    return found


def header_of(pixel: float, degrees: float, shift: tuple[float, float], side: int) -> fits.Header:
    """The WCS of a band, whose middle is the field's, but for the shift."""
    c, s = pixel / 3600 * np.cos(np.radians(degrees)), pixel / 3600 * np.sin(np.radians(degrees))
    cards = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.1, "CRVAL2": 2.2, "BUNIT": "electron"}
    cards |= {f"CRPIX{i}": (side + 1) / 2 + shift[2 - i] / pixel for i in (1, 2)}
    return fits.Header({**cards, "CD1_1": -c, "CD1_2": s, "CD2_1": s, "CD2_2": c})


def places(header: fits.Header) -> list[tuple[float, float]]:
    """(x, y) of the sources on a grid, px."""
    found = []
    for y, x, _ in sources():
        matrix = np.array([[header["CD1_1"], header["CD1_2"]], [header["CD2_1"], header["CD2_2"]]])
        u, v = np.linalg.solve(matrix, np.array([-x, y]) / 3600)
        found.append((u + header["CRPIX1"] - 1, v + header["CRPIX2"] - 1))
    return found


def write_bands(folder: Path, seed: int = 1) -> list[str]:
    """The bands with their noise; the names."""
    rng, names = np.random.default_rng(seed), []
    for band, (pixel, fwhm, degrees, shift, side) in BANDS.items():
        header, edges, image = header_of(pixel, degrees, shift, side), np.arange(side + 1) - 0.5, SKY
        for (x, y), (_, _, parts) in zip(places(header), sources(), strict=True):
            for size, colour, flux in parts:
                wide = np.hypot(size, fwhm / SIGMA) / pixel * np.sqrt(2)
                lines = [np.diff(erf((edges - at) / wide)) / 2 for at in (y, x)]
                image = image + REDDER[band][colour] * flux * np.outer(*lines)
        variance = image + 25
        noisy = image + rng.normal(size=image.shape) * np.sqrt(variance)
        planes = [fits.ImageHDU(noisy.astype("f4"), header, "SCI"), fits.ImageHDU(variance.astype("f4"), name="VAR")]
        names.append(str(folder / f"{band}.fits"))
        fits.HDUList([fits.PrimaryHDU(), *planes]).writeto(names[-1])
    return names


def light_within(image: np.ndarray, x: float, y: float, radius: float) -> float:
    """Flux in an aperture, of pixels that are divided 8 times."""
    y0, x0, half = round(y), round(x), int(radius) + 2
    cut = image[y0 - half : y0 + half + 1, x0 - half : x0 + half + 1].repeat(8, 0).repeat(8, 1) / 64
    line = (np.arange(len(cut)) + 0.5) / 8 - 0.5 - half
    return float(cut[np.hypot(line[:, None] + y0 - y, line + x0 - x) < radius].sum())


def true_light(parts: list[tuple[float, int, float]], band: str, fwhm: float, radius: float) -> float:
    """The same at a Gaussian PSF, all in arcsec."""
    return sum(
        REDDER[band][colour] * flux * (1 - np.exp(-(radius**2) / 2 / (size**2 + (fwhm / SIGMA) ** 2)))
        for size, colour, flux in parts
    )


def run(*words: str):
    return CliRunner().invoke(app, ["upscale", *words])


def test_colours_in_small_apertures_are_right(tmp_path):
    names = write_bands(tmp_path)
    done = run(*names, "--match-psf", "-o", str(tmp_path / "o"), "--psf", PSF, "--samples", "1", "--no-cosmic")
    assert done.exit_code == 0, done.output
    images, headers = {}, {}
    for band in BANDS:
        with fits.open(tmp_path / "o" / f"{band}.fits") as file:
            headers[band] = file["SCI"].header
            images[band] = file["SCI"].data - SKY * (0.05 / BANDS[band][0]) ** 2
    assert images["b"].shape == images["h"].shape == (128, 128)
    for key in ("CRPIX1", "CRPIX2", "CD1_1", "CD2_2", "CRVAL1"):
        assert headers["b"][key] == pytest.approx(headers["h"][key], rel=1e-9)
    assert headers["b"]["SRDTFWHM"] == headers["h"]["SRDTFWHM"]
    # 0.8 of the widest with its pixel: 0.37 arcsec; the width of a PSF that was turned is known to 3 %
    fwhm = headers["b"]["SRDTFWHM"] * 0.05
    assert fwhm == pytest.approx(0.8 * np.hypot(0.45, 0.15 * SIGMA / np.sqrt(12)), rel=0.03)
    off = []
    for (x, y), (_, _, parts) in zip(places(headers["b"]), sources(), strict=True):
        seen = [light_within(images[band], x, y, 10 * fwhm) for band in BANDS]  # radius: half the FWHM
        true = [true_light(parts, band, fwhm, fwhm / 2) for band in BANDS]
        off.append(seen[1] / seen[0] / (true[1] / true[0]) - 1)
    # the noise of a colour is 0.6 %, of the mean 0.2 %; that of an unmatched one of a star would be 100 %
    assert abs(np.mean(off)) < 0.012 and np.abs(off).max() < 0.035


def test_a_matched_image_is_that_of_its_blocks(tmp_path, monkeypatch):
    names = write_bands(tmp_path)
    options = match_bands(names, UpscaleOptions(match_psf=True, samples=2, psf=PSF, cosmic=False))
    found = {}
    for core in (48, 512):
        monkeypatch.setattr(job, "CORE", core)
        job.run_joint(names[:1], tmp_path / f"o{core}.fits", options[0])
        found[core] = [fits.getdata(tmp_path / f"o{core}.fits", plane) for plane in ("SCI", "ERR")]
    apart = np.abs(found[48][0] - found[512][0]) / found[512][1]
    assert np.quantile(apart, 0.99) < 0.05 and apart.max() < 0.5


def test_what_was_done_before_is_not_done_again(tmp_path):
    names = write_bands(tmp_path)
    for words in (["--match-psf", "--psf", PSF], ["--scale", "1.5", "--psf", "gaussian:fwhm=0.5arcsec"]):
        out = str(tmp_path / words[0].strip("-"))
        for expected in (0, 2):
            done = run(*names, "-o", out, "--samples", "1", "--no-cosmic", *words)
            assert done.exit_code == 0 and done.output.count("done before") == expected, done.output


@pytest.mark.parametrize(
    "words, say",
    [
        ([], "two or more"),
        (["--joint"], "give one of them"),
        (["--kernel", "none"], "--psf"),
        (["--no-refine"], "--no-refine"),
        (["--psf", "none|none|none"], "3 values"),
    ],
)
def test_what_cannot_be_matched_is_refused(tmp_path, words, say):
    names = write_bands(tmp_path)
    done = run(*(names if words else names[:1]), "--match-psf", "-o", str(tmp_path / "o"), *words)
    assert done.exit_code == 2 and say in done.output and len(done.output.strip().splitlines()) == 1, done.output
    assert not (tmp_path / "o").exists()


def test_a_psf_that_some_band_does_not_support_is_a_warning(tmp_path):
    names = write_bands(tmp_path)
    said = {}
    for target in (4.0, 7.5):
        stated = match_bands(names, UpscaleOptions(match_psf=True, psf=PSF, target_fwhm=target))
        said[target] = [
            line
            for name, one in zip(names, stated, strict=True)
            for line in job.plan_joint([name], one)["said"]
            if line.startswith("WARNING match-psf")
        ]
    assert len(said[4.0]) == 1 and "h.fits" in said[4.0][0] and not said[7.5]
    (coarse, *_) = match_bands(names, UpscaleOptions(match_psf=True, psf=PSF, scale=1))
    assert any("larger --scale" in line for line in job.plan_joint(names[:1], coarse)["said"])


def test_a_widened_image_is_not_held_against_its_data(tmp_path):
    names = write_bands(tmp_path)
    assert run(*names, "--match-psf", "-o", str(tmp_path / "o"), "--psf", PSF, "--samples", "1").exit_code == 0
    done = CliRunner().invoke(app, ["evaluate", str(tmp_path / "o" / "b.fits"), "--low", names[0]])
    assert done.exit_code == 3 and "SRDWIDEN" in done.output and len(done.output.strip().splitlines()) == 1, done.output
    record = json.loads((tmp_path / "o" / "b.fits.json").read_text())
    assert record["chi2"][0] < 1.2  # of the image before it was widened


def test_the_filter_of_a_psf_is_that_of_its_extension(tmp_path):
    names = write_bands(tmp_path)
    with fits.open(names[0], mode="append") as file:
        for band in ("VIS", "H"):
            file.append(fits.ImageHDU(np.ones((3, 3)), fits.Header({"FILTER": band}), f"{band}_PSF"))
    fits.setval(names[0], "FILTER", value="H", ext=1)
    from sciresdiff.io import open_source

    with open_source(names[0]) as source:
        assert not warn_instrument(source.frame, f"{names[0]}[H_PSF]")
        assert "VIS" in " ".join(warn_instrument(source.frame, f"{names[0]}[VIS_PSF]"))


def test_the_grid_is_the_first_band_s(tmp_path):
    names = write_bands(tmp_path)
    first, second = match_bands(names, UpscaleOptions(match_psf=True, psf=PSF, scale=3))
    assert first.grid == second.grid == names[0] and first.target_fwhm == second.target_fwhm
    from sciresdiff.jobs.upscale.joint_output import grid_of

    grid, one = grid_of(second), fits.getheader(names[0], "SCI")
    assert (grid["NAXIS1"], grid["NAXIS2"]) == (192, 192)
    here = WCS(grid).pixel_to_world(3 * 20 + 1, 3 * 30 + 1)
    assert float(here.separation(WCS(one).pixel_to_world(20, 30)).mas) < 1e-3

"""What several exposures say of each other before they are restored: cosmic rays on stars, fluxes, places, origins."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from scipy.ndimage import maximum_filter
from test_joint import resolve, run, write_exposures

from sciresdiff.errors import InputError, UsageError
from sciresdiff.io.quality_bits import OUTLIER
from sciresdiff.observation.joint import Joint
from sciresdiff.observation.placement import Placement
from sciresdiff.region import Region
from sciresdiff.restoration import cosmic_rays
from sciresdiff.restoration.cosmic_rays import without_cosmic_rays


def flagged(joint: Joint) -> list[np.ndarray]:
    """Where exposures are masked as outliers."""
    found = []
    for part in joint.parts:
        frame = part.exposure.image.window(0, Region.of_shape(part.exposure.grid.shape))
        found.append(
            np.zeros(frame.mask.shape[1:], bool) if frame.flags is None else (frame.flags[0] & OUTLIER.bit) > 0
        )
        assert not (found[-1] & ~frame.mask[0]).any()
    return found


def hit_stars(names: list[str], share: float = 0.5, count: int = 3) -> list[np.ndarray]:
    """Put a cosmic ray of 2 pixels, half as bright as the star's peak, on the brightest stars of every exposure."""
    hits, used = [], np.zeros((0, 2))
    for name in names:
        with fits.open(name, mode="update") as file:
            data = file["SCI"].data
            peaks = np.argwhere((data == maximum_filter(data, 5)) & (data > 300))
            peaks = [p for p in peaks if p.min() >= 5 and p.max() < len(data) - 5]
            rows = np.zeros(data.shape, bool)
            for y, x in sorted(peaks, key=lambda p: -data[tuple(p)]):
                # another star in every exposure
                if rows.sum() < 2 * count and (np.hypot(*(used - [y, x]).T) > 4).all():
                    used = np.vstack([used, [y, x]])
                    data[y, x : x + 2] += share * data[y, x]
                    rows[y, x : x + 2] = True
        hits.append(rows)
    return hits


@pytest.mark.parametrize("seed", [3, 4])
def test_cosmic_rays_on_stars_are_masked_and_stars_are_not(tmp_path, seed):
    names, _ = write_exposures(tmp_path, seed=seed)
    clean = without_cosmic_rays(resolve(names))
    # 5 sigma of 4,800 pixels happen once in 700 frames
    assert sum(one.sum() for one in flagged(clean)) == 0 and not [n for n in clean.notes if "explains" in n]
    hits = hit_stars(names)
    found = flagged(without_cosmic_rays(resolve(names)))
    assert sum(h.sum() for h in hits) >= 10
    assert all((one | ~hit).all() for one, hit in zip(found, hits, strict=True))
    # what touches a hit may be taken with it
    assert all(not (one & ~maximum_filter(hit, 5)).any() for one, hit in zip(found, hits, strict=True))


@pytest.mark.parametrize("fault", ["place", "width"])
def test_stars_stay_where_place_or_psf_is_off(tmp_path, fault):
    names, _ = write_exposures(tmp_path, side=60)
    with fits.open(names[1], mode="update") as file:
        if fault == "place":
            file["SCI"].header["CRPIX1"] += 0.15
        else:
            u = np.arange(21) - 10.0
            line = np.exp(-0.5 * u**2 / 0.85**2)  # 15 % too wide with the pixel
            file["PSF"].data = np.outer(line, line).astype("f4") / line.sum() ** 2
    found = flagged(without_cosmic_rays(resolve(names)))
    # what is off by the model is measured, so that 1 of 1000 pixels is masked at the most
    assert sum(one.sum() for one in found) <= 10


def test_what_is_masked_is_a_function_of_the_place(tmp_path, monkeypatch):
    names, _ = write_exposures(tmp_path, side=80)
    hits = hit_stars(names, share=1.0)
    whole = flagged(without_cosmic_rays(resolve(names)))
    monkeypatch.setattr(cosmic_rays, "SIDE", 64)
    parts = flagged(without_cosmic_rays(resolve(names)))
    assert all((one & two | ~hit).all() for one, two, hit in zip(whole, parts, hits, strict=True))


def test_two_exposures_are_not_judged(tmp_path):
    names, _ = write_exposures(tmp_path)
    joint = resolve(names[:2])
    assert without_cosmic_rays(joint) is joint


def test_the_command_says_what_is_masked_on_stars(tmp_path):
    names, _ = write_exposures(tmp_path)
    hit_stars(names, share=0.2)  # too little for two exposures to tell
    out = tmp_path / "o.fits"
    words = names, ("--joint", "-o", str(out), "--samples", "2")
    done = run(*words[0], *words[1])
    assert done.exit_code == 0 and f"explains masked (DQ {OUTLIER.bit})" in done.output, done.output
    done = run(*words[0], *words[1], "--no-cosmic", "--overwrite")
    assert "explains" not in done.output


def test_a_flux_that_no_header_states_is_measured(tmp_path):
    names, _ = write_exposures(tmp_path, side=60, times=(1.0, 0.6, 1.4))
    for name in names:
        with fits.open(name, mode="update") as file:
            del file["SCI"].header["EXPTIME"]
    joint = resolve(names)
    # sharp stars of so small a field tell it to 3 %
    assert [part.factor for part in joint.parts] == pytest.approx([1, 0.6, 1.4], rel=0.03)
    assert sum("no header says" in line for line in joint.notes) == 2


def test_headers_that_images_contradict_are_warned_of(tmp_path):
    names, _ = write_exposures(tmp_path, side=60)
    assert not [line for line in resolve(names).notes if line.startswith("WARNING")]
    with fits.open(names[1], mode="update") as file:
        file["SCI"].header["EXPTIME"] *= 1.5
    with fits.open(names[2], mode="update") as file:
        file["SCI"].header["CRPIX2"] += 0.4
    joint = resolve(names)
    warnings = [line for line in joint.notes if line.startswith("WARNING")]
    assert len(warnings) == 2
    assert "WARNING flux: e1.fits" in warnings[0] and "WARNING align: e2.fits" in warnings[1]
    assert joint.parts[1].factor == pytest.approx(0.7, rel=0.03)


@pytest.mark.parametrize("count", [2, 3])
def test_a_source_that_moved_is_told(tmp_path, count):
    names, _ = write_exposures(tmp_path, side=60)
    with fits.open(names[1], mode="update") as file:
        y, x = np.mgrid[:60, :60]
        star = np.exp(-4 * np.log(2) * ((y - 31.2) ** 2 + (x - 28.7) ** 2) / 1.6**2)
        file["SCI"].data += (8000 * star / star.sum()).astype("f4")
    out = tmp_path / "o.fits"
    done = run(*names[:count], "--joint", "-o", str(out), "--samples", "2")
    assert done.exit_code == 0 and "WARNING field: e1.fits: 1 source differs" in done.output, done.output


@pytest.mark.parametrize("how", ["path", "copy"])
def test_a_file_given_twice_is_refused(tmp_path, how):
    names, _ = write_exposures(tmp_path, side=24)
    again = names[0]
    if how == "copy":
        again = str(tmp_path / "copy.fits")
        Path(again).write_bytes(Path(names[0]).read_bytes())
    with pytest.raises(UsageError if how == "path" else InputError, match="give every exposure once"):
        resolve([*names, again])


@pytest.mark.parametrize("key", ["FILTER", "FILTER1"])
def test_exposures_of_other_filters_are_warned_of(tmp_path, key):
    names, _ = write_exposures(tmp_path, side=24)
    for name, value in zip(names, ("r DECam", "r  decam", "g DECam"), strict=True):
        with fits.open(name, mode="update") as file:
            file[0].header[key] = value
    lines = [line for line in resolve(names).notes if "WARNING filter" in line]
    assert len(lines) == 1 and "e2.fits" in lines[0] and "G DECAM" in lines[0]


def test_the_psf_of_another_detector_is_warned_of(tmp_path):
    names, _ = write_exposures(tmp_path, side=24)
    for name, detector in zip(names, ("A1", "A2", "A1"), strict=True):
        with fits.open(name, mode="update") as file:
            file[0].header["DETECTOR"] = detector
    with fits.open(names[0]) as file:
        psf = fits.PrimaryHDU(file["PSF"].data)
        psf.header["DETECTOR"], psf.header["PIXELSCL"] = "A1", 0.1
        psf.writeto(tmp_path / "psf.fits")
    out = tmp_path / "o.fits"
    done = run(*names, "--joint", "-o", str(out), "--samples", "2", "--psf", str(tmp_path / "psf.fits"))
    assert done.exit_code == 0
    warnings = [line for line in done.output.splitlines() if "WARNING" in line and "its DETECTOR is A1" in line]
    assert len(warnings) == 1 and "WARNING e1.fits: psf: psf.fits:" in warnings[0] and "is A2" in warnings[0]


def test_a_file_of_three_planes_is_refused(tmp_path):
    names, _ = write_exposures(tmp_path, side=24)
    with fits.open(names[1]) as file:
        fits.PrimaryHDU(np.stack([file["SCI"].data] * 3), file["SCI"].header).writeto(tmp_path / "cube.fits")
    done = run(names[0], str(tmp_path / "cube.fits"), "--joint", "-o", str(tmp_path / "o.fits"), "--psf", "none")
    assert done.exit_code == 2 and "3 planes" in done.output and len(done.output.strip().splitlines()) == 1, done.output


def test_the_inverse_of_a_distorted_map_takes_places_back():
    place = Placement.of_function(lambda p: 2 * p + 1e-4 * (p - 100) ** 2 + [3.0, -5.0], (200, 220))
    tried = np.random.default_rng(1).uniform(0, 199, (200, 2))
    assert place.knots is not None
    assert np.abs(place.inverse(place(tried)) - tried).max() < 1e-3

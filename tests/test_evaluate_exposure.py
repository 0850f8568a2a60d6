"""``evaluate`` of an image of several exposures against one of them, on the exposure's own pixels."""

import json
from pathlib import Path

import pytest
from astropy.io import fits
from test_joint import write_exposures
from typer.testing import CliRunner

from sciresdiff.cli.app import app
from sciresdiff.jobs import evaluate
from sciresdiff.jobs.upscale.joint import run_joint
from sciresdiff.jobs.upscale.options import UpscaleOptions


def chi2_of(record):
    """The result of that name; there is one."""
    (found,) = [result for result in record["results"] if result["name"] == "chi2"]
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Three exposures, an image of all, one of the first two, and what was said of them."""
    folder = tmp_path_factory.mktemp("exposures")
    names, _ = write_exposures(folder)
    options = UpscaleOptions(joint=True, samples=2)
    whole = run_joint(names, folder / "all.fits", options)
    left = run_joint(names, folder / "left.fits", UpscaleOptions(joint=True, samples=2, leave_out=2))
    pair = run_joint(names[:2], folder / "pair.fits", options)
    return folder, names, whole, left, pair


@pytest.mark.parametrize("number", [0, 1, 2])
def test_an_exposure_that_was_used_has_the_chi2_of_the_sidecar(made, number):
    folder, names, whole, _, _ = made
    record = evaluate.run(folder / "all.fits", low=names[number])
    found = chi2_of(record)
    # the border of 16 px, and what is around the grid, are not judged: 30 % of the pixels
    assert found["value"] == pytest.approx(whole["exposures"][number]["chi2"], abs=0.08)
    assert found["limit"] is not None
    assert record["low"] == names[number]


def test_what_was_stated_of_an_exposure_holds_when_it_is_held_against_the_image(tmp_path):
    names, _ = write_exposures(tmp_path)
    for name in names:  # nothing in the files tells PSF or noise
        with fits.open(name) as file:
            fits.writeto(name, file["SCI"].data, file["SCI"].header, overwrite=True)
    stated = {"psf": "gaussian:fwhm=2.4px", "gain": 1.0, "read_noise": 5.0}
    each = {"psf": "gaussian:fwhm=2.4px | gaussian:fwhm=2.4px | gaussian:fwhm=2.4px"}
    for number, given in enumerate((stated, stated | each)):
        out = tmp_path / f"all{number}.fits"
        run_joint(names, out, UpscaleOptions(joint=True, samples=2, leave_out=2, **given))
        said = evaluate.run(out, low=names[2])["said"]
        assert any("noise: gain 1 e/unit, read noise 5 e" in line for line in said)
        assert not any("measured from" in line for line in said)
        assert sum("flux: " in line for line in said) == 1
    record = json.loads((tmp_path / "all0.fits.json").read_text())
    record["options"]["of_another_version"] = 1
    (tmp_path / "all0.fits.json").write_text(json.dumps(record))
    assert chi2_of(evaluate.run(tmp_path / "all0.fits", low=names[2]))["value"] > 0


def test_an_exposure_that_was_left_out_has_the_chi2_of_its_prediction(made):
    folder, names, _, left, _ = made
    found = chi2_of(evaluate.run(folder / "left.fits", low=names[2]))
    # two exposures predict the border of 16 px, which is not judged, less well than the rest
    assert 0.8 * left["left_out"]["chi2"] < found["value"] < left["left_out"]["chi2"]
    assert found["limit"] is None
    assert "not made of" in found["meaning"]


def test_an_exposure_of_another_time_is_held_by_its_flux(made, tmp_path):
    folder, names, *_ = made
    with fits.open(names[2]) as file:
        for plane, power in (("SCI", 1), ("VAR", 2)):
            file[plane].data *= 3**power
        file["SCI"].header["EXPTIME"] *= 3
        file.writeto(tmp_path / "long.fits")
    before = chi2_of(evaluate.run(folder / "pair.fits", low=names[2]))
    after = chi2_of(evaluate.run(folder / "pair.fits", low=tmp_path / "long.fits"))
    assert after["value"] == pytest.approx(before["value"], rel=1e-3)  # the files hold single precision


def test_a_displaced_exposure_is_seen(made, tmp_path):
    folder, names, *_ = made
    with fits.open(names[2]) as file:
        file["SCI"].header["CRPIX1"] += 0.5
        file.writeto(tmp_path / "moved.fits")
    assert chi2_of(evaluate.run(folder / "pair.fits", low=tmp_path / "moved.fits"))["value"] > 5


def test_cosmic_rays_do_not_count_where_the_others_are_at_hand(made, tmp_path):
    folder, names, *_ = made
    with fits.open(names[2]) as file:
        file["SCI"].data[20, 17:19] += 4000
        file.writeto(tmp_path / "hit.fits")
    path = tmp_path / "hit.fits"
    clean = chi2_of(evaluate.run(folder / "pair.fits", low=names[2]))["value"]
    assert chi2_of(evaluate.run(folder / "pair.fits", low=path))["value"] == pytest.approx(clean, abs=0.05)
    assert chi2_of(evaluate.run(folder / "pair.fits", low=path, cosmic=False))["value"] > 20 * clean
    moved = tmp_path / "moved"
    moved.mkdir()
    record = json.loads((folder / "pair.fits.json").read_text())
    record["inputs"] = [str(moved / Path(name).name) for name in names[:2]]
    (moved / "pair.fits").write_bytes((folder / "pair.fits").read_bytes())
    (moved / "pair.fits.json").write_text(json.dumps(record))
    alone = evaluate.run(moved / "pair.fits", low=names[2])
    assert any("not at hand" in line for line in alone["said"])
    assert chi2_of(alone)["value"] == pytest.approx(clean, abs=0.05)


def test_what_cannot_be_held_is_one_line(made, tmp_path):
    folder, names, *_ = made
    with fits.open(names[2]) as file:
        for card in ("CTYPE1", "CTYPE2", "CRVAL1", "CRVAL2"):
            del file["SCI"].header[card]
        file.writeto(tmp_path / "nowhere.fits")
    with fits.open(names[2]) as file:
        file["SCI"].header["CRVAL2"] += 1
        file.writeto(tmp_path / "elsewhere.fits")
    for name, words in (("nowhere.fits", "no WCS"), ("elsewhere.fits", "does not overlap")):
        done = CliRunner().invoke(app, ["evaluate", str(folder / "pair.fits"), "--low", str(tmp_path / name)])
        assert done.exit_code == 3
        assert words in done.output
        assert "Traceback" not in done.output


def test_places_that_were_measured_are_not_held_by_the_wcs(made, tmp_path):
    folder, names, *_ = made
    for end in ("", ".json"):
        (tmp_path / f"pair.fits{end}").write_bytes((folder / f"pair.fits{end}").read_bytes())
    record = json.loads((tmp_path / "pair.fits.json").read_text())
    record["options"]["align"] = "measure"
    (tmp_path / "pair.fits.json").write_text(json.dumps(record))
    done = CliRunner().invoke(app, ["evaluate", str(tmp_path / "pair.fits"), "--low", names[0]])
    assert done.exit_code == 3
    assert "sidecar" in done.output

"""``jobs.evaluate`` from files to record, table, CSV and picture."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from sciresdiff.errors import InputError, UsageError
from sciresdiff.io.jsonable import dumps
from sciresdiff.jobs.evaluate import job as evaluate
from sciresdiff.jobs.evaluate import judge, load_evidence, rerun
from sciresdiff.jobs.evaluate.options import EvaluateOptions
from sciresdiff.observation.exposure import Exposure
from sciresdiff.report import record as records

Array = NDArray[np.float64]
KERNEL = "gaussian:sigma=1.2px"


def scene() -> Array:
    """Stars on a sky, with a little grain; the side leaves a rest when halved."""
    rng = np.random.default_rng(7)
    image = np.zeros((161, 161))
    image[24:140:16, 24:140:16] = rng.uniform(2e3, 2e4, (8, 8))
    return np.asarray(gaussian_filter(image, 1.3) + 10 + 0.5 * rng.normal(size=image.shape))


def low_of(truth: Array) -> tuple[Array, Array]:
    """The judge's own way to the data: blur, block sum, noise."""
    clean = gaussian_filter(truth[:160, :160], 1.2, mode="reflect", truncate=5).reshape(80, 2, 80, 2).sum((1, 3))
    variance = 0.1 * clean + 16.0
    return clean + np.random.default_rng(1).normal(size=clean.shape) * np.sqrt(variance), variance


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """``truth.fits`` (one pixel too large), ``low.fits`` with VAR, ``high.fits`` with ERR, SUPPORT and DQ."""
    truth = scene()
    low, variance = low_of(truth)
    high = truth[:160, :160] + np.random.default_rng(2).normal(size=(160, 160))
    fits.PrimaryHDU(truth.astype("f4")).writeto(tmp_path / "truth.fits")
    hdus(tmp_path / "low.fits", SCI=low, VAR=variance)
    quality = np.zeros(high.shape, "i4")
    quality[:2, :2] = 1
    hdus(tmp_path / "high.fits", SCI=high, ERR=np.ones_like(high), SUPPORT=np.full_like(high, 0.8), DQ=quality)
    return tmp_path


def hdus(path: Path, **planes: NDArray[Any]) -> None:
    """A FITS file of extensions, in electrons."""
    found = [fits.ImageHDU(a if a.dtype.kind == "i" else a.astype("f4"), name=name) for name, a in planes.items()]
    found[0].header["BUNIT"] = "electron"
    fits.HDUList([fits.PrimaryHDU(), *found]).writeto(path)


def run(files: Path, **more: Any) -> dict[str, Any]:
    """Evaluate the files with everything given."""
    given = {"low": files / "low.fits", "truth": files / "truth.fits", "kernel": KERNEL}
    return evaluate.run(files / "high.fits", **{**given, **more})


def figure(record: dict[str, Any], name: str, region: str | None = None) -> float:
    """A value out of a record."""
    return float(next(r["value"] for r in record["results"] if r["name"] == name and region in (None, r["region"])))


def computed(record: dict[str, Any]) -> set[str]:
    """Names of the results that have a value."""
    return {r["name"] for r in record["results"] if r["value"] is not None}


def test_the_record_has_the_schema_and_the_right_figures(files: Path) -> None:
    record = run(files)
    assert list(record)[:5] == ["schema", "high", "low", "truth", "scale"]
    assert (record["schema"], record["scale"], record["verdict"]) == (1, 2, "pass")
    keys = {"name", "value", "unit", "region", "limit", "passed", "meaning"}
    assert all(set(r) == keys for results in (record["results"], *record["baselines"].values()) for r in results)
    assert list(record["baselines"]) == ["bicubic", "lanczos", "richardson-lucy", judge.BEST]
    truth, high = scene()[:160, :160], fits.getdata(files / "high.fits", extname="SCI").astype(float)
    expected = 10 * np.log10(np.ptp(truth) ** 2 / np.mean((high - truth) ** 2))
    assert figure(record, "psnr") == pytest.approx(expected, abs=1e-3)  # dB; 4 masked pixels and float32
    low, variance = (fits.getdata(files / "low.fits", extname=name).astype(float) for name in ("SCI", "VAR"))
    again = gaussian_filter(high, 1.2, mode="reflect", truncate=5).reshape(80, 2, 80, 2).sum((1, 3))
    chi2 = np.mean((low - again)[1:, 1:] ** 2 / variance[1:, 1:])
    assert figure(record, "chi2") == pytest.approx(chi2, rel=0.02)  # other pixels near the mask are left out
    assert figure(record, "coverage_68", "all") == pytest.approx(0.683, abs=0.01)  # 3 sigma of 25600 pixels
    assert figure(record, "support_fraction") == pytest.approx(0.8, rel=1e-6)  # a constant plane in float32
    assert any("cropped" in line for line in record["said"])
    assert any(judge.BEST in line for line in record["said"])


def test_without_a_truth_what_needs_none_is_done(files: Path) -> None:
    record = run(files, truth=None, baselines="bicubic,richardson-lucy")
    names = computed(record)
    assert {"total_flux_ratio", "chi2", "chi2_sky", "hallucination_fraction", "spurious_per_mpix"} <= names
    assert not {"psnr", "ssim", "completeness", "coverage_68"} & names
    assert list(record["baselines"]) == ["bicubic", "richardson-lucy"]


def test_without_a_kernel_the_data_are_compared_by_flux_only(files: Path) -> None:
    record = run(files, kernel=None)
    names = computed(record)
    assert "total_flux_ratio" in names and not {"chi2", "hallucination_fraction"} & names
    assert "richardson-lucy" not in record["baselines"]
    assert any(line.startswith("psf: not known") for line in record["said"])


def test_with_the_image_alone_and_a_truth_it_scores(files: Path) -> None:
    record = run(files, low=None, kernel=None)
    assert record["baselines"] == {} and record["scale"] is None
    assert {"psnr", "completeness"} <= computed(record)


def test_the_sidecar_of_upscale_tells_the_blur(files: Path) -> None:
    note = {"input": "elsewhere/low.fits", "quantity": "sum", "target_fwhm_px": 2.0, "options": {"kernel": KERNEL}}
    (files / "high.fits.json").write_text(json.dumps(note))
    told, noted = run(files), run(files, kernel=None)
    assert told["results"] == noted["results"]
    (files / "high.fits.json").write_text(json.dumps({**note, "input": "another.fits"}))
    assert "chi2" not in computed(run(files, kernel=None))


def test_the_same_twice_is_the_same(files: Path) -> None:
    assert dumps(run(files)) == dumps(run(files))


def test_json_has_no_nan(files: Path) -> None:
    record = run(files, baselines="none") | {"bad": [float("nan"), np.float64("inf"), np.bool_(True), Path("a")]}
    assert json.loads(dumps(record))["bad"] == [None, None, True, "a"]
    truth = evaluate.run(files / "truth.fits", truth=files / "truth.fits")
    assert next(r["value"] for r in truth["results"] if r["name"] == "psnr") is None  # infinite


def test_table_and_csv_show_the_baselines(files: Path) -> None:
    record = run(files)
    rows, head = records.table(record), records.header(record)
    assert all(len(row) == len(head) for row in rows)
    assert next(row for row in rows if row[0] == "psnr")[head.index("bicubic")] != "-"
    records.write_long_csv([record, record], files / "all.csv")
    with (files / "all.csv").open() as stream:
        lines = list(csv.DictReader(stream))
    assert len(lines) == 2 * (len(record["results"]) + sum(map(len, record["baselines"].values())))
    assert {line["method"] for line in lines} == {records.OURS, *record["baselines"]}
    with pytest.raises(UsageError, match="exists"):
        records.write_long_csv([record], files / "all.csv")


@pytest.mark.parametrize("left_out", [{}, {"truth": None}, {"truth": None, "low": None, "kernel": None}])
def test_the_picture_is_a_png_whatever_is_known(files: Path, left_out: dict[str, None]) -> None:
    page = files / "page.png"
    run(files, report=page, baselines="none", **left_out)
    assert page.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UsageError, match="--report: .*exists"):
        run(files, report=page)


def test_planes_are_judged_one_by_one(files: Path) -> None:
    truth = scene()[:160, :160]
    low, variance = low_of(scene())
    hdus(files / "lows.fits", SCI=np.stack([low, low]), VAR=np.stack([variance, variance]))
    hdus(files / "highs.fits", SCI=np.stack([truth, truth * 2]))
    record = evaluate.run(files / "highs.fits", low=files / "lows.fits", kernel=KERNEL, baselines="bicubic")
    ratios = {r["region"]: r["value"] for r in record["results"] if r["name"] == "total_flux_ratio"}
    assert ratios["all, plane 1"] == pytest.approx(2 * ratios["all, plane 0"], rel=1e-6)  # float32 files
    assert record["verdict"] == "fail"


def test_a_tiff_has_its_planes_beside_it(tmp_path: Path) -> None:
    import tifffile

    truth = gaussian_filter(np.random.default_rng(0).normal(size=(64, 64)), 3).astype("f4") * 1000 + 200
    for name, image in {
        "t": truth,
        "h": truth + 1,
        "h_err": np.ones_like(truth),
        "h_support": np.ones_like(truth),
    }.items():
        tifffile.imwrite(tmp_path / f"{name}.tif", image, metadata={"axes": "YX"})
    record = evaluate.run(tmp_path / "h.tif", truth=tmp_path / "t.tif")
    assert record["quantity"] == "mean"
    assert figure(record, "support_fraction") == 1
    assert {"foreground", "background"} <= {r["region"] for r in record["results"]}


def test_files_that_do_not_fit_are_refused(files: Path) -> None:
    fits.PrimaryHDU(np.ones((30, 31), "f4") + np.eye(30, 31, dtype="f4")).writeto(files / "odd.fits")
    with pytest.raises(InputError, match="no whole multiple"):
        run(files, low=files / "odd.fits")
    with pytest.raises(InputError, match="do not fit"):
        run(files, truth=files / "odd.fits")
    with pytest.raises(InputError, match="no such file"):
        run(files, truth=files / "absent.fits")
    with pytest.raises(UsageError, match="--baselines: 'magic' is unknown"):
        run(files, baselines="bicubic,magic")
    with pytest.raises(UsageError, match="--report: .*png"):
        run(files, report=files / "page.pdf")


def test_pairs_by_stem_else_by_order() -> None:
    highs = ["out/b_x4.fits", "out/a_x4.fits"]
    assert evaluate.pairs(highs, ["a.fits", "b.fits"], "--low") == [Path("b.fits"), Path("a.fits")]
    assert evaluate.pairs(highs, ["c.fits", "d.fits"], "--low") == [Path("c.fits"), Path("d.fits")]
    assert evaluate.pairs(highs, None, "--low") == [None, None]
    with pytest.raises(UsageError, match="--truth: 3 files for 2 images"):
        evaluate.pairs(highs, ["c.fits", "d.fits", "e.fits"], "--truth")


WORLD = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 10.0, "CRVAL2": -30.0, "CRPIX1": 80.5, "CRPIX2": 80.5,
         "CDELT1": -1e-4, "CDELT2": 1e-4}  # fmt: skip


def placed(files: Path, name: str, **changes: float) -> Path:
    """The same file with a WCS, under another name."""
    with fits.open(files / f"{name}.fits") as hdus:
        image = hdus[0] if hdus[0].data is not None else hdus[1]
        image.header.update({**WORLD, **changes})
        hdus.writeto(files / f"{name}_wcs.fits")
    return files / f"{name}_wcs.fits"


def test_frames_of_other_places_are_refused(files: Path) -> None:
    high, truth = placed(files, "high"), placed(files, "truth", CRVAL2=-30.001)
    assert evaluate.run(high, truth=truth)["results"]  # 10 px away of 160
    (files / "truth_wcs.fits").unlink()
    with pytest.raises(InputError, match="truth_wcs.fits: its centre is 0.1 degrees from that of .*the same field"):
        evaluate.run(high, truth=placed(files, "truth", CRVAL2=-30.1))
    low = placed(files, "low", CRVAL1=200.0, CRPIX1=40.5, CRPIX2=40.5, CDELT1=-2e-4, CDELT2=2e-4)
    with pytest.raises(InputError, match="low_wcs.fits: its centre"):
        evaluate.run(high, low=low)


def test_a_header_without_a_usable_wcs_is_no_reason(files: Path) -> None:
    high, truth = placed(files, "high"), placed(files, "truth", CDELT1=0.0, CRVAL2=50.0)
    assert evaluate.run(high, truth=truth)["results"]


def no_claim(record: dict[str, Any]) -> None:
    """Every result has a finite value or says why not, and what has none has not passed."""
    for result in record["results"]:
        if result["value"] is None:
            assert result["passed"] is not True and result["meaning"]
        else:
            assert np.isfinite(result["value"])


def test_an_image_whose_mask_is_all_set_is_refused(files: Path) -> None:
    truth = scene()[:160, :160]
    hdus(files / "hidden.fits", SCI=truth, DQ=np.ones(truth.shape, "i4"))
    with pytest.raises(InputError, match="DQ flags every pixel that holds data"):
        evaluate.run(files / "hidden.fits", low=files / "low.fits", truth=files / "truth.fits", kernel=KERNEL)


@pytest.mark.parametrize("which", ["high", "low", "truth", "all"])
def test_constant_images_are_said_and_give_no_nan(files: Path, which: str) -> None:
    shapes = {"high": (160, 160), "low": (80, 80), "truth": (160, 160)}
    for name, shape in shapes.items():
        if which in (name, "all"):
            image = np.full(shape, 4.0 if name == "low" else 1.0)
            more = {"VAR": np.ones(shape)} if name == "low" else {}
            (files / f"{name}.fits").unlink()
            hdus(files / f"{name}.fits", SCI=image, **more)
    record = run(files, baselines="bicubic")
    no_claim(record)
    word = {"high": "image", "low": "data", "truth": "truth", "all": "image"}[which]
    assert any(line.startswith(f"WARNING {word}: constant") for line in record["said"])


def test_a_truth_below_zero_is_said(files: Path) -> None:
    fits.PrimaryHDU((scene() - 500).astype("f4")).writeto(files / "negative.fits")
    record = run(files, truth=files / "negative.fits", baselines="bicubic")
    no_claim(record)
    assert any(line.startswith("WARNING truth: its mean is negative") for line in record["said"])


def test_a_scale_that_is_no_whole_number_is_refused(files: Path) -> None:
    hdus(files / "third.fits", SCI=scene()[:60, :60])
    with pytest.raises(InputError, match="160 x 160 px are no whole multiple of the 60 x 60 px"):
        run(files, low=files / "third.fits")


@pytest.mark.parametrize("suffix", ["fits", "tif"])
@pytest.mark.parametrize("planes", [1, 2])
def test_draws_and_trust_are_read_beside_the_image(tmp_path: Path, suffix: str, planes: int) -> None:
    import tifffile

    rng = np.random.default_rng(0)
    image = rng.normal(size=(planes, 32, 48)).astype("f4")
    draws, trust = rng.normal(size=(planes, 4, 32, 48)).astype("f4"), (image > 0).astype("f4")
    if suffix == "fits":
        hdus(tmp_path / "h.fits", SCI=image.squeeze(), DRAWS=draws.squeeze(), TRUST=trust.squeeze())
    else:
        for name, stack in {"h": image, "h_draws": draws.reshape(-1, 32, 48), "h_trust": trust}.items():
            axes = "YX" if stack.squeeze().ndim == 2 else "TYX"
            tifffile.imwrite(
                tmp_path / f"{name}.tif", stack.squeeze(), metadata={"axes": axes}, photometric="minisblack"
            )
    told = EvaluateOptions()
    with load_evidence.open_evidence(tmp_path / f"h.{suffix}", None, None, told) as (given, _):
        for i in range(planes):
            evidence = load_evidence.evidence_of(given, i)
            assert evidence.draws is not None and np.array_equal(evidence.draws, draws[i])
            assert evidence.trust is not None and np.array_equal(evidence.trust, trust[i])


@pytest.fixture
def restored_files(tmp_path: Path) -> Path:
    """``low.fits``, with few stars, and what ``upscale --model physics`` makes of it, with draws."""
    from sciresdiff.jobs.upscale import job as upscale

    image = np.zeros((160, 160))
    image[24:72:16, 24:140:16] = np.random.default_rng(7).uniform(2e3, 2e4, (3, 8))
    low, variance = low_of(gaussian_filter(image, 1.3) + 10)
    hdus(tmp_path / "low.fits", SCI=low, VAR=variance)
    options = upscale.UpscaleOptions(model="physics", scale=2, kernel=KERNEL, samples=4, save_samples=True)
    upscale.run(tmp_path / "low.fits", tmp_path / "low_x2.fits", options)
    return tmp_path


def test_probes_restore_again_as_the_sidecar_says(restored_files: Path) -> None:
    high, low = restored_files / "low_x2.fits", restored_files / "low.fits"
    record = evaluate.run(high, low=low, probe=True, baselines="none")
    no_claim(record)
    assert {"blank_spurious_per_mpix", "injection_completeness", "injection_bias_mag", "chi2_draw"} <= computed(record)
    assert figure(record, "injection_completeness", "snr 50") == 1
    assert figure(record, "blank_spurious_per_mpix") == 0
    assert "probe: blank sky and injected sources restored by physics, with 2 draws instead of all" in record["said"]
    assert dumps(record) == dumps(evaluate.run(high, low=low, probe=True, baselines="none"))
    plain = evaluate.run(high, low=low, baselines="none")
    told = next(r for r in plain["results"] if r["name"] == "blank_spurious_per_mpix")
    assert told["value"] is None and "--probe" in told["meaning"]


def test_the_same_data_give_the_same_image_again(restored_files: Path) -> None:
    high, low = restored_files / "low_x2.fits", restored_files / "low.fits"
    told = EvaluateOptions(probe=True)
    with load_evidence.open_evidence(high, low, None, told) as (given, _):
        evidence = load_evidence.evidence_of(given, 0)
    assert evidence.again is not None and evidence.low is not None and evidence.err is not None
    same = evidence.again(evidence.low)
    assert np.abs(same - evidence.high).max() < 1.5 * evidence.err.max()  # the draws that are left out
    assert np.corrcoef(same.ravel(), evidence.high.ravel())[0, 1] > 0.999


def test_probes_without_a_sidecar_are_refused(files: Path) -> None:
    with pytest.raises(UsageError, match="--probe: no high.fits.json .*make the image with upscale"):
        run(files, probe=True)
    with pytest.raises(UsageError, match="--probe: .*give --low"):
        evaluate.run(files / "high.fits", probe=True)
    note = {"input": "low.fits", "options": {"model": "physics", "scale": 4, "kernel": KERNEL}}
    (files / "high.fits.json").write_text(json.dumps(note))
    with pytest.raises(UsageError, match="--probe: high.fits.json speaks of scale 4, the image has 2"):
        run(files, probe=True)


def test_the_variance_follows_the_light_that_was_put_in() -> None:
    low, _ = low_of(scene())
    variance = 16 + 0.1 * low
    data = low.copy()
    data[40, 40] += 1000
    found = rerun.variance_of_other(Exposure.of_arrays(low, variance), data)
    assert found[40, 40] - variance[40, 40] == pytest.approx(100, rel=0.05)  # slope 0.1, found on noisy pixels
    assert np.array_equal(np.delete(found, 40 * 80 + 40), np.delete(variance, 40 * 80 + 40))
    flat = np.full(low.shape, 16.0)
    exposure = Exposure.of_arrays(low, flat)
    assert np.array_equal(rerun.variance_of_other(exposure, data), flat)  # no slope, nothing to follow

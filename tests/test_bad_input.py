"""Bad input: one clear line on stderr, the right exit code, nothing half-written."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from astropy.io import fits
from astropy.table import Table
from typer.testing import CliRunner

from sciresdiff.cli.app import app

RNG = np.random.default_rng(1)
SIDE = 32


def sky(value: float = 100.0) -> np.ndarray:
    """A noisy sky, 32 x 32."""
    return RNG.normal(value, 3.0, (SIDE, SIDE)).astype("f4")


def good(folder: Path) -> Path:
    """A frame that can be restored, with its variance."""
    path = folder / "good.fits"
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(sky(), name="SCI"), fits.ImageHDU(np.full_like(sky(), 9), name="VAR")]
    fits.HDUList(hdus).writeto(path)
    return path


def fits_of(pixels: np.ndarray) -> Callable[[Path], Path]:
    """A maker of a FITS file with these pixels."""

    def make(folder: Path) -> Path:
        fits.writeto(folder / "bad.fits", pixels)
        return folder / "bad.fits"

    return make


def bytes_of(name: str, content: bytes) -> Callable[[Path], Path]:
    """A maker of a file with these bytes."""

    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


def truncated_fits(folder: Path) -> Path:
    """A FITS file that ends in the middle of its pixels."""
    path = good(folder)
    (folder / "bad.fits").write_bytes(path.read_bytes()[:7000])
    path.unlink()
    return folder / "bad.fits"


def truncated_tiff(folder: Path) -> Path:
    """A TIFF that ends in the middle of its pixels."""
    tifffile.imwrite(folder / "whole.tif", sky())
    content = (folder / "whole.tif").read_bytes()
    (folder / "whole.tif").unlink()
    return bytes_of("bad.tif", content[: len(content) // 2])(folder)


def table_only(folder: Path) -> Path:
    """A FITS file that holds no image."""
    hdus = [fits.PrimaryHDU(), fits.BinTableHDU(Table({"x": [1.0, 2.0]}))]
    fits.HDUList(hdus).writeto(folder / "bad.fits")
    return folder / "bad.fits"


def zero_axis(folder: Path) -> Path:
    """A FITS file with NAXIS1 = 0."""
    header = fits.PrimaryHDU(np.zeros((1, 1), "f4")).header
    header["NAXIS1"] = 0
    text = header.tostring(endcard=True, padding=True)
    return bytes_of("bad.fits", text.encode())(folder)


FILES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "text named .fits": (bytes_of("bad.fits", b"not an image at all\n" * 200), ""),
    "text named .tif": (bytes_of("bad.tif", b"not an image at all\n" * 200), ""),
    "empty file": (bytes_of("bad.fits", b""), "empty"),
    "unknown ending": (bytes_of("bad.jpg", b"\xff\xd8\xff\xe0 jpeg"), "format"),
    "truncated FITS": (truncated_fits, ""),
    "truncated TIFF": (truncated_tiff, ""),
    "FITS table only": (table_only, "image"),
    "all NaN": (fits_of(np.full((SIDE, SIDE), np.nan, "f4")), "NaN"),
    "one-dimensional": (fits_of(np.ones(SIDE, "f4")), ""),
    "axis without pixels": (zero_axis, ""),
}


def run(*words: object) -> tuple[int, list[str]]:
    """Exit code and the lines on stderr."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert "Traceback" not in result.output
    return result.exit_code, result.stderr.splitlines()


@pytest.mark.parametrize("command", ["info", "upscale"])
@pytest.mark.parametrize("what", FILES)
def test_a_file_that_cannot_be_used(tmp_path: Path, what: str, command: str) -> None:
    make, message = FILES[what]
    path = make(tmp_path)
    before = sorted(tmp_path.iterdir())
    words = ["info", path] if command == "info" else ["upscale", path, "-o", tmp_path / "out" / "o.fits", "-q"]
    code, lines = run(*words, *([] if command == "info" else ["--model", "physics", "--scale", 2]))
    assert code == 3, lines
    assert len(lines) == 1, lines
    assert path.name in lines[0]
    assert message in lines[0]
    assert sorted(tmp_path.iterdir()) == before


OPTIONS: dict[str, tuple[str, int, str]] = {
    "scale that the model does not have": ("--scale 3", 2, "--scale"),
    "kernel larger than the frame": ("--model physics --scale 2 --kernel gaussian:sigma=200px", 3, "kernel"),
    "PSF narrower than the target": ("--model physics --scale 2 --psf gaussian:fwhm=0.3px", 3, "psf"),
    "PSF that is none of the shapes": ("--model physics --scale 2 --psf gausian:fwhm=2px", 2, "psf"),
    "PSF file that is missing": ("--model physics --scale 2 --psf none.fits", 3, "none.fits"),
    "PSF in arcsec without a WCS": ("--model physics --scale 2 --psf gaussian:fwhm=1arcsec", 2, "arcsec"),
    "no source to measure a PSF from": ("--model physics --scale 2 --psf measure", 3, "psf"),
    "negative gain": ("--model physics --gain -2", 2, "--gain"),
    "extension that is missing": ("--model physics --scale 2 --variance NOPE", 3, "NOPE"),
    "model that is missing": ("--model nobody --scale 2", 3, "--model"),
    "model that is corrupt": ("--model {corrupt} --scale 2", 3, "--model"),
    "model that is foreign": ("--model {foreign} --scale 2", 3, "--model"),
    "device that is none": ("--model physics --scale 2 --kernel none --device abacus", 2, "--device"),
    "device that is not there": ("--model physics --scale 2 --kernel none --device cuda:77", 2, "--device"),
    "more threads than can be started": ("--model physics --scale 2 --kernel none --threads 100000", 2, "--threads"),
    "type of pixels that is none": ("--model physics --scale 2 --kernel none --dtype bogus", 2, "--dtype"),
    "type of pixels that FITS has not": ("--model physics --scale 2 --kernel none --dtype complex64", 2, "--dtype"),
    "map of the gain that does not fit": ("--model physics --scale 2 --kernel none --gain {map}", 3, "--gain"),
    "map of the gain that is missing": ("--model physics --scale 2 --kernel none --gain none.fits", 3, "none.fits"),
    "pixel size that is no number": ("--model physics --scale 2 --kernel none --pixel-size nanum", 2, "--pixel-size"),
    "saturation below every pixel": ("--model physics --scale 2 --kernel none --saturation -1e5", 2, "--saturation"),
    "exact mode with a kernel": (
        "--model physics --scale 2 --kernel gaussian:sigma=1px --consistency exact",
        2,
        "exact",
    ),
}


@pytest.mark.parametrize("what", OPTIONS)
def test_an_option_that_does_not_fit_the_frame(tmp_path: Path, what: str) -> None:
    from safetensors.numpy import save_file

    save_file({"w": np.zeros(3, "f4")}, tmp_path / "foreign.safetensors")
    bytes_of("corrupt.safetensors", b"\x10" * 100)(tmp_path)
    options, expected, message = OPTIONS[what]
    names = {"corrupt": "corrupt.safetensors", "foreign": "foreign.safetensors", "map": "map.fits"}
    fits.writeto(tmp_path / "map.fits", np.ones((3, 3)))
    named = options.format(**{key: tmp_path / name for key, name in names.items()})
    path = good(tmp_path)
    before = sorted(tmp_path.iterdir())
    code, lines = run("upscale", path, "-o", tmp_path / "out" / "o.fits", "-q", *named.split())
    assert code == expected, lines
    assert len(lines) == 1, lines
    assert message.lower() in lines[0].lower()
    assert sorted(tmp_path.iterdir()) == before


def test_a_constant_image_needs_a_variance(tmp_path: Path) -> None:
    path = fits_of(np.full((SIDE, SIDE), 7, "f4"))(tmp_path)
    words = ["upscale", path, "-o", tmp_path / "o.fits", "--model", "physics", "--scale", 2, "--kernel", "none", "-q"]
    code, lines = run(*words)
    assert code == 3
    assert "constant" in lines[0]
    variance = tmp_path / "v.fits"
    fits.writeto(variance, np.ones((SIDE, SIDE), "f4"))
    assert run(*words, "--variance", variance) == (0, [])


@pytest.mark.parametrize("axes", ["ZYX", "YY", "QX"])
def test_axes_that_do_not_fit(tmp_path: Path, axes: str) -> None:
    path = tmp_path / "bad.tif"
    tifffile.imwrite(path, sky())
    code, lines = run("upscale", path, "-o", tmp_path / "o.tif", "--axes", axes, "--model", "physics", "-q")
    assert code in (2, 3)
    assert len(lines) == 1
    assert "axes" in lines[0]
    assert not (tmp_path / "o.tif").exists()


def test_an_output_format_that_is_not_written(tmp_path: Path) -> None:
    code, lines = run(
        "upscale", good(tmp_path), "-o", tmp_path / "o.png", "--model", "physics", "--kernel", "none", "-q"
    )
    assert code == 2
    assert "o.png" in lines[0]


# Odd, but to be restored or refused in words


PHYSICS = ("--model", "physics", "--scale", 2, "--kernel", "none", "-q")


def upscaled(path: Path, *words: object) -> np.ndarray:
    """The pixels of a FITS file that physics alone makes finer."""
    output = path.with_name("o.fits")
    assert run("upscale", path, "-o", output, *PHYSICS, *words) == (0, [])
    return fits.getdata(output, "SCI")


def test_a_frame_without_light_has_no_flux_ratio(tmp_path: Path) -> None:
    path = fits_of(np.zeros((SIDE, SIDE), "f4"))(tmp_path)
    assert not upscaled(path, "--gain", 2, "--read-noise", 3).any()
    assert "SRDFLUX" not in fits.getheader(tmp_path / "o.fits", "SCI")
    assert json.loads((tmp_path / "o.fits.json").read_text(), parse_constant=pytest.fail)["flux_ratio"] == [None]


def test_maps_of_gain_and_read_noise_are_their_numbers(tmp_path: Path) -> None:
    path = fits_of(sky())(tmp_path)
    for name, value in (("gain", 2.0), ("noise", 3.0)):
        fits.writeto(tmp_path / f"{name}.fits", np.full((SIDE, SIDE), value))
    maps = upscaled(path, "--gain", tmp_path / "gain.fits", "--read-noise", tmp_path / "noise.fits")
    assert (maps == upscaled(path, "--gain", 2, "--read-noise", 3, "--overwrite")).all()


def test_a_small_unit_restores_like_a_large_one(tmp_path: Path) -> None:
    pixels = sky()
    (tmp_path / "one").mkdir()
    small, one = (fits_of(pixels * u)(folder) for u, folder in ((np.float32(1e-30), tmp_path), (1, tmp_path / "one")))
    ratio = upscaled(small) / upscaled(one)
    assert np.abs(ratio / 1e-30 - 1).max() < 1e-5  # float32, whose squares of 1e-30 would be 0


def test_numbers_that_single_precision_does_not_hold(tmp_path: Path) -> None:
    path = fits_of(sky().astype("f8") * 1e300)(tmp_path)
    code, lines = run("upscale", path, "-o", tmp_path / "o.fits", *PHYSICS)
    assert code == 3
    assert "3.4e38" in lines[0]


def test_too_few_pixels_are_not_called_constant(tmp_path: Path) -> None:
    pixels = sky()
    pixels[:, 3:] = pixels[2:] = np.nan
    code, lines = run("upscale", fits_of(pixels)(tmp_path), "-o", tmp_path / "o.fits", *PHYSICS)
    assert code == 3
    assert "too few valid pixels of sky (6)" in lines[0]


def test_clipped_pixels_are_told(tmp_path: Path) -> None:
    path = tmp_path / "low.tif"
    tifffile.imwrite(path, sky(254).astype("u2"))
    code, lines = run("upscale", path, "-o", tmp_path / "o.tif", *PHYSICS[:-1], "--dtype", "uint8")
    assert code == 0
    assert any("clipped" in line for line in lines)


def test_a_gain_alone_is_not_passed_over_in_silence(tmp_path: Path) -> None:
    path = fits_of(sky())(tmp_path)
    code, lines = run("upscale", path, "-o", tmp_path / "o.fits", *PHYSICS[:-1], "--gain", 2)
    assert code == 0
    assert any("--read-noise" in line for line in lines)


def test_a_variance_that_is_given_wins_over_a_gain(tmp_path: Path) -> None:
    path = good(tmp_path)
    plain = upscaled(path)
    words = ("--variance", "VAR", "--gain", 1e-3, "--read-noise", 5)
    assert (upscaled(path, *words, "--overwrite") == plain).all()
    assert (upscaled(path, "--gain", 1e-3, "--overwrite") == plain).all()  # a gain alone leaves the file's plane


def test_info_goes_on_after_a_bad_file(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["info", str(tmp_path / "none.fits"), str(good(tmp_path))])
    assert result.exit_code == 3
    assert "good.fits" in result.stdout
    assert "none.fits: no such file" in result.stderr


def test_a_table_that_exists_is_refused_before_the_work(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("mine")
    result = CliRunner().invoke(app, ["evaluate", str(good(tmp_path)), "--csv", str(table)])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert table.read_text() == "mine"


def test_a_sidecar_that_cannot_be_written_takes_its_image_along(tmp_path: Path) -> None:
    path = good(tmp_path)
    (tmp_path / "o.fits.json").mkdir()
    code, lines = run("upscale", path, "-o", tmp_path / "o.fits", *PHYSICS)
    assert code == 2
    assert "o.fits.json" in lines[0]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["good.fits", "o.fits.json"]


def test_a_write_that_is_cut_short_is_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def short(*words: object, **more: object) -> int:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(os, "pwrite", short)
    code, lines = run("upscale", good(tmp_path), "-o", tmp_path / "o.tif", *PHYSICS)
    assert code == 5
    assert "disk" in lines[0]

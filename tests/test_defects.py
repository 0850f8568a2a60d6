"""Pixels that are no data are masked, told apart, counted and switched off; pixels of the sky are left alone."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from astropy.io import fits
from scipy import ndimage

from sciresdiff import io
from sciresdiff.frame import Frame
from sciresdiff.io import open_files
from sciresdiff.io import quality_bits as bits
from sciresdiff.io.source import in_memory
from sciresdiff.jobs.evaluate.load_evidence import open_evidence
from sciresdiff.jobs.evaluate.options import EvaluateOptions
from sciresdiff.jobs.upscale import job as upscale
from sciresdiff.jobs.upscale.inputs import resolve_inputs
from sciresdiff.jobs.upscale.options import UpscaleOptions
from sciresdiff.notes import Notes
from sciresdiff.observation import sample
from sciresdiff.observation.noise import Noise
from sciresdiff.observation.options import SWITCHES, Stated
from sciresdiff.observation.screening import Screened, screen, screen_with_psf
from sciresdiff.physics.psf import kernel_from_psf
from sciresdiff.physics.psf.field import PSF
from sciresdiff.region import Region

Array = np.ndarray[Any, Any]
PHYSICS = {"model": "physics", "refine": False, "checks": False, "scale": 2, "psf": "gaussian:fwhm=3px"}


def stars(
    side: int = 128, fwhm: float = 3.0, sky: float = 100.0, noise: float = 5.0, top: float = 1e5, seed: int = 1
) -> Array:
    """Gaussian stars averaged over the pixel, on a sky with its own and with photon noise."""
    rng = np.random.default_rng(seed)
    clean = np.zeros((side, side))
    line = (np.arange(5 * side) - 2) / 5
    sigma = fwhm / 2.3548
    for y, x, flux in zip(*rng.uniform(5, side - 6, (2, side**2 // 300)), top ** rng.uniform(0.5, 1, side**2 // 300),
                          strict=True):  # fmt: skip
        profiles = (np.exp(-0.5 * ((line - at) / sigma) ** 2).reshape(side, 5).mean(1) for at in (y, x))
        clean += flux / (2 * np.pi * sigma**2) * np.multiply.outer(*profiles)
    return clean + sky + rng.normal(0, 1, clean.shape) * np.sqrt(noise**2 + clean)


def looked_at(
    pixels: Array, fwhm: float | None = None, kind: Any = "astro", variance: Array | None = None, **stated: Any
) -> tuple[dict[str, Array], Notes]:
    """Name of a kind -> its mask, (h, w) or (planes, h, w), of those that there are; and what is said."""
    stack = np.asarray(pixels, np.float32).reshape(-1, *np.shape(pixels)[-2:])
    frame = Frame(stack, ~np.isfinite(stack), kind, dtype=np.asarray(pixels).dtype, shape=np.shape(pixels))
    if variance is not None:
        frame = frame.with_(variance=np.broadcast_to(variance, stack.shape))
    noise = None if variance is None else Noise()
    found, notes = with_psf(screen(in_memory(frame), Stated(**stated)), fwhm, Stated(**stated), noise)
    flags = np.stack([found.samples(i).frame.flags[0] for i in range(len(stack))])
    masks = {kind.name: bits.where(flags, kind).reshape(np.shape(pixels)) for kind in bits.KINDS}
    return {name: mask for name, mask in masks.items() if mask.any()}, notes


def with_psf(found: Screened, fwhm: float | None, stated: Stated, noise: Noise | None = None) -> tuple[Screened, Notes]:
    """What is masked where a Gaussian PSF is known."""
    kernel = None
    if fwhm is not None:
        kernel = kernel_from_psf(f"gaussian:fwhm={fwhm}px", pixel=None, scale=2, target_fwhm_px_fine=2.0)
    return screen_with_psf(found, stated, (None if kernel is None else PSF.constant(kernel),), 2, noise)


# ---------------------------------------------------------------- borders and blocks


@pytest.mark.parametrize("dtype", ["f4", "i2"])
@pytest.mark.parametrize(("sky", "noise"), [(1000, 30), (100, 10), (5, 2.2), (0, 3)])
@pytest.mark.parametrize("border", ["two sides", "last column", "corner", "block"])
def test_padding_is_found_and_nothing_else(sky: float, noise: float, dtype: str, border: str) -> None:
    pixels = stars(sky=sky, noise=noise)
    y, x = np.indices(pixels.shape)
    padded = {"two sides": (y < 20) | (x < 40), "last column": x == 127, "corner": x + y > 170,
              "block": (abs(y - 60) < 6) & (abs(x - 50) < 9)}[border]  # fmt: skip
    pixels = np.where(padded, 0, np.rint(pixels) if dtype == "i2" else pixels).astype(dtype)
    found, notes = looked_at(pixels)
    assert set(found) == {"padding"}
    # in whole numbers zeros of the sky beside the padding look like it
    spare = 0 if dtype == "f4" else 0.02 * padded.sum() + 8
    missed = (padded & ~found["padding"]).sum()
    assert missed <= (0 if border != "corner" or dtype == "f4" else spare)
    assert (found["padding"] & ~padded).sum() <= spare
    assert any(line.startswith("padding: ") and "--no-padding" in line for line in notes)


# ---------------------------------------------------------------- what has to be left alone

RNG = np.random.default_rng(3)
LIGHT = ndimage.gaussian_filter(RNG.random((160, 160)) ** 8, 3)
LIGHT = (LIGHT - LIGHT.min()) / np.ptp(LIGHT)
SOUND = {
    "a photon in twenty pixels": RNG.poisson(0.05, (160, 160)),
    "a photon a pixel": RNG.poisson(1.0, (160, 160)),
    "cells of few photons": RNG.poisson(5 * LIGHT),
    "cells on a dark ground": RNG.poisson(np.maximum(40 * LIGHT - 15, 0)),
    "cells of a camera": RNG.poisson(200 * LIGHT) * 5 + np.rint(RNG.normal(100, 5, LIGHT.shape)),
    "an electron multiplier": RNG.gamma(np.maximum(RNG.poisson(3 * LIGHT), 1e-9), 200)
    + RNG.normal(500, 9, LIGHT.shape),
    "no noise": 1000 * LIGHT,
    "clipped at 0": np.maximum(RNG.normal(0, 5, (160, 160)), 0),
    "two values": np.where(LIGHT > 0.5, 255, 0),
    "labels": ndimage.label(LIGHT > 0.5)[0],
    "filtered": ndimage.median_filter(RNG.normal(100, 5, (160, 160)), 5),
    "magnified": np.kron(RNG.normal(100, 5, (40, 40)), np.ones((4, 4))),
    "single events": np.where(RNG.random((160, 160)) < 0.02, RNG.exponential(100, (160, 160)), 0),
    "both signs": RNG.normal(0, 10, (160, 160)) + 4000 * (LIGHT - LIGHT[::-1]),
    "constant": np.full((64, 64), 7.0),
}


@pytest.mark.parametrize("kind", ["astro", "micro"])
@pytest.mark.parametrize("name", SOUND)
def test_sound_frames_keep_every_pixel(name: str, kind: str) -> None:
    # the noise of a median has other tails than that of light
    without = {"cosmic": False, "hot_pixels": False} if name == "filtered" else {}
    assert looked_at(SOUND[name], 2.5, kind, **without)[0] == {}


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(("sky", "noise", "top"), [(100, 6, 1e5), (0, 1, 1e6), (1000, 30, 3e3)])
@pytest.mark.parametrize("fwhm", [1.3, 1.6, 2.0, 2.6, 3.5, 5.0])
def test_stars_are_kept(fwhm: float, sky: float, noise: float, top: float, whole: bool) -> None:
    pixels = stars(192, fwhm, sky, noise, top, seed=round(10 * fwhm))
    assert looked_at(np.rint(pixels) if whole else pixels, fwhm)[0] == {}


# ---------------------------------------------------------------- numbers that stand for no data


@pytest.mark.parametrize("places", [1, 9])
@pytest.mark.parametrize("value", [1e30, -1e30, 3.4e38, 1e12, -999, -9999, -32768, np.nan])
def test_numbers_that_are_no_measurement(value: float, places: int) -> None:
    pixels = stars().astype("f4")
    gone = np.zeros(pixels.shape, bool)
    gone.flat[np.linspace(1500, 14000, places).astype(int)] = True
    pixels[gone] = value
    found, notes = looked_at(pixels, 3.0)
    masked = np.logical_or.reduce(list(found.values()))
    assert np.array_equal(masked, gone)
    assert len(found) == len(notes.lines) == 1


@pytest.mark.parametrize("unit", [1.0, 1e-19])  # electrons, W
@pytest.mark.parametrize("rms", [1e16, 1e9, 1e18])
def test_a_stated_noise_beyond_all_others_is_no_weight(rms: float, unit: float) -> None:
    pixels = stars() * unit
    variance = (25.0 + np.clip(pixels / unit, 0, None)) * unit**2  # stars of 1e5 are 300 times as noisy as the sky
    bad = np.zeros(pixels.shape, bool)
    bad[40:44, 50:57] = True
    pixels[bad], variance[bad] = 0, (rms * unit) ** 2
    found, notes = looked_at(pixels, variance=variance.astype(np.float32))
    assert (found["absurd"] == bad).all()
    assert any("28 pixels whose stated noise" in line for line in notes)
    kept, notes = looked_at(pixels, variance=variance.astype(np.float32), absurd=False)
    assert "absurd" not in kept and not any("stated noise" in line for line in notes)


def test_a_value_repeated_far_outside_is_no_data() -> None:
    pixels = stars(sky=1000, noise=10, top=3e3)
    gone = np.zeros(pixels.shape, bool)
    gone.flat[[1000, 5000, 9000]] = True
    assert np.array_equal(looked_at(np.where(gone, 0, pixels))[0]["sentinels"], gone)


# ---------------------------------------------------------------- saturation


@pytest.mark.parametrize("dtype", ["u2", "f4"])
@pytest.mark.parametrize("level", [60000.0, 4095.0, 20000.0])
def test_stars_cut_flat_are_saturated(level: float, dtype: str) -> None:
    pixels = stars(sky=min(500, level / 10), top=6e6)
    cut = np.minimum(np.rint(pixels) if dtype == "u2" else pixels, level).astype(dtype)
    found, notes = looked_at(cut)
    assert np.array_equal(found.pop("saturation"), cut >= level)
    assert found == {}
    assert any(f"cut flat at {level:g}" in line and "--no-saturation" in line for line in notes)


def test_a_level_that_a_flat_field_has_spread() -> None:
    pixels = np.minimum(stars(sky=500, top=6e6), 60000)
    full = pixels >= 60000
    smooth = 1 + 0.008 * np.sin(np.arange(128) / 20)
    found, _ = looked_at(pixels * smooth)
    assert found["saturation"][full].all()
    assert found["saturation"].sum() < 1.2 * full.sum()


# ---------------------------------------------------------------- single pixels


def spread_hits(pixels: Array, count: int, height: float, seed: int = 5) -> tuple[Array, Array]:
    """Hits at random places of a grid."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(np.arange(6, pixels.shape[0] - 6, 8), np.arange(6, pixels.shape[1] - 6, 8)), -1)
    places = rng.permutation(grid.reshape(-1, 2))[:count]
    at = np.zeros(pixels.shape, bool)
    at[places[:, 0], places[:, 1]] = True
    return pixels + height * at, at


@pytest.mark.parametrize(("fwhm", "share"), [(2.0, 0.7), (2.6, 0.8), (3.5, 0.9), (5.0, 0.9)])
def test_cosmic_rays_are_found_among_stars(fwhm: float, share: float) -> None:
    pixels, at = spread_hits(stars(192, fwhm, top=3e4), 40, 3000)
    found, notes = looked_at(pixels, fwhm)
    masked = found.pop("cosmic rays")
    assert found == {}
    # those that fall on a star are less sharp
    assert masked[at].mean() >= share
    assert not masked[~at].any()
    assert any(line.startswith("cosmic rays: ") and "--no-cosmic" in line for line in notes)


@pytest.mark.parametrize(("fwhm", "photons"), [(1.5, False), (2.0, False), (2.0, True), (3.0, False), (3.0, True)])
def test_faint_hits_are_found_where_the_noise_is_stated(fwhm: float, photons: bool) -> None:
    clean = stars(192, fwhm, top=3e4)
    pixels, at = spread_hits(clean, 40, 400)
    variance = 25 + (np.maximum(clean - 100, 0) if photons else 0 * clean)
    masked = looked_at(pixels, fwhm, variance=variance)[0]["cosmic rays"]
    assert masked[at].mean() > 0.6
    assert not masked[~at].any(), "stars are kept, even where the noise of their light is left out"


def test_hits_of_several_pixels_are_taken_off_whole() -> None:
    pixels = stars(fwhm=3.0, top=3e3)
    track = np.zeros(pixels.shape, bool)
    track[40, 50:53] = track[80, 30] = track[81, 31] = track[100, 100:102] = True
    found, _ = looked_at(pixels + 4000 * track, 3.0)
    assert np.array_equal(found["cosmic rays"], track)


@pytest.mark.parametrize("height", [4000.0, 900.0, -170.0])
@pytest.mark.parametrize("dtype", ["u2", "f4", "i4"])
def test_hot_and_dead_pixels_of_a_camera(height: float, dtype: str) -> None:
    pixels, at = spread_hits(RNG.poisson(300 * LIGHT + 60) + RNG.normal(100, 2, LIGHT.shape), 25, height)
    found, notes = looked_at(np.rint(pixels).astype(dtype), 2.5, "micro")
    assert (found["hot pixels"] & ~at).sum() == 0
    # a dead pixel that keeps some light is seen where there is light to miss
    assert found["hot pixels"][at].mean() > (0.95 if height > 0 else 0.5)
    assert any(line.startswith("hot pixels: ") and "--no-hot-pixels" in line for line in notes)


def test_a_psf_that_is_stated_too_wide_costs_no_star() -> None:
    pixels, at = spread_hits(stars(192, 2.0, top=1e5), 12, 5000)
    found, notes = looked_at(pixels, 3.5)
    assert (found["cosmic rays"] & ~at).sum() <= 2
    assert found["cosmic rays"][at].mean() > 0.5
    assert any("too wide" in line for line in notes)


def test_a_psf_narrower_than_a_pixel_is_said() -> None:
    found, notes = looked_at(stars(fwhm=1.0), 1.1)
    assert found == {}
    assert any("too narrow to tell" in line for line in notes)


def test_what_lies_beside_a_masked_core_is_no_hit() -> None:
    pixels = stars(fwhm=2.6, sky=100, top=3e5)
    core = pixels > 3000
    assert looked_at(np.where(core, np.nan, pixels), 2.6)[0].keys() == {"blank"}


# ---------------------------------------------------------------- windows, planes, switches


def spoiled(side: int = 200) -> Array:
    """A frame with something of every kind."""
    pixels, _ = spread_hits(np.minimum(stars(side, sky=300, top=3e6), 50000), 40, 6000)
    pixels[:18] = pixels[60:66, 70:90] = 0
    pixels[100, 100:103] = np.nan
    pixels[[130, 140, 150], [20, 30, 40]] = -9999
    pixels[170, 50] = 1e25
    return pixels.astype("f4")


def test_every_window_is_a_part_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = Frame(spoiled()[None], ~np.isfinite(spoiled()[None]), "astro", shape=(200, 200))
    source = in_memory(frame)
    found, _ = with_psf(screen(source, Stated()), 3.0, Stated())
    whole = found.samples(0).frame
    flags = np.unique(whole.flags)
    assert {0, *(kind.bit for kind in bits.KINDS if kind not in (bits.HOT, bits.RING))} <= set(flags.tolist())
    rng = np.random.default_rng(0)
    for _ in range(60):
        (y0, y1), (x0, x1) = (sorted(rng.choice(201, 2, replace=False)) for _ in "yx")
        part = found.defects.window(lambda wide: source.window(0, wide), 0, Region(y0, y1, x0, x1))
        for name in ("flags", "mask", "saturated", "pixels"):
            expected = getattr(whole, name)[:, y0:y1, x0:x1]
            assert getattr(part, name).tobytes() == np.ascontiguousarray(expected).tobytes()
    # a frame that is sampled by windows is masked alike, where these decide alike
    monkeypatch.setattr(sample, "WHOLE", 100**2)
    monkeypatch.setattr(sample, "SIDE", 64)
    sampled = screen(source, Stated()).defects.planes[0]
    assert sampled.absurd == found.defects.planes[0].absurd, "the whole plane is looked at"


OF_SWITCH = {"sentinels": "sentinels", "padding": "padding", "absurd": "absurd", "saturated": "saturation",
             "hot_pixels": "hot pixels", "cosmic": "cosmic rays"}  # fmt: skip


@pytest.mark.parametrize("switch", SWITCHES)
def test_every_kind_can_be_kept(switch: str) -> None:
    pixels = spoiled()
    pixels[30, 60] = -2000  # a dead pixel
    kind = next(kind for kind in bits.KINDS if kind.name == OF_SWITCH[switch])
    assert kind.option == ("--no-saturation" if switch == "saturated" else f"--no-{switch.replace('_', '-')}")
    assert kind.name in looked_at(pixels, 3.0)[0]
    assert kind.name not in looked_at(pixels, 3.0, **{switch: False})[0]


def test_bits_are_fixed_and_lie_apart() -> None:
    assert [kind.bit for kind in bits.KINDS] == [2**n for n in range(16, 24)]
    assert len({kind.option for kind in bits.KINDS if kind.option}) == len(SWITCHES)


@pytest.mark.parametrize("value", [0, 5, 65535])
@pytest.mark.parametrize("where", [0, 1, 3])
@pytest.mark.parametrize("form", ["tif", "fits"])
def test_planes_without_a_picture_are_passed_through(form: str, where: int, value: int, tmp_path: Path) -> None:
    stack = RNG.poisson(np.broadcast_to(800 * LIGHT[:64, :64] + 20, (4, 64, 64))).astype("u2")
    stack[where] = value
    low, high = tmp_path / f"a.{form}", tmp_path / f"b.{form}"
    if form == "tif":
        tifffile.imwrite(low, stack, imagej=True, metadata={"axes": "TYX"})
    else:
        fits.PrimaryHDU(stack.astype("f4")).writeto(low)
    record = upscale.run(low, high, UpscaleOptions(**PHYSICS, quantity="mean"))
    assert any("constant, and passed through" in line or "most pixels are" in line for line in record["said"])
    out = io.read(high).pixels
    assert np.ptp(out[where]) == 0
    assert all(np.ptp(out[i]) > 100 for i in range(4) if i != where)
    err = tifffile.imread(tmp_path / "b_err.tif") if form == "tif" else fits.getdata(high, "ERR")
    assert [bool(np.isfinite(one).any()) for one in err] == [i != where for i in range(4)]


# ---------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("dtype", "zero", "blank"),
    [("u1", None, 255), ("u1", -128, 0), ("i2", None, -32768), ("i2", 32768, -32768), ("i4", None, -99),
     ("i4", 2**31, -(2**31)), ("i2", 100, -1)],
)  # fmt: skip
def test_blank_of_every_integer_type(dtype: str, zero: int | None, blank: int, tmp_path: Path) -> None:
    stored = RNG.integers(10, 100, (40, 50)).astype(dtype)
    gone = RNG.random(stored.shape) < 0.1
    stored[gone] = blank
    header = fits.Header({"SIMPLE": True, "BITPIX": 8 * stored.itemsize, "NAXIS": 2, "NAXIS1": 50, "NAXIS2": 40})
    header["BLANK"] = blank
    if zero is not None:
        header["BZERO"], header["BSCALE"] = zero, 1
    data = stored.astype(stored.dtype.newbyteorder(">")).tobytes()
    (tmp_path / "a.fits").write_bytes(header.tostring().encode() + data + b"\0" * (-len(data) % 2880))
    frame = io.read(tmp_path / "a.fits")
    assert np.array_equal(frame.mask[0], gone)
    assert np.array_equal(np.isnan(frame.pixels[0]), gone)
    assert np.array_equal(frame.pixels[0][~gone], (stored.astype(float) + (zero or 0))[~gone].astype("f4"))


@pytest.mark.parametrize("codec", ["RICE_1", "GZIP_2", "HCOMPRESS_1"])
@pytest.mark.parametrize(
    ("dtype", "zero", "blank"),
    [("i2", None, -32768), ("i2", 32768, -32768), ("i4", 2**31, -(2**31)), ("u1", None, 255)],
)
def test_blank_of_compressed_tiles(dtype: str, zero: int | None, blank: int, codec: str, tmp_path: Path) -> None:
    stored = RNG.integers(10, 100, (40, 50)).astype(dtype)
    gone = RNG.random(stored.shape) < 0.1
    stored[gone] = blank
    fits.CompImageHDU(stored, compression_type=codec).writeto(tmp_path / "a.fits")
    with fits.open(tmp_path / "a.fits", mode="update", disable_image_compression=True) as file:
        file[1].header["ZBLANK"] = blank
        if zero is not None:
            file[1].header["BZERO"], file[1].header["BSCALE"] = zero, 1
    frame = io.read(tmp_path / "a.fits")
    assert np.array_equal(frame.mask[0], gone)
    assert np.array_equal(frame.pixels[0][~gone], (stored.astype(float) + (zero or 0))[~gone].astype("f4"))


def test_bits_in_the_output_beside_those_of_the_file(tmp_path: Path) -> None:
    pixels, dq = spoiled(), np.zeros((200, 200), "i4")
    dq[90, 90:95] = 4
    image = fits.ImageHDU(pixels, name="SCI")
    fits.HDUList([fits.PrimaryHDU(), image, fits.ImageHDU(dq, name="DQ")]).writeto(tmp_path / "a.fits")
    record = upscale.run(tmp_path / "a.fits", tmp_path / "b.fits", UpscaleOptions(**PHYSICS))
    with fits.open(tmp_path / "b.fits") as out:
        flags, header, sci = out["DQ"].data, out["DQ"].header, out["SCI"].data
    assert flags.dtype == np.dtype(">i4")
    flags = flags & ~bits.RING.bit  # which tells of the restored image
    assert (flags[180:182, 180:190] == 4).all()
    assert (flags[340:342, 100:102] == bits.ABSURD.bit).all()
    assert (flags[:36] == bits.PADDING.bit).all()
    assert (flags[200:202, 200:206] == bits.BLANK.bit).all()
    assert np.isfinite(sci[flags == 0]).all()
    assert "constant" in header["SRDBIT18"]
    assert "262144" in header.comments["SRDBIT18"]
    for name in ("blank", "sentinels", "padding", "absurd", "saturation", "cosmic rays"):
        kind = next(kind for kind in bits.KINDS if kind.name == name)
        (line,) = [one for one in record["said"] if one.startswith(f"{name}: ")]
        assert f"(DQ {kind.bit})" in line


@pytest.mark.parametrize("dtype", ["f4", "i2"])
@pytest.mark.parametrize("form", ["h5", "ome.zarr", "tif"])
def test_every_format_is_masked_alike(form: str, dtype: str, tmp_path: Path) -> None:
    if form == "ome.zarr":
        pytest.importorskip("zarr", reason="the extra zarr is not installed")
    stack = np.stack([spoiled(), stars(200, sky=300, top=3e6).astype("f4"), np.zeros((200, 200), "f4")])
    if dtype == "i2":
        stack = np.clip(np.nan_to_num(stack), -(2**15), 2**15 - 1).round()
        stack[0, 100, 100:103] = 0
    frame = Frame(stack, np.isnan(stack), "micro", axes="TYX", shape=stack.shape, dtype=np.dtype(dtype))
    io.write(tmp_path / f"a.{form}", frame)
    image = resolve_inputs(
        tmp_path / f"a.{form}", UpscaleOptions(**PHYSICS, quantity="mean")
    ).observation.exposure.image
    expected = looked_at(stack, 3.0, "micro")[0]
    expected = {name: mask for name, mask in expected.items() if name != "saturation"}
    assert {"sentinels", "padding", "hot pixels"} <= set(expected)
    found = np.stack([image.window(i, Region(0, 200, 0, 200)).flags[0] for i in range(3)])
    for kind in bits.KINDS:
        if kind.name in expected:
            np.testing.assert_array_equal(bits.where(found, kind), expected[kind.name])
    # of whole numbers the end of the range is saturated, whatever else the frame shows
    full = bits.where(found, bits.SATURATED)
    assert np.array_equal(full, stack == 2**15 - 1) if dtype == "i2" else full.any() and (stack[full] == 50000).all()


@pytest.mark.parametrize("switches", [{}, {"padding": False, "cosmic": False}])
def test_evaluate_masks_what_upscale_has_masked(switches: dict[str, bool], tmp_path: Path) -> None:
    fits.PrimaryHDU(spoiled()).writeto(tmp_path / "a.fits")
    options = UpscaleOptions(**PHYSICS, gain=1.0, read_noise=5.0, **switches)
    upscale.run(tmp_path / "a.fits", tmp_path / "b.fits", options)
    here = resolve_inputs(tmp_path / "a.fits", options).observation.exposure
    with open_evidence(tmp_path / "b.fits", tmp_path / "a.fits", None, EvaluateOptions()) as (files, _):
        assert files.observation is not None
        there = files.observation.exposure.window(0, Region(0, 200, 0, 200))
    assert np.array_equal(there.mask, here.window(0, Region(0, 200, 0, 200)).mask)


def test_an_observation_of_a_spoiled_file_pickles(tmp_path: Path) -> None:
    fits.PrimaryHDU(spoiled()).writeto(tmp_path / "a.fits")
    observation = resolve_inputs(tmp_path / "a.fits", UpscaleOptions(**PHYSICS)).observation
    again = pickle.loads(pickle.dumps(observation))
    open_files.close()
    region = Region(3, 90, 20, 140)
    one, other = (each.exposure.window(0, region) for each in (observation, again))
    assert one.plane.flags is not None
    assert np.array_equal(one.plane.flags, other.plane.flags)
    assert one.pixels.tobytes() == other.pixels.tobytes()


@pytest.mark.parametrize("form", ["header", "range"])
def test_the_levels_of_files_can_be_kept(form: str, tmp_path: Path) -> None:
    pixels = np.minimum(np.rint(stars(64, sky=500, top=6e6)), 65535).astype("u2")
    if form == "range":
        tifffile.imwrite(tmp_path / "a.tif", pixels)
    else:
        fits.PrimaryHDU(pixels, fits.Header({"SATURATE": 65535})).writeto(tmp_path / "a.fits")
    (path,) = tmp_path.iterdir()
    assert io.read(path).mask.any()
    with io.open_source(path, saturated=False) as source:
        assert not source.whole().mask.any()


def test_47_tuc_keeps_its_stars_and_loses_its_cosmic_rays(shared_data: Path) -> None:
    """A frame of 60 s with some two hundred hits; its PSF is 2 to 2.5 px wide."""
    path = shared_data / "astro" / "hst_47tuc" / "j8bt06nyq_flt.fits"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    with io.open_source(path) as opened:
        frame = opened.window(0, Region(0, 512, 0, 512))
        found, _ = with_psf(screen(in_memory(frame), Stated()), 2.2, Stated())
        flags = found.samples(0).frame.flags[0]
    count = ndimage.label(bits.where(flags, bits.COSMIC), np.ones((3, 3)))[1]
    assert 40 < count < 90
    # no star that fits the PSF is among them: a peak of 5 x 5 whose light is spread like the PSF's
    pixels = frame.pixels[0].astype(float)
    high = (pixels == ndimage.maximum_filter(pixels, 5)) & (pixels > 5000)
    beside = ndimage.uniform_filter(pixels, 3) * 9 - pixels
    round_stars = high & (beside > 3.0 * pixels)
    assert round_stars.sum() > 100
    assert not (bits.where(flags, bits.COSMIC) & round_stars).any()

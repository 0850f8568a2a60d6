"""FITS in and out: what a header says is used, what depends on the pixels is adapted, the rest stays."""

import os
import shutil
import warnings

import numpy as np
import pytest
from astropy.io import fits

from sciresdiff import io
from sciresdiff.errors import InputError, UsageError
from sciresdiff.frame import Frame, PixelSize
from sciresdiff.io import info
from sciresdiff.io.files import split_spec
from sciresdiff.io.fits import compress as fits_pack
from sciresdiff.units import quantity_of_unit

RNG = np.random.default_rng(0)
IMAGE = RNG.normal(100, 5, (12, 16)).astype("f4")


def save(path, *hdus, **cards):
    hdus = [fits.PrimaryHDU(), *hdus]
    hdus[0].header.update(cards)
    fits.HDUList(hdus).writeto(path)
    return path


def sci(data=IMAGE, name="SCI", ver=1, **cards):
    hdu = fits.ImageHDU(data, name=name, ver=ver)
    hdu.header.update(cards)
    return hdu


def finer(frame, s):
    def grow(a):
        return None if a is None else np.repeat(np.repeat(a, s, 1), s, 2)

    names = ("pixels", "mask", "variance", "saturated", "dq")
    return frame.with_(**{name: grow(getattr(frame, name)) for name in names})


# -- reading ----------------------------------------------------------------------------------------------------------


def test_plain_primary_big_endian(tmp_path):
    fits.PrimaryHDU(IMAGE.astype(">f4")).writeto(tmp_path / "a.fits")
    frame = io.read(tmp_path / "a.fits")
    assert frame.pixels.shape == (1, 12, 16)
    assert frame.pixels.dtype.isnative
    np.testing.assert_array_equal(frame.pixels[0], IMAGE)
    assert frame.quantity is None
    assert any("no BUNIT" in line for line in frame.notes.lines)


def test_scaled_integers(tmp_path):
    """BZERO, BSCALE and BLANK are undone."""
    data = np.arange(192, dtype=np.uint16).reshape(12, 16) + 40000
    fits.PrimaryHDU(data).writeto(tmp_path / "u.fits")
    frame = io.read(tmp_path / "u.fits")
    np.testing.assert_array_equal(frame.pixels[0], data)
    hdu = fits.PrimaryHDU(np.arange(192, dtype="i2").reshape(12, 16))
    hdu.header.update({"BSCALE": 0.5, "BZERO": 10.0, "BLANK": 5})
    hdu.writeto(tmp_path / "b.fits")
    frame = io.read(tmp_path / "b.fits")
    assert frame.pixels[0, 0, 4] == 12.0
    assert np.isnan(frame.pixels[0, 0, 5])
    assert frame.mask[0, 0, 5]
    assert frame.mask.sum() == 1


@pytest.mark.parametrize("kind", ["RICE_1", "GZIP_2"])
def test_tile_compressed(tmp_path, kind):
    data = RNG.integers(0, 3000, (40, 50)).astype("i2")
    save(tmp_path / "a.fits.fz", fits.CompImageHDU(data, compression_type=kind))
    np.testing.assert_array_equal(io.read(tmp_path / "a.fits.fz").pixels[0], data)


def test_cube_plane_by_plane(tmp_path):
    cube = RNG.normal(size=(3, 5, 6)).astype("f4")
    fits.PrimaryHDU(cube).writeto(tmp_path / "a.fits")
    frame = io.read(tmp_path / "a.fits")
    assert (frame.planes, frame.shape, frame.axes) == (3, (3, 5, 6), "ZYX")
    np.testing.assert_array_equal(frame.pixels, cube)


def test_error_plane_is_squared(tmp_path):
    path = save(tmp_path / "a.fits", sci(), sci(np.full_like(IMAGE, 3.0), "ERR"), BUNIT="adu")
    frame = io.read(path)
    np.testing.assert_array_equal(frame.variance, 9.0)
    assert frame.quantity == "sum"
    assert "noise: plane ERR" in frame.notes.lines


def test_weight_zero_is_masked(tmp_path):
    weight = np.full(IMAGE.shape, 1 / 25, "f4")
    weight[2, 3] = 0
    frame = io.read(save(tmp_path / "a.fits", sci(), sci(weight, "WHT")))
    assert frame.mask[0, 2, 3]
    np.testing.assert_allclose(frame.variance, 25.0, rtol=1e-6)  # float32


def test_exposure_weights_are_brought_to_the_noise(tmp_path):
    """A weight map in seconds is no inverse variance: the scatter of neighbours tells the unit."""
    big = np.random.default_rng(1).normal(0, 200, (80, 90)).astype("f4")
    frame = io.read(save(tmp_path / "a.fits", sci(big), sci(np.full(big.shape, 500.0, "f4"), "WHT")))
    assert np.median(frame.variance) ** 0.5 == pytest.approx(200, rel=0.05)  # a MAD of 7000 differences: 1.5 %
    assert any("no inverse variance" in line for line in frame.notes.lines)


def test_planes_of_another_version_are_not_ours(tmp_path):
    path = save(tmp_path / "a.fits", sci(), sci(IMAGE + 50, ver=2), sci(np.full_like(IMAGE, 2.0), "ERR", ver=2))
    frame = io.read(path)
    assert frame.variance is None
    assert "2 images in the file: read SCI; another with FILE[EXT]" in frame.notes.lines
    second = io.read(f"{path}[SCI,2]")
    np.testing.assert_array_equal(second.pixels[0], IMAGE + 50)
    np.testing.assert_array_equal(second.variance, 4.0)


def test_hst_flags(tmp_path):
    dq = np.zeros(IMAGE.shape, "i2")
    dq[0, :5] = [1, 64, 256, 1024, 4096]
    cards = {"TELESCOP": "HST"}
    frame = io.read(save(tmp_path / "a.fits", sci(BUNIT="ELECTRONS"), sci(dq, "DQ"), **cards))
    np.testing.assert_array_equal(frame.mask[0, 0, :5], [True, False, True, False, True])
    assert frame.saturated.sum() == 1
    np.testing.assert_array_equal(frame.dq[0], dq)
    assert frame.facts["gain"] == 1.0


def test_lsst_group(tmp_path):
    """Mask planes by the names in the header; DETECTED is never bad."""
    flags = np.zeros(IMAGE.shape, "i4")
    flags[0, :4] = [1 << 5, 1 << 1, 1 << 3, 1 << 5 | 1 << 1]
    planes = {"MP_BAD": 3, "MP_SAT": 1, "HIERARCH MP_DETECTED": 5}
    path = save(tmp_path / "a.fits", sci(name="", EXTTYPE="IMAGE"), sci(flags, "", EXTTYPE="MASK", **planes),
                sci(np.full_like(IMAGE, 2.5), "", EXTTYPE="VARIANCE"))  # fmt: skip
    frame = io.read(path)
    np.testing.assert_array_equal(frame.mask[0, 0, :4], [False, True, True, True])
    np.testing.assert_array_equal(frame.saturated[0, 0, :4], [False, True, False, True])
    np.testing.assert_array_equal(frame.variance, 2.5)


def test_empty_planes_are_ignored(tmp_path):
    frame = io.read(save(tmp_path / "a.fits", sci(EXTTYPE="IMAGE"), fits.ImageHDU(), fits.ImageHDU()))
    assert frame.variance is None
    assert frame.dq is None


def test_decam_triplet(tmp_path):
    dq = np.zeros(IMAGE.shape, "i2")
    dq[1, :3] = [7, 3, 5]
    weight = np.full(IMAGE.shape, 0.25, "f4")
    weight[5, 5] = 0
    for kind, data in (("ooi", IMAGE), ("oow", weight), ("ood", dq)):
        save(tmp_path / f"c4d_1_{kind}_z_v1.fits", sci(data, "N2"), PLVER="V4.8.2", INSTRUME="DECam")
    frame = io.read(tmp_path / "c4d_1_ooi_z_v1.fits")
    np.testing.assert_array_equal(frame.mask[0, 1, :3], [False, True, True])  # codes, not bits; 7 is harmless
    np.testing.assert_array_equal(frame.saturated[0, 1, :3], [False, True, False])
    assert frame.mask[0, 5, 5]
    np.testing.assert_array_equal(frame.variance, 4.0)


def test_saturation_of_the_header(tmp_path):
    data = IMAGE.copy()
    data[4, 4] = 6e4
    frame = io.read(save(tmp_path / "a.fits", sci(data, SATURATE=5e4)))
    assert frame.saturated[0, 4, 4]
    assert frame.mask[0, 4, 4]
    other = io.read(save(tmp_path / "b.fits", sci(data, SATURATE=10.0)))
    assert other.saturated is None  # half of the pixels cannot be saturated: another unit


def test_facts(tmp_path):
    frame = io.read(save(tmp_path / "a.fits", sci(BUNIT="adu/s", SEEING=1.0, PIXSCALE=0.25, RDNOISE=5.0, GAIN=2.0),
                         EXPTIME=30.0))  # fmt: skip
    assert frame.facts == {"exposure": 30.0, "gain": 60.0, "read_noise": 5.0, "fwhm": 4.0}
    assert frame.pixel_size == PixelSize(0.25, 0.25, "arcsec")
    beam = {"BMAJ": 0.01, "BMIN": 0.0025, "CTYPE1": "RA---SIN", "CTYPE2": "DEC--SIN", "CDELT1": -1e-3, "CDELT2": 1e-3}
    frame = io.read(save(tmp_path / "b.fits", sci(BUNIT="Jy/beam", **beam)))
    assert frame.facts["fwhm"] == pytest.approx(5.0)  # geometric mean of 0.01 and 0.0025 degrees over 1e-3
    assert frame.quantity == "mean"


UNITS = {
    "sum": ["adu", "ADU", "DN", "counts", "count", "electron", "ELECTRONS", "ELECTRONS/S", "e-/s", "electron s-1",
            "counts/s", "nJy", "Jy/pixel", "mJy/pix", "nanomaggy", "photons", "DN / s", "adu/pixel"],
    "mean": ["MJy/sr", "Jy/beam", "Jy/Beam", "mJy beam-1", "K", "MJy sr^-1", "Jy/arcsec2",
             "erg/s/cm2/arcsec2", "W/m2/sr", "JY/BEAM", "km/s"],
    None: ["", None, "UNITLESS", "furlong"],
}  # fmt: skip


@pytest.mark.parametrize(("wanted", "unit"), [(q, u) for q, units in UNITS.items() for u in units])
def test_quantity_of_units(wanted, unit):
    assert quantity_of_unit(unit) == wanted


def test_asked_planes(tmp_path):
    path = save(tmp_path / "a.fits", sci(), sci(np.full_like(IMAGE, 3.0), "RMSMAP"), sci(np.eye(12, 16), "BAD"))
    save(tmp_path / "noise_sigma.fits", sci(np.full_like(IMAGE, 2.0), "X"))
    frame = io.read(path, variance="RMSMAP", mask="BAD")
    np.testing.assert_array_equal(frame.variance, 9.0)  # an rms, by its name
    assert frame.mask.sum() == 12
    np.testing.assert_array_equal(io.read(path, variance=str(tmp_path / "noise_sigma.fits")).variance, 4.0)
    np.testing.assert_array_equal(io.read(path, variance=f"{path}[RMSMAP]").variance, 9.0)
    with pytest.raises(InputError, match=r"no extension 'NOPE'; there are PRIMARY, SCI, RMSMAP, BAD"):
        io.read(path, variance="NOPE")
    with pytest.raises(InputError, match="no such file"):
        io.read(path, variance="nope.fits")


def test_overrides(tmp_path):
    frame = io.read(save(tmp_path / "a.fits", sci(BUNIT="adu")), quantity="mean", pixel_size=0.4)
    assert frame.quantity == "mean"
    assert frame.pixel_size == PixelSize(0.4, 0.4, "arcsec")


def test_spec_of_a_path(tmp_path):
    assert split_spec("a.fits[SCI,1]")[1] == "SCI,1"
    assert split_spec("a.fits")[1] is None
    real = save(tmp_path / "a[1].fits", sci())
    assert split_spec(real) == (real, None)


# -- bad input --------------------------------------------------------------------------------------------------------


def bad_files(folder):
    save(folder / "good.fits", sci(RNG.normal(size=(200, 200))))
    (folder / "truncated.fits").write_bytes((folder / "good.fits").read_bytes()[:20000])
    (folder / "text.fits").write_text("this is not FITS\n" * 300)
    (folder / "empty.fits").write_bytes(b"")
    (folder / "folder.fits").mkdir()
    save(folder / "table.fits", fits.BinTableHDU.from_columns([fits.Column("a", "E", array=[1.0])]))
    save(folder / "nan.fits", sci(np.full((4, 4), np.nan)))
    save(folder / "line.fits", sci(np.ones(5)))
    return {
        "missing.fits": "no such file",
        "truncated.fits": "not a whole FITS file",
        "text.fits": "not a whole FITS",
        "empty.fits": "empty file",
        "unknown.xyz": "no such file",
        "folder.fits": "a folder",
        "table.fits": "no image in it",
        "nan.fits": "are NaN",
        "line.fits": "no image in it",
        "good.fits[4]": "no extension '4'",
        "good.fits[PRIMARY]": "not a 2-D image",
    }


def test_bad_files_are_refused_in_one_line(tmp_path):
    for name, why in bad_files(tmp_path).items():
        path = tmp_path / name
        with pytest.raises(InputError, match=why) as caught:
            io.read(path)
        assert str(caught.value).startswith(str(split_spec(path)[0]))
        assert "\n" not in str(caught.value)


def test_zero_size_axis_and_wrong_axes(tmp_path):
    save(tmp_path / "a.fits", sci())
    with pytest.raises(InputError, match="axes 'ZYX' do not fit"):
        io.read(tmp_path / "a.fits", axes="ZYX")
    header = fits.Header({"SIMPLE": True, "BITPIX": -32, "NAXIS": 2, "NAXIS1": 0, "NAXIS2": 5})
    (tmp_path / "zero.fits").write_bytes(header.tostring().encode())
    with pytest.raises(InputError, match="zero.fits: (an axis|no image|not a whole)"):
        io.read(tmp_path / "zero.fits")


def test_unknown_format(tmp_path):
    (tmp_path / "a.xyz").write_bytes(b"hello world")
    with pytest.raises(InputError, match="not a format"):
        io.read(tmp_path / "a.xyz")
    shutil.copy(save(tmp_path / "a.fits", sci()), tmp_path / "noname")
    assert io.read(tmp_path / "noname").pixels.shape == (1, 12, 16)


def test_malformed_headers_do_not_crash(tmp_path):
    path = save(tmp_path / "a.fits", sci(EXPTIME=5.0))
    raw = path.read_bytes().replace(b"EXPTIME =                  5.0", b"EXPTIME = 5.0.0 'what         ")
    path.write_bytes(raw)
    frame = io.read(path)
    report = io.write(tmp_path / "b.fits", finer(frame, 2), scale=2)
    assert io.read(report["files"][0]).pixels.shape == (1, 24, 32)


# -- writing ----------------------------------------------------------------------------------------------------------


def cluster(sample_data):
    return io.read(sample_data / "47tuc.fits")


def test_output_of_a_real_frame(tmp_path, sample_data):
    frame = cluster(sample_data)
    high = finer(frame, 2)
    planes = {"ERR": high.variance**0.5, "SUPPORT": np.ones_like(high.pixels), "DQ": high.dq}
    told = {"SRDSCALE": 2, "SRDMODEL": "astro-x2", "SRDCHI2": None, "SRDTFWHM": 2.1}
    path = tmp_path / "new" / "a.fits"
    report = io.write(path, high, planes=planes, provenance=told, history=["made by a test"], scale=2)
    assert report == {"clipped": 0, "files": [str(path)]}
    with fits.open(path) as hdus, fits.open(sample_data / "47tuc.fits") as old:
        assert [h.name for h in hdus] == ["PRIMARY", "SCI", "ERR", "SUPPORT", "DQ"]
        for key in ("EXPTIME", "TELESCOP", "TARGNAME"):
            assert hdus[0].header[key] == old[0].header[key]
        for key in ("PHOTFLAM", "PHOTZPT", "PHOTPLAM", "BUNIT", "CRVAL1"):
            assert hdus["SCI"].header[key] == old["SCI"].header[key]
        for header in (hdus[0].header, hdus["SCI"].header):
            assert (header["SRDSCALE"], header["SRDMODEL"]) == (2, "astro-x2")
            assert "SRDCHI2" not in header
            assert "made by a test" in str(header["HISTORY"])
        assert hdus["SCI"].data.dtype == ">f4"
        assert hdus["DQ"].data.dtype.kind == "i"
    again = io.read(path)
    assert again.pixel_size.x == pytest.approx(frame.pixel_size.x / 2)
    assert again.psf == "gaussian:fwhm=2.1px"
    np.testing.assert_allclose(again.variance, high.variance, rtol=1e-6)  # squared in float32
    np.testing.assert_array_equal(again.mask, high.mask)


def test_low_frame_gives_back_its_kernel_and_variance(tmp_path, sample_data):
    frame = cluster(sample_data)
    kernel = np.outer([1, 2, 1], [1, 2, 1]) / 16
    low = Frame(pixels=frame.pixels[:, ::4, ::4], mask=frame.mask[:, ::4, ::4], kind="astro", header=frame.header,
                axes="YX", shape=frame.shape, quantity="sum", kernel=kernel, kernel_scale=4)  # fmt: skip
    io.write(tmp_path / "a.fits", low, planes={"VAR": np.full(low.pixels.shape, 7.0)}, scale=0.25)
    again = io.read(tmp_path / "a.fits")
    np.testing.assert_array_equal(again.kernel, kernel)
    assert again.kernel_scale == 4
    np.testing.assert_array_equal(again.variance, 7.0)
    assert again.pixel_size.x == pytest.approx(4 * frame.pixel_size.x)
    io.write(tmp_path / "b.fits", low.with_(kernel="none"), scale=0.25)
    assert io.read(tmp_path / "b.fits").kernel == "none"
    io.write(tmp_path / "c.fits", finer(again, 4), scale=4)
    assert io.read(tmp_path / "c.fits").kernel is None  # a restored frame has no kernel any more


def test_same_content_same_bytes(tmp_path, sample_data):
    with fits.open(sample_data / "47tuc.fits") as hdus:
        hdus.writeto(tmp_path / "sum.fits", checksum=True)
    for end in (".fits", ".fits.gz"):
        high = finer(io.read(tmp_path / "sum.fits"), 2)
        for name in "ab":
            io.write(tmp_path / f"{name}{end}", high, scale=2)
        assert (tmp_path / f"a{end}").read_bytes() == (tmp_path / f"b{end}").read_bytes()
        np.testing.assert_array_equal(io.read(tmp_path / f"a{end}").pixels, high.pixels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fits.open(tmp_path / "a.fits", checksum=True).close()
    header = fits.getheader(tmp_path / "a.fits", "SCI")
    assert "CHECKSUM" in header
    assert "CHECKSUM" not in fits.getheader(sample_data / "47tuc.fits", "SCI")


def test_tile_compressed_output_is_lossless(tmp_path, sample_data, monkeypatch):
    """All images to the bit, NaN and unsigned types too, and the same bytes each time."""
    monkeypatch.setattr(fits_pack, "TILE", 100)
    frame = finer(cluster(sample_data), 2)
    frame.pixels[0, 3, 5] = np.nan
    draws = np.stack([frame.pixels[0] * k for k in (1, 2, 3)])
    planes = {"ERR": frame.variance**0.5, "VAR": frame.variance, "DQ": frame.dq, "DRAWS": draws}
    for name in ("a.fits.fz", "b.fits.fz", "c.fits"):
        io.write(tmp_path / name, frame, planes=planes, provenance={"SRDSCALE": 2}, scale=2)
    assert (tmp_path / "a.fits.fz").read_bytes() == (tmp_path / "b.fits.fz").read_bytes()
    assert (tmp_path / "a.fits.fz").stat().st_size < (tmp_path / "c.fits").stat().st_size
    with fits.open(tmp_path / "a.fits.fz") as packed, fits.open(tmp_path / "c.fits") as plain:
        assert [h.name for h in packed] == ["PRIMARY", "SCI", "ERR", "VAR", "DQ", "DRAWS"]
        for one, other in zip(packed[1:], plain[1:], strict=True):
            assert one.compression_type == "GZIP_2"
            assert one.data.dtype == other.data.dtype.newbyteorder("=") or one.data.dtype == other.data.dtype
            np.testing.assert_array_equal(one.data, other.data)
            assert {k: one.header[k] for k in ("CRPIX1", "SRDSCALE", "BUNIT") if k in one.header} == {
                k: other.header[k] for k in ("CRPIX1", "SRDSCALE", "BUNIT") if k in other.header
            }
        packed.verify("exception")
    np.testing.assert_array_equal(io.read(tmp_path / "a.fits.fz").pixels, frame.pixels)
    monkeypatch.setattr(fits_pack, "WIDE", 0)
    io.write(tmp_path / "u.fits.fz", frame, dtype="uint16")
    io.write(tmp_path / "u.fits", frame, dtype="uint16")
    np.testing.assert_array_equal(fits.getdata(tmp_path / "u.fits.fz", 1), fits.getdata(tmp_path / "u.fits", 1))


def test_tile_compressed_output_with_checksums(tmp_path):
    fits.HDUList([fits.PrimaryHDU(), sci()]).writeto(tmp_path / "a.fits", checksum=True)
    io.write(tmp_path / "b.fits.fz", io.read(tmp_path / "a.fits"))
    with fits.open(tmp_path / "b.fits.fz", checksum=True, disable_image_compression=True) as hdus:
        assert all(h.verify_checksum() == 1 and h.verify_datasum() == 1 for h in hdus)


def test_other_extensions_are_carried_over(tmp_path):
    table = fits.BinTableHDU.from_columns([fits.Column("a", "E", array=[1.0, 2.0])], name="CATALOG")
    lookup = sci(np.ones((2, 2), "f4"), "WCSDVARR", CRVAL1=1.0, CRVAL2=1.0, CDELT1=8.0, CDELT2=8.0)
    others = [sci(IMAGE, "SKYMAP"), table, lookup, sci(IMAGE, "ERR"), sci(IMAGE, "SUPPORT")]
    frame = io.read(save(tmp_path / "a.fits", sci(), *others))
    io.write(tmp_path / "b.fits", finer(frame, 2), planes={"SUPPORT": finer(frame, 2).pixels}, scale=2)
    with fits.open(tmp_path / "b.fits") as hdus:
        assert [h.name for h in hdus] == ["PRIMARY", "SCI", "SUPPORT", "SKYMAP", "CATALOG", "WCSDVARR"]
        assert hdus["SUPPORT"].shape == (24, 32)
        np.testing.assert_array_equal(hdus["SKYMAP"].data, IMAGE)
        np.testing.assert_array_equal(hdus["CATALOG"].data["a"], [1, 2])
        assert (hdus["WCSDVARR"].header["CDELT1"], hdus["WCSDVARR"].data[0, 0]) == (16.0, 2.0)


def test_plain_primary_becomes_sci(tmp_path):
    hdu = fits.PrimaryHDU(IMAGE)
    hdu.header.update({"EXPTIME": 5.0, "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CD1_1": -1e-4, "CD2_2": 1e-4})
    hdu.writeto(tmp_path / "a.fits")
    io.write(tmp_path / "b.fits", finer(io.read(tmp_path / "a.fits"), 4), scale=4)
    with fits.open(tmp_path / "b.fits") as hdus:
        assert hdus[0].data is None
        assert hdus[0].header["EXPTIME"] == 5.0
        assert "CD1_1" not in hdus[0].header
        assert hdus["SCI"].header["CD1_1"] == -2.5e-5


def test_integers_are_rounded_and_clipped_pixels_counted(tmp_path):
    values = np.array([[[0.5, 1.5, -3.0, 7e4]]], "f4")
    frame = Frame(pixels=values, mask=np.zeros(values.shape, bool), kind="astro", axes="YX", shape=(1, 4))
    report = io.write(tmp_path / "a.fits", frame, dtype="uint16")
    assert report["clipped"] == 2
    np.testing.assert_array_equal(io.read(tmp_path / "a.fits").pixels[0, 0], [0, 2, 0, 65535])


def test_cube_keeps_its_shape(tmp_path):
    cube = RNG.normal(size=(2, 1, 5, 6)).astype("f4")
    fits.PrimaryHDU(cube).writeto(tmp_path / "a.fits")
    io.write(tmp_path / "b.fits", finer(io.read(tmp_path / "a.fits"), 2), scale=2)
    assert fits.getdata(tmp_path / "b.fits", "SCI").shape == (2, 1, 10, 12)


def test_existing_output_stays(tmp_path):
    frame = io.read(save(tmp_path / "a.fits", sci()))
    before = (tmp_path / "a.fits").read_bytes()
    with pytest.raises(UsageError, match="exists; give --overwrite"):
        io.write(tmp_path / "a.fits", frame)
    assert (tmp_path / "a.fits").read_bytes() == before
    io.write(tmp_path / "a.fits", frame, history=["again"], overwrite=True)
    assert "again" in str(fits.getheader(tmp_path / "a.fits")["HISTORY"])


def test_nothing_is_left_after_a_failure(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    frame = io.read(save(tmp_path / "a.fits", sci()))
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(UsageError, match="cannot be written"):
        io.write(tmp_path / "file" / "b.fits", frame)
    with pytest.raises(Exception, match="."):
        io.write(tmp_path / "deep" / "b.fits", frame, planes={"ERR": np.array(["text"])})
    with pytest.raises(UsageError, match="not a format"):
        io.write(tmp_path / "b.png", frame)
    assert sorted(os.listdir(tmp_path)) == before


def test_describe(sample_data):
    import json

    told = info.describe(sample_data / "47tuc.fits")
    assert (told["kind"], told["noise"], told["wcs"], told["quantity"]) == ("astro", "plane", True, "sum")
    assert json.loads(json.dumps(told)) == told


# -- real frames ------------------------------------------------------------------------------------------------------


def test_every_real_frame_is_read(shared_data):
    files = sorted((shared_data / "astro").rglob("*.fits"))
    assert files
    images = [path for path in files if not path.name.endswith("-psfex.fits")]  # a PSF model is a table
    for path in images:
        frame = io.read(path)  # none of them is refused: all have an image
        assert not frame.mask.all()
        assert frame.pixels.dtype.isnative


def test_real_noise_and_flags(shared_data):
    astro = shared_data / "astro"
    hubble = io.read(astro / "hst_47tuc/j8bt06nyq_flt.fits")
    assert 0.025 < hubble.mask.mean() < 0.03  # 2.8 % of the pixels are flagged
    assert hubble.pixel_size.x == pytest.approx(0.0284, abs=1e-4)
    decam = io.read(astro / "legacypipe/testcase4/c4d_170316_062107_ooi_z_ls9.N2.fits")
    assert decam.mask.sum() == 177  # weight 0
    steps = np.diff(decam.pixels[0], axis=1)
    assert np.median(decam.variance) == pytest.approx(
        (1.4826 * np.median(np.abs(steps))) ** 2 / 2, rel=0.3
    )  # resampled
    beam = io.read(astro / "ir/gc_bolocam_gps.fits")
    assert beam.mask.sum() == 20399
    assert beam.facts["bmaj"] == pytest.approx(0.00916667)


@pytest.mark.parametrize("name", ["hst_47tuc/j8bt06nyq_flt.fits", "wcs_samples/tpv.fits", "compressed/m13_rice.fits",
                                  "hsc_cutouts/test1/cutout-HSC-G-9813-pdr3_dud_rev.fits", "scarlet_pair/Cut_HSC.fits",
                                  "legacypipe/mzlsbass2/k4m_160319_075112_ooi_zd_ls9.CCD3.fits",
                                  "wcs_samples/sipsample.fits"])  # fmt: skip
def test_real_frames_are_written(tmp_path, shared_data, name):
    frame = io.read(shared_data / "astro" / name)
    io.write(tmp_path / "a.fits", finer(frame, 2), scale=2)
    again = io.read(tmp_path / "a.fits")
    np.testing.assert_array_equal(np.isnan(again.pixels), np.isnan(finer(frame, 2).pixels))
    assert again.pixel_size.x == pytest.approx(frame.pixel_size.x / 2, rel=1e-9)
    assert again.unit == frame.unit


def test_photutils_measures_the_same_flux(tmp_path, sample_data):
    """An aperture over the same sky, on the file and on one of four times finer pixels with the flux divided."""
    aperture = pytest.importorskip("photutils.aperture", reason="photutils is not installed")
    frame = cluster(sample_data)
    fine = finer(frame, 4)
    io.write(tmp_path / "a.fits", fine.with_(pixels=fine.pixels / 16), scale=4)
    sums = []
    for path, f in ((sample_data / "47tuc.fits", 1), (tmp_path / "a.fits", 4)):
        data = np.nan_to_num(fits.getdata(path, "SCI"))  # big-endian, as it is in the file
        place = [(f * (x + 0.5) - 0.5, f * (y + 0.5) - 0.5) for x, y in ((30.0, 40.0), (60.25, 80.5))]
        sums.append(aperture.aperture_photometry(data, aperture.CircularAperture(place, 8.0 * f))["aperture_sum"])
    np.testing.assert_allclose(sums[1], sums[0], rtol=1e-5)  # float32 pixels, both overlaps exact

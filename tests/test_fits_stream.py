"""FITS by windows: parts of the whole, in little memory, resumable, and damage found where it is."""

from __future__ import annotations

import errno
import gzip
import os
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from sciresdiff import io
from sciresdiff.errors import InputError, ResourceError
from sciresdiff.frame import PLANES, Frame
from sciresdiff.io import raw_array, sampling
from sciresdiff.io.fits.checksum import encode_checksum, ones_complement_sum
from sciresdiff.io.fits.image_reader import apply_scaling
from sciresdiff.io.source import without_arrays
from sciresdiff.region import Region

RNG = np.random.default_rng(0)
IMAGE = RNG.normal(100, 5, (60, 50)).astype("f4")
DQ = RNG.choice([0, 0, 0, 1, 64, 256], IMAGE.shape).astype("i2")


@pytest.fixture
def streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small frames go the way of large ones."""
    monkeypatch.setattr(sampling, "MOST", 400)
    monkeypatch.setattr(sampling, "SIDE", 10)


def image(data=IMAGE, name="SCI", **cards):
    hdu = fits.ImageHDU(data, name=name)
    hdu.header.update(cards)
    return hdu


def integers(**cards):
    hdu = fits.ImageHDU((IMAGE * 20).astype("i2"), name="SCI")
    hdu.header.update(cards)
    return hdu


def primary(**cards):
    hdu = fits.PrimaryHDU()
    hdu.header.update(cards)
    return hdu


def tiles(kind, data=IMAGE, **more):
    return fits.CompImageHDU(data, name="SCI", compression_type=kind, tile_shape=(7, 50), **more)


WEIGHT = np.where(IMAGE > 105, 0, 1 / 25).astype("f4")
HOLES = np.where(IMAGE > 110, np.nan, IMAGE)
FILES = {
    "plain": [fits.PrimaryHDU(IMAGE)],
    "double": [fits.PrimaryHDU(IMAGE.astype("f8"))],
    "unsigned": [fits.PrimaryHDU((IMAGE * 300).astype("u2"))],
    "unsigned long": [fits.PrimaryHDU((IMAGE * 300).astype("u4"))],
    "signed bytes": [fits.PrimaryHDU((IMAGE - 100).astype("i1"))],
    "scaled": [fits.PrimaryHDU(), integers(BSCALE=0.5, BZERO=10.0, BLANK=2001)],
    "blank": [fits.PrimaryHDU(), integers(BLANK=2001)],
    "cube": [fits.PrimaryHDU(np.stack([IMAGE, IMAGE + 1, IMAGE + 2]))],
    "hypercube": [fits.PrimaryHDU(np.stack([IMAGE, IMAGE + 1, IMAGE + 2, IMAGE]).reshape(2, 2, 60, 50))],
    "holes": [primary(BUNIT="adu"), image(HOLES)],
    "hubble": [primary(TELESCOP="HST"), image(), image(np.sqrt(np.abs(IMAGE)), "ERR"), image(DQ, "DQ")],
    "weight": [primary(), image(), image(WEIGHT, "IVM")],
    "weight of another unit": [primary(), image(), image(WEIGHT * 1e5, "WHT")],
    "one plane for all": [primary(), image(np.stack([IMAGE] * 2)), image(IMAGE, "VAR"), image(DQ, "DQ")],
    "saturated": [primary(SATURATE=108.0), image()],
    "RICE_1": [primary(), tiles("RICE_1")],
    "GZIP_2": [primary(), tiles("GZIP_2", quantize_level=0), image(DQ, "DQ")],
    "HCOMPRESS_1": [primary(), fits.CompImageHDU(IMAGE, compression_type="HCOMPRESS_1", tile_shape=(10, 50))],
    "compressed cube": [primary(), fits.CompImageHDU(np.stack([IMAGE] * 3), tile_shape=(1, 9, 50), quantize_level=0,
                                                     compression_type="GZIP_1")],
}  # fmt: skip


def saved(path: Path, kind: str) -> Path:
    fits.HDUList(FILES[kind]).writeto(path)
    return path


def same(a: Frame, b: Frame, *place) -> None:
    for name in PLANES:
        one, other = getattr(a, name), getattr(b, name)
        assert (one is None) == (other is None), name
        if one is not None:
            np.testing.assert_array_equal(one, other[place] if place else other, err_msg=name)
            assert one.dtype == other.dtype


@pytest.mark.parametrize("kind", FILES)
def test_windows_of_a_file_that_is_not_held(tmp_path, streamed, kind):
    with io.open_source(saved(tmp_path / "a.fits", kind)) as source:
        whole = source.whole()
        same(whole, io.read(tmp_path / "a.fits"))
        assert source.frame.pixels.shape == whole.pixels.shape
        for name in PLANES:
            assert (getattr(source.frame, name) is None) == (getattr(whole, name) is None)
        last = whole.planes - 1
        for y0, y1, x0, x1 in ((0, 60, 0, 50), (3, 31, 7, 44), (59, 60, 49, 50), (0, 7, 3, 9), (6, 8, 0, 50)):
            same(
                source.window(last, Region(y0, y1, x0, x1)), whole, slice(last, last + 1), slice(y0, y1), slice(x0, x1)
            )


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_is_held_has_the_same_values(tmp_path, monkeypatch, kind):
    """Also those that astropy gives; the variance of masked pixels alone is that of other places."""
    held = io.read(saved(tmp_path / "a.fits", kind))
    monkeypatch.setattr(sampling, "MOST", 400)
    monkeypatch.setattr(sampling, "SIDE", 10)
    read = io.read(tmp_path / "a.fits")
    for name in ("pixels", "mask", "saturated", "dq"):
        np.testing.assert_array_equal(getattr(read, name), getattr(held, name))
    if held.variance is not None and kind != "weight of another unit":  # its unit is measured
        np.testing.assert_array_equal(read.variance[~held.mask], held.variance[~held.mask])
    with warnings.catch_warnings(), fits.open(tmp_path / "a.fits") as hdus:
        warnings.simplefilter("ignore")
        data = next(np.asarray(h.data) for h in hdus if h.data is not None)
    assert held.dtype == data.dtype.newbyteorder("=")
    np.testing.assert_array_equal(held.pixels, data.reshape(held.pixels.shape).astype("f4"))


@pytest.mark.parametrize("kind", ["hubble", "RICE_1", "unsigned"])
def test_gzip_is_unpacked_once_and_leaves_nothing(tmp_path, streamed, monkeypatch, kind):
    packed, space = tmp_path / "a.fits.gz", tmp_path / "space"
    packed.write_bytes(gzip.compress(saved(tmp_path / "a.fits", kind).read_bytes()))
    space.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(space))
    with io.open_source(packed) as source:
        same(
            source.window(0, Region(5, 20, 3, 9)), io.read(tmp_path / "a.fits"), slice(None), slice(5, 20), slice(3, 9)
        )
    assert not list(space.iterdir())


def test_no_room_to_unpack(tmp_path, monkeypatch):
    packed = tmp_path / "a.fits.gz"
    packed.write_bytes(gzip.compress(saved(tmp_path / "a.fits", "plain").read_bytes()))

    def full(*_):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr("sciresdiff.io.fits.open._copy_hdus", full)
    with pytest.raises(ResourceError, match=r"a.fits.gz: no room in .* to unpack it; set TMPDIR"):
        io.read(packed)


@pytest.mark.parametrize("end", [".fits", ".fits.gz"])
def test_a_truncated_file_is_found_when_it_is_opened(tmp_path, streamed, end):
    whole = saved(tmp_path / "a.fits", "hubble").read_bytes()
    cut = whole[:-4000]
    path = tmp_path / f"cut{end}"
    path.write_bytes(gzip.compress(cut) if end.endswith("gz") else cut)
    with pytest.raises(InputError, match="not a whole FITS file"), io.open_source(path):
        pass
    if end.endswith("gz"):
        path.write_bytes(path.read_bytes()[:-500])
        with pytest.raises(InputError, match="not a whole FITS file"), io.open_source(path):
            pass


@pytest.mark.parametrize("kind", ["RICE_1", "GZIP_2", "HCOMPRESS_1"])
def test_a_damaged_tile_is_found_where_it_is(tmp_path, streamed, kind):
    path = saved(tmp_path / "a.fits", kind)
    with fits.open(path, disable_image_compression=True) as hdus:
        head, start = hdus[1].header, hdus[1].fileinfo()["datLoc"]
    raw = bytearray(path.read_bytes())
    entry = np.frombuffer(raw[start + 4 * head["NAXIS1"] :][: head["NAXIS1"]], ">i4")  # of the fifth tile
    length, at = entry[entry.nonzero()[0][0] :][:2]
    heap = start + head["NAXIS1"] * head["NAXIS2"]
    raw[heap + at : heap + at + length] = b"\xff" * int(length)
    path.write_bytes(raw)
    with io.open_source(path) as source:
        source.window(0, Region(0, 5, 0, 50))
        with pytest.raises(InputError, match=r"extension \S+, rows 0 to 59 cannot be read"):
            source.window(0, Region(0, 60, 0, 50))


COUNTS = {"NAXIS   =                    2": "9999999999", "NAXIS1  =                   50": "-50",
          "BITPIX  =                  -32": "0", "NAXIS2  =                   60": "'text'"}  # fmt: skip


@pytest.mark.parametrize("card", COUNTS)
def test_counts_that_are_none(tmp_path, card):
    """They are refused before anything follows them: 1e10 axes, or a step backwards in the file, have no end."""
    raw = saved(tmp_path / "a.fits", "plain").read_bytes()
    bad = card[:10] + COUNTS[card].rjust(20)
    (tmp_path / "a.fits").write_bytes(raw.replace(card.encode(), bad.encode()))
    with pytest.raises(InputError, match="a.fits: "):
        io.read(tmp_path / "a.fits")


def test_nothing_but_nan_is_refused_when_all_is_read(tmp_path, streamed):
    fits.PrimaryHDU(np.full((40, 40), np.nan, "f4")).writeto(tmp_path / "a.fits")
    with io.open_source(tmp_path / "a.fits") as source:
        assert source.window(0, Region(0, 5, 0, 5)).mask.all()
        with pytest.raises(InputError, match=r"a.fits: all pixels are NaN"):
            source.whole()


def test_variance_outside_of_what_was_looked_at(tmp_path, streamed):
    var = np.zeros_like(IMAGE)
    fits.HDUList([primary(), image(), image(var, "VAR")]).writeto(tmp_path / "none.fits")
    with io.open_source(tmp_path / "none.fits") as source:
        assert source.frame.variance is None  # an empty plane says nothing
    with (
        pytest.raises(InputError, match="no pixel has one above 0"),
        io.open_source(tmp_path / "none.fits", variance="VAR"),
    ):
        pass
    var[17, 23] = 9.0
    fits.HDUList([primary(), image(), image(var, "VAR")]).writeto(tmp_path / "one.fits")
    with io.open_source(tmp_path / "one.fits") as source:
        np.testing.assert_array_equal(source.whole().variance, 9.0)


def test_little_memory(tmp_path):
    """A window of a frame of 36 MB costs what the window does."""
    fits.PrimaryHDU(np.ones((3000, 3000), "i2")).writeto(tmp_path / "a.fits")
    tracemalloc.start()
    try:
        with io.open_source(tmp_path / "a.fits") as source:
            source.window(0, Region(1000, 1100, 0, 1000))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6e6  # the window is 1e5 pixels; the imports and headers take the rest


@pytest.mark.parametrize(("kind", "zero", "step", "blank"), [("i2", 32768, 1, None), ("u1", -128, 1, None),
                         ("i4", 0, 1, 7), ("i4", 0.5, 2.0, None), ("f4", 3, 0.1, 5),
                         ("i8", 2**63, 1, None)])  # fmt: skip
def test_scaling_is_that_of_astropy(tmp_path, kind, zero, step, blank):
    data = np.arange(120).reshape(10, 12).astype(kind)
    header = fits.Header({"SIMPLE": True, "BITPIX": -32 if kind == "f4" else 8 * data.itemsize, "NAXIS": 2,
                          "NAXIS1": 12, "NAXIS2": 10, "BZERO": zero, "BSCALE": step})  # fmt: skip
    if blank is not None:
        header["BLANK"] = blank
    raw = header.tostring().encode() + data.astype(data.dtype.newbyteorder(">")).tobytes().ljust(2880, b"\0")
    (tmp_path / "a.fits").write_bytes(raw)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = fits.getdata(tmp_path / "a.fits")
    found = apply_scaling(data, zero, step, blank)
    assert found.dtype == wanted.dtype.newbyteorder("=")
    np.testing.assert_array_equal(found, wanted)


# -- writing ----------------------------------------------------------------------------------------------------------

CARDS = {"SRDSCALE": 2, "SRDMODEL": "astro-x2", "SRDCHI2": 1.0, "SRDTRUST": None}
TOLD = {"SRDCHI2": 0.25, "SRDTRUST": "alpha 0.1 delta 0.1, 100 simulated frames"}


def frame_of(tmp_path, kind="hubble", **more):
    return io.read(saved(tmp_path / "in.fits", kind)).with_(**more)


def by_windows(path, frame, part=None, stop=None, cards=CARDS, told=TOLD):
    """Written in windows of 20 x 30, the last one first; stops before the given one."""
    draws = np.stack([frame.pixels[0] * k for k in (1, 2, 3)])
    planes = {"ERR": io.Plane(), "DQ": io.Plane("i4"), "DRAWS": io.Plane("f4", 3)}
    with io.open_sink(path, without_arrays(frame), planes=planes,
                    provenance=cards, history=["by a test"], part=part) as sink:  # fmt: skip
        places = [(y, x) for y in (40, 20, 0) for x in (30, 0)]
        for i, (y, x) in enumerate(places):
            if i == stop:
                raise KeyboardInterrupt
            if stop is None and part and i < 3:
                continue  # a run that goes on
            here = (slice(y, y + 20), slice(x, x + 30))
            sink.put("SCI", 0, y, x, frame.pixels[0][here])
            sink.put("ERR", 0, y, x, frame.variance[0][here])
            sink.put("DQ", 0, y, x, frame.dq[0][here])
            sink.put("DRAWS", 0, y, x, draws[(slice(None), *here)])
        sink.sync()
        np.testing.assert_array_equal(sink.get("SCI", 0, Region(5, 25, 10, 40)), frame.pixels[0, 5:25, 10:40])
        np.testing.assert_array_equal(sink.get("DRAWS", 0, Region(5, 25, 10, 40)), draws[:, 5:25, 10:40])
        assert not path.exists() or path.stat().st_size == 0
        return sink.finish(told)


def at_once(path, frame):
    draws = np.stack([frame.pixels[0] * k for k in (1, 2, 3)])
    others = {"ERR": frame.variance.astype("f4"), "DQ": frame.dq, "DRAWS": draws}
    return io.write(path, frame, planes=others, provenance={**CARDS, **TOLD}, history=["by a test"])


@pytest.mark.parametrize("end", [".fits", ".fits.gz"])
def test_a_run_that_was_stopped_gives_the_same_bytes(tmp_path, end):
    frame = frame_of(tmp_path)
    for folder in ("whole", "resumed", "once"):
        (tmp_path / folder).mkdir()
    path = tmp_path / "resumed" / f"x{end}"
    part = path.with_name(f".{path.name}.part")
    with pytest.raises(KeyboardInterrupt):
        by_windows(path, frame, part, stop=3)
    assert [p.name for p in path.parent.iterdir()] == [part.name]
    by_windows(path, frame, part)
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    by_windows(tmp_path / "whole" / f"x{end}", frame)
    at_once(tmp_path / "once" / f"x{end}", frame)
    assert path.read_bytes() == (tmp_path / "whole" / f"x{end}").read_bytes()
    assert path.read_bytes() == (tmp_path / "once" / f"x{end}").read_bytes()
    with fits.open(path) as hdus:
        assert [h.name for h in hdus] == ["PRIMARY", "SCI", "ERR", "DQ", "DRAWS"]
        assert hdus["DRAWS"].shape == (3, 60, 50)
        assert hdus[0].header["SRDTRUST"] == TOLD["SRDTRUST"]
        np.testing.assert_array_equal(hdus["SCI"].data, frame.pixels[0])


def test_an_unfinished_file_of_another_kind_is_begun_anew(tmp_path):
    frame, part = frame_of(tmp_path), tmp_path / "x.part"
    part.write_bytes(b"something else")
    with pytest.raises(KeyboardInterrupt):
        by_windows(tmp_path / "x.fits", frame, part, stop=3)
    size = part.stat().st_size
    with io.open_sink(tmp_path / "x.fits", without_arrays(frame), planes={"ERR": io.Plane()}, part=part) as sink:
        assert part.stat().st_size < size
        assert not sink.get("SCI", 0, Region(0, 60, 0, 50)).any()


def test_a_text_that_is_longer_than_its_room_is_cut(tmp_path):
    frame = frame_of(tmp_path)
    by_windows(tmp_path / "x.fits", frame, told={**TOLD, "SRDTRUST": "long " * 100})
    with fits.open(tmp_path / "x.fits") as hdus:
        assert hdus[0].header["SRDTRUST"].endswith("...")
        assert 100 < len(hdus[0].header["SRDTRUST"]) < 140
        hdus.verify("exception")


def test_checksums_are_true(tmp_path):
    fits.HDUList(FILES["hubble"]).writeto(tmp_path / "sum.fits", checksum=True)
    frame = io.read(tmp_path / "sum.fits")
    by_windows(tmp_path / "x.fits", frame)
    with warnings.catch_warnings(), fits.open(tmp_path / "x.fits", checksum=True) as hdus:
        warnings.simplefilter("error")
        assert all("CHECKSUM" in h.header for h in hdus)
        assert all(h.verify_checksum() == 1 and h.verify_datasum() == 1 for h in hdus)


def test_checksum_of_any_sum():
    """In the place of 16 zeros the letters bring any sum to -0, and none of them is a mark."""
    zeros = ones_complement_sum([b"0" * 16])
    for total in (*RNG.integers(zeros, 2**32, 300).tolist(), zeros, 2**32 - 1):
        text = encode_checksum(total)
        assert text.isalnum()
        letters = np.roll(np.frombuffer(text.encode(), "u1"), -1).tobytes()  # a card's value begins a byte early
        assert ones_complement_sum([letters], total - zeros) == 0xFFFFFFFF


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "uint32", "float64"])
def test_types(tmp_path, dtype):
    frame = frame_of(tmp_path, "plain")
    report = io.write(tmp_path / "x.fits", frame, dtype=dtype)
    data = fits.getdata(tmp_path / "x.fits", "SCI")
    assert data.dtype.newbyteorder("=") == dtype
    np.testing.assert_array_equal(data, np.rint(frame.pixels[0]) if data.dtype.kind in "iu" else frame.pixels[0])
    assert report["clipped"] == 0
    with io.open_sink(tmp_path / "y.fits", without_arrays(frame), dtype=dtype) as sink:
        assert sink.put("SCI", 0, 0, 0, frame.pixels[0] * -1) == (3000 if dtype.startswith("u") else 0)
        assert sink.get("SCI", 0, Region(0, 60, 0, 50)).dtype == dtype
        sink.finish({})


def test_a_full_disk_is_known_before_the_work(tmp_path, monkeypatch):
    frame = frame_of(tmp_path)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with (
        pytest.raises(ResourceError, match=r"x.fits: no room on the disk for its 2.02e-05 GB; free some"),
        io.open_sink(tmp_path / "new" / "x.fits", without_arrays(frame)),
    ):
        pass
    assert not (tmp_path / "new").exists()
    monkeypatch.undo()
    monkeypatch.setattr(raw_array, "write_at", full)
    with pytest.raises(ResourceError, match=r"x.fits: no room on the disk"):
        by_windows(tmp_path / "x.fits", frame, tmp_path / "x.part")
    assert (tmp_path / "x.part").exists(), "a run with a journal can go on"


def test_large_extensions_are_copied_as_they_are(tmp_path):
    """Tables, unsigned images and compressed ones have the same bytes; a primary image becomes an extension."""
    table = fits.BinTableHDU.from_columns([fits.Column("a", "E", array=[1.0, 2.0])], name="CATALOG")
    words = image((IMAGE * 3).astype("u2"), "COUNTS")
    old = [fits.PrimaryHDU((IMAGE * 3).astype("u2")), image(), table, words, fits.CompImageHDU(IMAGE, name="PACKED")]
    old[0].header["OBSERVER"] = "somebody"
    fits.HDUList(old).writeto(tmp_path / "in.fits")
    io.write(tmp_path / "x.fits", io.read(tmp_path / "in.fits[SCI]"))
    with fits.open(tmp_path / "x.fits") as new, fits.open(tmp_path / "in.fits") as was:
        assert [h.name for h in new] == ["PRIMARY", "SCI", "", "CATALOG", "COUNTS", "PACKED"]
        np.testing.assert_array_equal(new[2].data, was[0].data)
        for name in ("COUNTS", "PACKED"):
            np.testing.assert_array_equal(new[name].data, was[name].data)
        np.testing.assert_array_equal(new["CATALOG"].data["a"], [1, 2])
        new.verify("exception")
    raw = (tmp_path / "in.fits").read_bytes()
    assert raw[raw.index(b"XTENSION= 'BINTABLE'") :] in (tmp_path / "x.fits").read_bytes()


def test_an_input_that_is_gone_when_it_is_copied(tmp_path):
    fits.HDUList([primary(), image(), image(IMAGE, "SKY")]).writeto(tmp_path / "in.fits")
    frame = io.read(tmp_path / "in.fits")
    (tmp_path / "in.fits").unlink()
    with pytest.raises(InputError, match=r"in.fits: no such file"):
        io.write(tmp_path / "x.fits", frame)
    assert not list(tmp_path.iterdir())


def test_real_frames_by_windows(shared_data, streamed):
    for name in ("hst_47tuc/j8bt06nyq_flt.fits", "kids_viking/r.fits", "compressed/comp.fits",
                 "legacypipe/testcase4/c4d_170316_062107_ooi_z_ls9.N2.fits"):  # fmt: skip
        with io.open_source(shared_data / "astro" / name) as source:
            h, w = source.frame.pixels.shape[1:]
            y, x = h // 3, w // 5
            part = source.window(0, Region(y, y + 60, x, x + 50))
            same(part, source.whole(), slice(0, 1), slice(y, y + 60), slice(x, x + 50))

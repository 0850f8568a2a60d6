"""TIFF written by windows, read back by tifffile alone."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sciresdiff import io
from sciresdiff.errors import ResourceError, UsageError
from sciresdiff.frame import Frame, PixelSize
from sciresdiff.io.source import without_arrays
from sciresdiff.io.tiff import pyramid as tiff_pyramid
from sciresdiff.io.tiff import write as tiff_write
from sciresdiff.io.tiff.ifd import to_rational
from sciresdiff.io.tiff.metadata import TiffHeader
from sciresdiff.io.tiff.read import to_planes
from sciresdiff.region import Region

RNG = np.random.default_rng(3)
AXES = ("YX", "TYX", "ZCYX", "CZYX", "TZCYX", "YXS", "SYX", "TYXS", "TSYX", "YXT", "XY", "CYXT")
TYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "f2", "f4", "f8")
FEW = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def an_image(axes: str, dtype: str, style: str = "plain", sides: tuple[int, ...] = (2, 3, 2, 9, 11)) -> Frame:
    n = dict(zip("TZCYX", sides, strict=True)) | {"S": 3}
    shape = tuple(n[a] for a in axes)
    data = RNG.integers(0, 120, shape).astype(dtype)
    planes = to_planes(data, axes).astype("f4")
    header = TiffHeader(style, axes, shape, PixelSize(0.2, 0.1, "um"), stated=True)
    return Frame(planes, np.zeros(planes.shape, bool), "micro", axes=axes, shape=shape, dtype=np.dtype(dtype),
                 header=header, quantity="mean")  # fmt: skip


def array_of(frame: Frame) -> Any:
    """The file's array, from the planes."""
    others = [i for i, a in enumerate(frame.axes) if a not in "YX"]
    order = [*others, frame.axes.index("Y"), frame.axes.index("X")]
    stack = frame.pixels.reshape(*(frame.shape[i] for i in others), *frame.pixels.shape[1:])
    return stack.transpose(np.argsort(order))


@given(axes=st.sampled_from(AXES), dtype=st.sampled_from(TYPES), style=st.sampled_from(["plain", "imagej"]),
       end=st.sampled_from(["tif", "ome.tif"]), h=st.integers(1, 9), w=st.integers(1, 9),
       big=st.booleans())  # fmt: skip
@FEW
def test_tifffile_reads_what_was_written(
    tmp_path: Path, monkeypatch: Any, axes: str, dtype: str, style: str, end: str, h: int, w: int, big: bool
) -> None:
    frame = an_image(axes, dtype, style, (2, 3, 2, h + 1, w + 1))
    path = tmp_path / f"a.{end}"
    with monkeypatch.context() as patch:
        patch.setattr(tiff_write, "BIG", 0 if big else 2**32)
        io.write(path, frame, overwrite=True, provenance={"SRDSCALE": 1})
    with tifffile.TiffFile(path) as tif:
        assert tif.is_bigtiff == big
        assert tif.is_ome == (end == "ome.tif")
        data, found = tif.asarray(), tif.series[0].axes
    assert data.dtype == np.dtype("f4" if dtype == "f2" else dtype)  # half precision is too coarse for a mean
    if end == "tif":
        assert (found, data.shape) == (axes, frame.shape)
        np.testing.assert_array_equal(data, array_of(frame))
    else:
        np.testing.assert_array_equal(to_planes(data, found), frame.pixels)
    if "S" in axes and dtype in ("u1", "i1"):
        return  # 8-bit colour is not read
    again = io.read(path)
    np.testing.assert_array_equal(again.pixels, frame.pixels)
    assert again.pixel_size is not None
    assert (again.pixel_size.y, again.pixel_size.x) == pytest.approx((0.2, 0.1), rel=1e-6)  # 32-bit fractions
    assert again.facts["scale"] == 1


@given(x=st.floats(0, 1e12, allow_subnormal=False))
@FEW
def test_resolutions_are_the_closest_fractions(x: float) -> None:
    n, d = to_rational(x)
    assert 0 <= n < 2**32
    assert 1 <= d < 2**32
    if 1e-6 < x < 2**31:
        assert n / d == pytest.approx(x, rel=1e-4 if x < 1e-5 else 1e-9)  # 1e-6 has 32 bits below, so few digits
    elif x == 0:
        assert (n, d) == (0, 1)


@pytest.mark.parametrize("axes", ["TCYX", "YXS", "SYX", "YXT"])
def test_windows_give_the_bytes_of_the_whole(tmp_path: Path, axes: str) -> None:
    frame = an_image(axes, "u2")
    err, draws = frame.pixels / 3, np.stack([frame.pixels + k for k in range(3)], 1)
    io.write(tmp_path / "whole.tif", frame, planes={"ERR": err, "DRAWS": draws}, provenance={"SRDFLUX": 0.25})
    kinds = {"ERR": io.Plane(), "DRAWS": io.Plane(layers=3), "GATE": io.Plane()}
    with io.open_sink(tmp_path / "parts.tif", without_arrays(frame), planes=kinds, provenance={"SRDFLUX": 1.0}) as sink:
        for plane in reversed(range(frame.planes)):
            for y, x in ((4, 0), (0, 0), (4, 5), (0, 5)):
                here = (slice(y, y + 5 if y else 4), slice(x, x + 6 if x else 5))
                sink.put("SCI", plane, y, x, frame.pixels[plane][here])
                sink.put("ERR", plane, y, x, err[plane][here])
                sink.put("GATE", plane, y, x, err[plane][here])
                sink.put("DRAWS", plane, y, x, draws[plane][(slice(None), *here)])
        assert sink.get is not None
        np.testing.assert_array_equal(sink.get("DRAWS", 0, Region(1, 5, 2, 9)), draws[0, :, 1:5, 2:9])
        assert sink.get("SCI", 0, Region(1, 5, 2, 9)).dtype == np.uint16
        report = sink.finish({"SRDFLUX": 0.25})
    assert [Path(f).name for f in report["files"]] == ["parts.tif", "parts_err.tif", "parts_draws.tif"]
    for end in ("", "_err", "_draws"):
        assert (tmp_path / f"parts{end}.tif").read_bytes() == (tmp_path / f"whole{end}.tif").read_bytes()


def test_clipped_values_are_counted(tmp_path: Path) -> None:
    frame = an_image("YX", "u1")
    with io.open_sink(tmp_path / "a.tif", without_arrays(frame)) as sink:
        assert sink.put("SCI", 0, 0, 0, frame.pixels[0] + 200) > 0
        assert sink.put("SCI", 0, 0, 0, frame.pixels[0] * 0 - 1) == frame.pixels.size
        assert sink.finish({})["clipped"] > frame.pixels.size


def started(path: Path, frame: Frame, part: Path, *, stop: bool) -> None:
    kinds = {"ERR": io.Plane()}
    with io.open_sink(path, without_arrays(frame), planes=kinds, part=part, overwrite=False) as sink:
        assert sink.get is not None
        done = np.array_equal(sink.get("ERR", 0, Region(0, 3, 0, 11)), frame.pixels[0, :3])
        if not done:
            sink.put("SCI", 0, 0, 0, frame.pixels[0, :3])
            sink.put("ERR", 0, 0, 0, frame.pixels[0, :3])
            sink.sync()
        if stop:
            raise KeyboardInterrupt
        assert done
        sink.put("SCI", 0, 3, 0, frame.pixels[0, 3:])
        sink.put("ERR", 0, 3, 0, frame.pixels[0, 3:])
        sink.finish({})


def test_an_unfinished_file_is_gone_on_with(tmp_path: Path) -> None:
    frame, path, part = an_image("YX", "f4"), tmp_path / "a.tif", tmp_path / ".a.tif.part"
    with pytest.raises(KeyboardInterrupt):
        started(path, frame, part, stop=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".a.tif.part", ".a.tif.part.1"]
    started(path, frame, part, stop=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tif", "a_err.tif"]
    io.write(tmp_path / "b.tif", frame, planes={"ERR": frame.pixels})
    assert path.read_bytes() == (tmp_path / "b.tif").read_bytes()
    assert (tmp_path / "a_err.tif").read_bytes() == (tmp_path / "b_err.tif").read_bytes()


def test_a_run_stopped_between_two_names_is_gone_on_with(tmp_path: Path) -> None:
    frame, path, part = an_image("YX", "f4"), tmp_path / "a.tif", tmp_path / ".a.tif.part"
    with pytest.raises(KeyboardInterrupt):
        started(path, frame, part, stop=True)
    os.replace(tmp_path / ".a.tif.part.1", tmp_path / "a_err.tif")
    started(path, frame, part, stop=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tif", "a_err.tif"]


def test_a_full_disk_is_known_at_once_and_leaves_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(ResourceError, match=r"a\.tif: no room"), io.open_sink(tmp_path / "new" / "a.tif",
                                                                            an_image("YX", "f4")):  # fmt: skip
        pytest.fail("the room is asked for before anything is put")
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_up_later_leaves_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    frame = an_image("YX", "f4")
    with pytest.raises(ResourceError, match="no room"), io.open_sink(tmp_path / "a.tif", without_arrays(frame)) as sink:
        monkeypatch.setattr(os, "pwrite", full)
        sink.put("SCI", 0, 0, 0, frame.pixels[0])
    assert not list(tmp_path.iterdir())


def test_a_file_from_another_format_is_the_same_twice_as_ome(tmp_path: Path) -> None:
    pixels = RNG.normal(size=(4, 9, 11)).astype("f4")
    frame = Frame(pixels, np.zeros(pixels.shape, bool), "micro", axes="AYX", shape=pixels.shape,
                  pixel_size=PixelSize(0.2, 0.1, "um"))  # fmt: skip
    for name in "xy":
        io.write(tmp_path / name / "a.ome.tif", frame, scale=2, provenance={"SRDSCALE": 2})
    assert (tmp_path / "x" / "a.ome.tif").read_bytes() == (tmp_path / "y" / "a.ome.tif").read_bytes()
    with tifffile.TiffFile(tmp_path / "x" / "a.ome.tif") as tif:
        assert (tif.is_ome, tif.series[0].axes) == (True, "TYX")
        assert 'PhysicalSizeX="0.1"' in tif.ome_metadata
        assert "UUID" not in tif.ome_metadata


def test_imagej_becomes_ome_with_its_spacing_and_words(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", RNG.integers(0, 99, (3, 9, 11)).astype("u2"), imagej=True, resolution=(5, 5),
                     metadata={"axes": "ZYX", "unit": "um", "spacing": 0.7, "Info": "by hand"})  # fmt: skip
    io.write(tmp_path / "b.ome.tif", io.read(tmp_path / "a.tif"))
    xml = tifffile.tiffcomment(tmp_path / "b.ome.tif")
    for told in ('PhysicalSizeZ="0.7"', "by hand", 'SizeZ="3"', 'PhysicalSizeX="0.2"', 'Type="uint16"'):
        assert told in xml


# -- levels -----------------------------------------------------------------------------------------------------------


def large(axes: str = "CYX", dtype: str = "u2", sides: tuple[int, int] = (1100, 1301)) -> Frame:
    frame = an_image(axes, dtype, "plain", (1, 1, 2, *sides))
    pixels = RNG.normal(1000, 99, frame.pixels.shape).astype(dtype).astype("f4")
    if dtype == "f4":
        pixels[:, :3, :4] = np.nan
    return frame.with_(pixels=pixels, mask=np.isnan(pixels))


@pytest.mark.parametrize(("axes", "dtype"), [("CYX", "u2"), ("YX", "f4"), ("YXS", "u2"), ("SYX", "i2")])
def test_levels_are_means_of_the_image(tmp_path: Path, axes: str, dtype: str) -> None:
    frame = large(axes, dtype)
    io.write(tmp_path / "a.ome.tif", frame, pyramid=True, provenance={"SRDSCALE": 2})
    assert [p.name for p in tmp_path.iterdir()] == ["a.ome.tif"]
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as tif:
        series = tif.series[0]
        assert tif.is_ome
        assert [level.keyframe.tile for level in series.levels] == [(512, 512)] * 3
        found = [to_planes(level.asarray(), series.axes) for level in series.levels]
    np.testing.assert_array_equal(found[0], frame.pixels)
    assert found[1].shape[1:] == (550, 651)
    assert found[2].shape[1:] == (275, 326)
    block = frame.pixels[0, 4:6, 8:10].astype("f8").mean()
    assert found[1][0, 2, 4] == (np.rint(block) if dtype != "f4" else np.float32(block))
    assert found[1][-1, 3, -1] == pytest.approx(frame.pixels[-1, 6:8, -1].mean(), abs=0.5)  # rounded to an integer
    if dtype == "f4":
        assert np.isnan(found[1][0, 0, :2]).all()
        assert np.isfinite(found[1][0, 1, 0])  # half of the block has no number; the mean is of the others
    np.testing.assert_array_equal(io.read(tmp_path / "a.ome.tif").pixels, frame.pixels)


def test_levels_by_windows_and_in_bigtiff(tmp_path: Path, monkeypatch: Any) -> None:
    frame = large()
    io.write(tmp_path / "a.ome.tif", frame, pyramid=True)
    part = tmp_path / ".b.part"
    for stop in (True, False):
        with io.open_sink(tmp_path / "b.ome.tif", without_arrays(frame), pyramid=True, part=part) as sink:
            for plane in range(2) if stop else ():
                sink.put("SCI", plane, 0, 0, frame.pixels[plane])
            if not stop:
                sink.finish({})
    assert (tmp_path / "a.ome.tif").read_bytes() == (tmp_path / "b.ome.tif").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.ome.tif", "b.ome.tif"]
    monkeypatch.setattr(tiff_pyramid, "BIG", 0)
    io.write(tmp_path / "c.ome.tif", frame, pyramid=True)
    with tifffile.TiffFile(tmp_path / "c.ome.tif") as tif:
        assert tif.is_bigtiff
        np.testing.assert_array_equal(tif.asarray(), frame.pixels)


def test_levels_need_a_format_that_has_them(tmp_path: Path) -> None:
    for name in ("a.tif", "a.fits"):
        with pytest.raises(UsageError, match=r"--pyramid: .* cannot hold one; give a name in .ome.tif"):
            io.check_output(tmp_path / name, pyramid=True)
        with pytest.raises(UsageError, match="--pyramid"):
            io.write(tmp_path / name, an_image("YX", "u2"), pyramid=True)


def test_upscale_writes_levels(tmp_path: Path) -> None:
    from sciresdiff.jobs.upscale import job as upscale

    tifffile.imwrite(tmp_path / "a.tif", RNG.normal(100, 5, (24, 300)).astype("f4"), photometric="minisblack")
    options = upscale.UpscaleOptions(model="physics", scale=2, psf="gaussian:fwhm=2px", pyramid=True, checks=False)
    with pytest.raises(UsageError, match="--pyramid"):
        upscale.run(tmp_path / "a.tif", tmp_path / "b.tif", options)
    upscale.run(tmp_path / "a.tif", tmp_path / "b.ome.tif", options)
    with tifffile.TiffFile(tmp_path / "b.ome.tif") as tif:
        assert [level.shape for level in tif.series[0].levels] == [(48, 600), (24, 300)]

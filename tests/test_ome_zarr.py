"""OME-Zarr in and out; the library is an extra."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from sciresdiff import io
from sciresdiff.errors import InputError, UsageError
from sciresdiff.frame import Frame, PixelSize
from sciresdiff.io.source import without_arrays
from sciresdiff.region import Region

RNG = np.random.default_rng(11)
STACK = RNG.integers(0, 4000, (3, 2, 70, 83)).astype("u2")


@pytest.fixture
def zarr() -> Any:
    return pytest.importorskip("zarr", reason="the extra zarr is not installed")


def a_frame(axes: str = "TCYX", data: Any = STACK, **more: Any) -> Frame:
    planes = data.reshape(-1, *data.shape[-2:]).astype("f4")
    return Frame(planes, np.isnan(planes), "micro", axes=axes, shape=data.shape, dtype=data.dtype, **more)


def attributes(path: Path) -> dict[str, Any]:
    return dict(json.loads((path / "zarr.json").read_text())["attributes"])


def a_store(zarr: Any, path: Path, version: str, *, unit: str | None = "nanometer", chunks: int = 32) -> None:
    """As other programs write it."""
    group = zarr.create_group(str(path), zarr_format=2 if version == "0.4" else 3)
    for level, step in enumerate((1, 2)):
        data = STACK[..., ::step, ::step]
        array = group.create_array(str(level), shape=data.shape, dtype="u2", chunks=(1, 1, chunks, chunks))
        array[:] = data
    axes = [{"name": a, "type": t, **({"unit": unit} if unit and t == "space" else {})}
            for a, t in (("t", "time"), ("c", "channel"), ("y", "space"), ("x", "space"))]  # fmt: skip
    steps = [{"type": "scale", "scale": [2.0, 1.0, 200.0 * n, 100.0 * n]} for n in (1, 2)]
    sets = [{"path": str(k), "coordinateTransformations": [step]} for k, step in enumerate(steps)]
    told: dict[str, Any] = {"multiscales": [{"axes": axes, "datasets": sets, "name": "cells", "version": version}]}
    told["omero"] = {"channels": [{"label": n, "color": "00FF00", "window": {"start": 0, "end": 9, "min": 0, "max": 9}}
                                  for n in ("GFP", "RFP")]}  # fmt: skip
    group.attrs.update(told if version == "0.4" else {"ome": {"version": "0.5", **told}})


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_stores_of_others_are_read_by_windows(tmp_path: Path, zarr: Any, version: str) -> None:
    a_store(zarr, tmp_path / "a.ome.zarr", version)
    frame = io.read(tmp_path / "a.ome.zarr")
    np.testing.assert_array_equal(frame.pixels, STACK.reshape(6, 70, 83))
    assert (frame.axes, frame.shape, frame.dtype, frame.kind) == ("TCYX", STACK.shape, np.dtype("u2"), "micro")
    assert frame.pixel_size == PixelSize(0.2, 0.1, "um")
    with io.open_source(tmp_path / "a.ome.zarr") as source:
        assert source.frame.pixels.strides == (0, 0, 0)
        np.testing.assert_array_equal(source.window(3, Region(5, 40, 30, 83)).pixels[0], STACK[1, 1, 5:40, 30:83])


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_what_was_there_goes_along_and_lies_on_the_old_pixels(tmp_path: Path, zarr: Any, version: str) -> None:
    a_store(zarr, tmp_path / "a.ome.zarr", version)
    low = io.read(tmp_path / "a.ome.zarr")
    high = low.with_(pixels=low.pixels.repeat(2, 1).repeat(2, 2), mask=low.mask.repeat(2, 1).repeat(2, 2),
                     saturated=None, quantity="mean")  # fmt: skip
    io.write(tmp_path / "b.ome.zarr", high, scale=2, provenance={"SRDSCALE": 2})
    ome = attributes(tmp_path / "b.ome.zarr")["ome"]
    (image,) = ome["multiscales"]
    assert (ome["version"], image["name"]) == ("0.5", "cells")
    assert [axis.get("unit") for axis in image["axes"]] == [None, None, "nanometer", "nanometer"]
    scale, shift = (step[kind] for step, kind in zip(image["datasets"][0]["coordinateTransformations"],
                                                     ("scale", "translation"), strict=True))  # fmt: skip
    assert scale == [2.0, 1.0, 100.0, 50.0]
    assert shift == [
        0.0,
        0.0,
        -50.0,
        -25.0,
    ]  # a fine centre lies a quarter of a coarse pixel off
    assert [c["label"] for c in ome["omero"]["channels"]] == ["GFP", "RFP"]
    again = io.read(tmp_path / "b.ome.zarr")
    np.testing.assert_array_equal(again.pixels, high.pixels)
    assert (again.pixel_size, again.facts["scale"], again.quantity) == (PixelSize(0.1, 0.05, "um"), 2, "mean")
    io.write(tmp_path / "c.ome.zarr", high.with_(quantity="sum"), scale=2)
    assert "window" not in attributes(tmp_path / "c.ome.zarr")["ome"]["omero"]["channels"][0]


def test_windows_give_the_bytes_of_the_whole(tmp_path: Path, zarr: Any) -> None:
    frame = a_frame(quantity="mean")
    err, draws = frame.pixels / 3, np.stack([frame.pixels + k for k in range(3)], 1)
    planes = {"ERR": err, "DRAWS": draws, "DQ": (frame.pixels > 9).astype("i4")}
    io.write(tmp_path / "a.zarr", frame, planes=planes, provenance={"SRDFLUX": 0.25})
    kinds = {"ERR": io.Plane(), "DRAWS": io.Plane(layers=3), "DQ": io.Plane("i4")}
    options: dict[str, Any] = {"planes": kinds, "provenance": {"SRDFLUX": 1.0}, "part": tmp_path / ".b.part"}
    for rows in ((0, 37), (37, 70)):
        with io.open_sink(tmp_path / "b.zarr", without_arrays(frame), **options) as sink:
            y, end = rows
            for plane in range(6):
                sink.put("SCI", plane, y, 0, frame.pixels[plane, y:end])
                sink.put("ERR", plane, y, 0, err[plane, y:end])
                sink.put("DQ", plane, y, 0, planes["DQ"][plane, y:end])
                sink.put("DRAWS", plane, y, 0, draws[plane, :, y:end])
            if end == 70:
                assert sink.get is not None
                np.testing.assert_array_equal(sink.get("DRAWS", 4, Region(1, 50, 2, 9)), draws[4, :, 1:50, 2:9])
                assert sink.finish({"SRDFLUX": 0.25})["files"] == [str(tmp_path / "b.zarr")]
    one, other = ({p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}
                  for root in (tmp_path / "a.zarr", tmp_path / "b.zarr"))  # fmt: skip
    assert one == other
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zarr", "b.zarr"]
    np.testing.assert_array_equal(io.read_image(f"{tmp_path}/a.zarr[err]").reshape(err.shape), err)
    np.testing.assert_array_equal(io.read_image(f"{tmp_path}/a.zarr[draws/0]"), draws.reshape(18, 70, 83))


AXES = [("YX", (9, 8), "yx"), ("ZCYX", (3, 2, 9, 8), "czyx"), ("AYX", (4, 9, 8), "cyx"),
        ("ABDEYX", (2, 1, 2, 1, 9, 8), "cyx"), ("ZTYX", (3, 2, 9, 8), "tzyx")]  # fmt: skip


@pytest.mark.parametrize(("axes", "shape", "ordered"), AXES)
def test_axes_stand_in_the_order_of_ngff(tmp_path: Path, zarr: Any, axes: str, shape: Any, ordered: str) -> None:
    data = RNG.normal(size=shape).astype("f4")
    io.write(tmp_path / "a.zarr", a_frame(axes, data))
    image = attributes(tmp_path / "a.zarr")["ome"]["multiscales"][0]
    assert "".join(axis["name"] for axis in image["axes"]) == ordered
    found = zarr.open_group(str(tmp_path / "a.zarr"), mode="r")["0"][:]
    letters = axes.lower()
    want = data.transpose([letters.index(a) for a in ordered]) if set(ordered) == set(letters) else data
    np.testing.assert_array_equal(found, want.reshape(found.shape))


@pytest.mark.parametrize("style", ["ome", "imagej"])
def test_what_a_tiff_says_of_its_axes_and_channels_goes_along(tmp_path: Path, zarr: Any, style: str) -> None:
    data = np.arange(2 * 3 * 2 * 5 * 6, dtype="u2").reshape(2, 3, 2, 5, 6)
    size = {"PhysicalSizeX": 200, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 200, "PhysicalSizeYUnit": "nm"}
    steps = {"PhysicalSizeZ": 500, "PhysicalSizeZUnit": "nm", "TimeIncrement": 100.0, "TimeIncrementUnit": "ms"}
    channels = {"Name": ["actin", "nuclei"], "Color": [0x00FF00FF, 0x0000FFFF]}
    if style == "ome":
        known = {"axes": "TZCYX", **size, **steps, "Channel": channels}
        tifffile.imwrite(tmp_path / "a.ome.tif", data, photometric="minisblack", metadata=known)
    else:
        known = {"axes": "TZCYX", "unit": "um", "spacing": 0.5, "finterval": 0.1}
        tifffile.imwrite(tmp_path / "a.tif", data, imagej=True, resolution=(5, 5), metadata=known)
    frame = io.read(tmp_path / ("a.ome.tif" if style == "ome" else "a.tif"))
    io.write(tmp_path / "a.ome.zarr", frame)
    ome = zarr.open_group(str(tmp_path / "a.ome.zarr"), mode="r").attrs["ome"]
    (image,) = ome["multiscales"]
    assert [(a["name"], a.get("unit")) for a in image["axes"]] == [
        ("t", "second"), ("c", None), ("z", "micrometer"), ("y", "micrometer"), ("x", "micrometer")
    ]  # fmt: skip
    scale = image["datasets"][0]["coordinateTransformations"][0]["scale"]
    assert scale == pytest.approx([0.1, 1, 0.5, 0.2, 0.2])
    if style == "ome":
        told = [(c["label"], c["color"]) for c in ome["omero"]["channels"]]
        assert told == [("actin", "00FF00"), ("nuclei", "0000FF")]
    else:
        assert "omero" not in ome


def test_levels(tmp_path: Path, zarr: Any) -> None:
    data = RNG.normal(100, 9, (2, 1100, 600)).astype("f4")
    io.write(tmp_path / "a.ome.zarr", a_frame("CYX", data, pixel_size=PixelSize(0.2, 0.1, "um")), pyramid=True)
    sets = attributes(tmp_path / "a.ome.zarr")["ome"]["multiscales"][0]["datasets"]
    steps = [{k: v for step in one["coordinateTransformations"] for k, v in step.items()} for one in sets]
    assert [step["scale"][1:] for step in steps] == [[0.2, 0.1], [0.4, 0.2], [0.8, 0.4]]
    assert steps[2]["translation"][1:] == pytest.approx([0.3, 0.15])  # centre of 4 x 4 pixels
    group = zarr.open_group(str(tmp_path / "a.ome.zarr"), mode="r")
    assert [group[one["path"]].shape for one in sets] == [(2, 1100, 600), (2, 550, 300), (2, 275, 150)]
    block = data[1, 6:8, 4:6].astype("f8").mean()
    assert group["1"][1, 3, 2] == pytest.approx(block, rel=1e-6)  # float32


def test_a_sky_keeps_its_unit_and_noise(tmp_path: Path, zarr: Any) -> None:
    pixels = RNG.normal(size=(1, 9, 8)).astype("f4")
    frame = Frame(pixels, np.zeros(pixels.shape, bool), "astro", shape=(9, 8), unit="adu", quantity="sum",
                  pixel_size=PixelSize(0.2, 0.1, "arcsec"))  # fmt: skip
    io.write(tmp_path / "a.zarr", frame, planes={"VAR": pixels**2 + 1}, scale=2)
    again = io.read(tmp_path / "a.zarr")
    assert (again.kind, again.unit, again.quantity, again.pixel_size) == ("astro", "adu", "sum", frame.pixel_size)
    assert again.variance is not None
    np.testing.assert_allclose(again.variance, pixels**2 + 1, rtol=1e-6)  # float32


def test_bare_arrays_and_series(tmp_path: Path, zarr: Any) -> None:
    array = zarr.create_array(str(tmp_path / "a.zarr"), shape=(2, 9, 8), dtype="f4", chunks=(1, 4, 4))
    array[:] = data = RNG.normal(size=(2, 9, 8)).astype("f4")
    np.testing.assert_array_equal(io.read(tmp_path / "a.zarr", axes="TYX").pixels, data)
    a_store(zarr, tmp_path / "b.zarr" / "0", "0.4")
    zarr.open_group(str(tmp_path / "b.zarr"), mode="a", zarr_format=2)
    frame = io.read(tmp_path / "b.zarr")
    assert frame.planes == 6
    assert any("several images" in line for line in frame.notes.lines)


def test_bad_stores_are_refused_in_one_line(tmp_path: Path, zarr: Any) -> None:
    zarr.create_group(str(tmp_path / "empty.zarr"))
    (tmp_path / "folder.zarr").mkdir()
    a_store(zarr, tmp_path / "a.zarr", "0.5")
    (chunk,) = (tmp_path / "a.zarr" / "0" / "c" / "1" / "1" / "1").glob("1")
    chunk.write_bytes(b"\xff" * 50)
    group = zarr.create_group(str(tmp_path / "wrong.zarr"))
    group.attrs["ome"] = {"multiscales": [{"datasets": [{"path": "gone"}]}]}
    bad = {"empty.zarr": "no image in it; it is empty", "folder.zarr": "not a Zarr store", "none.zarr": "no such file",
           "wrong.zarr": "do not fit its arrays", "a.zarr": "array '0' cannot be read at plane 3, rows"}  # fmt: skip
    for name, why in bad.items():
        with pytest.raises(InputError, match=why) as caught:
            io.read(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="axes 'ZYX' do not fit"):
        io.read(tmp_path / "a.zarr", axes="ZYX")
    with pytest.raises(InputError, match="no 'err' in it"):
        io.read(f"{tmp_path}/a.zarr[err]")


def test_what_exists_is_replaced_only_when_asked(tmp_path: Path, zarr: Any) -> None:
    io.write(tmp_path / "a.zarr", a_frame())
    with pytest.raises(UsageError, match="exists"):
        io.write(tmp_path / "a.zarr", a_frame())
    with pytest.raises(KeyboardInterrupt), io.open_sink(tmp_path / "a.zarr", without_arrays(a_frame()), overwrite=True):
        raise KeyboardInterrupt
    assert io.read(tmp_path / "a.zarr").planes == 6
    io.write(tmp_path / "a.zarr", a_frame("CYX", STACK[0]), overwrite=True)
    assert io.read(tmp_path / "a.zarr").planes == 2
    assert os.listdir(tmp_path) == ["a.zarr"]


def test_without_the_library_one_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zarr", None)
    for use in (lambda: io.read(tmp_path / "a.ome.zarr"), lambda: io.check_output(tmp_path / "a.zarr"),
                lambda: io.write(tmp_path / "a.zarr", a_frame())):  # fmt: skip
        with pytest.raises(
            UsageError, match=r"a.*zarr: OME-Zarr needs the library zarr; pip install 'sciresdiff\[zarr\]'"
        ):
            use()


def test_upscale_from_store_to_store(tmp_path: Path, zarr: Any) -> None:
    from sciresdiff.jobs.upscale import job as upscale

    a_store(zarr, tmp_path / "a.ome.zarr", "0.4")
    options = upscale.UpscaleOptions(model="physics", scale=2, psf="gaussian:fwhm=2px", checks=False, assume_2d=True)
    record = upscale.run(tmp_path / "a.ome.zarr", tmp_path / "out" / "b.ome.zarr", options)
    assert record["files"] == [str(tmp_path / "out" / "b.ome.zarr")]
    high = io.read(tmp_path / "out" / "b.ome.zarr")
    assert (high.axes, high.shape, high.dtype) == ("TCYX", (3, 2, 140, 166), np.dtype("u2"))
    assert high.pixel_size == PixelSize(0.1, 0.05, "um")
    assert io.read_image(f"{tmp_path}/out/b.ome.zarr[err]").shape == (6, 140, 166)
    assert sorted(os.listdir(tmp_path / "out")) == ["b.ome.zarr", "b.ome.zarr.json"]


def test_a_store_that_is_whole_is_skipped_and_one_that_is_not_is_told(tmp_path: Path, zarr: Any) -> None:
    from sciresdiff.cli.app import app

    a_store(zarr, tmp_path / "a.ome.zarr", "0.5")
    words = ["upscale", f"{tmp_path}/a.ome.zarr", "-o", f"{tmp_path}/out/b.ome.zarr", "--model", "physics", "-q"]
    words += ["--scale", "2", "--psf", "gaussian:fwhm=2px", "--no-checks", "--assume-2d"]
    words += ["--manifest", f"{tmp_path}/all.jsonl"]

    def status() -> str:
        app(words, standalone_mode=False)
        told: str = json.loads((tmp_path / "all.jsonl").read_text().splitlines()[-1])["status"]
        return told

    assert [status(), status()] == ["done", "skipped"]
    chunk = next(file for file in (tmp_path / "out" / "b.ome.zarr" / "0" / "c").rglob("*") if file.is_file())
    chunk.write_bytes(b"")
    assert status() == "failed"  # what is there is not what was written, and not ours to replace
    words.append("--overwrite")
    assert [status(), status()] == ["done", "done"]

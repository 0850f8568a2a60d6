"""Files read and written by windows are those that are read and written whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sciresdiff import io
from sciresdiff.errors import UsageError
from sciresdiff.frame import PLANES, Frame
from sciresdiff.io.atomic import atomic_files
from sciresdiff.io.source import without_arrays
from sciresdiff.region import Region

ENDS = ("fits", "fits.gz", "tif", "ome.tif", "h5")


def a_frame() -> Frame:
    rng = np.random.default_rng(7)
    pixels = rng.normal(100, 5, (2, 40, 36)).astype(np.float32)
    return Frame(pixels, np.zeros(pixels.shape, bool), "astro", shape=pixels.shape, axes="ZYX", unit="adu")


def same(a: Frame, b: Frame) -> None:
    for name in PLANES:
        one, other = getattr(a, name), getattr(b, name)
        assert (one is None) == (other is None), name
        if one is not None:
            np.testing.assert_array_equal(one, other, err_msg=name)


@pytest.mark.parametrize("end", ENDS)
def test_windows_are_parts_of_the_whole(tmp_path: Path, end: str) -> None:
    path = tmp_path / f"low.{end}"
    io.write(path, a_frame())
    whole = io.read(path)
    with io.open_source(path) as source:
        assert source.frame.pixels.shape == whole.pixels.shape
        assert source.frame.pixels.strides == (0, 0, 0), "the source holds no values"
        part = source.window(1, Region(5, 17, 3, 30))
        same(source.whole(), whole)
    same(part, whole.with_(**{n: v[1:2, 5:17, 3:30] for n in PLANES if (v := getattr(whole, n)) is not None}))


@pytest.mark.parametrize("end", ENDS)
def test_a_file_written_by_windows_has_the_bytes_of_one_written_whole(tmp_path: Path, end: str) -> None:
    frame, cards = a_frame(), {"SRDSCALE": 2, "SRDFLUX": 1.0}
    err = np.abs(frame.pixels)
    whole, parts = tmp_path / "whole" / f"x.{end}", tmp_path / "parts" / f"x.{end}"
    io.write(whole, frame, planes={"ERR": err}, provenance={**cards, "SRDFLUX": 0.5}, dtype="f4")
    with io.open_sink(parts, without_arrays(frame), planes={"ERR": io.Plane()}, provenance=cards, dtype="f4") as sink:
        for plane in (1, 0):
            for y, x in ((20, 0), (0, 0), (0, 18), (20, 18)):
                sink.put("SCI", plane, y, x, frame.pixels[plane, y : y + 20, x : x + 18])
                sink.put("ERR", plane, y, x, err[plane, y : y + 20, x : x + 18])
        assert not parts.exists(), "a file appears when it is whole"
        sink.finish({"SRDFLUX": 0.5})
    assert parts.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("end", ENDS)
def test_what_is_not_finished_leaves_nothing(tmp_path: Path, end: str) -> None:
    with pytest.raises(KeyboardInterrupt), io.open_sink(tmp_path / f"x.{end}", without_arrays(a_frame())) as sink:
        sink.put("SCI", 0, 0, 0, a_frame().pixels[0])
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_what_came_while_a_file_was_written_is_not_replaced(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    with pytest.raises(UsageError, match="exists"), atomic_files([target]) as (names, publish):
        names[target].write_text("ours")
        target.write_text("another's")
        publish()
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert target.read_text() == "another's"

"""HDF5: training sets and images come back as they went in."""

import h5py
import numpy as np
import pytest

from sciresdiff import io
from sciresdiff.errors import InputError, UsageError
from sciresdiff.frame import Frame, PixelSize
from sciresdiff.io.hdf5 import read as hdf5
from sciresdiff.io.source import without_arrays
from sciresdiff.region import Region

RNG = np.random.default_rng(0)
LOW, HIGH = RNG.normal(size=(3, 8, 10)).astype("f4"), RNG.normal(size=(3, 32, 40)).astype("f4")


def test_pairs_there_and_back(tmp_path):
    kernel = RNG.random((3, 5, 5))
    hdf5.write_pairs(tmp_path / "a.h5", LOW, HIGH, scale=4, variance=LOW**2, kernel=kernel, quantity="mean",
                     kind="micro", seed=0)  # fmt: skip
    pairs = hdf5.read_pairs(tmp_path / "a.h5")
    assert (len(pairs), pairs.scale, pairs.quantity, pairs.kind, pairs.seed) == (3, 4, "mean", "micro", 0)
    for name, array in (("low", LOW), ("high", HIGH), ("variance", LOW**2), ("kernel", kernel)):
        np.testing.assert_array_equal(getattr(pairs, name), array)


def test_one_kernel_serves_all(tmp_path):
    hdf5.write_pairs(tmp_path / "a.h5", LOW, HIGH, scale=4, kernel=np.ones((3, 3)) / 9)
    pairs = hdf5.read_pairs(tmp_path / "a.h5")
    assert pairs.kernel.shape == (3, 3, 3)
    assert pairs.variance is None


def test_same_content_same_bytes(tmp_path):
    for name in ("a.h5", "b.h5"):
        hdf5.write_pairs(tmp_path / name, LOW, HIGH, scale=4)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_bad_pairs(tmp_path):
    with pytest.raises(UsageError, match="do not fit scale 2"):
        hdf5.write_pairs(tmp_path / "a.h5", LOW, HIGH, scale=2)
    with pytest.raises(UsageError, match="variance .* does not fit low"):
        hdf5.write_pairs(tmp_path / "a.h5", LOW, HIGH, scale=4, variance=LOW[:1])
    with pytest.raises(UsageError, match="kernel .* does not fit 3 pairs"):
        hdf5.write_pairs(tmp_path / "a.h5", LOW, HIGH, scale=4, kernel=np.ones((2, 3, 3)))
    assert list(tmp_path.iterdir()) == []
    hdf5.write_pairs(tmp_path / "a.h5", LOW, HIGH, scale=4)
    with pytest.raises(UsageError, match="exists"):
        hdf5.write_pairs(tmp_path / "a.h5", LOW, HIGH, scale=4)
    (tmp_path / "cut.h5").write_bytes((tmp_path / "a.h5").read_bytes()[:3000])
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["low"] = LOW
    bad = {"missing.h5": "no such file", "cut.h5": "not a whole HDF5", "other.h5": "no training set"}
    for name, why in bad.items():
        with pytest.raises(InputError, match=why):
            hdf5.read_pairs(tmp_path / name)


def test_images(tmp_path):
    frame = Frame(pixels=LOW, mask=np.zeros(LOW.shape, bool), kind="micro", axes="ZYX", shape=LOW.shape,
                  quantity="mean", unit="adu", pixel_size=PixelSize(0.2, 0.1, "um"))  # fmt: skip
    io.write(tmp_path / "a.h5", frame, planes={"VAR": LOW**2 + 1, "ERR": LOW}, provenance={"SRDSCALE": 1})
    again = io.read(tmp_path / "a.h5")
    np.testing.assert_array_equal(again.pixels, LOW)
    np.testing.assert_allclose(again.variance, LOW**2 + 1, rtol=1e-6)  # float32
    assert (again.kind, again.axes, again.quantity, again.unit) == ("micro", "ZYX", "mean", "adu")
    assert again.pixel_size == frame.pixel_size
    np.testing.assert_array_equal(io.read(f"{tmp_path}/a.h5[err]").pixels, LOW)
    np.testing.assert_array_equal(io.read_image(f"{tmp_path}/a.h5[err]"), LOW)
    with pytest.raises(InputError, match="no dataset 'x'; there are err, image, variance"):
        io.read(tmp_path / "a.h5", ext="x")
    with pytest.raises(InputError, match="axes 'YX' do not fit"):
        io.read(tmp_path / "a.h5", axes="YX")


def test_only_dataset_needs_no_name(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["group/data"] = HIGH[0]
    np.testing.assert_array_equal(io.read(tmp_path / "a.h5").pixels[0], HIGH[0])


def test_windows_of_chunks_are_parts_of_the_whole(tmp_path):
    stack = RNG.integers(0, 900, (2, 3, 40, 50)).astype("u2")
    var = RNG.normal(4, 3, (40, 50)).astype("f4")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("image", data=stack, chunks=(1, 2, 16, 16), compression="gzip", shuffle=True)
        file.create_dataset("variance", data=var, chunks=(16, 16), compression="gzip")
        file["mask"] = np.eye(40, 50, dtype="u1")
    whole = io.read(tmp_path / "a.h5")
    np.testing.assert_array_equal(whole.pixels, stack.reshape(6, 40, 50))
    np.testing.assert_array_equal(whole.variance[5], np.where(var > 0, var, np.median(var[var > 0])))
    np.testing.assert_array_equal(whole.mask[2], (var <= 0) | np.eye(40, 50, dtype=bool))
    with io.open_source(tmp_path / "a.h5") as source:
        assert source.frame.pixels.strides == (0, 0, 0)
        part = source.window(4, Region(3, 20, 10, 31))
    for name in ("pixels", "mask", "variance"):
        np.testing.assert_array_equal(getattr(part, name)[0], getattr(whole, name)[4, 3:20, 10:31])


def test_a_damaged_chunk_is_named(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("image", data=HIGH, chunks=(1, 32, 40), compression="gzip")
        start, size = data.id.get_chunk_info(1)[2:4]
    raw = bytearray((tmp_path / "a.h5").read_bytes())
    raw[start : start + size] = b"\xff" * size
    (tmp_path / "a.h5").write_bytes(raw)
    with io.open_source(tmp_path / "a.h5") as source:
        np.testing.assert_array_equal(source.window(0, Region(0, 32, 0, 40)).pixels[0], HIGH[0])
        with pytest.raises(InputError, match="dataset 'image' cannot be read at plane 1, rows 0 to 31"):
            source.window(1, Region(0, 32, 0, 40))


@pytest.mark.parametrize("planes", [1, 3])
def test_an_unfinished_file_is_gone_on_with(tmp_path, planes):
    frame = Frame(HIGH[:planes], np.zeros((planes, 32, 40), bool), "astro", axes="ZYX", shape=(planes, 32, 40))
    draws = np.repeat(frame.pixels[:, None], 2, 1)
    part, kinds = tmp_path / ".a.part", {"DRAWS": io.Plane(layers=2), "DQ": io.Plane("i4")}
    for start in (0, 16):
        with io.open_sink(
            tmp_path / "a.h5",
            without_arrays(frame),
            planes=kinds,
            part=part,
            provenance={"SRDFLUX": 9.0, "SRDCHI2": None},
        ) as sink:
            for k in range(planes):
                sink.put("SCI", k, start, 0, frame.pixels[k, start : start + 16])
                sink.put("DRAWS", k, start, 0, draws[k, :, start : start + 16])
                sink.put("DQ", k, start, 0, np.full((16, 40), k))
            if start:
                np.testing.assert_array_equal(sink.get("DRAWS", planes - 1, Region(0, 32, 0, 40)), draws[-1])
                sink.finish({"SRDFLUX": 1.25, "SRDCHI2": 1.0})
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]
    levels = np.broadcast_to(np.arange(planes, dtype="i4")[:, None, None], frame.pixels.shape)
    io.write(tmp_path / "b.h5", frame, planes={"DRAWS": draws[0] if planes == 1 else draws, "DQ": levels},
             provenance={"SRDFLUX": 1.25, "SRDCHI2": 1.0})  # fmt: skip
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    with h5py.File(tmp_path / "a.h5") as file:
        assert (file.attrs["SRDFLUX"], sorted(file)) == (1.25, ["dq", "draws", "image"])
        np.testing.assert_array_equal(file["dq"], levels)


def test_many_words_do_not_move_the_pixels(tmp_path):
    frame = Frame(HIGH, np.zeros(HIGH.shape, bool), "astro", axes="ZYX", shape=HIGH.shape)
    cards = {f"SRD{i}": "word " * i for i in range(200)}
    with io.open_sink(tmp_path / "a.h5", without_arrays(frame), provenance=dict.fromkeys(cards, "")) as sink:
        for k in range(3):
            sink.put("SCI", k, 0, 0, HIGH[k])
        sink.finish(cards)
    np.testing.assert_array_equal(io.read(tmp_path / "a.h5").pixels, HIGH)
    with h5py.File(tmp_path / "a.h5") as file:
        assert file.attrs["SRD199"] == cards["SRD199"]

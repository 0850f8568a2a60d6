"""HDF5: training sets and images come back as they went in."""

import h5py
import numpy as np
import pytest

from sciresdiff import io
from sciresdiff.errors import InputError, UsageError
from sciresdiff.frame import Frame, PixelSize
from sciresdiff.io import hdf5

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

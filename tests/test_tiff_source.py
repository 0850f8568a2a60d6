"""TIFF read by windows: parts of what tifffile reads whole, to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from sciresdiff import io
from sciresdiff.errors import InputError, UsageError
from sciresdiff.frame import PLANES, PixelSize
from sciresdiff.io.raw_array import RawArray
from sciresdiff.io.saturation import MASKED
from sciresdiff.io.tiff.ome_set import members
from sciresdiff.io.tiff.read import to_planes
from sciresdiff.region import Region

RNG = np.random.default_rng(5)
STACK = RNG.integers(0, 4000, (3, 2, 70, 83)).astype("u2")
COLOUR = RNG.integers(0, 60000, (70, 83, 3)).astype("u2")

KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "plain": (STACK, {"metadata": {"axes": "TCYX"}}),
    "float": (STACK.astype("f4"), {"metadata": {"axes": "TZYX"}}),
    "half": ((STACK / 4000).astype("f2"), {"metadata": {"axes": "TZYX"}}),
    "double": (STACK.astype("f8"), {"metadata": {"axes": "TZYX"}}),
    "int8": ((STACK % 100).astype("i1"), {"metadata": {"axes": "TZYX"}}),
    "int32": (STACK.astype("i4") - 2000, {"metadata": {"axes": "TZYX"}}),
    "uint32": (STACK.astype("u4"), {"metadata": {"axes": "TZYX"}}),
    "ImageJ": (STACK, {"imagej": True, "metadata": {"axes": "TCYX"}}),
    "OME": (STACK, {"ome": True, "metadata": {"axes": "TCYX"}}),
    "big-endian": (STACK, {"byteorder": ">", "metadata": {"axes": "TCYX"}}),
    "BigTIFF": (STACK, {"bigtiff": True, "metadata": {"axes": "TCYX"}}),
    "T behind": (np.moveaxis(STACK[:, 0], 0, -1), {"metadata": {"axes": "YXT"}}),
    "X before Y": (STACK[0, 0], {"metadata": {"axes": "XY"}}),
    "deflate": (STACK, {"compression": "zlib", "metadata": {"axes": "TCYX"}}),
    "LZW": (STACK, {"compression": "lzw", "predictor": True, "rowsperstrip": 7, "metadata": {"axes": "TCYX"}}),
    "zstd": (STACK, {"compression": "zstd", "rowsperstrip": 16, "metadata": {"axes": "TCYX"}}),
    "packbits": (STACK, {"compression": "packbits", "rowsperstrip": 3, "metadata": {"axes": "TCYX"}}),
    "float predictor": (STACK.astype("f4"), {"compression": "zlib", "predictor": 3, "metadata": {"axes": "TCYX"}}),
    "tiles": (STACK, {"tile": (32, 16), "metadata": {"axes": "TCYX"}}),
    "packed big-endian tiles": (STACK, {"tile": (32, 16), "compression": "lzw", "byteorder": ">", "predictor": 2,
                                        "metadata": {"axes": "TCYX"}}),
    "volume": (STACK[:, 0], {"tile": (2, 16, 32), "volumetric": True, "compression": "zlib",
                             "metadata": {"axes": "ZYX"}}),
    "colour": (COLOUR, {"photometric": "rgb"}),
    "packed colour": (COLOUR, {"photometric": "rgb", "compression": "zlib", "rowsperstrip": 8}),
    "planar colour": (np.moveaxis(COLOUR, -1, 0), {"photometric": "rgb", "planarconfig": "separate"}),
    "packed planar colour": (np.moveaxis(COLOUR, -1, 0), {"photometric": "rgb", "planarconfig": "separate",
                                                          "compression": "lzw", "tile": (16, 32)}),
}  # fmt: skip


def written(path: Path, kind: str) -> Path:
    data, options = KINDS[kind]
    options = {"photometric": "minisblack", **options} if "imagej" not in options else options
    tifffile.imwrite(path, data, **options)
    return path


def check_windows(path: Path, **options: Any) -> None:
    """Every way to cut equals the same cut of the whole."""
    whole = io.read(path, **options)
    planes, h, w = whole.pixels.shape
    with io.open_source(path, **options) as source:
        assert source.frame.pixels.strides == (0, 0, 0), "the source holds no values"
        assert (source.frame.facts, source.frame.notes) == (whole.facts, whole.notes)
        for plane in {0, planes - 1}:
            for y0, y1, x0, x1 in ((0, h, 0, w), (h // 3, h // 3 + 1, 0, w), (h // 4, h - 2, w // 5, w - 3)):
                part = source.window(plane, Region(y0, y1, x0, x1))
                for name in PLANES:
                    array = getattr(whole, name)
                    assert (array is None) == (getattr(part, name) is None)
                    if array is not None:
                        np.testing.assert_array_equal(getattr(part, name)[0], array[plane, y0:y1, x0:x1])


@pytest.mark.parametrize("kind", KINDS)
def test_windows_are_parts_of_what_tifffile_reads(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path / ("a.ome.tif" if kind == "OME" else "a.tif"), kind)
    check_windows(path)
    frame = io.read(path)
    data = tifffile.imread(path)
    if "X before Y" not in kind:
        assert frame.shape == data.shape
    np.testing.assert_array_equal(frame.pixels, to_planes(data, frame.axes).astype("f4"))


def test_a_pyramid_is_read_at_its_base(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as writer:
        writer.write(STACK[:, 0], subifds=1, tile=(32, 32), compression="zlib", metadata={"axes": "ZYX"},
                     photometric="minisblack")  # fmt: skip
        writer.write(STACK[:, 0, ::2, ::2], subfiletype=1, tile=(32, 32), photometric="minisblack")
    check_windows(tmp_path / "a.ome.tif")
    np.testing.assert_array_equal(io.read(tmp_path / "a.ome.tif").pixels, STACK[:, 0])


def test_planes_of_other_files_are_cut_too(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tif", "plain")
    var = RNG.normal(5, 3, (70, 83)).astype("f4")  # one in twenty is not above 0, and has the median
    tifffile.imwrite(tmp_path / "v.tif", var, compression="zlib")
    tifffile.imwrite(tmp_path / "m.tif", (RNG.random((6, 70, 83)) < 0.1).astype("u1"), metadata={"axes": "ZYX"})
    check_windows(path, variance=str(tmp_path / "v.tif"), mask=str(tmp_path / "m.tif"))
    frame = io.read(path, variance=str(tmp_path / "v.tif"))
    np.testing.assert_array_equal(frame.variance[3], np.where(var > 0, var, np.median(var[var > 0])))


def test_saturation_is_a_matter_of_the_whole_image(tmp_path: Path) -> None:
    data = STACK.copy()
    data[data > 3000] = 4095
    tifffile.imwrite(tmp_path / "a.tif", data, metadata={"axes": "TCYX"}, photometric="minisblack")
    check_windows(tmp_path / "a.tif")
    frame = io.read(tmp_path / "a.tif")
    np.testing.assert_array_equal(frame.saturated, (data == 4095).reshape(-1, 70, 83))
    assert f"saturation: {int((data == 4095).sum())} pixels at 4095, {MASKED}" in frame.notes.lines


@pytest.mark.parametrize("kind", ["deflate", "LZW", "zstd"])
def test_damage_in_the_middle_names_the_page_and_spares_the_others(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path / "a.tif", kind)
    with tifffile.TiffFile(path) as tif:
        start, count = tif.pages[2].dataoffsets[0], tif.pages[2].databytecounts[0]
    raw = bytearray(path.read_bytes())
    raw[start : start + count] = b"\xff" * count
    path.write_bytes(raw)
    with pytest.raises(InputError, match=r"a\.tif: page 2 cannot be read"):
        io.read(path)


def test_a_cut_file_is_known_when_it_is_opened(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tif", "deflate")
    with tifffile.TiffFile(path) as tif:
        end = max(o + n for page in tif.pages for o, n in zip(page.dataoffsets, page.databytecounts, strict=True))
    path.write_bytes(path.read_bytes()[: end - 10])
    with pytest.raises(InputError, match="not a whole TIFF"), io.open_source(path):
        pass


def test_planes_that_are_not_there_are_masked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    xml = """<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">
<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="83" SizeY="70" SizeZ="1"
 SizeC="2" SizeT="2"><Channel ID="Channel:0:0"/><Channel ID="Channel:0:1"/><TiffData IFD="0" PlaneCount="3"/></Pixels>
</Image></OME>"""
    tifffile.imwrite(tmp_path / "a.ome.tif", STACK[0].repeat(2, 0)[:3], description=xml.encode(), metadata=None,
                     photometric="minisblack")  # fmt: skip
    frame = io.read(tmp_path / "a.ome.tif")
    assert frame.planes == 4
    assert frame.mask[3].all()
    assert not frame.mask[:3].any()
    assert np.isnan(frame.pixels[3]).all()
    assert "planes: 1 of 4 are named in the file and not there; masked" in frame.notes.lines


AXES = [((4, 5), "YX"), ((5, 4), "XY"), ((2, 4, 5, 3), "CYXT"), ((3, 4, 5), "SYX"), ((4, 5, 3), "YXS"),
        ((4, 2, 5), "YTX"), ((3, 2, 4, 5), "TCYX")]  # fmt: skip


@pytest.fixture
def companion(tmp_path: Path) -> Path:
    """Two channels in a file each, and what describes them."""
    space = 'xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"'
    for c in range(2):
        pointer = (
            f'<OME {space} UUID="urn:uuid:{c}"><BinaryOnly MetadataFile="a.companion.ome" UUID="urn:uuid:m"/></OME>'
        )
        tifffile.imwrite(tmp_path / f"a_{c}.ome.tif", STACK[:, c], description=pointer.encode(), metadata=None,
                         photometric="minisblack", compression="lzw" if c else None)  # fmt: skip
    files = [f'<UUID FileName="a_{c}.ome.tif">urn:uuid:{c}</UUID>' for c in range(2)]
    where = "".join(f'<TiffData FirstC="{c}" FirstZ="{z}" IFD="{z}" PlaneCount="1">{files[c]}</TiffData>'
                    for c in range(2) for z in range(3))  # fmt: skip
    path = tmp_path / "a.companion.ome"
    path.write_text(f"""<?xml version="1.0" encoding="UTF-8"?><OME {space} UUID="urn:uuid:m"><Image ID="Image:0">
<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="83" SizeY="70" SizeZ="3" SizeC="2" SizeT="1"
 PhysicalSizeX="0.1" PhysicalSizeY="0.2"><Channel ID="Channel:0:0" Name="GFP"/><Channel ID="Channel:0:1" Name="RFP"/>
{where}</Pixels></Image></OME>""")
    return path


def test_a_companion_is_its_files(tmp_path: Path, companion: Path) -> None:
    check_windows(companion)
    frame = io.read(companion)
    assert (frame.axes, frame.shape) == ("CZYX", (2, 3, 70, 83))
    np.testing.assert_array_equal(frame.pixels, STACK.swapaxes(0, 1).reshape(6, 70, 83))
    assert frame.pixel_size == PixelSize(0.2, 0.1, "um")
    assert "2 files make up this image: read as one" in frame.notes.lines
    np.testing.assert_array_equal(io.read(tmp_path / "a_1.ome.tif").pixels, frame.pixels)  # which points to the set
    io.write(tmp_path / "b.ome.tif", frame)
    with tifffile.TiffFile(tmp_path / "b.ome.tif") as tif:
        assert not tif.series[0].is_multifile
        assert 'Name="RFP"' in tif.ome_metadata
        np.testing.assert_array_equal(tif.asarray().reshape(6, 70, 83), frame.pixels)
    assert [path.name for path in members(companion)] == ["a_0.ome.tif", "a_1.ome.tif"]
    with pytest.raises(UsageError, match=r"read, not written; give a name in \.ome\.tif"):
        io.check_output(tmp_path / "c.companion.ome")


def test_what_is_missing_of_a_set_is_told(tmp_path: Path, companion: Path) -> None:
    (tmp_path / "a_1.ome.tif").unlink()
    frame = io.read(companion)
    assert "planes: 3 of 6 are named in the file and not there; masked" in frame.notes.lines
    assert frame.mask[3:].all()
    (tmp_path / "a_0.ome.tif").unlink()
    with pytest.raises(InputError, match="none of its 2 files is beside it, a_0.ome.tif for instance"):
        io.read(companion)
    companion.write_text("<OME")
    with pytest.raises(InputError, match="not whole OME-XML"):
        io.read(companion)


def test_a_file_without_its_companion_is_plain(tmp_path: Path, companion: Path) -> None:
    companion.unlink()
    frame = io.read(tmp_path / "a_0.ome.tif", axes="ZYX")
    np.testing.assert_array_equal(frame.pixels, STACK[:, 0])
    assert frame.header.style == "plain"


@pytest.mark.parametrize(("shape", "axes"), AXES)
def test_a_flat_array_gives_back_what_was_put(tmp_path: Path, shape: tuple[int, ...], axes: str) -> None:
    data = RNG.integers(0, 9999, shape).astype(">i4")
    with open(tmp_path / "raw", "w+b") as file:
        file.write(bytes(7 + data.nbytes))
        file.flush()
        flat = RawArray(file.fileno(), 7, data.dtype, shape, axes)
        planes = to_planes(data, axes)
        for plane in range(len(planes)):
            for y, x in ((2, 0), (0, 0), (0, 3), (2, 3)):
                flat.put(plane, y, x, planes[plane, y : y + 2, x : x + 3])
        np.testing.assert_array_equal(flat.get(len(planes) - 1, Region(1, 3, 2, 5)), planes[-1, 1:3, 2:5])
    np.testing.assert_array_equal(np.frombuffer((tmp_path / "raw").read_bytes()[7:], ">i4").reshape(shape), data)


def test_real_frames_by_windows(shared_data: Path) -> None:
    for path in sorted((shared_data / "micro").rglob("*.tif")):
        check_windows(
            path, axes="ZYX" if path.name in ("membrane_2d_timelapse.tif", "pollen.tif", "img3d.tif") else None
        )

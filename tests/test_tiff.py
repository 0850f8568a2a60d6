"""TIFF in and out: axes, type, pixel size and metadata style stay the input's own."""

import hashlib
import shutil

import numpy as np
import pytest
import tifffile

from sciresdiff import io
from sciresdiff.errors import InputError, UsageError
from sciresdiff.frame import Frame, PixelSize
from sciresdiff.io.tiff.metadata import clean_unit
from sciresdiff.io.tiff.read import from_planes, to_planes

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(90, 3000, (12, 16)).astype("u2")
OME = """<?xml version="1.0" encoding="UTF-8"?>
<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:1">
<Instrument ID="Instrument:0"><Objective ID="Objective:0" LensNA="1.4" Manufacturer="somebody"/></Instrument>
<Image ID="Image:0" Name="cells"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="16" SizeY="12"
 SizeZ="2" SizeC="2" SizeT="3" PhysicalSizeX="0.1" PhysicalSizeY="0.2" PhysicalSizeXUnit="&#181;m"
 PhysicalSizeZ="0.5" TimeIncrement="2.5">
<Channel ID="Channel:0:0" Name="GFP" SamplesPerPixel="1" EmissionWavelength="525"/>
<Channel ID="Channel:0:1" Name="mCherry" SamplesPerPixel="1" EmissionWavelength="610" EmissionWavelengthUnit="nm"/>
<TiffData IFD="0" PlaneCount="12"/></Pixels></Image>
<StructuredAnnotations><CommentAnnotation ID="Annotation:0"><Value>kept</Value></CommentAnnotation>
</StructuredAnnotations></OME>"""


def finer(frame, s):
    def grow(a):
        return None if a is None else np.repeat(np.repeat(a, s, 1), s, 2)

    names = ("pixels", "mask", "variance", "saturated", "dq")
    return frame.with_(**{name: grow(getattr(frame, name)) for name in names})


def ome_file(path):
    data = RNG.integers(90, 3000, (3, 2, 2, 12, 16)).astype("u2")
    tifffile.imwrite(path, data, description=OME.encode(), metadata=None, photometric="minisblack")
    return data


@pytest.mark.parametrize(("axes", "shape"), [("YX", (4, 5)), ("TZCYX", (2, 3, 2, 4, 5)), ("YXS", (4, 5, 3)),
                                             ("CYXT", (2, 4, 5, 3)), ("XY", (5, 4))])  # fmt: skip
def test_axes_there_and_back(axes, shape):
    data = RNG.normal(size=shape)
    planes = to_planes(data, axes)
    assert planes.shape[-2:] == (shape[axes.index("Y")], shape[axes.index("X")])
    np.testing.assert_array_equal(from_planes(planes, axes, shape), data)


# -- OME --------------------------------------------------------------------------------------------------------------


def test_ome_is_understood(tmp_path):
    data = ome_file(tmp_path / "a.ome.tif")
    frame = io.read(tmp_path / "a.ome.tif")
    assert (frame.axes, frame.shape, frame.planes) == ("TCZYX", (3, 2, 2, 12, 16), 12)
    assert frame.pixel_size == PixelSize(0.2, 0.1, "um")
    assert frame.facts == {"na": 1.4, "wavelength": 525.0, "wavelength_1": 610.0, "z_step": 0.5, "saturation": 65535.0}
    np.testing.assert_array_equal(frame.pixels.reshape(data.shape), data)


def test_ome_comes_back_as_ome(tmp_path):
    data = ome_file(tmp_path / "a.ome.tif")
    high = finer(io.read(tmp_path / "a.ome.tif"), 2)
    told = {"SRDSCALE": 2, "SRDMODEL": "micro-x2", "SRDCHI2": None}
    report = io.write(tmp_path / "b.ome.tif", high, planes={"ERR": high.pixels, "SUPPORT": high.pixels},
                      provenance=told, history=["by a test"], scale=2)  # fmt: skip
    assert [f.rsplit("/")[-1] for f in report["files"]] == ["b.ome.tif", "b_err.tif", "b_support.tif"]
    with tifffile.TiffFile(tmp_path / "b.ome.tif") as tif:
        assert tif.is_ome
        xml = tif.ome_metadata
        assert (tif.series[0].axes, tif.series[0].shape) == ("TCZYX", (3, 2, 2, 24, 32))
        np.testing.assert_array_equal(tif.asarray()[..., ::2, ::2], data)
        assert tif.asarray().dtype == np.uint16
        x, y = (tif.pages[0].tags[name].value for name in ("XResolution", "YResolution"))
    assert x[0] / x[1] == pytest.approx(1e4 / 0.05, rel=1e-6)  # pixels per cm; a fraction of 32-bit integers
    assert y[0] / y[1] == pytest.approx(1e4 / 0.1, rel=1e-6)
    for kept in ('Manufacturer="somebody"', 'Name="mCherry"', "kept", 'PhysicalSizeZ="0.5"', 'TimeIncrement="2.5"'):
        assert kept in xml
    for new in ('PhysicalSizeX="0.05"', 'PhysicalSizeY="0.1"', 'SizeX="32"', 'K="SRDSCALE"', "by a test"):
        assert new in xml
    assert "UUID" not in xml
    assert "SRDCHI2" not in xml
    assert io.read(tmp_path / "b.ome.tif").facts["scale"] == 2
    assert tifffile.imread(tmp_path / "b_err.tif").dtype == np.float32


def test_broken_ome_is_plain(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", IMAGE, description=b"<OME xmlns='x'><Image></OME>", metadata=None)
    frame = io.read(tmp_path / "a.tif", axes="YX")
    np.testing.assert_array_equal(frame.pixels[0], IMAGE)


# -- ImageJ -----------------------------------------------------------------------------------------------------------


def imagej(path, data=IMAGE, resolution=(4.0, 4.0), **metadata):
    tifffile.imwrite(path, data, imagej=True, resolution=resolution, metadata=metadata)
    return path


def test_imagej_comes_back_as_imagej(tmp_path):
    stack = RNG.integers(0, 4000, (2, 3, 12, 16)).astype("u2")
    path = imagej(tmp_path / "a.tif", stack, axes="TCYX", unit="\\u00B5m", finterval=1.5, Info="first line", min=3.0,
                  Labels=[f"l{i}" for i in range(6)])  # fmt: skip
    frame = io.read(path)
    assert frame.pixel_size == PixelSize(0.25, 0.25, "um")
    high = finer(frame, 2)
    io.write(tmp_path / "b.tif", high, provenance={"SRDSCALE": 2}, scale=2)
    with tifffile.TiffFile(tmp_path / "b.tif") as tif:
        told = tif.imagej_metadata
        assert tif.is_imagej
        assert tif.series[0].axes == "TCYX"
        assert (told["unit"], told["finterval"], told["min"], told["frames"]) == ("\\u00B5m", 1.5, 3.0, 2)
        assert told["Labels"] == [f"l{i}" for i in range(6)]
        assert told["Info"].startswith("first line\nsciresdiff: {")
        np.testing.assert_array_equal(tif.asarray(), high.pixels.reshape(2, 3, 24, 32))
    assert io.read(tmp_path / "b.tif").pixel_size == PixelSize(0.125, 0.125, "um")
    io.write(tmp_path / "c.tif", high.with_(quantity="sum"), scale=2)
    with tifffile.TiffFile(tmp_path / "c.tif") as tif:
        assert "min" not in tif.imagej_metadata  # the display range is not that of a quarter of the values


def test_float_imagej(sample_data, tmp_path):
    frame = io.read(sample_data / "celegans.tif")
    assert frame.pixel_size.x == pytest.approx(1 / 23.466652)
    io.write(tmp_path / "b.tif", finer(frame, 2), scale=2)
    again = io.read(tmp_path / "b.tif")
    assert again.dtype == np.float32
    assert again.pixel_size.x == pytest.approx(frame.pixel_size.x / 2, rel=1e-6)  # a fraction of 32-bit integers


def test_pixel_size_given_by_the_user_is_written(tmp_path):
    for name, save in (("a.tif", imagej), ("p.tif", lambda p: tifffile.imwrite(p, IMAGE, photometric="minisblack"))):
        save(tmp_path / name)
        assert io.read(tmp_path / name).pixel_size is None
        io.write(tmp_path / f"x{name}", finer(io.read(tmp_path / name, pixel_size=0.3), 2), scale=2)
        assert io.read(tmp_path / f"x{name}").pixel_size.x == pytest.approx(0.15, rel=1e-6)  # 32-bit fraction


# -- plain ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "u4", "f4", "f8", ">u2", ">f4"])
def test_plain_comes_back_in_its_type(tmp_path, dtype):
    data = RNG.integers(0, 120, (2, 12, 16)).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", data, metadata={"axes": "TYX"}, photometric="minisblack")
    io.write(tmp_path / "b.tif", finer(io.read(tmp_path / "a.tif"), 2), scale=2, history=["line"])
    again = io.read(tmp_path / "b.tif")
    assert again.axes == "TYX"
    assert again.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(again.pixels[:, ::2, ::2], data)


def test_description_of_a_plain_file_is_kept(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", IMAGE, description="objective 63x", metadata=None, photometric="minisblack")
    io.write(tmp_path / "b.tif", finer(io.read(tmp_path / "a.tif"), 2), provenance={"SRDSEED": 0}, scale=2)
    with tifffile.TiffFile(tmp_path / "b.tif") as tif:
        assert "objective 63x" in tif.pages[0].description
        assert '"SRDSEED": 0' in tif.pages[0].description


def test_clipped_pixels_are_counted(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", IMAGE, photometric="minisblack")
    frame = io.read(tmp_path / "a.tif")
    pixels = frame.pixels.copy()
    pixels[0, 0, :4] = [-5, 7e4, 2.5, 3.5]
    assert io.write(tmp_path / "b.tif", frame.with_(pixels=pixels))["clipped"] == 2
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "b.tif")[0, :4], [0, 65535, 2, 4])
    assert io.write(tmp_path / "c.tif", frame.with_(pixels=pixels), dtype="float32")["clipped"] == 0
    assert tifffile.imread(tmp_path / "c.tif")[0, 0] == -5


DIRTY = [
    ((72, 72), 2, None),
    ((1, 1), 1, None),
    ((300, 300), 2, None),
    ((0.4, 0.4), 3, None),
    ((40000, 20000), 3, 0.25),
]


@pytest.mark.parametrize(("resolution", "unit", "micrometres"), DIRTY)
def test_pixel_sizes_are_not_invented(tmp_path, resolution, unit, micrometres):
    tifffile.imwrite(tmp_path / "a.tif", IMAGE, resolution=resolution, resolutionunit=unit, photometric="minisblack")
    size = io.read(tmp_path / "a.tif").pixel_size
    assert (size and size.x) == micrometres
    io.write(tmp_path / "b.tif", finer(io.read(tmp_path / "a.tif"), 2), scale=2)
    again = io.read(tmp_path / "b.tif").pixel_size
    assert (again.y if again else None) == (0.25 if micrometres else None)
    if size is None:  # what meant nothing stays as it was
        with tifffile.TiffFile(tmp_path / "b.tif") as tif:
            assert tif.pages[0].get_resolution(unit="INCH" if unit == 2 else None)[0] == pytest.approx(resolution[0])


MEANINGLESS = [((0, 1), 1), ((0, 1000), 1), ((0, 1000), 2), ((72, 1), 2), ((96, 1), 2), ((1, 1), 1), ((1, 1), 3), None]


@pytest.mark.parametrize("given", MEANINGLESS)
def test_resolutions_that_say_nothing_stay_as_they_are(tmp_path, given):
    tags = {} if given is None else {"resolution": (given[0], given[0]), "resolutionunit": given[1]}
    tifffile.imwrite(tmp_path / "a.tif", IMAGE, photometric="minisblack", **tags)
    frame = io.read(tmp_path / "a.tif")
    assert frame.pixel_size is None
    io.write(tmp_path / "b.tif", finer(frame, 2), scale=2)
    with tifffile.TiffFile(tmp_path / "a.tif") as old, tifffile.TiffFile(tmp_path / "b.tif") as new:
        for name in ("XResolution", "YResolution"):
            (a, b), (c, d) = (tif.pages[0].tags[name].value for tif in (old, new))
            assert (c, d) == (a, b) or (a == c == 0 and d) or a / b == c / d
        assert new.pages[0].tags["ResolutionUnit"].value == old.pages[0].tags["ResolutionUnit"].value
    assert io.read(tmp_path / "b.tif").pixel_size is None


@pytest.mark.parametrize("unit", ["", "cm", "pixel", "inch", "?", None])
def test_units_that_are_no_length_of_a_specimen(tmp_path, unit):
    imagej(tmp_path / "a.tif", **({} if unit is None else {"unit": unit}))
    frame = io.read(tmp_path / "a.tif")
    assert frame.pixel_size is None
    assert any("--pixel-size" in line for line in frame.notes.lines)
    io.write(tmp_path / "b.tif", finer(frame, 2), scale=2)
    with tifffile.TiffFile(tmp_path / "b.tif") as tif:
        assert tif.imagej_metadata.get("unit", "") == (unit or "")
        assert tif.pages[0].tags["XResolution"].value == (4, 1)


def test_channels_keep_their_colours_and_ranges(tmp_path):
    luts = [np.stack([np.arange(256) * (i == k) for i in range(3)]).astype("u1") for k in range(2)]
    stack = RNG.integers(0, 4000, (2, 12, 16)).astype("u2")
    imagej(tmp_path / "a.tif", stack, axes="CYX", mode="composite", LUTs=luts, Ranges=(0.0, 99.0, 5.0, 2000.0),
           Labels=["GFP", "RFP"], unit="nm")  # fmt: skip
    io.write(tmp_path / "b.tif", finer(io.read(tmp_path / "a.tif"), 2), scale=2)
    with tifffile.TiffFile(tmp_path / "b.tif") as tif:
        told = tif.imagej_metadata
    assert (told["mode"], told["Labels"], told["unit"]) == ("composite", ["GFP", "RFP"], "nm")
    assert tuple(told["Ranges"]) == (0.0, 99.0, 5.0, 2000.0)
    np.testing.assert_array_equal(told["LUTs"], luts)


@pytest.mark.parametrize("unit", ["\\u00B5m", "µm", "um", "μm", "micron", "Microns", " micrometer"])
def test_micrometres_by_any_name(unit):
    assert clean_unit(unit) in ("um", "micron", "microns", "micrometer")


def test_saturated_pixels(tmp_path):
    data = IMAGE.copy()
    data[3, 3] = 65535
    tifffile.imwrite(tmp_path / "a.tif", data, photometric="minisblack")
    frame = io.read(tmp_path / "a.tif")
    assert frame.saturated.sum() == 1
    assert frame.mask[0, 3, 3]
    data[3, 3:5] = 4095  # a 12-bit camera
    tifffile.imwrite(tmp_path / "b.tif", data, photometric="minisblack")
    assert io.read(tmp_path / "b.tif").facts["saturation"] == 4095


def test_low_frame_gives_back_its_kernel_and_variance(tmp_path):
    imagej(tmp_path / "a.tif", unit="um")
    ome_file(tmp_path / "a.ome.tif")
    tifffile.imwrite(tmp_path / "p.tif", IMAGE, photometric="minisblack")
    kernel = np.outer([1, 2, 1], [1, 2, 1]) / 16.1
    for name in ("a.tif", "a.ome.tif", "p.tif"):
        frame = io.read(tmp_path / name)
        low = Frame(pixels=frame.pixels[:, ::2, ::2], mask=frame.mask[:, ::2, ::2], kind="micro", header=frame.header,
                    axes=frame.axes, shape=frame.shape, dtype=frame.dtype, quantity="mean")  # fmt: skip
        planes = {"VAR": np.full(low.pixels.shape, 7.0), "KERNEL": kernel}
        report = io.write(tmp_path / f"low_{name}", low, planes=planes, scale=0.5)
        assert len(report["files"]) == 2
        again = io.read(tmp_path / f"low_{name}")
        np.testing.assert_array_equal(again.kernel, kernel)
        assert (again.kernel_scale, again.quantity) == (2, "mean")
        np.testing.assert_array_equal(again.variance, 7.0)
        (tmp_path / report["files"][1]).unlink()
        assert any("not beside the image any more" in line for line in io.read(tmp_path / f"low_{name}").notes)


def test_restored_low_frame_has_no_kernel(tmp_path):
    imagej(tmp_path / "a.tif", unit="um")
    ome_file(tmp_path / "a.ome.tif")
    tifffile.imwrite(tmp_path / "p.tif", IMAGE, photometric="minisblack")
    for name in ("a.tif", "a.ome.tif", "p.tif"):
        low = io.read(tmp_path / name).with_(kernel=np.ones((1, 1)), kernel_scale=2)
        io.write(tmp_path / f"low_{name}", low, scale=0.5)
        io.write(tmp_path / f"high_{name}", finer(io.read(tmp_path / f"low_{name}"), 2), scale=2)
        assert io.read(tmp_path / f"low_{name}").kernel is not None
        assert io.read(tmp_path / f"high_{name}").kernel is None


def test_same_content_same_bytes(tmp_path):
    imagej(tmp_path / "a.tif", unit="um")
    ome_file(tmp_path / "o.ome.tif")
    for name in ("a.tif", "o.ome.tif"):
        frame = io.read(tmp_path / name)
        for side in "xy":
            (tmp_path / side).mkdir(exist_ok=True)
            io.write(tmp_path / side / name, frame, planes={"ERR": frame.pixels}, provenance={"SRDSCALE": 1})
    for path in (tmp_path / "x").iterdir():
        assert path.read_bytes() == (tmp_path / "y" / path.name).read_bytes()


def test_more_draws_than_planes(tmp_path):
    imagej(tmp_path / "a.tif", unit="um")
    frame = io.read(tmp_path / "a.tif")
    draws = Frame(pixels=np.repeat(frame.pixels, 4, 0), mask=np.repeat(frame.mask, 4, 0), kind="micro",
                  header=frame.header)  # fmt: skip
    io.write(tmp_path / "b.tif", draws)
    assert io.read(tmp_path / "b.tif").shape == (4, 12, 16)
    report = io.write(tmp_path / "c.tif", frame, planes={"DRAWS": draws.pixels, "ERR": frame.pixels})
    assert len(report["files"]) == 3
    assert io.read(tmp_path / "c_draws.tif").shape == (4, 12, 16)
    assert io.read(tmp_path / "c_err.tif").shape == (12, 16)


def test_new_frame(tmp_path):
    frame = Frame(pixels=IMAGE[None].astype("f4"), mask=np.zeros((1, 12, 16), bool), kind="micro", axes="YX",
                  shape=(12, 16), pixel_size=PixelSize(0.1, 0.1, "um"))  # fmt: skip
    io.write(tmp_path / "a.tif", frame, scale=2)
    assert io.read(tmp_path / "a.tif").pixel_size.x == pytest.approx(0.1, rel=1e-6)  # its own, not to be rescaled


# -- bad input --------------------------------------------------------------------------------------------------------


def test_bad_files_are_refused_in_one_line(tmp_path):
    tifffile.imwrite(tmp_path / "q.tif", np.zeros((5, 12, 16), "u2") + 3)
    tifffile.imwrite(tmp_path / "rgb.tif", np.zeros((12, 16, 3), "u1"), photometric="rgb")
    tifffile.imwrite(tmp_path / "nan.tif", np.full((4, 4), np.nan, "f4"))
    tifffile.imwrite(tmp_path / "bool.tif", np.zeros((8, 8), bool))
    tifffile.imwrite(tmp_path / "whole.tif", RNG.integers(0, 9, (64, 64)).astype("u2"))
    (tmp_path / "cut.tif").write_bytes((tmp_path / "whole.tif").read_bytes()[:3000])
    tifffile.imwrite(tmp_path / "zip.tif", RNG.integers(0, 9, (64, 64)).astype("u2"), compression="zlib")
    (tmp_path / "cutzip.tif").write_bytes((tmp_path / "zip.tif").read_bytes()[:-400])
    (tmp_path / "text.tif").write_text("hello" * 50)
    (tmp_path / "short.tif").write_bytes(b"II*\0")
    bad = {
        "q.tif": r"axes QYX of shape \(5, 12, 16\) do not say what Q is; give --axes, for instance TYX",
        "rgb.tif": "8-bit colour",
        "nan.tif": "all pixels are NaN",
        "bool.tif": "pixels of type bool",
        "cut.tif": "not a whole TIFF",
        "cutzip.tif": "(not a whole TIFF|cannot be read)",
        "text.tif": "not a whole TIFF",
        "short.tif": "(not a whole TIFF|no image)",
        "missing.tif": "no such file",
    }
    for name, why in bad.items():
        with pytest.raises(InputError, match=why) as caught:
            io.read(tmp_path / name)
        assert str(caught.value).startswith(str(tmp_path / name))
        assert "\n" not in str(caught.value)
    assert io.read(tmp_path / "q.tif", axes="TYX").planes == 5
    for axes in ("TZYX", "YX", "TYY", "TCZ"):
        with pytest.raises(InputError, match="do not fit shape"):
            io.read(tmp_path / "q.tif", axes=axes)


def test_planes_of_other_files(tmp_path):
    imagej(tmp_path / "a.tif", unit="um")
    tifffile.imwrite(tmp_path / "v_var.tif", np.full((12, 16), 4.0, "f4"))
    tifffile.imwrite(tmp_path / "s_sigma.tif", np.full((12, 16), 3.0, "f4"))
    tifffile.imwrite(tmp_path / "small.tif", np.full((3, 4), 3.0, "f4"))
    tifffile.imwrite(tmp_path / "m.tif", np.eye(12, 16).astype("u1"))
    np.testing.assert_array_equal(io.read(tmp_path / "a.tif", variance=str(tmp_path / "v_var.tif")).variance, 4.0)
    np.testing.assert_array_equal(io.read(tmp_path / "a.tif", variance=str(tmp_path / "s_sigma.tif")).variance, 9.0)
    assert io.read(tmp_path / "a.tif", mask=str(tmp_path / "m.tif")).mask.sum() == 12
    with pytest.raises(InputError, match=r"variance .*small.tif has shape \(3, 4\)"):
        io.read(tmp_path / "a.tif", variance=str(tmp_path / "small.tif"))
    with pytest.raises(InputError, match="no such file"):
        io.read(tmp_path / "a.tif", variance="VAR")


def test_one_existing_output_stops_all(tmp_path):
    imagej(tmp_path / "a.tif")
    frame = io.read(tmp_path / "a.tif")
    shutil.copy(tmp_path / "a.tif", tmp_path / "b_err.tif")
    with pytest.raises(UsageError, match="b_err.tif: exists"):
        io.write(tmp_path / "b.tif", frame, planes={"ERR": frame.pixels})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tif", "b_err.tif"]


# -- real frames ------------------------------------------------------------------------------------------------------

REFUSED = {"membrane_2d_timelapse.tif": "axes QYX", "pollen.tif": "axes IYX", "img3d.tif": "axes QYX"}


def test_every_real_frame_is_read_or_refused(shared_data, tmp_path):
    files = sorted((shared_data / "micro").rglob("*.tif"))
    assert files
    for path in files:
        if path.name in REFUSED:
            with pytest.raises(InputError, match=REFUSED[path.name]):
                io.read(path)
        frame = io.read(path, axes="ZYX" if path.name in REFUSED else None)
        assert not frame.mask.all()
        io.write(tmp_path / path.name, finer(frame, 2), planes={"ERR": finer(frame, 2).pixels}, scale=2)
        with tifffile.TiffFile(tmp_path / path.name) as new, tifffile.TiffFile(path) as old:
            assert new.is_imagej == old.is_imagej
            assert new.series[0].dtype == old.series[0].dtype
            assert new.series[0].shape == tuple(
                n * 2 if a in "YX" else n for a, n in zip(old.series[0].axes, old.series[0].shape, strict=True)
            )
        again = io.read(tmp_path / path.name)
        assert again.axes == frame.axes
        assert (again.pixel_size is None) == (frame.pixel_size is None)
        np.testing.assert_array_equal(again.pixels, finer(frame, 2).pixels)
        if frame.pixel_size:
            assert again.pixel_size.x == pytest.approx(frame.pixel_size.x / 2, rel=1e-6)  # 32-bit fraction


def test_real_pixel_sizes(shared_data):
    micro = shared_data / "micro"
    known = {"zerocost_fa/FA_-_0488_Evolve.tif": 1 / 4.038496, "sdeconv_wheel/celegans.tif": 1 / 23.466652,
             "bioimage_notebooks/BPAE_actin.tif": None, "bioimage_notebooks/m51.tif": None}  # fmt: skip
    for name, side in known.items():
        size = io.read(micro / name).pixel_size
        assert (size.x if size else None) == pytest.approx(side)


def test_sample_is_the_file_of_the_wheel(sample_data):
    digest = hashlib.sha256((sample_data / "celegans.tif").read_bytes()).hexdigest()
    assert digest in (sample_data / "README.md").read_text()


@pytest.mark.parametrize(
    "unit",
    [b"um", b"\\xb5m", b"\\u00B5m", b"\\u03bcm", b"\\xc2\\xb5m", b"\xb5m", b"\xc2\xb5m", b"\xce\xbcm", b"micron",
     b"MICRONS", b" um", b"[um]", b"&#181;m", b"um\x00"],
)  # fmt: skip
def test_a_micrometre_in_any_spelling(tmp_path, unit):
    data = np.arange(64, dtype="u2").reshape(8, 8)
    description = b"ImageJ=1.53t\nunit=" + unit + b"\n"
    tifffile.imwrite(tmp_path / "a.tif", data, resolution=(4, 4), metadata=None, description=description)
    frame = io.read(tmp_path / "a.tif")
    assert frame.pixel_size == PixelSize(0.25, 0.25, "um")
    pixels = frame.pixels.repeat(2, 1).repeat(2, 2)
    fine = frame.with_(pixels=pixels, mask=np.zeros(pixels.shape, bool), saturated=None)
    io.write(tmp_path / "b.tif", fine, scale=2)
    assert io.read(tmp_path / "b.tif").pixel_size == PixelSize(0.125, 0.125, "um")
    with tifffile.TiffFile(tmp_path / "b.tif") as out:  # in letters that ImageJ knows
        assert out.imagej_metadata["unit"] in ("um", "micron", "\\u00B5m")


@pytest.mark.parametrize("unit", [b"cm", b"inch", b"pixel", b"pixels", b""])
def test_a_unit_that_says_nothing_of_the_specimen(tmp_path, unit):
    description = b"ImageJ=1.53t\nunit=" + unit + b"\n"
    tifffile.imwrite(
        tmp_path / "a.tif", np.ones((8, 8), "u2"), resolution=(4, 4), metadata=None, description=description
    )
    assert io.read(tmp_path / "a.tif").pixel_size is None

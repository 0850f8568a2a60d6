"""TIFF and OME-TIFF as Bio-Formats reads them; needs Java and ``BIOFORMATS=.../bioformats_package.jar``."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile

from sciresdiff import io
from sciresdiff.io.tiff import write as tiff_write

JAR = os.environ.get("BIOFORMATS", "")
pytestmark = pytest.mark.skipif(
    not (JAR and shutil.which("java")), reason="needs Java, and BIOFORMATS=.../bioformats_package.jar"
)
RNG = np.random.default_rng(5)
OME = "{http://www.openmicroscopy.org/Schemas/OME/2016-06}"
SIDES = {"T": 2, "Z": 3, "C": 2, "Y": 12, "X": 14}


def tool(name: str, *words: Any) -> str:
    """What a command line tool of Bio-Formats prints."""
    command = ["java", "-cp", JAR, f"loci.formats.tools.{name}", "-no-upgrade", *map(str, words)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def described(path: Path) -> ElementTree.Element:
    """<Pixels> of the first image, as Bio-Formats understands the file."""
    text = tool("ImageInfo", "-nopix", "-omexml-only", path)
    pixels = ElementTree.fromstring(text).find(f"{OME}Image/{OME}Pixels")
    assert pixels is not None
    return pixels


def pixels_of(path: Path, folder: Path) -> np.ndarray:
    """All values as Bio-Formats reads them, (T, Z, C, Y, X)."""
    target = folder / "copy.ome.tiff"
    tool("ImageConverter", "-overwrite", "-nogroup", "-series", "0", path, target)
    with tifffile.TiffFile(target) as tif:
        data, axes = tif.asarray(), tif.series[0].axes
    order = [axes.index(a) for a in "TZCYX" if a in axes]
    return data.transpose(order).reshape([SIDES.get(a, 1) if a in axes else 1 for a in "TZC"] + [*data.shape[-2:]])


def made(folder: Path, axes: str, dtype: str, style: str) -> tuple[Path, np.ndarray]:
    """A file that tifffile wrote, and its values as (T, Z, C, Y, X)."""
    data = RNG.integers(1, 4000, [SIDES[a] for a in axes]).astype(dtype)
    path = folder / ("in.ome.tif" if style == "ome" else "in.tif")
    known: dict[str, Any] = {"axes": axes}
    if style == "ome":
        known |= {"PhysicalSizeX": 0.1, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.1, "PhysicalSizeYUnit": "µm"}
        known |= {"Channel": {"Name": ["actin", "nuclei"]}} if "C" in axes else {}
        tifffile.imwrite(path, data, metadata=known, photometric="minisblack")
    else:
        named = {"unit": "um", "spacing": 0.3}
        tifffile.imwrite(path, data, imagej=True, resolution=(10, 10), metadata=known | named)
    return path, data.reshape([SIDES[a] if a in axes else 1 for a in "TZCYX"])


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("style", ["ome", "imagej"])
@pytest.mark.parametrize(
    ("axes", "dtype"), [("YX", "uint16"), ("TZCYX", "uint16"), ("ZYX", "float32"), ("CYX", "uint16")]
)
def test_bio_formats_reads_what_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, axes: str, dtype: str, style: str, big: bool
) -> None:
    path, data = made(tmp_path, axes, dtype, style)
    frame = io.read(path)
    pixels = frame.pixels.repeat(2, 1).repeat(2, 2)
    high = frame.with_(pixels=pixels, mask=np.zeros(pixels.shape, bool), saturated=None)
    out = tmp_path / ("out.ome.tif" if style == "ome" else "out.tif")
    monkeypatch.setattr(tiff_write, "BIG", 0 if big else 2**32)
    io.write(out, high, scale=2)

    told = described(out)
    wanted = {f"Size{a}": str(SIDES[a] * (2 if a in "YX" else 1)) if a in axes else "1" for a in "TZCYX"}
    assert {name: told.get(name) for name in wanted} == wanted
    assert told.get("Type") == {"uint16": "uint16", "float32": "float"}[dtype]
    assert float(told.get("PhysicalSizeX", "nan")) == pytest.approx(0.05)
    assert told.get("PhysicalSizeXUnit", "µm") == "µm"
    if style == "ome" and "C" in axes:
        assert [c.get("Name") for c in told.iter(f"{OME}Channel")] == ["actin", "nuclei"]
    np.testing.assert_array_equal(pixels_of(out, tmp_path), data.repeat(2, 3).repeat(2, 4))


def test_bio_formats_reads_every_level_of_a_pyramid(tmp_path: Path) -> None:
    data = RNG.integers(1, 4000, (2, 1500, 1100)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "in.ome.tif", data, metadata={"axes": "CYX"}, photometric="minisblack")
    io.write(tmp_path / "out.ome.tif", io.read(tmp_path / "in.ome.tif"), pyramid=True)
    told = tool("ImageInfo", "-nopix", "-noflat", tmp_path / "out.ome.tif")
    assert [int(side) for side in re.findall(r"sizeX\[\d\] = (\d+)", told)] == [1100, 550, 275]
    np.testing.assert_array_equal(pixels_of(tmp_path / "out.ome.tif", tmp_path)[0, 0], data)

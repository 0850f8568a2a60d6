"""The PSF of every channel of a microscope, from its objective and its wavelength."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from sciresdiff import io, restore
from sciresdiff.errors import UsageError
from sciresdiff.frame import PixelSize
from sciresdiff.io.tiff.metadata import read_optics
from sciresdiff.jobs.upscale.inputs import resolve_inputs
from sciresdiff.jobs.upscale.options import UpscaleOptions
from sciresdiff.observation.optics import channel_of_planes, optics_of
from sciresdiff.observation.options import Stated
from sciresdiff.physics import psf

COMMON: dict[str, Any] = {"model": "physics", "gain": 1.0, "read_noise": 2.0, "offset": 100.0, "refine": False}


def xml(waves: list[int | None], size_t: int = 1, na: str = "1.4", settings: str = 'RefractiveIndex="1.515"') -> str:
    channels = "".join(
        f'<Channel ID="Channel:0:{i}"' + (f' EmissionWavelength="{w}"' if w else "") + "/>" for i, w in enumerate(waves)
    )
    return (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Instrument ID="Instrument:0">'
        f'<Objective ID="Objective:0" LensNA="0.3" Immersion="Air"/><Objective ID="Objective:1" LensNA="{na}" '
        'Immersion="Oil"/></Instrument><Image ID="Image:0"><InstrumentRef ID="Instrument:0"/>'
        f'<ObjectiveSettings ID="Objective:1" {settings}/><Pixels ID="Pixels:0" DimensionOrder="XYCTZ" Type="uint16" '
        f'SizeX="48" SizeY="48" SizeC="{len(waves)}" SizeT="{size_t}" SizeZ="1" PhysicalSizeX="0.09" '
        f'PhysicalSizeY="0.09">{channels}<TiffData/></Pixels></Image>'
        "</OME>"
    )


def save(path: Path, pixels: np.ndarray, axes: str, waves: list[int | None]) -> str:
    tifffile.imwrite(path, pixels, metadata={"axes": axes}, ome=True, photometric="minisblack")
    size_t = pixels.shape[0] if axes.startswith("T") else 1
    tifffile.tiffcomment(path, xml(waves, size_t).encode())
    return str(path)


def cells(planes: int) -> np.ndarray:
    rng = np.random.default_rng(4)
    y, x = np.indices((48, 48))
    glow = sum(600 * np.exp(-((y - a) ** 2 + (x - b) ** 2) / 8) for a, b in rng.uniform(8, 40, (12, 2)))
    return (rng.poisson(np.broadcast_to(glow + 20, (planes, 48, 48))) + 100).astype("u2")


def test_optics_are_those_of_the_objective_that_was_used() -> None:
    other = '<Image ID="Image:1"><Pixels><Channel ID="Channel:1:0" EmissionWavelength="999"/></Pixels></Image></OME>'
    assert read_optics(xml([450, 670]).replace("</OME>", other)) == {
        "na": 1.4, "refractive_index": 1.515, "wavelength": 450.0, "wavelength_1": 670.0,
    }  # fmt: skip
    assert read_optics(xml([None, 670], settings="")) == {"na": 1.4, "refractive_index": 1.515, "wavelength_1": 670.0}
    assert read_optics("") == {}


@pytest.mark.parametrize(
    ("axes", "shape", "of_plane"), [("CYX", (3,), [0, 1, 2]), ("TCYX", (2, 3), [0, 1, 2, 0, 1, 2])]
)
@pytest.mark.parametrize("waves", [[450, 525, 670], [670, 450, 525]])
def test_each_plane_has_the_psf_of_its_channel(
    tmp_path: Path, axes: str, shape: tuple[int, ...], of_plane: list[int], waves: list[int | None]
) -> None:
    path = save(tmp_path / "a.ome.tif", cells(len(of_plane)).reshape(*shape, 48, 48), axes, waves)
    frame = io.read(path)
    assert channel_of_planes(frame) == of_plane
    inputs = resolve_inputs(path, UpscaleOptions(scale=2, **COMMON))
    exposure = inputs.observation.exposure
    widths = [one.width for plane in range(len(of_plane)) if (one := exposure.psf_of(plane)) is not None]
    wanted = [np.hypot(w, 0.0) for w in (waves[i] for i in of_plane) if w is not None]
    assert np.argsort(widths, kind="stable").tolist() == np.argsort(wanted, kind="stable").tolist()
    assert len(set(widths)) == 3
    assert sum("psf: vectorial" in line for line in inputs.notes) == 3


def test_a_channel_comes_out_as_it_does_alone(tmp_path: Path) -> None:
    both = save(tmp_path / "both.ome.tif", cells(2), "CYX", [450, 670])
    alone = save(tmp_path / "alone.ome.tif", cells(2)[1:], "CYX", [670])
    a = restore(alone, scale=2, samples=1, **COMMON)
    b = restore(both, scale=2, samples=1, **COMMON)
    np.testing.assert_array_equal(np.squeeze(a.sci), b.sci[1])


def test_options_win_and_say_what_is_missing(tmp_path: Path) -> None:
    frame = io.read(save(tmp_path / "a.ome.tif", cells(2), "CYX", [450, None]))
    specs, notes = optics_of(frame, Stated())
    assert specs == ["vectorial:na=1.4,ri=1.515,wavelength=450nm"] * 2
    assert any("channel 1" in line for line in notes.warnings)
    specs, notes = optics_of(frame, Stated(wavelength="525,610nm", na=1.2, ri=1.33))
    assert specs == [f"vectorial:na=1.2,ri=1.33,wavelength={w}nm" for w in (525, 610)]
    assert not notes
    specs, _ = optics_of(frame, Stated(pinhole=1.0))
    assert specs is not None
    assert "pinhole=1" in specs[0]
    bare = frame.with_(facts={})
    assert optics_of(bare, Stated()) == (None, notes)
    for stated, message in (
        (Stated(wavelength="525"), "--na"),
        (Stated(na=1.4), "--wavelength"),
        (Stated(na=1.4, wavelength="green"), "nm from 100"),
        (Stated(na=1.4, wavelength="500,600,700"), "3 are given for 2 channels"),
        (Stated(na=1.4, wavelength="525", ri=1.33), "--ri"),
        (Stated(na=1.4, wavelength="525", pinhole=1.0), "--ri"),
    ):
        with pytest.raises(UsageError, match=message):
            optics_of(bare, stated)


def test_high_apertures_are_wider_than_airy_and_low_ones_are_airy() -> None:
    pixel = PixelSize(0.01, 0.01, "um")

    def width(spec: str) -> float:
        return psf.fwhm(psf.render(spec, pixel, integrate=False))

    # at low aperture the vector theory becomes the Airy pattern (terms of the order sin^2 / 4)
    low = width("vectorial:na=0.2,ri=1,wavelength=525nm")
    assert low == pytest.approx(width("airy:na=0.2,wavelength=525nm"), rel=0.01)
    high, airy = width("vectorial:na=1.4,ri=1.515,wavelength=525nm"), width("airy:na=1.4,wavelength=525nm")
    assert 1.05 < high / airy < 1.2
    # a small pinhole squares the pattern: 1 / sqrt(2) of the width for a Gaussian, 0.72 for an Airy pattern
    tight = width("vectorial:na=0.2,ri=1,wavelength=525nm,pinhole=0.05")
    assert tight / low == pytest.approx(0.72, rel=0.01)
    wide = width("vectorial:na=0.2,ri=1,wavelength=525nm,pinhole=8,excitation=488nm")
    assert wide == pytest.approx(width("airy:na=0.2,wavelength=488nm"), rel=0.03)  # the excitation's alone


def test_the_identity_of_a_job_knows_the_content_of_every_psf(tmp_path: Path) -> None:
    from sciresdiff.jobs.identity import describe_value

    a, b = tmp_path / "a.fits", tmp_path / "b.fits"
    for text in (f"{a},oversample=4", f"{a};{b}", f"{a};gaussian:fwhm=2px"):
        found = []
        for content in (b"one", b"two"):
            a.write_bytes(content)
            b.write_bytes(b"same")
            found.append(describe_value(text))
        assert found[0] != found[1]
        assert str(tmp_path) not in found[0]

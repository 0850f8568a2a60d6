"""How well the PSF of a stack is known: what that changes in a volume, and that samples and ERR hold it."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
import torch

from sciresdiff.frame import PixelSize
from sciresdiff.jobs.upscale import job as upscale
from sciresdiff.jobs.upscale.options import UpscaleOptions
from sciresdiff.physics.consistency import Data
from sciresdiff.physics.depth import DepthOperator
from sciresdiff.physics.psf import microscope
from sciresdiff.physics.psf.microscope import Microscope
from sciresdiff.restoration.volume import response_to_width

SHAPE, POINT, STEP = (5, 28, 26), (2, 9, 8), 0.3
OPTICS = {"na": 1.2, "ri": 1.5, "wavelength": "550"}
SIZES = {"axes": "ZYX", "PhysicalSizeZ": STEP, "PhysicalSizeX": 0.1, "PhysicalSizeY": 0.1} | {
    f"PhysicalSize{axis}Unit": "um" for axis in "XYZ"
}


@pytest.fixture(scope="module", autouse=True)
def narrow():
    """Kernels of 25 px at most."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(microscope, "WIDEST", 12)
        yield


def an_operator() -> DepthOperator:
    kernel, _ = Microscope(1.2, 1.5, 0.55).kernel(PixelSize(0.1, 0.1, "um"), STEP, 6)
    return DepthOperator(SHAPE, 1, kernel)


def a_point(light: float = 3000) -> torch.Tensor:
    x = torch.zeros(1, *SHAPE)
    x[0][POINT] = light
    return x


@pytest.fixture(scope="module")
def low(tmp_path_factory):
    """A point seen through the optics, and a bead's image of high signal beside it."""
    folder, light = tmp_path_factory.mktemp("low"), an_operator().apply(a_point())[0].numpy()
    noisy = np.random.default_rng(0).poisson(light + 10).astype("f4")
    tifffile.imwrite(folder / "low.ome.tif", noisy, metadata=SIZES, ome=True)
    bead = an_operator().psf.kernel[2:-2] * 1e5
    tifffile.imwrite(folder / "bead.ome.tif", bead, metadata=SIZES, ome=True)
    return folder / "low.ome.tif"


def restored(low, **changes) -> tuple[np.ndarray, np.ndarray, list[str]]:
    given = {**OPTICS, "scale": 1, "samples": 8, "overwrite": True, "checks": False, "gain": 1.0, "read_noise": 1.0,
             "offset": 0.0, **changes}  # fmt: skip
    record = upscale.run(low, low.with_name("out.ome.tif"), UpscaleOptions(**given))
    image, err = (tifffile.imread(low.with_name(name)).astype(float) for name in ("out.ome.tif", "out_err.tif"))
    return image, err, [line for line in record["said"] if "width is taken as known" in line]


@torch.inference_mode()
@pytest.mark.parametrize("error", [0.02, 0.1])
def test_an_estimate_answers_an_error_of_the_width_where_it_is_seen(error):
    op, u = an_operator(), a_point()
    w = torch.nn.functional.avg_pool3d(u.square(), 3, 1, 1).sqrt() + 1
    noise = op.apply(u) + 10
    response = response_to_width(
        Data(torch.zeros_like(noise), noise, torch.ones_like(noise), op, width_error=error), u, w
    )
    missing = (op.rescale(1 - error).apply(u) - op.rescale(1 + error).apply(u)) / 2
    size = lambda v: float((v.square() / noise).sum())  # noqa: E731
    # a step towards data lessens what is missing of them, whatever the scale of the error
    assert size(missing - op.apply(response)) < 0.9 * size(missing)
    # a PSF that was taken too narrow had the point's light in its neighbours; the wider one puts it into the point
    assert float(response[0][POINT]) == pytest.approx(float(response.max()))
    assert float(response[0][POINT]) > 0


def test_a_width_that_is_exact_changes_nothing():
    op, nothing = an_operator(), torch.zeros(1, *SHAPE)
    assert response_to_width(Data(nothing, nothing + 1, nothing + 1, op), a_point(), nothing + 1) is None


def test_the_error_of_the_width_is_in_err_where_there_is_light_and_not_in_the_image(low):
    exact, err, _ = restored(low, psf_error=0.0)
    image, wide, _ = restored(low, psf_error=0.2)
    np.testing.assert_allclose(image, exact, rtol=1e-4, atol=1e-3 * err.min())  # samples of a pair cancel
    assert wide[POINT] > 1.1 * err[POINT]
    far = np.s_[:, 20:, 18:]
    # a single faint voxel of eight samples may be off by a seventh; all of them together are not
    assert float(np.median(wide[far] / err[far])) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(
    ("changes", "told"),
    [({}, "1 %"), ({"psf_error": 0.07}, "7 %"), ({"psf_error": 0.0}, None), ({"psf": "{}"}, "1 %"),
     ({"psf": "beads:{}"}, "2 %")],
)  # fmt: skip
def test_how_well_a_width_is_known_is_said_by_its_origin(low, changes, told):
    if "psf" in changes:
        changes = {"psf": changes["psf"].format(low.with_name("bead.ome.tif")), **dict.fromkeys(OPTICS)}
    _, _, said = restored(low, refine=False, **changes)
    assert said == ([f"psf: its width is taken as known to {told}, which samples hold"] if told else [])

"""The benchmark runs on any folder, tells every method apart, and fails in words."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from astropy.io import fits

from sciresdiff import checks
from sciresdiff.checks.baselines import BASELINES
from sciresdiff.errors import UsageError

DOCS = Path(__file__).resolve().parent.parent / "docs"
SCRIPTS = DOCS / "benchmarks"
PAGE = DOCS / "reference" / "benchmarks.md"

LIST = """
seeds = 2
baselines = ["bicubic", "wiener", "richardson-lucy", "richardson-lucy-accelerated-best"]
columns = [["psnr", "PSNR, dB", 2], ["total_flux_ratio", "total flux", 5], ["chi2", "chi2", 2]]
methods = [{ name = "physics", model = "physics" }]
[names]
richardson-lucy = "Richardson-Lucy, 30"
[[frames]]
name = "stars"
file = "stars.fits"
crop = [0, 48, 8, 72]
mask = true
scale = 2
kernel = "gaussian:sigma=1.2px"
quantity = "sum"
gain = 10.0
read_noise = 30.0
[[frames]]
name = "broken"
file = "broken.fits"
scale = 2
kernel = "none"
"""


@pytest.fixture(scope="module")
def quality() -> ModuleType:
    """docs/benchmarks/quality.py."""
    sys.path.insert(0, str(SCRIPTS))
    try:
        return importlib.import_module("quality")
    finally:
        sys.path.remove(str(SCRIPTS))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A star field, and a file that is no image."""
    rng = np.random.default_rng(0)
    from scipy.ndimage import gaussian_filter

    image = gaussian_filter(rng.exponential(size=(60, 80)) ** 5, 1) * 20 + 100
    image[3, 30] = np.nan
    (tmp_path / "data").mkdir()
    fits.PrimaryHDU(image.astype("f4")).writeto(tmp_path / "data" / "stars.fits")
    (tmp_path / "data" / "broken.fits").write_text("no image")
    (tmp_path / "list.toml").write_text(LIST)
    return tmp_path


def test_a_list_becomes_rows_and_a_table(quality: ModuleType, folder: Path) -> None:
    words = [str(folder / "data"), "--only", "frames", "--frames", str(folder / "list.toml")]
    page = PAGE.read_text()
    assert quality.main([*words, "--out", str(folder / "out")]) == 0
    assert PAGE.read_text() == page  # only the fixed list writes it
    rows = [json.loads(line) for line in (folder / "out" / "quality.jsonl").read_text().splitlines()]
    stars = [row for row in rows if row["frame"] == "stars"]
    methods = {"bicubic", "wiener", "Richardson-Lucy, 30", "richardson-lucy-accelerated-best", "physics"}
    assert methods <= {row["method"] for row in stars}
    for method in methods:
        first, second = (row["values"] for row in stars if row["method"] == method)
        assert first["psnr"] != second["psnr"]  # two noises
        assert abs(first["psnr"] - second["psnr"]) < 3  # dB, of one kind
        assert first["total_flux_ratio"] == pytest.approx(1, abs=0.02)  # the noise of the sum is 0.1 %
    assert all("broken.fits" in row["error"] for row in rows if row["frame"] == "broken")
    table = (folder / "out" / "quality.md").read_text()
    assert "2 realisations" in table and "| **stars** |" in table and "| not run: " in table
    line = next(line for line in table.splitlines() if line.startswith("| physics |"))
    assert line.count("±") == 3
    assert "nan" not in table
    widths = {row.count("|") for row in table.splitlines() if row.startswith("|")}
    assert widths == {5}  # a column each, whatever failed


def test_a_folder_without_a_list_has_every_image_degraded(quality: ModuleType, folder: Path) -> None:
    plan = quality.quality_frames.plan(folder / "data", None)
    assert not plan.fixed
    assert [case.file for case in plan.cases] == ["broken.fits", "stars.fits"]
    assert plan.cases[1].peak_snr and plan.cases[1].kernel == "gaussian:sigma=1.2px"


def test_a_frame_is_degraded_with_the_noise_that_is_asked_for(quality: ModuleType, folder: Path) -> None:
    harness = quality.quality_frames
    case = harness.plan(folder / "data", None).cases[1]
    truth, low, quantity = harness._degraded(folder / "data", case, 1, folder)
    with fits.open(low) as hdus:
        sigma = float(np.sqrt(np.median(hdus["VAR"].data)))
    expected = harness._peak(fits.getdata(truth).astype(float), 2, quantity) / case.peak_snr
    assert sigma == pytest.approx(expected, rel=1e-5)  # float32


def test_the_fixed_list_names_methods_and_results_that_there_are(quality: ModuleType, shared_data: Path) -> None:
    plan = quality.quality_frames.plan(shared_data, None)
    assert plan.fixed and len(plan.cases) >= 6 and plan.seeds >= 3
    assert {name.split("@")[0] for name, *_ in plan.columns} <= set(checks.RESULTS)
    assert set(plan.baselines) <= set(BASELINES)


def test_the_table_goes_between_the_marks(quality: ModuleType, tmp_path: Path) -> None:
    harness, page = quality.quality_frames, tmp_path / "page.md"
    page.write_text(f"before\n{harness.BEGIN}\nold\n{harness.END}\nafter\n")
    harness.put("| new |\n", page)
    harness.put("| newer |\n", page)
    assert page.read_text() == f"before\n{harness.BEGIN}\n| newer |\n{harness.END}\nafter\n"
    page.write_text("nothing")
    with pytest.raises(UsageError, match="marks"):
        harness.put("| new |\n", page)
    assert harness.BEGIN in PAGE.read_text()


@pytest.mark.parametrize(
    ("text", "words"),
    [("frames = [", "cannot be read"), ("[[frames]]\nname='a'\nfil='b'", "a: fil not known"), (None, "cannot be read")],
)
def test_a_list_that_cannot_be_used_is_refused_in_words(
    quality: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, words: str
) -> None:
    if text is not None:
        (tmp_path / "list.toml").write_text(text)
    code = quality.main([str(tmp_path), "--only", "frames", "--frames", str(tmp_path / "list.toml")])
    assert code == 2
    assert words in capsys.readouterr().err


def test_a_folder_without_images_is_refused(
    quality: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert quality.main([str(tmp_path), "--only", "frames"]) == 2
    assert "no image in it" in capsys.readouterr().err

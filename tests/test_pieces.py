"""A large frame judged in pieces: what is pooled is what the whole frame has."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from sciresdiff import checks, io
from sciresdiff.checks import pooling
from sciresdiff.checks.result import Result
from sciresdiff.checks.source_lists import truth_sources
from sciresdiff.errors import UsageError
from sciresdiff.io.source import Source
from sciresdiff.jobs.evaluate import job as evaluate
from sciresdiff.jobs.evaluate import load_evidence, pieces
from sciresdiff.jobs.evaluate.options import EvaluateOptions
from sciresdiff.observation.observation import Observation
from sciresdiff.region import Region
from sciresdiff.run.shards import Shard

Array = NDArray[np.float64]
KERNEL = "gaussian:sigma=1.2px"
SIDE = 512
"""Of the fine frame; cut into 2 x 2 pieces of 256."""


def stars() -> Array:
    """Stars far apart, some of them on the borders of the pieces (y or x 256), on a sky with grain."""
    rng = np.random.default_rng(7)
    image = np.zeros((SIDE, SIDE))
    image[32:500:32, 32:500:32] = rng.uniform(3e3, 2e4, image[32:500:32, 32:500:32].shape)
    return np.asarray(gaussian_filter(image, 1.3) + 10 + 0.5 * rng.normal(size=image.shape))


def write(path: Path, **planes: NDArray[Any]) -> None:
    """A FITS file of extensions, in electrons."""
    found = [fits.ImageHDU(a if a.dtype.kind == "i" else a.astype("f4"), name=name) for name, a in planes.items()]
    found[0].header["BUNIT"] = "electron"
    fits.HDUList([fits.PrimaryHDU(), *found]).writeto(path)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``truth.fits``, ``low.fits`` with VAR and a bad pixel, ``high.fits`` with ERR, SUPPORT and DRAWS."""
    folder = tmp_path_factory.mktemp("pieces")
    truth, rng = stars(), np.random.default_rng(1)
    clean = gaussian_filter(truth, 1.2, mode="reflect", truncate=5).reshape(SIDE // 2, 2, SIDE // 2, 2).sum((1, 3))
    variance = 0.1 * clean + 16.0
    write(folder / "truth.fits", SCI=truth)
    write(folder / "low.fits", SCI=clean + rng.normal(size=clean.shape) * np.sqrt(variance), VAR=variance)
    high = truth + rng.normal(size=truth.shape)
    draws = truth + rng.normal(size=(4, *truth.shape))
    write(folder / "high.fits", SCI=high, ERR=np.ones_like(high), SUPPORT=np.full_like(high, 0.8), DRAWS=draws)
    return folder


@contextmanager
def in_pieces() -> Iterator[None]:
    """Frames of more than 300 px are judged in pieces of 256 px."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("WHOLE", 300), ("SIDE", 256)):
            patch.setattr(pieces, name, value)
        yield


def run(files: Path, **more: Any) -> dict[str, Any]:
    given = {"low": files / "low.fits", "truth": files / "truth.fits", "kernel": KERNEL, "baselines": "bicubic"}
    return evaluate.run(files / "high.fits", **{**given, **more})


@pytest.fixture(scope="module")
def whole(files: Path) -> dict[str, Any]:
    return run(files)


@pytest.fixture(scope="module")
def parts(files: Path) -> dict[str, Any]:
    with in_pieces():
        return run(files, report=files / "page.html")


def values(record: dict[str, Any], method: str | None = None) -> dict[tuple[str, str], float]:
    """Name and region -> value."""
    results = record["results"] if method is None else record["baselines"][method]
    return {(r["name"], r["region"]): r["value"] for r in results if r["value"] is not None}


SUMS = {"psnr", "si_psnr", "si_gain", "si_offset", "nrmse", "total_flux_ratio", "block_flux_rms_sigma", "chi2"}


@pytest.mark.parametrize("method", [None, "bicubic"])
def test_sums_are_those_of_the_whole(whole: dict[str, Any], parts: dict[str, Any], method: str | None) -> None:
    one, other = values(whole, method), values(parts, method)
    compared = {place for place in one if place[0] in SUMS}
    assert {name for name, _ in compared} == SUMS
    for place in compared:
        # float64 sums of 3e5 numbers, added otherwise
        assert other[place] == pytest.approx(one[place], rel=1e-9), place


def test_means_by_pixels_are_those_of_the_whole(whole: dict[str, Any], parts: dict[str, Any]) -> None:
    one, other = values(whole), values(parts)
    for name in ("ssim", "coverage_68", "coverage_90"):
        assert other[name, "all"] == pytest.approx(one[name, "all"], rel=1e-9), name  # float64, added otherwise
    for name, region in (("chi2_sky", "sky"), ("chi2_excess", "all"), ("trust_risk", "all")):
        if (name, region) in one:
            assert other[name, region] == pytest.approx(one[name, region], abs=0.03)  # the darker half of every piece


def test_sources_are_counted_once(whole: dict[str, Any], parts: dict[str, Any], files: Path) -> None:
    one, other = values(whole), values(parts)
    for name in ("completeness", "purity", "spurious_per_mpix", "hallucination_fraction"):
        # float64: no source here is at the threshold, and those on the borders of pieces are whole
        assert other[name, "sources"] == pytest.approx(one[name, "sources"], abs=1e-9), name
    said = {r["name"]: r["meaning"] for r in parts["results"]}
    assert "mean of the pieces by sources" in said["completeness"] and "in 4 of 4" in said["completeness"]
    with in_pieces(), opened(files) as given:
        found = [truth_sources(load_evidence.evidence_of(given, 0, tile)).inner for tile in given.tiles]
    with opened(files) as given:
        assert sum(map(len, found)) == len(truth_sources(load_evidence.evidence_of(given, 0)).inner)


@contextmanager
def opened(files: Path) -> Iterator[load_evidence.EvidenceFiles]:
    names = (files / f"{name}.fits" for name in ("high", "low", "truth"))
    with load_evidence.open_evidence(*names, EvaluateOptions(kernel=KERNEL)) as (found, _):
        yield found


def test_the_record_says_that_it_was_judged_in_pieces(parts: dict[str, Any], whole: dict[str, Any]) -> None:
    assert parts["pieces"]["count"] == 4 and parts["pieces"]["shape"] == [SIDE, SIDE] and "pieces" not in whole
    assert any(line.startswith("pieces: judged in 4") for line in parts["said"])
    assert parts["verdict"] == whole["verdict"]
    names = {r["name"] for r in parts["results"]}
    assert names == {r["name"] for r in whole["results"]}
    assert not any(r["region"].startswith("mag ") for r in parts["results"])
    json.dumps(parts, allow_nan=False)


def test_the_page_shows_the_whole_and_one_piece(parts: dict[str, Any], files: Path) -> None:
    page = (files / "page.html").read_text()
    assert "The whole frame" in page and page.count("<rect x=") >= 4
    assert f"{SIDE} × {SIDE} px" in page and f"the piece from {parts['pieces']['shown']}" in page


def test_no_window_is_larger_than_a_piece(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    largest: list[int] = []
    straight = io.open_source

    @contextmanager
    def watched(path: str | Path, **options: Any) -> Iterator[Source]:
        with straight(path, **options) as source:

            def cut(plane: int, region: Region) -> Any:
                largest.append(region.shape[0] * region.shape[1])
                return source.window(plane, region)

            yield replace(source, cut=cut)

    monkeypatch.setattr(io, "open_source", watched)
    monkeypatch.setattr(load_evidence, "STRIP", 64 * SIDE)
    monkeypatch.setattr("sciresdiff.jobs.evaluate.pieces.windows.__defaults__", (256,))
    with in_pieces():
        run(files, baselines="none", report=files / "again.png")
    assert len(largest) > 20
    assert max(largest) == (256 + 128) ** 2  # a core and, to two sides, 64 px and the blur's 6 in steps of 64


def test_what_needs_the_frame_as_a_whole_is_refused(files: Path) -> None:
    with in_pieces(), pytest.raises(UsageError, match="--probe: .* is judged in 4 pieces"):
        run(files, probe=True)


def test_every_result_has_a_way_to_be_pooled() -> None:
    probes = {name for name in checks.RESULTS if name.startswith(("blank_", "injection_"))}
    assert set(pooling.POOLS) <= set(checks.RESULTS) - probes  # a result that is not named is the pieces' median
    assert pooling.pool_of("a new result") is pooling.MEDIAN


def piece(name: str, value: float | None, weight: float, limit: Any = None, place: str = "y 0, x 0") -> pooling.Piece:
    return pooling.Piece([Result(name, value, "", "all", limit, weight=weight)], {}, place)


def test_values_are_pooled_as_the_table_says() -> None:
    def of(name: str, *found: tuple[float, float, Any]) -> Result:
        return pooling.pool_pieces([piece(name, *one) for one in found], [name], {}, "astro")[0]

    mean = of("coverage_68", (0.6, 100, None), (0.9, 300, None))
    assert mean.value == pytest.approx(0.825) and "0.6 (y 0, x 0) to 0.9" in mean.meaning
    assert of("rse", (3.0, 100, None), (4.0, 100, None)).value == pytest.approx(np.sqrt(12.5))
    assert of("squirrel_outliers", (2.0, 9, None), (3.0, 9, None)).value == 5
    assert of("rsp", (0.2, 1, None), (0.9, 99, None), (0.8, 1, None)).value == 0.8
    allowed = [n + 2 * np.sqrt(n + 1) for n in (2, 6, 8)]
    rate = of("spurious_per_mpix", (4.0, 1.0, (None, allowed[0])), (0.0, 3.0, (None, allowed[1] / 3)))
    assert rate.value == 1 and rate.limit is not None and rate.limit[1] == pytest.approx(allowed[2] / 4)
    room = of("residual_lag1", (0.0, 100, (-0.38 - 0.3, 0.05 + 0.3)), (0.0, 100, (-0.38 - 0.3, 0.05 + 0.3)))
    assert room.limit == pytest.approx((-0.38 - 0.3 / np.sqrt(2), 0.05 + 0.3 / np.sqrt(2)))


def test_what_no_piece_has_says_why() -> None:
    none = pooling.Piece([checks.Result("fid", 3.0, "", "all")], {}, "y 0, x 0")
    (result,) = pooling.pool_pieces([none], ["fid"], {}, "astro")
    assert result.value is None and "judged in pieces" in result.meaning
    missing = pooling.Piece([Result("ence", None, "", "all", meaning="not computed: needs a truth")], {}, "y 0, x 0")
    assert pooling.pool_pieces([missing, missing], ["ence"], {}, "astro")[0].meaning == "not computed: needs a truth"
    assert pooling.pool_pieces([missing, piece("ence", 0.5, 10)], ["ence"], {}, "astro")[0].value == 0.5


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_pieces_cover_a_plane_once_and_begin_where_its_sky_is_measured(scale: int) -> None:
    shape = (9000 // scale, 5000 // scale)
    seen = np.zeros(shape, np.uint8)
    nothing = np.broadcast_to(np.float32(0), shape)
    data = Observation.of_arrays(nothing, nothing, scale, np.full((31, 31), 31.0**-2))
    for tile in pieces.plan_pieces(shape, data):
        seen[tile.core.slices] += 1
        assert scale * tile.core.y0 % 64 == 0 and scale * tile.window.y0 % 64 == 0
        assert tile.core.y0 == 0 or scale * (tile.core.y0 - tile.window.y0) >= 64 + 15
    assert (seen == 1).all()
    assert len(pieces.plan_pieces((4096 // scale, 4096 // scale), data)) == 1


# Many processes, and interruptions


def beside(files: Path) -> list[str]:
    """What lies hidden beside the image."""
    return sorted(path.name for path in files.iterdir() if path.name.startswith("."))


def without_run(record: dict[str, Any]) -> dict[str, Any]:
    """A record but for what it says of how it was made."""
    return {**record, "said": [line for line in record["said"] if not line.startswith("resumed:")]}


@pytest.fixture(scope="module")
def wanted(files: Path) -> dict[str, Any]:
    """The record of one process, with all that pieces and baselines can say."""
    with in_pieces():
        return run(files, baselines="bicubic,richardson-lucy")


def test_shards_give_the_record_of_one_run(files: Path, wanted: dict[str, Any]) -> None:
    with in_pieces():
        found = [run(files, baselines="bicubic,richardson-lucy", shard=Shard(n, 3)) for n in (3, 1)]
        assert [one["status"] for one in found] == ["waiting"] * 2
        assert found[0]["said"] == ["shard 3/3: its blocks are done; the shard that comes last has the record"]
        assert ".high.fits.evaluate.1-of-3.journal" in beside(files)
        assert run(files, baselines="bicubic,richardson-lucy", shard=Shard(2, 3)) == wanted
    assert beside(files) == []


@pytest.mark.parametrize("at", [1, 3])
def test_an_evaluation_that_was_stopped_is_resumed(
    files: Path, wanted: dict[str, Any], monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    worked: list[int] = []
    straight = evaluate.judge_piece

    def stopping(request: Any, keep: bool, piece: Any, evidence: Any) -> Any:
        if len(worked) == at:
            raise OSError("bad disk")
        worked.append(1)
        return straight(request, keep, piece, evidence)

    with in_pieces():
        with monkeypatch.context() as patch, pytest.raises(OSError, match="bad disk") as problem:
            patch.setattr(evaluate, "judge_piece", stopping)
            run(files, baselines="bicubic,richardson-lucy")
        assert problem.value.__notes__ == [
            f"{at} of 4 blocks of high.fits are kept; the same command goes on from there"
        ]
        assert beside(files) == [".high.fits.evaluate.journal"]
        record = run(files, baselines="bicubic,richardson-lucy")
    assert f"resumed: {at} of 4 blocks were done before" in record["said"]
    assert without_run(record) == wanted
    assert beside(files) == []


def test_another_evaluation_does_not_take_up_what_one_left(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with in_pieces():
        run(files, shard=Shard(1, 2))
        record = run(files, baselines="none")
        assert not any(line.startswith("resumed:") for line in record["said"])
    assert beside(files) == []


def test_planes_that_are_judged_whole_are_shared_too(tmp_path: Path) -> None:
    truth = stars()[:128, :128]
    stack = np.stack([truth, truth + 1, 2 * truth])
    write(tmp_path / "high.fits", SCI=stack)
    write(tmp_path / "truth.fits", SCI=stack + np.random.default_rng(0).normal(size=stack.shape))
    given = {"truth": tmp_path / "truth.fits", "baselines": "none"}
    whole = evaluate.run(tmp_path / "high.fits", **given)
    found = [evaluate.run(tmp_path / "high.fits", shard=Shard(n, 2), **given) for n in (1, 2)]
    assert found[0]["status"] == "waiting"
    assert found[1] == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["high.fits", "truth.fits"]

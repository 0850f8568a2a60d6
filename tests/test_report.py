"""The report: a page that needs nothing else, holds every result, and can be read on a phone, on paper, in the dark."""

from __future__ import annotations

import csv
import json
import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from browser import Browser, chromium
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from typer.testing import CliRunner
from typer.testing import Result as ClickResult

from sciresdiff import checks
from sciresdiff.checks import Evidence, Result
from sciresdiff.checks.baselines import bicubic_image
from sciresdiff.cli.app import app
from sciresdiff.cli.evaluate import make_unique
from sciresdiff.report import charts, html, images, presentation, summary, svg, viewer
from sciresdiff.report import record as records

Array = NDArray[np.float64]
VOID = {"meta", "link", "img", "br", "input", "hr"}


class Page(HTMLParser):
    """What a page holds: tags with their attributes, and whether every element that is opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"{tag}: an attribute twice"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        self.words += data

    def values(self, name: str) -> list[str]:
        """All values of an attribute."""
        return [value or "" for _, attributes in self.tags for key, value in attributes.items() if key == name]


def scene(shape: tuple[int, int]) -> Array:
    """Stars of many brightnesses on a sky, as a truth."""
    rng = np.random.default_rng(3)
    image = np.zeros(shape)
    image[24:-20:15, 24:-20:15] = 10 ** rng.uniform(2, 4.5, image[24:-20:15, 24:-20:15].shape)
    return np.asarray(gaussian_filter(image, 1.3) + 20 + 0.3 * rng.normal(size=shape))


def evidence_of(shape: tuple[int, int] = (160, 200), kind: Any = "astro", **more: Any) -> Evidence:
    """A restoration that is a little wrong, with everything beside it."""
    import torch

    from sciresdiff.physics.operators import Operator
    from sciresdiff.physics.psf.kernel import gaussian

    truth, s = scene(shape), 2
    rng = np.random.default_rng(5)
    operator = Operator((shape[0] // s, shape[1] // s), s, gaussian(2.8, integrate=False), "sum", dtype=torch.float64)
    plain = Evidence(truth, s, operator=operator)
    clean = plain.degrade(truth)
    variance = 0.1 * clean + 9
    high = truth + 0.7 * rng.normal(size=shape)
    mask = np.zeros(shape, bool)
    mask[40:44, 60:66] = True
    given: dict[str, Any] = {
        "high": high, "scale": s, "low": clean + rng.normal(size=clean.shape) * np.sqrt(variance), "variance": variance,
        "truth": truth, "mask_high": mask, "operator": operator, "err": np.full(shape, 0.7),
        "support": np.full(shape, 0.6), "kind": kind,
    }  # fmt: skip
    return Evidence(**{**given, **more})


def record_of(evidence: Evidence, name: str = "dir/a_x2.fits") -> dict[str, Any]:
    """What ``evaluate`` says of it."""
    found = checks.check(evidence)
    rivals = {}
    if evidence.low is not None:
        plain = checks.check_rival(evidence.with_image(bicubic_image(evidence)), {})
        rivals = {name: plain for name in ("bicubic", "lanczos", "wiener", "richardson-lucy", "richardson-lucy-best")}
    return {
        "schema": 1, "high": name, "low": "a.fits", "truth": None if evidence.truth is None else "t.fits", "scale": 2,
        "quantity": "sum", "verdict": checks.verdict(found, {}, evidence.kind), "results": records.as_data(found),
        "baselines": {k: records.as_data(v) for k, v in rivals.items()}, "said": ["psf: <assumed> & said"],
    }  # fmt: skip


@pytest.fixture(scope="module")
def whole() -> tuple[Evidence, dict[str, Any], str]:
    """Evidence with everything, its record and its page."""
    evidence = evidence_of()
    record = record_of(evidence)
    return evidence, record, html.page(record, evidence, "electron", {})


def assert_alone(text: str) -> Page:
    """The page asks for nothing, its ids are unique, its tags are closed."""
    page = Page(text)
    assert not page.open
    assert max(Counter(page.values("id")).values()) == 1
    addresses = page.values("src") + page.values("href")
    assert all(a.startswith(("data:", "#")) or ":" not in a for a in addresses)
    assert not {"iframe", "object", "embed", "base"} & {tag for tag, _ in page.tags}
    assert "default-src 'none'" in text and "@import" not in text and "url(" not in text
    ids = set(page.values("id"))
    assert {a[1:] for a in addresses if a.startswith("#")} <= ids
    assert all(attributes.get("alt") for tag, attributes in page.tags if tag == "img")
    return page


def test_a_page_stands_alone_and_holds_every_result(whole: tuple[Evidence, dict[str, Any], str]) -> None:
    _, record, text = whole
    page = assert_alone(text)
    shown = {(a["data-name"], a["data-region"]) for _, a in page.tags if "data-name" in a}
    assert shown == {(r["name"], r["region"]) for r in record["results"]}
    inside = text.split('id="record">')[1].split("</script>")[0]
    assert json.loads(inside) == record
    for group in presentation.groups(record):
        for entry in group.entries:
            assert entry.check.tells in page.words and entry.check.blind in page.words
    for line in record["results"]:
        assert line["meaning"].removeprefix("not computed: ") in page.words
    assert "psf: <assumed> & said" in page.words
    assert len(text) < 3e6  # bytes of a page; 1024 x 1024 px must stay below it, too


def test_a_page_of_a_megapixel_is_small() -> None:
    rng = np.random.default_rng(0)
    image = scene((1024, 1024)) + rng.normal(size=(1024, 1024))
    bare = evidence_of(
        (1024, 1024), high=image, support=rng.uniform(size=image.shape), err=rng.uniform(size=image.shape)
    )
    text = viewer.pictures(bare, "e")
    assert len(text) < 2.7e6  # 3 MB with the tables; noise is the worst that there is for PNG
    assert text.count('class="set"') == 3 and "brightest" in text


@pytest.mark.parametrize(
    "left_out",
    [
        {"truth": None},
        {"truth": None, "low": None, "variance": None, "operator": None, "err": None, "support": None},
        {"operator": None, "mask_high": np.ones((160, 200), bool)},
        {"high": np.full((160, 200), 7.0), "truth": np.full((160, 200), 7.0)},
        {"high": np.full((160, 200), np.nan), "truth": None},
    ],
    ids=["no truth", "image alone", "all masked", "constant", "NaN"],
)
def test_there_is_a_page_whatever_is_known(left_out: dict[str, Any]) -> None:
    evidence = evidence_of(**left_out)
    record = record_of(evidence)
    page = assert_alone(html.page(record, evidence, None, {}))
    assert {a["data-name"] for _, a in page.tags if "data-name" in a} == {r["name"] for r in record["results"]}
    assert "nan" not in page.words.split('{"schema"')[0].lower().split()


def test_the_verdict_is_a_sentence_that_names_what_failed() -> None:
    good, mild = (
        Result("chi2", 0.9, "", "all", (0.2, 1.3), True),
        Result("purity", 0.5, "", "sources", (0.95, None), False),
    )
    bad = Result("total_flux_ratio", 1.02, "", "all", (0.999, 1.001), False)

    def told(*results: Result, own: Any = {}) -> str:  # noqa: B006
        lines = records.as_data(results)
        return presentation.sentence({"results": lines, "baselines": {}}, own, "astro")

    assert told(bad, mild, good).startswith("Do not rely on this image as it is: total flux ratio is outside")
    assert told(mild, good).startswith("Usable with care: purity is outside")
    assert told(good).startswith("All 1 figures")
    assert told(Result("psnr", 30.0, "dB", "all")).startswith("Nothing could be judged")
    assert told(mild, own={"purity": (0.95, None)}).startswith("Do not rely")


def test_limits_that_were_missed_lead_to_their_checks() -> None:
    evidence = evidence_of()
    record = record_of(evidence)
    record["results"] = [
        r | {"passed": False, "limit": [5.0, None]} if r["name"] == "chi2" else r for r in record["results"]
    ]
    text = html.page({**record, "verdict": "fail"}, evidence, "e", {"chi2": (5.0, None)})
    assert '<b>Failed: <a href="#check-chi2">χ²</a></b>' in text and "your own, by --limits" in text


def test_names_are_spelled_for_people() -> None:
    spelled = {
        n: presentation.display_name(n) for n in ("chi2_sky", "source_flux_bias_mag", "spurious_per_mpix", "si_psnr")
    }
    assert list(spelled.values()) == ["χ² sky", "Source flux bias", "Spurious sources", "SI PSNR"]
    assert all(presentation.display_name(name) for name in checks.RESULTS)
    assert {presentation.heading(name) for name in checks.CHECKS} <= {*presentation.GROUPS, presentation.REST}


def read_png(code: bytes) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Indices and palette of a PNG without filters, read by its chunks."""
    at, parts = 8, {}
    while at < len(code):
        (size,) = struct.unpack(">I", code[at : at + 4])
        kind, body = code[at + 4 : at + 8], code[at + 8 : at + 8 + size]
        assert struct.unpack(">I", code[at + 8 + size : at + 12 + size])[0] == zlib.crc32(kind + body)
        parts[kind] = body
        at += 12 + size
    width, height = struct.unpack(">II", parts[b"IHDR"][:8])
    rows = np.frombuffer(zlib.decompress(parts[b"IDAT"]), np.uint8).reshape(height, width + 1)
    assert not rows[:, 0].any()
    return rows[:, 1:], np.frombuffer(parts[b"PLTE"], np.uint8).reshape(-1, 3)


def test_pngs_are_read_back_by_another_reader(tmp_path: Path) -> None:
    from skimage.io import imread

    index = np.random.default_rng(0).integers(0, images.LEVELS + 1, (7, 11)).astype(np.uint8)
    colours = images.palette("signed")
    (tmp_path / "a.png").write_bytes(images.png(index, colours))
    assert (imread(tmp_path / "a.png")[..., :3] == colours[index]).all()
    assert (read_png(images.png(index, colours))[0] == index).all()


def test_shades_rise_with_the_values_and_masked_pixels_are_grey() -> None:
    import base64

    image = np.array([[1.0, 2.0], [50.0, np.nan]])
    norm = images.Norm(1.0, 50.0, 1.0, 3.0)
    index, _ = read_png(base64.b64decode(images.data_uri(image, norm, "asinh", flip=True).split(",")[1]))
    assert index[1, 0] == 0 and 0 < index[1, 1] < index[0, 0] == images.LEVELS - 1 and index[0, 1] == images.LEVELS
    assert norm.inverse(norm.forward(7.0)) == pytest.approx(7.0, rel=1e-12)  # double precision


def test_thinning_keeps_the_mean_and_leaves_masked_pixels_out() -> None:
    image = np.arange(30.0).reshape(5, 6)
    image[0, 0] = np.nan
    small, n = images.shrink(image, 3)
    assert n == 2 and small.shape == (3, 3)
    assert small[0, 0] == np.mean([1, 6, 7]) and small[2, 2] == np.mean([28, 29])


def test_close_ups_hold_what_they_are_about() -> None:
    evidence = evidence_of((400, 600))
    high = evidence.high.copy()
    high[301:304, 501:504] += 4e3
    found = images.close_ups(evidence.with_image(high), 100)
    for square in found.values():
        assert 0 <= square.y0 < square.y1 <= 400 and 0 <= square.x0 < square.x1 <= 600
        assert not (square.y0 % 2 or square.x0 % 2)
    worst = found["worst residual"]
    assert worst.y0 < 302 < worst.y1 and worst.x0 < 502 < worst.x1
    assert images.close_ups(evidence_of(), 192) == {}


def test_sources_are_drawn_by_class() -> None:
    evidence = evidence_of()
    high = evidence.high.copy()
    high[30:34, 46:50] += 60  # invented: between the stars of the grid
    marks = viewer.sources(evidence.with_image(high))
    assert len(marks["matched"]) > 30 and len(marks["spurious"]) >= 1
    assert np.abs(marks["spurious"] - (47.5, 31.5)).sum(1).min() < 1.5  # px; where it was put
    unknown = viewer.sources(evidence_of(truth=None))
    assert set(unknown) == {"matched", "spurious"} and len(unknown["matched"]) > 30  # by the data alone
    assert viewer.sources(evidence_of(truth=None, operator=None)) == {}
    assert "(found, and the data show it)" in viewer.pictures(evidence_of(truth=None), "e")


def test_charts_are_finite_and_named(whole: tuple[Evidence, dict[str, Any], str]) -> None:
    evidence, _, _ = whole
    for name, (heading, _) in charts.CHARTS.items():
        assert heading in presentation.GROUPS, name
    drawn = [one for plots in charts.draw_charts(evidence).values() for one in plots]
    assert drawn
    for text in drawn:
        assert "nan" not in text and "inf" not in text.replace("information", "") and 'role="img"' in text
        Page(text)


def test_a_chart_places_its_points_right() -> None:
    chart = svg.Chart("t", "x", "y", [svg.Series("a", [1, 10, 100], [0, 5, np.nan])], x_log=True, x_range=(1, 100),
                      y_range=(0, 10))  # fmt: skip
    text = svg.draw(chart)
    assert text is not None
    middle_x, middle_y = (svg.LEFT + svg.WIDTH - svg.RIGHT) / 2, (svg.TOP + svg.HEIGHT - svg.BOTTOM) / 2
    assert f'points="{svg.LEFT:.1f},{svg.HEIGHT - svg.BOTTOM:.1f} {middle_x:.1f},{middle_y:.1f}"' in text
    assert svg.draw(svg.Chart("t", "x", "y", [svg.Series("a", [1.0], [np.nan])])) is None
    assert svg.draw(svg.Chart("t", "x", "y", [svg.Series("a", [2.0, 2.0], [0.0, 0.0], "dots")])) is not None


@pytest.mark.parametrize("limit", [(0.9, 1.1), (None, 2.0), (3.0, None)])
@pytest.mark.parametrize("value", [1.0, -5.0, 1e9])
def test_the_mark_of_a_gauge_is_on_the_right_side(limit: tuple[float | None, float | None], value: float) -> None:
    page = Page(svg.gauge(value, limit, [0.0, float("inf")]))
    (rect,) = (a for tag, a in page.tags if tag == "rect")
    (dot,) = (a for tag, a in page.tags if tag == "circle")
    start, end = float(rect["x"] or 0), float(rect["x"] or 0) + float(rect["width"] or 0)
    inside = (limit[0] is None or value >= limit[0]) and (limit[1] is None or value <= limit[1])
    assert (start <= float(dot["cx"] or 0) <= end) == inside


def test_one_row_an_image_and_one_row_a_result(tmp_path: Path) -> None:
    found = [record_of(evidence_of(**more), f"{i}.fits") for i, more in enumerate(({}, {"truth": None}))]
    records.write_csv(found, tmp_path / "wide.csv")
    with (tmp_path / "wide.csv").open() as stream:
        lines = list(csv.DictReader(stream))
    assert list(lines[0])[0] == "verdict" and [line["high"] for line in lines] == ["0.fits", "1.fits"]
    assert lines[1]["psnr[all]"] == "" and float(lines[0]["psnr[all]"]) > 20
    assert float(lines[1]["chi2[all]"]) == next(r["value"] for r in found[1]["results"] if r["name"] == "chi2")
    records.write_long_csv(found, tmp_path / "long.csv")
    with (tmp_path / "long.csv").open() as stream:
        assert {line["method"] for line in csv.DictReader(stream)} == {records.OURS, *found[0]["baselines"]}


def test_the_page_over_many_images(tmp_path: Path) -> None:
    found = [record_of(evidence_of(**more), f"in/{i}.fits") for i, more in enumerate(({}, {"truth": None}))]
    found[1]["verdict"] = "fail"
    pages = {r["high"]: tmp_path / f"{i} x.html" for i, r in enumerate(found)}
    for r, path in zip(found, pages.values(), strict=True):
        html.write_page(r, evidence_of(), path)
    summary.write_summary(found, pages, tmp_path / "index.html", ["in/bad.fits"])
    text = (tmp_path / "index.html").read_text()
    page = assert_alone(text)
    links = [a["href"] for tag, a in page.tags if tag == "a"]
    assert links == ["1%20x.html", "0%20x.html"]  # the worst first
    assert "1 fail" in page.words and "in/bad.fits" in page.words
    small = [a["src"] or "" for tag, a in page.tags if tag == "img"]
    assert len(small) == 2 and all(s.startswith("data:image/png") for s in small)
    dots = sum(tag == "circle" for tag, _ in page.tags)
    assert dots == sum(r["value"] is not None for one in found for r in one["results"])
    assert_alone(summary.summary([], {}, tmp_path))


def test_pages_do_not_take_each_others_names() -> None:
    assert make_unique(["a", "b", "a", "index", "a"], {"index"}) == ["a", "b", "a-2", "index-2", "a-3"]


def srd(*words: object) -> ClickResult:
    """Run a command line in this process."""
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two images and an empty file, each in a folder of its own with the truth."""
    folder = tmp_path_factory.mktemp("frames")
    truth = scene((96, 120)).astype("f4")
    paths = [folder / name / "a.fits" for name in "xyz"]
    for path, error in zip(paths, (0.0, 0.5, None), strict=True):
        path.parent.mkdir()
        fits.PrimaryHDU(truth + error).writeto(path) if error is not None else path.touch()
        fits.PrimaryHDU(truth).writeto(path.with_name("t.fits"))
    return paths


def test_a_folder_gets_a_page_for_each_image_and_one_over_all(frames: list[Path], tmp_path: Path) -> None:
    truths = [word for path in frames for word in ("--truth", path.with_name("t.fits"))]
    found = srd("evaluate", *frames, *truths, "--report", tmp_path / "out", "--csv", tmp_path / "t.csv", "--json", "-q")
    assert found.exit_code == 3 and "empty file" in found.stderr
    assert len(found.stdout.splitlines()) == 3  # a record each, the failed one's too
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a-2.html", "a.html", "index.html"]
    assert str(frames[2]) in assert_alone((tmp_path / "out" / "index.html").read_text()).words
    assert len((tmp_path / "t.csv").read_text().splitlines()) == 3  # a head and two images
    again = srd("evaluate", frames[0], *truths[:2], "--report", tmp_path / "out")
    assert again.exit_code == 2 and "--report: " in again.stderr and "exists" in again.stderr


def test_several_images_do_not_fit_into_one_file(frames: list[Path], tmp_path: Path) -> None:
    found = srd("evaluate", *frames[:2], "--report", tmp_path / "a.html")
    assert found.exit_code == 2 and "give a folder" in found.stderr


def test_the_screen_shows_what_was_computed_and_counts_the_rest(frames: list[Path]) -> None:
    short, long = (
        srd("evaluate", frames[0], "--truth", frames[0].with_name("t.fits"), "-q", *more).stdout
        for more in ((), ("-v",))
    )
    assert "psnr" in short and "chi2_sky" not in short and "more not computed; -v tells" in short
    assert "chi2_sky: not computed: needs " in long and "-v tells" not in long


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A headless Chromium."""
    with chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, whole: tuple[Evidence, dict[str, Any], str]) -> list[Path]:
    """A page with everything, one with little, and the page over both."""
    folder = tmp_path_factory.mktemp("pages")
    alone = evidence_of(truth=None, low=None, variance=None, operator=None)
    found = [whole[1], record_of(alone, "a_very_long_name_of_a_frame_without_any_place_to_break_it_in_two_x2.fits")]
    paths = [folder / "a.html", folder / "b.html", folder / "index.html"]
    paths[0].write_text(whole[2])
    html.write_page(found[1], alone, paths[1])
    summary.write_summary(found, {r["high"]: p for r, p in zip(found, paths, strict=False)}, paths[2])
    return paths


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 820, 1280])
def test_nothing_is_wider_than_the_screen_and_nothing_is_fetched(
    tab: Browser, files: list[Path], width: int, dark: bool
) -> None:
    for path in files:
        tab.open(path, width, dark)
        assert tab.value("document.documentElement.scrollWidth") <= width
        assert tab.value("[...document.querySelectorAll('.scroll')].every(e => e.scrollWidth <= e.clientWidth + 1)")
        assert tab.complaints == [] and tab.requests == []
        assert tab.value("[...document.images].every(i => i.complete && i.naturalWidth > 0)")


CONTRAST = """
(() => {
  const rgb = c => c.match(/[\\d.]+/g).map(Number);
  const linear = v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const level = c => rgb(c).slice(0, 3).map(v => linear(v / 255))
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const paper = e => { while (e) { const c = getComputedStyle(e).backgroundColor; if ((rgb(c)[3] ?? 1) > .5) return c;
    e = e.parentElement; } return "rgb(255,255,255)"; };
  let least = 99;
  for (const e of document.querySelectorAll("main *")) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) || !e.getClientRects().length) continue;
    const style = getComputedStyle(e), ink = e.namespaceURI.endsWith("svg") ? style.fill : style.color;
    const [a, b] = [level(ink), level(paper(e))].sort((x, y) => y - x);
    least = Math.min(least, (a + .05) / (b + .05));
  }
  return least;
})()
"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_words_can_be_read(tab: Browser, files: list[Path], dark: bool) -> None:
    for path in files:
        tab.open(path, 1280, dark)
        assert tab.value(CONTRAST) >= 4.5  # WCAG 2.1, 1.4.3, level AA


def test_pictures_zoom_and_move_together(tab: Browser, files: list[Path]) -> None:
    tab.open(files[0])
    tab.value("document.querySelector('.window').scrollIntoView({block: 'center'})")
    tab.value("new Promise(done => setTimeout(done, 400))")
    x, y = tab.value(
        "(r => [r.x + r.width / 2, r.y + r.height / 4])(document.querySelector('.window').getBoundingClientRect())"
    )
    tab.tell("Input.dispatchMouseEvent", type="mouseWheel", x=x, y=y, deltaX=0, deltaY=-120)
    tab.value("new Promise(done => setTimeout(done, 200))")
    turns = "[...document.querySelectorAll('.sheet')].map(e => getComputedStyle(e).transform.split(',')[0])"
    found = set(tab.value(turns))
    assert len(found) == 1 and float(found.pop().removeprefix("matrix(")) > 1.2
    state = "[...'xyk'].map(n => Number(document.querySelector('.viewer').style.getPropertyValue('--' + n)))"
    before = tab.value(state)
    for kind, dx in (("mousePressed", 0), ("mouseMoved", 20), ("mouseReleased", 20)):
        tab.tell("Input.dispatchMouseEvent", type=kind, x=x + dx, y=y, button="left", clickCount=1, buttons=1)
    moved = tab.value(state)
    assert moved[0] > before[0] and moved[2] == before[2]
    tab.value("document.querySelector('.set').focus()")
    for key in ("+", "ArrowLeft"):
        tab.tell("Input.dispatchKeyEvent", type="keyDown", key=key)
    assert tab.value(state)[2] == pytest.approx(1.5 * moved[2], rel=1e-9)  # the same sum in JavaScript
    tab.tell("Input.dispatchKeyEvent", type="keyDown", key="0")
    assert tab.value(state) == [0, 0, 1]


def test_sources_can_be_switched_off(tab: Browser, files: list[Path]) -> None:
    tab.open(files[0])
    seen = "getComputedStyle(document.querySelector('path.matched')).visibility"
    assert tab.value(seen) == "hidden"
    tab.value("document.querySelector('[data-hide=matched]').click()")
    assert tab.value(seen) == "visible"


def test_two_fingers_zoom_on_a_phone(tab: Browser, files: list[Path]) -> None:
    tab.open(files[0], 390)
    tab.tell("Emulation.setTouchEmulationEnabled", enabled=True, maxTouchPoints=2)
    tab.value("document.querySelector('.window').scrollIntoView({block: 'center'})")
    x, y = tab.value(
        "(r => [r.x + r.width / 2, r.y + r.height / 2])(document.querySelector('.window').getBoundingClientRect())"
    )
    for kind, gap in (("touchStart", 10), ("touchMove", 20), ("touchMove", 40)):
        points = [{"x": x - gap, "y": y, "id": 0}, {"x": x + gap, "y": y, "id": 1}]
        tab.tell("Input.dispatchTouchEvent", type=kind, touchPoints=points)
    tab.tell("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    tab.tell("Emulation.setTouchEmulationEnabled", enabled=False)
    assert float(tab.value("document.querySelector('.viewer').style.getPropertyValue('--k')")) > 2


def test_on_paper_everything_is_unfolded(tab: Browser, files: list[Path], tmp_path: Path) -> None:
    tab.open(files[0])
    tab.value("window.seen = 0; addEventListener('beforeprint', () => "
              "{ window.seen = document.querySelectorAll('details:not([open])').length; })")  # fmt: skip
    tab.pdf(tmp_path / "a.pdf")
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")
    assert tab.value("window.seen") == 0
    tab.tell("Emulation.setEmulatedMedia", media="print")
    assert tab.value("getComputedStyle(document.querySelector('.bar')).display") == "none"
    tab.tell("Emulation.setEmulatedMedia", media="")

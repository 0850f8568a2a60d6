"""The benchmark of ``make bench-quality``: frames, degradations and methods as data, one table.

Every frame is degraded by ``sciresdiff degrade``, restored by ``sciresdiff upscale`` and judged, beside the classical
methods, by ``sciresdiff evaluate``, once for every seed of the noise.
"""

from __future__ import annotations

import json
import math
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from sciresdiff import io
from sciresdiff.errors import SciresdiffError, UsageError
from sciresdiff.frame import Frame, Kind, Quantity
from sciresdiff.jobs.degrade import job as degrade
from sciresdiff.jobs.evaluate import job as evaluate
from sciresdiff.jobs.upscale import job as upscale

LIST = Path(__file__).with_name("quality.toml")
"""The fixed list."""
BEGIN, END = "<!-- bench-quality: begin -->", "<!-- bench-quality: end -->"
"""Between them the table is written."""


@dataclass(frozen=True)
class Case:
    """One frame and what is done to it; `LIST` describes the fields."""

    name: str
    file: str
    scale: int
    kernel: str
    quantity: Quantity | None = None
    crop: tuple[int, int, int, int] | None = None
    side: int = 0
    mask: bool = False
    gain: float | None = None
    read_noise: float | None = None
    peak_snr: float | None = None


@dataclass(frozen=True)
class Plan:
    """A list as it was read."""

    cases: list[Case]
    methods: list[dict[str, Any]]
    baselines: list[str]
    columns: list[tuple[str, str, int]]
    names: Mapping[str, str] = field(default_factory=dict)
    seeds: int = 1
    fixed: bool = False
    """Whether it is the fixed list, whose table goes into docs/reference/benchmarks.md."""


def plan(data: Path, chosen: Path | None) -> Plan:
    """The list that is given; else the fixed one where its frames are in ``data``, else every image of ``data``.

    Raises
    ------
    UsageError : a list that cannot be read, or a folder without images.
    """
    base = _read(LIST)
    told = base | (_read(chosen) if chosen else {})
    listed = _cases(told["frames"])
    fixed = chosen is None and all(io.files.split_spec(data / case.file)[0].is_file() for case in listed)
    cases = listed if chosen or fixed else list(_found(data, told["default"]))
    if not cases:
        raise UsageError(f"{data}: no image in it; give a folder with FITS or TIFF files")
    columns = [(str(name), str(head), int(digits)) for name, head, digits in told["columns"]]
    return Plan(cases, told["methods"], told["baselines"], columns, told["names"], int(told["seeds"]), fixed)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as problem:
        raise UsageError(f"{path}: cannot be read: {problem}") from problem


def _cases(frames: Iterable[Mapping[str, Any]]) -> list[Case]:
    """The frames of a list; a key that is not known is an error."""
    known = {f.name for f in fields(Case)}
    for frame in frames:
        if unknown := set(frame) - known:
            raise UsageError(
                f"{frame.get('name', 'frame')}: {', '.join(sorted(unknown))} not known; {sorted(known)} are"
            )
    return [Case(**{**frame, "crop": tuple(frame["crop"]) if "crop" in frame else None}) for frame in frames]


def _found(data: Path, default: Mapping[str, Any]) -> Iterator[Case]:
    """Every image below a folder, with the default degradation."""
    for path in sorted(p for p in data.rglob("*") if p.name.lower().endswith(tuple(io.FORMATS))):
        name = str(path.relative_to(data))
        for scale in default["scales"]:
            kernel = f"gaussian:sigma={default['sigma_low_px'] * scale:g}px"
            noise = {"peak_snr": default["peak_snr"], "side": default["side"]}
            yield Case(f"`{name}`, x{scale}", name, scale, kernel, **noise)


def run(data: Path, chosen: Plan, seeds: int) -> Iterator[dict[str, Any]]:
    """One row for every frame, seed and method: ``frame``, ``seed``, ``method``, ``values``, or ``error``."""
    for case in chosen.cases:
        for seed in range(1, seeds + 1):
            with tempfile.TemporaryDirectory() as folder:
                yield from _rows(data, case, chosen, seed, Path(folder))


def _rows(data: Path, case: Case, chosen: Plan, seed: int, folder: Path) -> Iterator[dict[str, Any]]:
    """The rows of one frame with one noise; the baselines are judged with the first method."""
    start = {"frame": case.name, "seed": seed}
    try:
        truth, low, quantity = _degraded(data, case, seed, folder)
    except (SciresdiffError, MemoryError) as problem:
        yield {**start, "method": "", "error": str(problem)}
        return
    left = ",".join(chosen.baselines)
    for number, method in enumerate(chosen.methods):
        options = {key: value for key, value in method.items() if key != "name"}
        high = folder / f"high{number}{truth.suffix}"
        try:
            upscale.run(low, high, upscale.UpscaleOptions(**_shared(case, quantity), overwrite=True, **options))
            kept = {"kernel": case.kernel, "quantity": quantity}
            record = evaluate.run(high, low=low, truth=truth, baselines=left or "none", **kept)
        except (SciresdiffError, MemoryError) as problem:
            yield {**start, "method": method["name"], "error": str(problem)}
            continue
        for name, results in record["baselines"].items():
            yield {**start, "method": chosen.names.get(name, name), "values": by_name(results)}
        left = ""
        yield {**start, "method": method["name"], "values": by_name(record["results"]), "verdict": record["verdict"]}


def _shared(case: Case, quantity: Quantity) -> dict[str, Any]:
    return {"scale": case.scale, "kernel": case.kernel, "quantity": quantity}


def _degraded(data: Path, case: Case, seed: int, folder: Path) -> tuple[Path, Path, Quantity]:
    """Truth and data as files, and the quantity."""
    frame = io.read(data / case.file)
    pixels = _cropped(frame, case)
    quantity = case.quantity or frame.quantity or ("sum" if frame.kind == "astro" else "mean")
    truth = _written(pixels, folder, frame.kind)
    low = truth.with_name(f"low{truth.suffix}")
    noise = {"gain": case.gain, "read_noise": case.read_noise}
    if case.peak_snr:
        noise = {"gain": None, "read_noise": _peak(pixels, case.scale, quantity) / case.peak_snr}
    degrade.run(truth, low, degrade.DegradeOptions(**_shared(case, quantity), seed=seed, **noise))
    return truth, low, quantity


def _cropped(frame: Frame, case: Case) -> Any:
    """The first plane's pixels that are used, NaN where they are masked and the case asks for that."""
    pixels = np.asarray(frame.pixels[0])
    if case.mask:
        pixels = np.where(frame.mask[0], np.float32(np.nan), pixels)
    if case.crop is not None:
        top, bottom, left, right = case.crop
        return pixels[top:bottom, left:right]
    if not case.side:
        return pixels
    start = [max(0, (n - case.side) // 2) for n in pixels.shape]
    return pixels[start[0] : start[0] + case.side, start[1] : start[1] + case.side]


def _written(pixels: Any, folder: Path, kind: Kind) -> Path:
    """The truth as a bare file of its kind."""
    if kind == "astro":
        from astropy.io import fits

        path = folder / "truth.fits"
        fits.PrimaryHDU(pixels.astype("f4")).writeto(path)
        return path
    import tifffile

    path = folder / "truth.tif"
    tifffile.imwrite(path, pixels.astype("f4"))
    return path


def _peak(pixels: Any, scale: int, quantity: Quantity) -> float:
    """The 99.9th percentile of the coarse frame above its median."""
    h, w = (n // scale for n in pixels.shape)
    blocks = pixels[: h * scale, : w * scale].astype("f8").reshape(h, scale, w, scale)
    coarse = blocks.sum((1, 3)) if quantity == "sum" else blocks.mean((1, 3))
    low, high = np.nanpercentile(coarse, [50, 99.9])
    return float(high - low) or 1.0


def by_name(results: list[dict[str, Any]]) -> dict[str, float]:
    """Results by name (region ``all``, or the only one) and by ``name@region``."""
    found: dict[str, float] = {}
    for r in results:
        if r["value"] is None:
            continue
        found[f"{r['name']}@{r['region']}"] = float(r["value"])
        if r["region"] == "all" or r["name"] not in found:
            found[r["name"]] = float(r["value"])
    return found


def table(rows: Iterable[Mapping[str, Any]], chosen: Plan, seeds: int) -> str:
    """Markdown: a block for every frame, a line for every method, mean and standard error over the noise."""
    groups: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for row in rows:
        groups.setdefault(row["frame"], {}).setdefault(row["method"], []).append(row)
    heads = ["", *(head for _, head, _ in chosen.columns)]
    over = f"Mean and standard error over {seeds} realisations of the noise." if seeds > 1 else "One realisation."
    lines = [over, "", f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for frame, methods in groups.items():
        lines.append(f"| **{frame}** |{' |' * (len(heads) - 1)}")
        lines += [_line(method, found, chosen) for method, found in methods.items()]
    return "\n".join(lines) + "\n"


def _line(method: str, rows: list[Mapping[str, Any]], chosen: Plan) -> str:
    """One method on one frame; a method that failed says why."""
    if all("error" in row for row in rows):
        why = str(rows[0]["error"]).replace("|", "/")
        return f"| {method} | not run: {why} |{' |' * (len(chosen.columns) - 1)}"
    values = [row["values"] for row in rows if "values" in row]
    cells = [_cell([v[name] for v in values if name in v], digits) for name, _, digits in chosen.columns]
    return f"| {method} | {' | '.join(cells)} |"


def _cell(values: list[float], digits: int) -> str:
    """``mean ± standard error``; empty where nothing was measured."""
    if not values:
        return ""
    mean = f"{np.mean(values):.{digits}f}"
    if len(values) < 2 or not math.isfinite(float(np.mean(values))):
        return mean
    return f"{mean} ± {np.std(values, ddof=1) / math.sqrt(len(values)):.{digits}f}"


def put(text: str, page: Path, marks: tuple[str, str] = (BEGIN, END)) -> None:
    """Write the table between the marks of a page.

    Raises
    ------
    UsageError : the page has no marks.
    """
    begin, end = marks
    whole = page.read_text()
    if begin not in whole or end not in whole:
        raise UsageError(f"{page}: the marks {begin} and {end} are missing; add them where the table belongs")
    before, after = whole.split(begin)[0], whole.split(end)[1]
    page.write_text(f"{before}{begin}\n{text}{end}{after}")


def benchmark(data: Path, chosen: Plan, seeds: int, out: Path) -> str:
    """Run a list, write its rows to ``out/quality.jsonl`` as they come and its table to ``out/quality.md``."""
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    with (out / "quality.jsonl").open("w") as lines:
        for row in run(data, chosen, seeds):
            rows.append(row)
            lines.write(json.dumps(row) + "\n")
            lines.flush()
            told = row.get("error") or f"PSNR {row['values'].get('psnr', float('nan')):.2f}"
            print(f"{row['frame']}, noise {row['seed']}, {row['method']}: {told}", flush=True)
    text = table(rows, chosen, seeds)
    (out / "quality.md").write_text(text)
    return text

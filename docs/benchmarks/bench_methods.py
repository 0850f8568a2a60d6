"""``make bench-methods``: every diffusion method and every backbone, trained alike and scored alike, in one table.

    python docs/benchmarks/bench_methods.py [DATA] [--minutes 10 | --pairs N] [--rows NAME,NAME] [--out FOLDER]
                                           [--print]

Each row is trained by the repository's own training for the same minutes, or on the same number of pairs (which another
load of the machine does not change), on the same scenes, and scored by
``evaluate`` on the same held-out frames (bench_methods.toml).  A row that is done is not done again, a training
that was interrupted goes on: FOLDER keeps models, states and a JSON line a row.  DATA is a folder with real frames.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import quality_frames

from sciresdiff.errors import SciresdiffError
from sciresdiff.jobs.evaluate import job as evaluate
from sciresdiff.jobs.upscale import job as upscale
from sciresdiff.observation.observation import Observation
from sciresdiff.restoration.settings import Settings

HERE = Path(__file__).parent
PLAN: dict[str, Any] = tomllib.loads((HERE / "bench_methods.toml").read_text())
PAGE = HERE.parent / "reference" / "methods.md"
BEGIN, END = "<!-- bench-methods: begin -->", "<!-- bench-methods: end -->"
Row = dict[str, Any]


def rows() -> Iterator[Row]:
    """The rows, teachers before those that need them."""
    from sciresdiff.diffusion import method
    from sciresdiff.nets import BACKBONES

    later = {**PLAN["borrows"], **PLAN["teachers"]}
    for name in sorted(method.names(), key=lambda name: name in later):
        yield {"row": name, "what": "method", "needs": later.get(name)}
    for name in BACKBONES:
        yield {"row": f"prior-{name}", "what": "backbone", "backbone": name}


def train(row: Row, budget: Row, data: Path | None, out: Path) -> Path:
    """The model of a row, trained as far as the budget goes."""
    from sciresdiff.training import prior, refiner

    path = out / f"{row['row']}.safetensors"
    if row["what"] == "method" and row["row"] in PLAN["borrows"]:
        return borrowed(row, out, path)
    real = [str(data / name) for name in PLAN["real"]] if data else []
    options = prior.TrainOptions(
        str(path), data=tuple(name for name in real if Path(name).is_file()), scale=PLAN["scale"],
        recipe=str(HERE.parents[1] / PLAN["recipe"]), preset=PLAN["preset"], calibrate=False,
        **_chosen(row, out), **budget,
    )  # fmt: skip
    if row["what"] == "backbone":
        return prior.train(options, say)
    if row["row"] in PLAN["teachers"]:
        from sciresdiff.lab.distillation import train as distil

        return distil.train(options, say)
    return refiner.train(options, say)


def _chosen(row: Row, out: Path) -> dict[str, Any]:
    """The options that differ from row to row."""
    if row["what"] == "backbone":
        return {"backbone": row["backbone"], "stages": PLAN["stages"]}
    teacher = {"distil": str(out / f"{row['needs']}.safetensors")} if row["needs"] else {}
    return {"method": row["row"], "prior": PLAN["prior"], **teacher}


def borrowed(row: Row, out: Path, path: Path) -> Path:
    """The model of another row with the method of this one."""
    from sciresdiff.diffusion import method
    from sciresdiff.restoration import model

    theirs = model.load(str(out / f"{row['needs']}.safetensors"))
    model.save(theirs.run_by(method.load(row["row"])), path)
    return path


def say(line: str) -> None:
    """What a training tells."""
    print(f"  {line}", file=sys.stderr, flush=True)


def truths(folder: Path) -> Iterator[tuple[quality_frames.Case, Path]]:
    """The held-out frames, as cases of `quality_frames` below a folder."""
    from sciresdiff import scenes

    for told in PLAN["frames"]:
        told = dict(told)
        if "scene" in told:
            rng = np.random.default_rng(told.pop("seed"))
            pixels = scenes.scene(told.pop("scene"), rng, told.pop("side")).pixels
            (folder / told["name"]).mkdir()
            quality_frames._written(pixels, folder / told["name"], "astro")
            told["file"] = f"{told['name']}/truth.fits"
        root = folder if (folder / told["file"]).exists() else HERE.parents[1]
        yield quality_frames.Case(**told, scale=PLAN["scale"], quantity="sum"), root


def score(path: Path | str | None, refine: bool, steps: int | None) -> Row:
    """Values of every held-out frame, and the time that they took; without a model the baselines."""
    found: Row = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for case, root in truths(folder):
            place = folder / f"{case.name} low"
            place.mkdir()
            truth, low, quantity = quality_frames._degraded(root, case, 1, place)
            high, shared = place / "high.fits", {"kernel": case.kernel, "quantity": quantity}
            options = upscale.UpscaleOptions(
                **shared, scale=case.scale, model=str(path) if path else "physics", refine=refine, steps=steps,
                samples=PLAN["samples"], threads=1, checks=False, overwrite=True,
            )  # fmt: skip
            start = time.process_time()
            upscale.run(low, high, options)
            spent = time.process_time() - start
            rivals = "none" if path else ",".join(PLAN["baselines"])
            record = evaluate.run(high, low=low, truth=truth, baselines=rivals, **shared)
            found[case.name] = {
                "values": quality_frames.by_name(record["results"]),
                "cpu_s_per_mpix": spent / (np.prod(_shape(high)) / 1e6),
                "baselines": {k: quality_frames.by_name(v) for k, v in record["baselines"].items()},
            }
    return found


def _shape(path: Path) -> tuple[int, ...]:
    from astropy.io import fits

    with fits.open(path) as file:
        return tuple(file["SCI"].shape)


def size(path: Path, refine: bool, steps: int | None) -> Row:
    """Parameters of the trained network, its evaluations per draw, and whether tiles agree."""
    from sciresdiff.restoration import model, restore

    ours = model.load(str(path))
    part = ours.refiner if refine else ours.prior
    assert part is not None
    nets = [part.net] if refine else list(part.stages)  # type: ignore[union-attr]
    calls: list[int] = []
    for net in nets:
        net.register_forward_hook(lambda *_: calls.append(1))
    flat = np.ones((16, 16), np.float32)
    settings = Settings(samples=1, refine=refine, steps=steps)
    restore.restore(Observation.of_arrays(flat, flat, ours.scale), ours, settings)
    return {
        "parameters": sum(p.numel() for p in part.parameters()),
        "evaluations": len(calls),
        "tile_exact": all(getattr(net, "tile_exact", True) for net in nets),
    }


def steps_of(row: Row) -> int | None:
    """How many steps a method takes here; None for its own number."""
    from sciresdiff.diffusion import method

    if row["what"] == "backbone":
        return None
    ours = method.load(row["row"])
    own = ours.steps or ours.training_path().T
    return PLAN["steps"] if own > PLAN["steps"] else None


def work(row: Row, budget: Row, data: Path | None, out: Path) -> Row:
    """Train and score one row; what went wrong is its result, too."""
    refine = row["what"] == "method"
    try:
        path, steps = train(row, budget, data, out), steps_of(row)
        facts = {"frames": score(path, refine, steps), **size(path, refine, steps), "trained": _trained(path, refine)}
        return {**row, "budget": budget, **facts}
    except SciresdiffError as problem:
        return {**row, "budget": budget, "error": str(problem)}


def _trained(path: Path, refine: bool) -> Row:
    from sciresdiff.restoration.model import read_card

    told: Row = read_card(path)["trained"]["refiner" if refine else "prior"]
    return {"pairs": told["samples"], "minutes": told["minutes"]}


def kept(out: Path) -> dict[str, Row]:
    """Rows that are done, the latest of each name."""
    file = out / "methods.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return {row["row"]: row for row in map(json.loads, lines)}


def run(budget: Row, data: Path | None, out: Path, only: list[str]) -> None:
    """Do the rows that are not done."""
    out.mkdir(parents=True, exist_ok=True)
    done = kept(out)
    if "baselines" not in done:
        _keep(out, {"row": "baselines", "what": "baselines", "frames": score(None, False, None)})
    if "prior alone" not in done:
        _keep(out, {"row": "prior alone", "what": "reference", "frames": score(PLAN["prior"], False, None)})
    for row in rows():
        old = done.get(row["row"], {})
        if (only and row["row"] not in only) or ("error" not in old and old.get("budget") == budget):
            continue
        print(row["row"], flush=True)
        _keep(out, work(row, budget, data, out))


def _keep(out: Path, row: Row) -> None:
    with (out / "methods.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


HEADS = (
    "", "47 Tuc, dB", "galaxies, dB", "SSIM, 47 Tuc", "bright stars, mag", "total flux - 1", "spurious / Mpix",
    "coverage of 68 %", "CPU s / Mpix", "parameters, k", "evaluations", "pairs seen",
)  # fmt: skip


def table(done: Mapping[str, Row]) -> str:
    """Markdown: baselines, then methods and backbones, the best first."""
    base = done["baselines"]["frames"]
    lines = [f"| {' | '.join(HEADS)} |", f"|{'---|' * len(HEADS)}"]
    for name in PLAN["baselines"]:
        lines.append(_line(name, {frame: {"values": told["baselines"][name]} for frame, told in base.items()}, {}))
    lines.append(_line("`--model physics`", base, {}))
    lines.append(_line("the prior alone", done["prior alone"]["frames"], {}))
    for what, head in (("method", "**methods**, on one prior"), ("backbone", "**backbones**, as a prior of one stage")):
        lines.append(f"| {head} |{' |' * (len(HEADS) - 1)}")
        found = [row for row in done.values() if row["what"] == what]
        for row in sorted(found, key=_gain, reverse=True):
            lines.append(_line(f"`{row['row'].removeprefix('prior-')}`", row.get("frames", {}), row))
    return "\n".join(lines) + "\n"


def _gain(row: Row) -> float:
    """Mean PSNR over the frames."""
    return float(np.mean([f["values"]["psnr"] for f in row["frames"].values()])) if "frames" in row else -np.inf


def _line(name: str, frames: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    if "error" in row:
        return f"| {name} | not run: {row['error'].replace('|', '/')} |{' |' * (len(HEADS) - 2)}"
    stars, galaxies = (frames[told["name"]] for told in PLAN["frames"])
    mark = "" if row.get("tile_exact", True) else " (tiles differ)"
    cells = [
        name + mark, _number(stars["values"], "psnr", ".2f"), _number(galaxies["values"], "psnr", ".2f"),
        _number(stars["values"], "ssim", ".4f"), _number(stars["values"], "source_flux_bias_mag", "+.3f"),
        _number(stars["values"], "total_flux_ratio", "+.1e", 1.0), _number(stars["values"], "spurious_per_mpix", ".0f"),
        _number(galaxies["values"], "coverage_68", ".2f"), _number(stars, "cpu_s_per_mpix", ".1f"),
        f"{row['parameters'] / 1e3:.0f}" if "parameters" in row else "", str(row.get("evaluations", "")),
        str(row["trained"]["pairs"]) if "trained" in row else "",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _number(values: Mapping[str, Any], name: str, how: str, less: float = 0.0) -> str:
    return format(values[name] - less, how) if name in values else ""


def put(text: str) -> None:
    """Write the table into the page."""
    before, rest = PAGE.read_text().split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{text}{END}{rest.split(END)[1]}")


def main() -> None:
    """Train what is not trained, score, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", type=Path, help="folder of real frames")
    parser.add_argument("--minutes", type=float, default=10.0, help="of training a row")
    parser.add_argument("--pairs", type=int, help="that a row is trained on, whatever time that takes")
    parser.add_argument("--rows", default="", help="some of them, with commas between")
    parser.add_argument("--out", type=Path, default=Path("runs/methods"))
    parser.add_argument("--table", action="store_true", help="only the table, of what is done")
    parser.add_argument("--print", action="store_true", help="leave docs/reference/methods.md as it is")
    given = parser.parse_args()
    if not given.table:
        budget = {"images": given.pairs} if given.pairs else {"minutes": given.minutes}
        run(budget, given.data, given.out, [name for name in given.rows.split(",") if name])
    text = table(kept(given.out))
    print(text) if given.print else put(text)


if __name__ == "__main__":
    main()

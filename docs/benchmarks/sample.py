"""The table of the README, measured on the frames of sample_data.

    python docs/benchmarks/sample.py [--seeds 4] [--print] [--out FOLDER]

Every frame of ``sample.toml`` is degraded, restored and evaluated by the public commands, once for each realisation of
the noise. The table goes into README.md (--print: only onto the screen); FOLDER gets a JSON line for every frame, noise
and method, and the larger table with standard errors.
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import quality_frames

from sciresdiff.checks import baselines
from sciresdiff.checks.evidence import Evidence

HERE = Path(__file__).parent
LIST = HERE / "sample.toml"
README = HERE.parents[1] / "README.md"
MARKS = "<!-- sample: begin -->", "<!-- sample: end -->"

STOPS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 30, 40, 60, 80, 100, 130, 160, 200, 250, 300, 400)
"""Steps that the strongest rival may stop at. On these frames the error no longer changes after the last of them."""

OTHER = "richardson-lucy-best"
"""`evaluate` adds this row by itself. It is weaker than the accelerated one, so the table leaves it out."""


def strongest(evidence: Evidence) -> Any:
    """Accelerated Richardson-Lucy, stopped where it is closest to the truth; (Y, X)."""
    return baselines.best_richardson_lucy(evidence, STOPS, accelerated=True)[1]


def table(rows: Iterable[Mapping[str, Any]], cells: list[dict[str, Any]]) -> str:
    """Markdown: one line for every method, one column for every entry of ``cells``; the best value is in bold."""
    found: dict[str, dict[str, list[dict[str, float]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row["method"] != OTHER:
            found[row["method"]][row["frame"]].append(row["values"])
    shown = {method: [value(frames[cell["frame"]], cell) for cell in cells] for method, frames in found.items()}
    columns = list(zip(*shown.values(), strict=True))
    best = [min(loss(text, cell) for text in column) for column, cell in zip(columns, cells, strict=True)]
    lines = [f"| | {' | '.join(cell['head'] for cell in cells)} |", f"|{'---|' * (len(cells) + 1)}"]
    for method, texts in shown.items():
        bold = [f"**{text}**" if text and loss(text, cell) == least else text
                for text, cell, least in zip(texts, cells, best, strict=True)]  # fmt: skip
        lines.append(f"| {method} | {' | '.join(bold)} |")
    return "\n".join(lines) + "\n"


def value(measured: list[dict[str, float]], cell: Mapping[str, Any]) -> str:
    """Mean over the realisations, as it is printed; empty where nothing was measured."""
    values = [one[cell["result"]] for one in measured if cell["result"] in one]
    return f"{np.mean(values):.{cell['digits']}f}" if values else ""


def loss(text: str, cell: Mapping[str, Any]) -> float:
    """What is small for a good value: the distance from ``best``, else minus the value itself."""
    if not text:
        return float("inf")
    return abs(float(text) - cell["best"]) if "best" in cell else -float(text)


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, help="realisations of the noise; the list's by default")
    parser.add_argument("--print", action="store_true", help="leave README.md as it is")
    parser.add_argument("--out", type=Path, default=Path("scratch/sample"), help="folder for JSON lines and table")
    given = parser.parse_args()
    baselines.BASELINES["richardson-lucy-accelerated-400"] = strongest
    chosen = quality_frames.plan(HERE.parents[1] / "sample_data", LIST)
    quality_frames.benchmark(HERE.parents[1] / "sample_data", chosen, given.seeds or chosen.seeds, given.out)
    rows = [json.loads(line) for line in (given.out / "quality.jsonl").read_text().splitlines()]
    if failed := [row for row in rows if "error" in row]:
        sys.exit("\n".join(f"{row['frame']}, {row['method']}: {row['error']}" for row in failed))
    text = table(rows, tomllib.loads(LIST.read_text())["cells"])
    print(text)
    if not given.print:
        quality_frames.put(text, README, MARKS)
        print(f"table written into {README}")


if __name__ == "__main__":
    main()

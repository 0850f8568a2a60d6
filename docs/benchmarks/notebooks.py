"""Run the notebooks of the tutorials and store what their cells print and draw, without Jupyter.

python docs/benchmarks/notebooks.py [docs/tutorials/notebook-47tuc.ipynb ...]
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
from PIL import Image

TUTORIALS = Path(__file__).resolve().parents[1] / "tutorials"
LIMIT = 200_000
"""Most bytes of a notebook with its outputs."""


def execute(notebook: dict[str, Any], folder: Path) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Run the code cells one after the other in ``folder``; each with the outputs it made, in nbformat 4."""
    matplotlib.use("agg")
    names: dict[str, Any] = {"__name__": "__main__"}
    with contextlib.chdir(folder):
        for cell in notebook["cells"]:
            if cell["cell_type"] != "code":
                continue
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile("".join(cell["source"]), "cell", "exec"), names)
            yield cell, [*text_output(printed.getvalue()), *pictures()]


def text_output(text: str) -> list[dict[str, Any]]:
    """What a cell printed."""
    return [{"output_type": "stream", "name": "stdout", "text": text.splitlines(keepends=True)}] if text else []


def pictures() -> list[dict[str, Any]]:
    """The figures that a cell left open, as PNG."""
    from matplotlib import pyplot

    found = []
    for number in pyplot.get_fignums():
        whole, picture = io.BytesIO(), io.BytesIO()
        pyplot.figure(number).savefig(whole, format="png", dpi=70)
        Image.open(whole).convert("RGB").quantize(128).save(picture, format="png", optimize=True)
        data = {"image/png": base64.b64encode(picture.getvalue()).decode()}
        found.append({"output_type": "display_data", "data": data, "metadata": {}})
    pyplot.close("all")
    return found


def main() -> None:
    """Run every notebook that is named, else all of the tutorials."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("notebooks", type=Path, nargs="*", help="default: all of docs/tutorials")
    given = parser.parse_args()
    for path in given.notebooks or sorted(TUTORIALS.glob("*.ipynb")):
        notebook = json.loads(path.read_text())
        for number, (cell, outputs) in enumerate(execute(notebook, path.parent), start=1):
            cell.update(execution_count=number, outputs=outputs)
        text = json.dumps(notebook, indent=1, ensure_ascii=False) + os.linesep
        if len(text) > LIMIT:
            sys.exit(f"{path}: {len(text) / 1000:.0f} kB with its outputs; draw smaller pictures")
        path.write_text(text)
        print(f"{path}: {len(text) / 1000:.0f} kB")


if __name__ == "__main__":
    main()

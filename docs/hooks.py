"""What MkDocs cannot do by itself: notebooks as pages, the Python reference, CONTRIBUTING.md as a page.

A notebook is turned into Markdown here, in place of a plugin, because plugins for notebooks install all of Jupyter.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

API_MARK = "<!-- public API -->"
"""Stands in reference/api.md where the objects of ``sciresdiff.PUBLIC`` are listed."""

HIDDEN = {"index.md": ["navigation"], "reference/benchmarks.md": ["toc"], "reference/methods.md": ["toc"]}
"""Page -> columns that are left out, to make room for wide tables. Here, because GitHub prints front matter."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for every notebook, and CONTRIBUTING.md."""
    for file in [file for file in files if file.src_uri.endswith(".ipynb")]:
        text = notebook_page(Path(file.abs_src_path or "").read_text(), Path(file.src_uri).name)
        files.append(File.generated(config, file.src_uri.replace(".ipynb", ".md"), content=text))
    guide = (Path(config.docs_dir).parent / "CONTRIBUTING.md").read_text()
    files.append(File.generated(config, "contributing.md", content=guide.replace("](docs/", "](")))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Hide columns, list the public objects, and lead links to notebooks and CONTRIBUTING.md to their pages."""
    page.meta.setdefault("hide", HIDDEN.get(page.file.src_uri, []))
    markdown = markdown.replace("../CONTRIBUTING.md)", "contributing.md)").replace(".ipynb)", ".md)")
    return markdown.replace(API_MARK, api_page()) if API_MARK in markdown else markdown


def api_page() -> str:
    """One entry for mkdocstrings for every public object, under the name that users import."""
    import sciresdiff

    return "\n\n".join(
        f"::: {place.replace(':', '.')}\n    options:\n      heading: sciresdiff.{name}\n      toc_label: {name}"
        for name, place in sciresdiff.PUBLIC.items()
    )


def notebook_page(text: str, name: str) -> str:
    """A notebook as Markdown: its text, its code, and the outputs that are stored in it."""
    parts = [cell_text(cell) for cell in json.loads(text)["cells"]]
    parts.insert(1, f'<a href="{name}" download>Download this notebook</a>')
    return "\n\n".join(part for part in parts if part)


def cell_text(cell: dict[str, Any]) -> str:
    """One cell as Markdown."""
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return source
    shown = [output_text(output) for output in cell.get("outputs", [])]
    return "\n\n".join([f"```python\n{source}\n```", *(part for part in shown if part)])


def output_text(output: dict[str, Any]) -> str:
    """One stored output as Markdown: a picture, or text."""
    data = output.get("data", {})
    if "image/png" in data:
        picture = "".join("".join(data["image/png"]).split())
        return f"![output](data:image/png;base64,{picture})"
    lines = "".join(output.get("text", data.get("text/plain", ""))).rstrip()
    return f'<div class="notebook-output" markdown>\n```text\n{lines}\n```\n</div>' if lines else ""

"""The Jinja templates of the pages; every value is escaped unless it is marked as markup."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from sciresdiff import __version__
from sciresdiff.text import json_line, visible

SIGNS = {"pass": "✓", "warn": "!", "fail": "✗"}
"""Verdict -> its sign."""
RULES = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
"""Content security policy of a page: it fetches nothing, whatever stands in it."""


UNMARKED = str.maketrans({sign: f"\\u{ord(sign):04x}" for sign in "<>&"})
"""Signs of markup -> how JSON may write them."""


def _visible(value: Any) -> Any:
    """What a template shows: of a name or a header without hidden characters, which no page may hold or obey."""
    is_text = isinstance(value, str) and not isinstance(value, Markup)
    return visible(value) if is_text else value


@lru_cache(maxsize=1)
def environment() -> Environment:
    """Make the environment: autoescape on, and an undefined name is an error."""
    made = Environment(
        loader=PackageLoader("sciresdiff.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True, finalize=_visible,
    )  # fmt: skip
    made.globals.update(signs=SIGNS, rules=RULES, version=__version__)
    return made


def render(template: str, **values: Any) -> Markup:
    """Render a template of this folder to markup.

    Parameters
    ----------
    template : file name, for instance ``viewer.html.j2``.
    values : the template's variables; strings are escaped, `Markup` is not.
    """
    return Markup(environment().get_template(template).render(**values))


def render_document(template: str, record: Any, **values: Any) -> str:
    """Render a whole page: a template that extends ``document.html.j2``.

    Parameters
    ----------
    template : file name.
    record : goes into the page as JSON (``script#record``).
    values : the template's variables, ``title`` and ``icon`` (a ``data:`` address or nothing) among them.
    """
    parts = files("sciresdiff.report")
    style, script = (Markup(parts.joinpath(part).read_text(encoding="utf-8")) for part in ("page.css", "page.js"))
    # a "</script>" in a name would end the element, and "<!--<script" would keep it from ending
    data = Markup(json_line(record).translate(UNMARKED))
    return str(render(template, style=style, script=script, data=data, **values))

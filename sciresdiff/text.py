r"""Text of names and headers on its way out: to a terminal, into JSON, into a cell of a table.

A name or a header may hold anything, and it comes from strangers: escape sequences that a terminal obeys, marks that
turn the direction of writing, bytes that are no UTF-8 (which Python keeps as surrogates), formulae.
"""

from __future__ import annotations

import json
import re
from typing import Any

HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Controls of C0 and C1, line separators, marks of direction (Unicode UAX 9), and halves of surrogate pairs."""
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that a spreadsheet computes instead of showing it."""
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_BYTE = 0xDC00
"""A byte b >= 0x80 that is no UTF-8 is kept as the character 0xDC00 + b (PEP 383)."""


def visible(text: str) -> str:
    r"""Text on one line that can be seen and does nothing: ``\x1b``, ``\n``, ``\u202e`` for what a terminal obeys.

    A byte of a name that is no UTF-8 is shown as ``\xe9``. **Two names may look the same afterwards.**
    """
    return text if text.isascii() and text.isprintable() else HIDDEN.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    """A hidden character as Python would write it in a string."""
    code = ord(match[0])
    if _BYTE + 0x80 <= code <= _BYTE + 0xFF:
        code -= _BYTE
    return _SHORT.get(match[0]) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def json_line(value: Any, **how: Any) -> str:
    r"""One line of JSON in which all hidden characters are escaped (``\u001b``).

    It can be written as UTF-8, and Python reads the same text back, bytes that are no UTF-8 included.

    Parameters
    ----------
    value : of JSON's own types.
    **how : further keywords of `json.dumps`.
    """
    text = json.dumps(value, ensure_ascii=False, **how)
    return HIDDEN.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def cell(value: Any) -> Any:
    """A value for a table that a spreadsheet may open: text is visible, and begins with ' where it would be a formula.

    Numbers, also negative ones, are returned as they are.
    """
    if not isinstance(value, str):
        return value
    return f"'{visible(value)}" if value.startswith(FORMULA) else visible(value)

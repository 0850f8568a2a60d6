"""Records as JSON: values that JSON has, one line of it, and a file that is whole."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from sciresdiff.io.files import write_whole


def plain(value: Any) -> Any:
    """The value in JSON's own types; numbers that JSON does not have (NaN, infinity) become None."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def dumps(record: Any) -> str:
    """One line of JSON, without NaN."""
    return json.dumps(plain(record), ensure_ascii=False, allow_nan=False)


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record, whole or not at all; a file that exists is replaced.

    Raises
    ------
    UsageError, ResourceError : as `write_whole`.
    """
    text = json.dumps(plain(record), indent=1, sort_keys=True, allow_nan=False) + "\n"
    write_whole({path: lambda part: part.write_text(text)}, overwrite=True)

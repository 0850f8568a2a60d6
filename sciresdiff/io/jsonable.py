"""Records as JSON: numpy values, dataclasses and NaN, which JSON does not have."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from sciresdiff.io.atomic import write_atomic
from sciresdiff.text import json_line


def jsonable(value: Any) -> Any:
    """Convert a value to JSON's own types.

    Dataclasses and mappings become objects, sequences and arrays lists, **NaN and infinity None**; anything else its
    text.
    """
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [jsonable(item) for item in value]
    if hasattr(value, "tolist"):
        return jsonable(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def dumps(record: Any) -> str:
    """One line of JSON, without NaN and without characters that a terminal obeys."""
    return json_line(jsonable(record), allow_nan=False)


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record as a JSON file, atomically; an existing file is replaced.

    Raises
    ------
    UsageError, ResourceError
        As `write_atomic`.
    """
    text = json.dumps(jsonable(record), indent=1, sort_keys=True, allow_nan=False) + "\n"
    write_atomic({path: lambda part: part.write_text(text)}, overwrite=True)

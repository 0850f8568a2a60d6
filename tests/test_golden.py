"""The commands give what they gave: every command on small frames of every kind, beside the values that are stored.

``python tests/golden/make.py FOLDER`` stores them anew, for a change of results that is meant.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / "golden"))

import make
import storing


@pytest.mark.parametrize("name", make.CASES)
def test_outputs_are_those_stored(tmp_path: Path, name: str) -> None:
    if ".zarr" in make.CASES[name].frames:
        pytest.importorskip("zarr", reason="the extra zarr is not installed")
    wrong = make.compare(name, tmp_path)
    assert not wrong, f"{name}: {len(wrong)} differences\n" + "\n".join(wrong[:20])


def test_every_stored_case_is_run() -> None:
    assert {path.stem for path in make.EXPECTED.iterdir()} == set(make.CASES)


@pytest.mark.parametrize("change", ["pixel", "moved", "flag", "card", "gone"])
def test_a_change_is_noticed(tmp_path: Path, change: str) -> None:
    rng = np.random.default_rng(0)
    old = {"x.fits": {"SCI": rng.normal(100, 3, (2, 40, 40)).astype("f4"), "DQ": np.eye(40, dtype="i4"), "GAIN": 2.0}}
    storing.keep(tmp_path, "a", old)
    new = {"x.fits": {name: np.copy(value) if isinstance(value, np.ndarray) else value
                      for name, value in old["x.fits"].items()}}  # fmt: skip
    assert storing.differences(storing.stored(tmp_path, "a"), new) == []
    planes = new["x.fits"]
    if change == "pixel":
        planes["SCI"][0, 0, 0] += 0.01
    elif change == "moved":
        planes["SCI"] = np.roll(planes["SCI"], 1, axis=-1)
    elif change == "flag":
        planes["DQ"][7, 9] = 1
    elif change == "card":
        planes["GAIN"] = 2.001
    else:
        del planes["SCI"]
    assert len(storing.differences(storing.stored(tmp_path, "a"), new)) == 1

"""Files that were damaged in a hundred ways are restored or refused; `tests/fuzz.py` does it by the thousand."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path

from fuzz import corpus, mutated, tried

SAMPLES = Path(__file__).parent.parent / "sample_data"


def test_no_damage_is_a_fault(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (tmp_path / "files").mkdir()
        files = corpus([SAMPLES / "47tuc.fits", SAMPLES / "celegans.tif"], tmp_path / "files")
        found: Counter[str] = Counter()
        for number in range(100):
            name, content = mutated(files, number, seed=1)
            path, output = tmp_path / name, tmp_path / "out" / f"high{'.tif' if '.tif' in name else '.fits'}"
            path.write_bytes(content)
            output.parent.mkdir(exist_ok=True)
            found[tried(path, output)] += 1
    assert set(found) <= {"written", "refused"}
    assert min(found["written"], found["refused"]) > 10, "some damage is harmless, some is not"

"""Generated inputs of known right answers, each run by the command: the set that lies beside the repository.

The set calls ``sciresdiff`` as a command and judges its files with astropy and tifffile. It is not part of the
repository: the tests skip where its folder is absent.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
FOLDER = Path(os.environ.get("SCIRESDIFF_TEST_CASES") or REPOSITORY.parent / "shared" / "cases")
"""Where the set is: SCIRESDIFF_TEST_CASES, else ../shared/cases beside the repository."""
OTHERS = re.compile(r"err-dof|draws-|evaluate-(?!strict-truth)")
"""Cases of what the samples of the posterior and the verdicts of evaluate do not hold yet."""


def names() -> list[str]:
    """The cases of the set; none where it is absent."""
    file = FOLDER / "cases.py"
    found = re.findall(r'^@case\("([^"]+)"', file.read_text(), re.M) if file.is_file() else []
    return [name for name in found if not OTHERS.match(name)]


@pytest.fixture(scope="session")
def command(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``sciresdiff`` of this interpreter, as one file that can be called."""
    script = tmp_path_factory.mktemp("bin") / "sciresdiff"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m sciresdiff "$@"\n')
    script.chmod(0o755)
    return script


@pytest.mark.skipif(not names(), reason=f"no set of cases in {FOLDER}; set SCIRESDIFF_TEST_CASES to its folder")
@pytest.mark.parametrize("name", names() or ["none"])
def test_a_case_comes_out_right(name: str, command: Path) -> None:
    run = subprocess.run(
        [sys.executable, str(FOLDER / "cases.py"), "--srd", str(command), "--only", name, "--json"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)},
        check=False,
    )
    found = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]
    assert run.returncode == 0, found or run.stdout + run.stderr

"""Run every command on small frames of every kind; keep or compare what comes out.

python tests/golden/make.py OUT                     run, and store the values in tests/golden/expected
python tests/golden/make.py OUT --bytes FILE.json   run, and store a checksum of every output
python tests/golden/make.py OUT --check FILE.json   run, and list every output that differs from that

The values are for every machine; the checksums are for the machine, libraries and number of threads that made them.
The package is used through its command line alone.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import shlex
import shutil
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

HERE = Path(__file__).resolve().parent
EXPECTED = HERE / "expected"
sys.path[:0] = [str(HERE), str(HERE.parent.parent)]

from cases import CASES  # noqa: E402
from frames import FRAMES  # noqa: E402
from reading import exact, file_names, values  # noqa: E402
from storing import differences, keep, stored  # noqa: E402

ON_A_DEVICE = ("upscale", "evaluate", "train-prior", "train-refiner")


def run(name: str, folder: Path, float32: bool = True) -> Path:
    """Run the commands of a case in a new folder of its own.

    What a command writes to the standard output and its exit code go into ``command-N.json``.

    Parameters
    ----------
    name : of the case. folder : where the new folder is made.
    float32 : networks in float32 also where the processor has bfloat16, which others have not.
    """
    here = folder / name
    shutil.rmtree(here, ignore_errors=True)
    here.mkdir(parents=True)
    for frame in CASES[name].frames.split():
        FRAMES[frame](here / frame)
    with contextlib.chdir(here), plain_numbers(float32):
        for number, words in enumerate(CASES[name].commands):
            text, code = command(shlex.split(words))
            record = {"command": words, "exit_code": code, "lines": [parsed(line) for line in text.splitlines()]}
            Path(f"command-{number}.json").write_text(json.dumps(record))
    return here


@contextlib.contextmanager
def plain_numbers(float32: bool) -> Iterator[None]:
    """One thread, fixed seeds, and float32."""
    import numpy as np
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    with contextlib.ExitStack() as stack:
        stack.callback(torch.set_num_threads, before)
        if float32:
            stack.enter_context(mock.patch("torch.cpu._is_avx512_bf16_supported", lambda: False))
        yield


def command(words: list[str]) -> tuple[str, int]:
    """Run the program in this process: what it writes to the standard output, and its exit code."""
    from sciresdiff.cli.app import main

    words = ["sciresdiff", *words, *(["--device", "cpu"] if words[0] in ON_A_DEVICE else [])]
    out, err = io.StringIO(), io.StringIO()
    code: Any = 0
    with mock.patch("sys.argv", words), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main()
            except SystemExit as end:
                code = end.code or 0
    if code and os.environ.get("GOLDEN_VERBOSE"):
        print(f"{shlex.join(words)}: {code}\n{err.getvalue()}", file=sys.stderr)
    return out.getvalue(), code


def parsed(line: str) -> Any:
    """A JSON record, or the line as it is."""
    try:
        return json.loads(line)
    except ValueError:
        return line


def outputs(name: str, here: Path) -> list[str]:
    """What a case wrote, without the frames that it began with."""
    return [path for path in file_names(here) if path not in CASES[name].frames.split()]


def found(name: str, here: Path) -> dict[str, dict[str, Any]]:
    """The values in every output of a case."""
    return {path: values(here / path) for path in outputs(name, here)}


def compare(name: str, folder: Path) -> list[str]:
    """Run a case and say in one line each what is not as stored."""
    return differences(stored(EXPECTED, name), found(name, run(name, folder)))


def main() -> int:
    """Run the cases; 1 where something differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--bytes", type=Path, metavar="FILE.json")
    parser.add_argument("--check", type=Path, metavar="FILE.json")
    parser.add_argument("--only", nargs="*", default=list(CASES), metavar="CASE")
    told = parser.parse_args()
    folder, sums = told.out.resolve(), {}
    for name in told.only:
        start = time.monotonic()
        here = run(name, folder, float32=not (told.bytes or told.check))
        if told.bytes or told.check:
            sums |= {f"{name}/{path}": exact(here / path) for path in outputs(name, here)}
        else:
            keep(EXPECTED, name, found(name, here))
        print(f"{name:20} {time.monotonic() - start:5.1f} s", file=sys.stderr)
    if told.bytes:
        told.bytes.write_text(json.dumps(sums, indent=1, sort_keys=True) + "\n")
    if not told.check:
        return 0
    known = {p: s for p, s in json.loads(told.check.read_text()).items() if p.split("/")[0] in told.only}
    wrong = [path for path in sorted(known.keys() | sums.keys()) if known.get(path) != sums.get(path)]
    for path in wrong:
        print(path, "is missing" if path not in sums else "is new" if path not in known else "differs")
    print(f"{len(sums)} outputs, {len(wrong)} differ")
    return 1 if wrong else 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())

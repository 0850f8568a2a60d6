"""Damaged files, by the thousand: what `upscale` makes of FITS and TIFF files that were mutated.

    python tests/fuzz.py [FILE ...] [--count 10000] [--seed 0] [--first 0] [--keep FOLDER]

The files are those of sample_data and those that are given, cut to 40 pixels a side with all that their headers hold,
and rewritten in the ways that FITS and TIFF know (`corpus`).  Every case is one of them, damaged by a mutation that its
number alone determines, and restored by the physics in a process of its own with 4 GiB of memory and 10 s.  Counted are
outputs, refusals (one line of `SciresdiffError`), and what must not be: faults (any other exception, a fatal signal),
hangs, outputs beside a refusal, refusals that leave a file.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import resource
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from astropy.io import fits

SECONDS = 10.0
MEMORY = 4 * 2**30
HEADER = 8 * 2880
Mutation = Callable[[bytearray, np.random.Generator], bytearray]


def flipped(content: bytearray, rng: np.random.Generator) -> bytearray:
    """A few bits anywhere."""
    for at in rng.integers(0, len(content), rng.integers(1, 33)):
        content[at] ^= 1 << int(rng.integers(8))
    return content


def flipped_early(content: bytearray, rng: np.random.Generator) -> bytearray:
    """A few bits where headers are."""
    end = min(len(content), HEADER)
    for at in rng.integers(0, end, rng.integers(1, 17)):
        content[at] ^= 1 << int(rng.integers(8))
    return content


def flipped_late(content: bytearray, rng: np.random.Generator) -> bytearray:
    """A few bits at the end, where TIFF keeps its directories."""
    start = max(0, len(content) - 4096)
    for at in rng.integers(start, len(content), rng.integers(1, 17)):
        content[at] ^= 1 << int(rng.integers(8))
    return content


def truncated(content: bytearray, rng: np.random.Generator) -> bytearray:
    """The end is missing."""
    return content[: int(rng.integers(0, len(content)))]


def cut_out(content: bytearray, rng: np.random.Generator) -> bytearray:
    """A piece in the middle is missing."""
    a, b = sorted(rng.integers(0, len(content), 2))
    del content[a : min(b, a + 5760)]
    return content


def zeroed(content: bytearray, rng: np.random.Generator) -> bytearray:
    """A piece is zero, as a crashed copy leaves it."""
    a, b = sorted(rng.integers(0, len(content), 2))
    content[a:b] = bytes(b - a)
    return content


def doubled(content: bytearray, rng: np.random.Generator) -> bytearray:
    """A piece stands twice."""
    a, b = sorted(rng.integers(0, len(content), 2))
    content[b:b] = content[a : min(b, a + 5760)]
    return content


def digits(content: bytearray, rng: np.random.Generator) -> bytearray:
    """Digits of the header are others: sizes, types, scales."""
    places = [i for i in range(min(len(content), HEADER)) if 48 <= content[i] < 58]
    for at in rng.choice(places, min(len(places), int(rng.integers(1, 4))), replace=False) if places else ():
        content[at] = 48 + int(rng.integers(10))
    return content


VALUES = (b"-1", b"0", b"1", b"'abc'", b"T", b"1E400", b"NaN", b"999999999999", b"", b"-64", b"'", b"2147483648")
CARD = re.compile(rb"([A-Z][A-Z0-9_-]{1,7}) *= +([^/]{1,40})")


def card(content: bytearray, rng: np.random.Generator) -> bytearray:
    """A FITS card has another value."""
    found = list(CARD.finditer(bytes(content[:HEADER])))
    if not found:
        return flipped_early(content, rng)
    match = found[int(rng.integers(len(found)))]
    a, b = match.span(2)
    content[a:b] = VALUES[int(rng.integers(len(VALUES)))].rjust(min(20, b - a)).ljust(b - a)[: b - a]
    return content


def words(content: bytearray, rng: np.random.Generator) -> bytearray:
    """A 32-bit number is an extreme one: offsets, counts."""
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(0, max(len(content) - 4, 1)))
        if rng.random() < 0.5:
            at = min(at, int(rng.integers(0, 512)))
        content[at : at + 4] = rng.choice([0, 1, 2**31 - 1, 2**32 - 1, 2**16, len(content)]).astype("<u4").tobytes()
    return content


MUTATIONS: tuple[Mutation, ...] = (
    flipped, flipped_early, flipped_late, truncated, cut_out, zeroed, doubled, digits, card, words,
)  # fmt: skip


def corpus(files: list[Path], folder: Path) -> list[Path]:
    """Small files with real headers, in every encoding."""
    for file in files:
        name = re.sub(r"\W+", "_", file.stem)
        if ".fits" in file.name or file.suffix == ".fz":
            _small_fits(file, folder, name)
        else:
            _small_tiff(file, folder, name)
    return sorted(folder.iterdir())


def _small_fits(file: Path, folder: Path, name: str) -> None:
    with fits.open(file, memmap=False, output_verify="silentfix") as hdus:
        parts = [_cut(hdu) for hdu in hdus]
    fits.HDUList(parts).writeto(folder / f"{name}.fits", output_verify="silentfix+ignore")
    fits.HDUList(parts).writeto(folder / f"{name}.fits.gz", output_verify="silentfix+ignore")
    image = next(h for h in parts if h.data is not None and getattr(h.data, "ndim", 0) >= 2)
    whole = np.nan_to_num(image.data).clip(-30000, 30000).astype(np.int16)
    for kind in ("RICE_1", "GZIP_2", "HCOMPRESS_1", "PLIO_1"):
        data = whole.clip(0) if kind == "PLIO_1" else whole
        if data.ndim == 2:
            packed = fits.CompImageHDU(data, image.header, compression_type=kind)
            fits.HDUList([fits.PrimaryHDU(), packed]).writeto(folder / f"{name}_{kind}.fits.fz")
    scaled = fits.ImageHDU(whole.astype(np.float32))
    scaled.scale("int16", bzero=32768)
    fits.HDUList([fits.PrimaryHDU(), scaled]).writeto(folder / f"{name}_uint16.fits")


def _cut(hdu: Any) -> Any:
    """The HDU, its image no larger than 40 pixels a side."""
    if hdu.data is None or not isinstance(hdu, fits.PrimaryHDU | fits.ImageHDU | fits.CompImageHDU):
        return hdu.copy()
    kind = fits.PrimaryHDU if isinstance(hdu, fits.PrimaryHDU) else fits.ImageHDU
    return kind(np.array(hdu.data[..., :40, :40]), hdu.header)


def _small_tiff(file: Path, folder: Path, name: str) -> None:
    with tifffile.TiffFile(file) as tiff:
        axes, data = tiff.series[0].axes, tiff.series[0].asarray()
    place = tuple(slice(0, 40 if a in "YX" else 2) for a in axes)
    data, style = data[place], {"axes": axes} if set(axes) <= set("TZCYX") else {}
    for end, told in {
        "ome.tif": {"ome": True, "metadata": style}, "tif": {"metadata": style},
        "lzw.tif": {"compression": "lzw", "predictor": True}, "zstd.tif": {"compression": "zstd", "tile": (16, 16)},
        "big.tif": {"bigtiff": True, "byteorder": ">"}, "packbits.tif": {"compression": "packbits"},
        "deflate.tif": {"compression": "zlib", "rowsperstrip": 7},
    }.items():  # fmt: skip
        tifffile.imwrite(folder / f"{name}.{end}", data, photometric="minisblack", **told)
    if data.dtype.name in ("uint8", "uint16", "float32") and data.ndim <= 3:
        tifffile.imwrite(folder / f"{name}.ij.tif", data, imagej=True, photometric="minisblack", resolution=(4.0, 4.0))


def mutated(files: list[Path], number: int, seed: int) -> tuple[str, bytes]:
    """Name and content of a case."""
    rng = np.random.default_rng((seed, number))
    file = files[int(rng.integers(len(files)))]
    mutation = MUTATIONS[number % len(MUTATIONS)]
    return f"{number}_{mutation.__name__}_{file.name}", bytes(mutation(bytearray(file.read_bytes()), rng))


def tried(path: Path, output: Path) -> str:
    """What became of a file: ``written``, ``refused``, or what must not be."""
    from sciresdiff.errors import SciresdiffError
    from sciresdiff.jobs.upscale import job as upscale
    from sciresdiff.run import batch

    options = upscale.UpscaleOptions(model="physics", scale=2, samples=1, psf="gaussian:fwhm=2px", checks=False)
    told = ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            upscale.run(path, output, options)
    except BaseException as problem:
        if not isinstance(batch.as_error(problem), SciresdiffError):
            return "FAULT " + "".join(traceback.format_exception(problem)[-3:])
        told = batch.reason(problem)
    left = list(output.parent.iterdir())
    for file in left:
        file.unlink()
    if told:
        return "refused" if not left and "\n" not in told else f"LEFT {left} after {told}"
    return "written" if output in left else "NOTHING was written, and nothing said"


def served(files: list[Path], seed: int, pipe: Connection) -> None:
    """The process that tries cases."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "out" / "high.fits"
        output.parent.mkdir()
        while (number := pipe.recv()) is not None:
            name, content = mutated(files, number, seed)
            path = Path(folder) / name
            path.write_bytes(content)
            pipe.send(tried(path, output.with_suffix(".tif" if ".tif" in name else ".fits")))
            path.unlink()


def run(files: list[Path], first: int, count: int, seed: int, keep: Path | None) -> Counter[str]:
    """Try the cases, and count what became of them."""
    found: Counter[str] = Counter()
    context = multiprocessing.get_context("spawn")
    numbers = iter(range(first, first + count))
    number = next(numbers, None)
    while number is not None:
        ours, theirs = context.Pipe()
        process = context.Process(target=served, args=(files, seed, theirs), daemon=True)
        process.start()
        ready = 60.0
        while number is not None:
            ours.send(number)
            what = (
                ours.recv()
                if ours.poll(ready + SECONDS) and process.is_alive()
                else f"HANG or death {process.exitcode}"
            )
            ready = 0.0
            found[what.split()[0]] += 1
            if what not in ("written", "refused"):
                name, content = mutated(files, number, seed)
                print(f"{name}: {what}", flush=True)
                if keep:
                    (keep / name).write_bytes(content)
            number = next(numbers, None)
            if what.startswith("HANG"):
                break
        process.kill()
    return found


def main() -> None:
    """Count, and end with 1 where something must not be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the cases that must not be")
    given = parser.parse_args()
    samples = Path(__file__).parent.parent / "sample_data"
    real = [*given.files, *(p for p in samples.iterdir() if p.suffix in (".fits", ".tif"))]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = run(corpus(real, Path(folder)), given.first, given.count, given.seed, given.keep)
    print(dict(found))
    sys.exit(bool(set(found) - {"written", "refused"}))


if __name__ == "__main__":
    main()

"""What ``sciresdiff upscale`` makes of real files with no option on, one row a file.

    python docs/benchmarks/real_frames.py FOLDER --out WORK [--side 512] [--jobs 2] [--only GLOB] [--table PAGE.md]
                                            [--options="--model physics --no-refine"]

Every image below FOLDER is restored by the command as it is called without options; of an image of more than SIDE px
along an axis its middle is cut out first, with its header, its planes, its place in the plate solution and the files
beside it that hold its noise, flags and PSF. WORK gets
one JSON record a file (``records.jsonl``; what stands there is not run again) and a picture of input, output and
quality (``pictures/``). ``--table`` writes the rows between the markers of a page.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from astropy.io import fits

from sciresdiff.io.companions import find_noise_and_flags
from sciresdiff.jobs.inputs import find_inputs

BEGIN, END = "<!-- real-frames: begin -->", "<!-- real-frames: end -->"
LIMIT = 1800
"""Seconds that one file may take."""
NOT_FRAMES = re.compile(r"psf|kernel|mask|weight|noise_map|mskim|sigma", re.I)
"""Names of PSFs and planes, which are no frames by themselves."""


def frames_of(folder: Path, only: str) -> list[Path]:
    """The images below a folder that are no PSF and no plane of another one."""
    found = [item.path for item in find_inputs([str(folder)], recursive=True)]
    names = [path for path in found if not NOT_FRAMES.search(path.name) or "_data" in path.name]
    return [path for path in names if fnmatch.fnmatch(str(path.relative_to(folder)), only)]


def cut_middle(path: Path, target: Path, side: int) -> Path:
    """The middle of a large image, as a file of the same kind; the file itself where it is small.

    Parameters
    ----------
    target : folder for the copy.
    side : px along an axis that are left.
    """
    name = path.name.lower()
    if name.endswith((".tif", ".tiff")):
        return cut_tiff(path, target, side)
    if ".fit" in name:
        return cut_fits(path, target, side)
    return path


def cut_tiff(path: Path, target: Path, side: int) -> Path:
    """`cut_middle` of a TIFF: its first series, with the description."""
    with tifffile.TiffFile(path) as file:
        series, page = file.series[0], file.pages.first
        axes, shape, tags = series.axes, series.shape, page.tags
        at = {
            a: slice((n - side) // 2, (n + side) // 2)
            for a, n in zip(axes, shape, strict=True)
            if a in "YX" and n > side
        }
        if not at or page.photometric == 2:
            return path
        data = series.asarray()[tuple(at.get(a, slice(None)) for a in axes)]
        words = {"resolution": (page.resolution if "XResolution" in tags else None)}
        unit = tags["ResolutionUnit"].value if "ResolutionUnit" in tags else None
        if file.is_imagej and set(axes) <= set("TZCYXS"):
            meta = {k: v for k, v in (file.imagej_metadata or {}).items() if k in ("unit", "spacing", "finterval")}
            words |= {"imagej": True, "metadata": {"axes": axes, **meta}}
        else:
            words |= {"description": page.description if not file.is_ome else None, "metadata": None}
        out = target / path.name
        tifffile.imwrite(out, data, resolutionunit=unit, **{k: v for k, v in words.items() if v is not None})
    return out


def cut_fits(path: Path, target: Path, side: int) -> Path:
    """`cut_middle` of a FITS file: every plane of the size of the first image."""
    with fits.open(path) as hdus:
        images = [hdu for hdu in hdus if is_image(hdu)]
        size = images[0].shape[-2:] if images else (0, 0)
        if max(size) <= side:
            return path
        at = [slice(max((n - side) // 2, 0), min((n + side) // 2, n)) for n in size]
        new = []
        for hdu in hdus:
            if not is_image(hdu) or hdu.shape[-2:] != size:
                new.append(hdu.copy())
                continue
            data, header = hdu.data, hdu.header.copy()
            for axis, part in ((1, at[1]), (2, at[0])):
                if f"CRPIX{axis}" in header:
                    header[f"CRPIX{axis}"] -= part.start
            make = fits.PrimaryHDU if not new else fits.ImageHDU
            new.append(make(np.array(data[..., at[0], at[1]]), header))
        out = target / path.name.removesuffix(".gz").removesuffix(".fz")
        fits.HDUList(new).writeto(out, overwrite=True, output_verify="silentfix")
    return out


def cut_companions(path: Path, target: Path, side: int) -> None:
    """The same part of the noise and the flags that lie beside a FITS image, and its PSF as it is."""
    for kind, (other, _) in find_noise_and_flags(path).items():
        if kind == "psf" or cut_fits(other, target, side) == other:
            shutil.copy(other, target / other.name)


def is_image(hdu: Any) -> bool:
    """Whether an HDU holds pixels, compressed or not."""
    table = isinstance(hdu, fits.BinTableHDU | fits.TableHDU) and not isinstance(hdu, fits.CompImageHDU)
    return not table and len(getattr(hdu, "shape", None) or ()) >= 2


def restore(path: Path, folder: Path, work: Path, side: int, options: list[str]) -> dict[str, Any]:
    """One file restored: its record, and how the command ended."""
    name = str(path.relative_to(folder))
    room = work / "files" / name.replace("/", "__")
    room.mkdir(parents=True, exist_ok=True)
    try:
        cut = cut_middle(path, room, side)
        if cut != path:
            cut_companions(path, room, side)
    except Exception as error:  # noqa: BLE001  a file that astropy cannot cut is given as it is
        cut, _ = path, error
    end = ".fits" if ".fit" in path.name.lower() else path.suffix
    command = [sys.executable, "-m", "sciresdiff", "upscale", str(cut), "-o", str(room / f"high{end}"), *options]
    command += ["--json", "--overwrite"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    except subprocess.TimeoutExpired:
        return {"file": name, "rc": None, "error": f"no end within {LIMIT} s", "cut": cut != path}
    record = json.loads(done.stdout.splitlines()[0]) if done.stdout.strip() else {}
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    if done.returncode == 0:
        draw(room, cut, room / f"high{end}", work / "pictures" / (name.replace("/", "__") + ".png"))
    kept = {
        k: record.get(k)
        for k in ("scale", "model", "quantity", "sources", "chi2", "flux_ratio", "masked", "said", "error")
    }
    return {"file": name, "rc": done.returncode, "cut": cut != path, **kept, "stderr": lines[-40:]}


def draw(room: Path, low: Path, high: Path, target: Path) -> None:
    """Input, output and quality flags side by side, asinh-stretched, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from sciresdiff import io

    with io.open_source(low) as source:
        before = source.window(0, region_of(source.frame.pixels.shape)).pixels[0]
    with io.open_source(high) as source:
        frame = source.window(0, region_of(source.frame.pixels.shape))
    after, bad = frame.pixels[0], frame.mask[0]
    figure = Figure(figsize=(15, 5.4))
    for axis, image, title in zip(
        figure.subplots(1, 3), (before, after, bad), (low.name, "restored", "flagged"), strict=True
    ):
        if image.dtype != bool:
            level, (low_, top) = np.nanmedian(image), np.nanpercentile(image, [16, 99.7])
            width = max(level - low_, 1e-30)
            image = np.arcsinh((image - level) / (3 * width))
            axis.imshow(
                image, cmap="gray", vmin=-1, vmax=max(np.arcsinh((top - level) / (3 * width)), 0.5), origin="lower"
            )
        else:
            axis.imshow(image, cmap="gray", origin="lower")
        axis.set_title(title, fontsize=8)
        axis.set_axis_off()
    figure.tight_layout()
    target.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_png(str(target))


def region_of(shape: tuple[int, ...]) -> Any:
    """All of a plane."""
    from sciresdiff.region import Region

    return Region(0, shape[-2], 0, shape[-1])


def row(record: Mapping[str, Any]) -> str:
    """A record as a row of the table."""
    name = f"`{record['file']}`" + (" (middle)" if record.get("cut") else "")
    if record["rc"] != 0:
        why = record.get("error") or next(iter(record.get("stderr", [])[-1:]), "")
        return f"| {name} | refused, exit {record['rc']}: {clean(why)} | | | | |"
    said, origin = record.get("said") or [], record.get("sources") or {}
    masked = [line for line in said if re.search(r"\bmasked\b", line) and not line.startswith("WARNING")]
    warned = [line.removeprefix("WARNING ") for line in said if line.startswith("WARNING")]
    psf = next((line for line in said if re.match(r"psf: (\w+:fwhm|.*fwhm|.*FWHM)", line)), "")
    noise = next((line for line in said if line.startswith("noise: ")), "")
    chi2 = ", ".join(f"{c:.2f}" for c in (record.get("chi2") or [])[:3] if c is not None)
    return (
        f"| {name} | {clean(noise.removeprefix('noise: ')) or origin.get('noise', '')} "
        f"| {clean(psf.removeprefix('psf: ')) or origin.get('psf', '')} "
        f"| {record.get('quantity')} ({origin.get('quantity', '')}) | {clean('; '.join(masked)) or '-'} "
        f"| {clean('; '.join(warned)) or '-'} | {chi2} |"
    )


def clean(words: str) -> str:
    """Words that fit into a cell of a table."""
    words = re.sub(r"\S*/(?=[^/\s]+\.(fits|tif))", "", words)
    words = re.sub(r" \(moffat:[^)]*\)", "", words)
    return words.replace("|", "/").replace("\n", " ")


def table(records: Iterable[Mapping[str, Any]]) -> str:
    """All rows, in the order of their names."""
    head = "| file | noise | PSF | quantity | masked | warned | chi2 |\n|---|---|---|---|---|---|---|"
    return "\n".join([head, *(row(one) for one in sorted(records, key=lambda one: one["file"]))])


def main() -> None:
    """Run what has no record yet; write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", default="*")
    parser.add_argument("--table", type=Path)
    parser.add_argument("--options", default="", help="of upscale; none by default")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    journal = args.out / "records.jsonl"
    done = [json.loads(line) for line in journal.read_text().splitlines()] if journal.is_file() else []
    known = {one["file"] for one in done}
    todo = [p for p in frames_of(args.folder, args.only) if str(p.relative_to(args.folder)) not in known]
    with ThreadPoolExecutor(args.jobs) as pool, journal.open("a") as log:
        for one in pool.map(lambda p: restore(p, args.folder, args.out, args.side, args.options.split()), todo):
            done.append(one)
            log.write(json.dumps(one) + "\n")
            log.flush()
            print(one["file"], "exit", one["rc"], file=sys.stderr, flush=True)
    if args.table:
        text = args.table.read_text()
        before, rest = text.split(BEGIN)
        after = rest.split(END)[1]
        args.table.write_text(f"{before}{BEGIN}\n\n{table(done)}\n\n{END}{after}")


if __name__ == "__main__":
    main()

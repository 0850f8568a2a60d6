"""Judging restored files: bring image, data and truth together, run the checks, and the baselines beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff import checks, io
from sciresdiff.checks.evidence import Evidence, Range, Result
from sciresdiff.errors import InputError, UsageError
from sciresdiff.frame import Frame, Kind, Quantity
from sciresdiff.io.files import split_spec
from sciresdiff.jobs.batch import Progress, no_progress
from sciresdiff.jobs.options import UpscaleOptions
from sciresdiff.jobs.resolve import kernel_of, stated_psf
from sciresdiff.jobs.upscale import finer
from sciresdiff.jobs.variance import variance_of
from sciresdiff.report import record as records

DEFAULT_BASELINES = ("bicubic", "lanczos", "richardson-lucy")
REPORTS = (".html", ".htm", ".png")
"""Endings of a report's name."""
BEST = "richardson-lucy-best"
"""Richardson-Lucy at its best stopping point, which only the truth can tell."""


@dataclass(frozen=True)
class Given:
    """The files that belong together, read."""

    high: Frame
    low: Frame | None
    truth: Frame | None
    scale: int
    quantity: Quantity
    variance: NDArray[np.floating[Any]] | None
    operator: Any
    """None where the blur is not known."""
    planes: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """ERR and SUPPORT of the output, (planes, Y, X)."""
    target_fwhm: float | None = None


def run(
    high: str | Path,
    *,
    low: str | Path | None = None,
    truth: str | Path | None = None,
    psf: str | None = None,
    kernel: str | None = None,
    target_fwhm: float | None = None,
    variance: str | None = None,
    quantity: Quantity | None = None,
    baselines: Sequence[str] | str = DEFAULT_BASELINES,
    limits: str | Path | None = None,
    report: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Judge one restored file.

    Parameters
    ----------
    high : the image; its ERR and SUPPORT (extensions, or ``{stem}_err.tif`` and ``{stem}_support.tif``) are used, and
        what its sidecar ``{high}.json`` says of the blur and the noise where the options do not.
    low : the frame that it was made from.
    truth : the true image; up to one coarse pixel larger than ``high``, it is cropped at its far borders.
    psf, kernel : SPEC, as for ``upscale``; without them what the low frame says. Where nobody says, the checks that
        need the blur are left out.
    variance : extension or file, of the low frame.
    baselines : names out of `checks.baselines.BASELINES`, or one string with commas; they need ``low``.
    limits : TOML file with other limits.
    report : HTML page to write, or PNG file to draw one picture into, by its ending.

    Returns
    -------
    The record: ``schema``, ``high``, ``low``, ``truth``, ``scale``, ``verdict``, ``results``, ``baselines``, ``said``.
    Values that are not finite are None. With several planes every region has its plane's number behind it.

    Raises
    ------
    UsageError : an unknown baseline, limits that cannot be read, a report that is neither page nor PNG, or exists.
    InputError : a file that cannot be read, or files that do not fit each other.
    """
    methods = _methods(baselines)
    own = checks.read_limits(limits, checks.RESULTS) if limits else {}
    _refuse_report(report, overwrite)
    said: list[str] = []
    given = gather(high, low, truth, _Told(psf, kernel, target_fwhm, variance, quantity), said)
    first = evidence_of(given, 0)
    found, others = _judge(given, first, methods, own, said, progress)
    files = {"high": high, "low": low, "truth": truth}
    record = {
        "schema": records.SCHEMA,
        **{name: None if path is None else str(path) for name, path in files.items()},
        "scale": given.scale if low is not None else None,
        "quantity": given.quantity,
        "verdict": checks.verdict(found, own, kind_of(given)),
        "results": records.as_data(found),
        "baselines": {name: records.as_data(results) for name, results in others.items()},
        "said": list(dict.fromkeys(said)),
    }
    if report:
        _draw(record, first, report, given.high.unit, own, overwrite)
    return record


def _draw(
    record: Mapping[str, Any],
    first: Evidence,
    report: str | Path,
    unit: str | None,
    own: Mapping[str, Range],
    overwrite: bool,
) -> None:
    """The page, or the picture, of the first plane."""
    if Path(report).suffix.lower() == ".png":
        from sciresdiff.report.figures import panel

        panel(first, report, unit, f"{Path(record['high']).name}: {record['verdict']}", overwrite)
    else:
        from sciresdiff.report.html import write_page

        write_page(record, first, report, unit, own, overwrite)


@dataclass(frozen=True)
class _Told:
    """What the user says of blur, noise and unit."""

    psf: str | None
    kernel: str | None
    target_fwhm: float | None
    variance: str | None
    quantity: Quantity | None


def _methods(baselines: Sequence[str] | str) -> list[str]:
    from sciresdiff.checks.baselines import BASELINES

    names = [n.strip() for n in (baselines.split(",") if isinstance(baselines, str) else baselines)]
    names = [name for name in names if name and name != "none"]
    for name in names:
        if name not in BASELINES:
            raise UsageError(f"--baselines: {name!r} is unknown; choose from {', '.join(BASELINES)}, or none")
    return list(dict.fromkeys(names))


def _refuse_report(report: str | Path | None, overwrite: bool) -> None:
    if report is None:
        return
    if Path(report).suffix.lower() not in REPORTS:
        raise UsageError(f"--report: {report} is neither page nor picture; give a name that ends in .html or .png")
    if Path(report).exists() and not overwrite:
        raise UsageError(f"--report: {report} exists; give --overwrite or another name")


def gather(high: str | Path, low: str | Path | None, truth: str | Path | None, told: _Told, said: list[str]) -> Given:
    """Read the files, and settle scale, quantity, noise and blur.

    Raises
    ------
    InputError : files that do not fit each other.
    """
    image = io.read(high, quantity=told.quantity)
    note = sidecar(high, low)
    options = _options(note, told)
    data = None if low is None else io.read(low, variance=options.variance, mask=options.mask, axes=options.axes)
    scale = 1 if data is None else _scale(high, image, low, data)
    quantity = _quantity(told, note, data, image, said)
    true = None if truth is None else _cropped(io.read(truth), truth, image, high, scale, said)
    noise = None if data is None else _variance(data, options, said)
    target = options.target_fwhm or note.get("target_fwhm_px")
    operator = None if data is None or low is None else _operator(low, data, options, scale, quantity, bool(note), said)
    planes = {name: plane for name in ("ERR", "SUPPORT") if (plane := beside(high, name, image)) is not None}
    return Given(image, data, true, scale, quantity, noise, operator, planes, target)


def sidecar(high: str | Path, low: str | Path | None) -> dict[str, Any]:
    """What ``upscale`` has noted of this image; empty where there is no note, or it is of another input."""
    file = split_spec(high)[0]
    path = file.with_name(file.name + ".json")
    try:
        note = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(note, dict) or low is None:
        return {}
    same = Path(str(note.get("input", ""))).name == Path(str(low)).name
    return note if same and isinstance(note.get("options"), dict) else {}


def _options(note: Mapping[str, Any], told: _Told) -> UpscaleOptions:
    """The options of the restoration as far as they speak of the data; what is told now wins."""
    noted = note.get("options", {})
    names = ("gain", "read_noise", "offset", "variance", "mask", "axes", "target_fwhm", "psf", "kernel")
    options = UpscaleOptions(**{name: noted.get(name) for name in names})
    if told.psf or told.kernel:
        options = replace(options, psf=told.psf, kernel=told.kernel)
    return replace(
        options,
        variance=told.variance or options.variance,
        target_fwhm=told.target_fwhm or options.target_fwhm,
    )


def _scale(high: str | Path, image: Frame, low: str | Path | None, data: Frame) -> int:
    """Fine pixels per coarse pixel."""
    (H, W), (h, w) = image.pixels.shape[1:], data.pixels.shape[1:]
    if H % h or W % w or H // h != W // w:
        raise InputError(f"{high}: {H} x {W} px are no whole multiple of the {h} x {w} px of {low}")
    if image.planes != data.planes:
        raise InputError(f"{high}: {image.planes} planes, but {low} has {data.planes}")
    return H // h


def _quantity(told: _Told, note: Mapping[str, Any], data: Frame | None, image: Frame, said: list[str]) -> Quantity:
    """``sum`` or ``mean``: option, note, the frames' units, else by kind."""
    known = told.quantity or note.get("quantity") or (data.quantity if data else None) or image.quantity
    return image.quantity_or_usual(known, said)


def _cropped(truth: Frame, name: str | Path, image: Frame, high: str | Path, scale: int, said: list[str]) -> Frame:
    """The truth on the image's pixels, from its first one on."""
    (T, U), (H, W) = truth.pixels.shape[1:], image.pixels.shape[1:]
    spare = max(scale, 8) if scale > 1 else 8
    if truth.planes != image.planes:
        raise InputError(f"{name}: {truth.planes} planes, but {high} has {image.planes}")
    if not (0 <= T - H < spare and 0 <= U - W < spare):
        raise InputError(f"{name}: {T} x {U} px do not fit the {H} x {W} px of {high}; give the truth on its pixels")
    if (T, U) == (H, W):
        return truth
    said.append(f"truth: {T} x {U} px cropped to the image's {H} x {W}")
    return truth.with_(
        pixels=truth.pixels[:, :H, :W], mask=truth.mask[:, :H, :W], variance=None, saturated=None, dq=None
    )


def _variance(data: Frame, options: UpscaleOptions, said: list[str]) -> NDArray[np.floating[Any]] | None:
    """The data's variance: the plane that was given or found, as it is, else gain and read noise, else the sky."""
    if data.variance is not None and (options.variance or options.gain is None):
        return data.variance
    try:
        return variance_of(data, options, said, {})
    except InputError as problem:
        said.append(f"{problem}; checks in units of the noise are left out")
        return None


def _operator(
    low: str | Path, data: Frame, options: UpscaleOptions, scale: int, quantity: Quantity, noted: bool, said: list[str]
) -> Any:
    """The measurement, in float64; None where the blur is not known."""
    import torch

    from sciresdiff.physics.operators import Operator

    if not (options.kernel or options.psf or noted or data.kernel is not None or stated_psf(data)):
        said.append("psf: not known; give --kernel or --psf for the checks against the data and for Richardson-Lucy")
        return None
    shape = (data.pixels.shape[1], data.pixels.shape[2])
    kernel, _ = kernel_of(low, data, options, scale, said, {})
    return Operator(shape, scale, kernel, quantity, dtype=torch.float64)


def beside(high: str | Path, name: str, image: Frame) -> NDArray[np.float64] | None:
    """A plane of the output, (planes, Y, X): an extension, or for TIFF a file beside it; None where there is none."""
    file = split_spec(high)[0]
    tiff = file.with_name(f"{io.stem(file)}_{name.lower()}.tif")
    try:
        found = io.read_image(tiff if io.format_of(file) == "tiff" else f"{file}[{name}]")
    except InputError:
        return None
    found = found.reshape(-1, *found.shape[-2:])
    return found if found.shape == image.pixels.shape else None


def kind_of(given: Given) -> Kind:
    """``astro`` or ``micro``: the data's, else the image's."""
    return given.high.kind if given.low is None else given.low.kind


def evidence_of(given: Given, plane: int) -> Evidence:
    """One plane of the files as evidence."""

    def cut(stack: NDArray[Any] | None) -> NDArray[np.float64] | None:
        return None if stack is None else np.asarray(stack[plane], np.float64)

    mask = given.high.mask[plane].copy()
    if given.low is not None:
        mask |= finer(given.low.mask[plane], given.scale)
    if given.truth is not None:
        mask |= given.truth.mask[plane]
    return Evidence(
        high=np.asarray(given.high.pixels[plane], np.float64),
        scale=given.scale,
        low=cut(None if given.low is None else given.low.pixels),
        variance=cut(given.variance),
        truth=cut(None if given.truth is None else given.truth.pixels),
        mask_high=mask,
        mask_low=None if given.low is None else given.low.mask[plane],
        operator=given.operator,
        err=cut(given.planes.get("ERR")),
        support=cut(given.planes.get("SUPPORT")),
        kind=kind_of(given),
        quantity=given.quantity,
        target_fwhm_px=given.target_fwhm,
    )


def _judge(
    given: Given, first: Evidence, methods: list[str], own: Mapping[str, Range], said: list[str], progress: Progress
) -> tuple[list[Result], dict[str, list[Result]]]:
    """Results of the image and of every baseline, all planes."""
    found: list[Result] = []
    others: dict[str, list[Result]] = {}
    count = given.high.planes
    for i in range(count):
        progress(i, count, "evaluate")
        evidence = evidence_of(given, i) if i else first
        rivals = _rivals(evidence, methods, own, said)
        where = f", plane {i}" if count > 1 else ""
        found += _placed(_beside_bicubic(checks.check(evidence, own), rivals, own), where)
        for name, results in rivals.items():
            others.setdefault(name, []).extend(_placed(results, where))
    progress(count, count, "evaluate")
    return found, others


def _rivals(
    evidence: Evidence, methods: list[str], own: Mapping[str, Range], said: list[str]
) -> dict[str, list[Result]]:
    """The baselines' results on one plane."""
    from sciresdiff.checks.baselines import BASELINES, NEED_KERNEL, best_richardson_lucy

    if evidence.low is None:
        return {}
    if evidence.operator is None:
        methods = [name for name in methods if name not in NEED_KERNEL]
    found = {}
    for name in methods:
        image = BASELINES[name](evidence)
        if name == "richardson-lucy":
            evidence.shared[name] = image  # the report shows it
        found[name] = checks.check_rival(evidence.other(image), own)
    if "richardson-lucy" in methods and evidence.truth is not None:
        n, image = best_richardson_lucy(evidence)
        found[BEST] = checks.check_rival(evidence.other(image), own)
        said.append(f"{BEST}: {n} iterations, nearest to the truth of 1 to 60, which only the truth can tell")
    return found


def _beside_bicubic(
    results: list[Result], rivals: Mapping[str, list[Result]], own: Mapping[str, Range]
) -> list[Result]:
    """The results, with bicubic's PSNR as the least that is accepted."""
    least = {r.region: r.value for r in rivals.get("bicubic", []) if r.name == "psnr"}
    if "psnr" in own:
        return results
    return [
        checks.judged(replace(r, limit=(least[r.region], None)), own) if r.name == "psnr" and r.region in least else r
        for r in results
    ]


def _placed(results: list[Result], where: str) -> list[Result]:
    """The results with the plane's number behind their region."""
    return [replace(result, region=result.region + where) for result in results] if where else results


def pairs(highs: Sequence[str | Path], others: Sequence[str | Path] | None, option: str) -> list[Path | None]:
    """The file that belongs to every image: by stem (``a_x4.fits`` to ``a.fits``), else by order.

    Raises
    ------
    UsageError : neither finds one for each; ``option`` is named.
    """
    if not others:
        return [None] * len(highs)
    by_stem = [_by_stem(high, others) for high in highs]
    if len(others) > 1 and all(by_stem) and len(set(by_stem)) == len(highs):
        return by_stem
    if len(others) != len(highs):
        raise UsageError(f"{option}: {len(others)} files for {len(highs)} images; give one for each, in their order")
    return [Path(other) for other in others]


def _by_stem(high: str | Path, others: Sequence[str | Path]) -> Path | None:
    """The file whose stem this image's begins with, the longest one if there are several."""
    name = io.stem(high)
    fits = [Path(o) for o in others if name == io.stem(o) or name.startswith(f"{io.stem(o)}_")]
    return max(fits, key=lambda path: len(io.stem(path)), default=None)

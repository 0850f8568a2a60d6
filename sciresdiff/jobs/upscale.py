"""Restoring files: resolve what is given, read or measured; restore every plane; write the image and its record."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from sciresdiff import __version__, io
from sciresdiff.errors import InputError, UsageError
from sciresdiff.frame import Frame, PixelSize, Quantity

if TYPE_CHECKING:
    from sciresdiff.model import Model
    from sciresdiff.physics.detector import Detector
    from sciresdiff.restore import Restored

QUICK = ("total_flux_ratio", "block_flux_rms_sigma", "chi2", "chi2_sources", "chi2_sky")
"""Checks that run on every output; ``evaluate`` has the others."""
Progress = Callable[[int, int, str], None]
CORRELATED = 1.1
"""Noise correlation above which the variance is inflated and the user warned."""


@dataclass(frozen=True)
class UpscaleOptions:
    """The options of ``upscale``; None means: read it from the file, else measure it, and say so."""

    model: str | None = None
    scale: int | None = None
    psf: str | None = None
    kernel: str | None = None
    target_fwhm: float | None = None
    """FWHM of the wanted image's PSF, output px."""
    quantity: Quantity | None = None
    gain: float | None = None
    """Electrons per unit of the file."""
    read_noise: float | None = None
    """Electrons."""
    offset: float | None = None
    """The value of a dark pixel, in the file's unit."""
    variance: str | None = None
    mask: str | None = None
    saturation: float | None = None
    samples: int = 8
    save_samples: bool = False
    steps: int | None = None
    refine: bool = True
    consistency: Literal["noise", "exact", "off"] = "noise"
    tile: int = 256
    checks: bool = True
    axes: str | None = None
    pixel_size: str | None = None
    assume_2d: bool = False
    dtype: str | None = None
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class Resolved:
    """Everything that a restoration of one file needs, and where it came from."""

    frame: Frame
    scale: int
    quantity: Quantity
    variance: NDArray[np.float32]
    kernel: NDArray[np.float64] | None
    target_fwhm: float | None
    """Output px; None where only a kernel is known: the target is then whatever image the kernel speaks of."""
    model: Model | None
    name: str
    """Of the model, or ``physics``."""
    said: tuple[str, ...] = ()
    sources: dict[str, str] = field(default_factory=dict)
    """Where scale, quantity, noise and PSF came from."""


def pixel_size_of(text: str | None) -> PixelSize | None:
    """``0.2arcsec`` or ``0.11um`` as a pixel size.

    Raises
    ------
    UsageError : no number, or another unit.
    """
    if text is None:
        return None
    units: dict[str, tuple[float, str]] = {"arcsec": (1, "arcsec"), "um": (1, "um"), "nm": (1e-3, "um")}
    for unit, (factor, base) in units.items():
        if text.endswith(unit):
            try:
                side = float(text.removesuffix(unit)) * factor
            except ValueError:
                break
            return PixelSize(side, side, base)  # type: ignore[arg-type]
    raise UsageError(f"--pixel-size: {text!r} is no size; give a number with arcsec, um or nm, for example 0.11um")


def resolve(path: str | Path, options: UpscaleOptions) -> Resolved:
    """Read a file and settle scale, quantity, noise, PSF and model.

    Raises
    ------
    UsageError, InputError : what cannot be settled, and what to give.
    """
    frame = io.read(
        path,
        variance=options.variance,
        mask=options.mask,
        axes=options.axes,
        quantity=options.quantity,
        pixel_size=pixel_size_of(options.pixel_size),
    )
    frame = saturated(frame, options)
    refuse_stack(path, frame, options)
    said: list[str] = list(frame.said)
    sources: dict[str, str] = {}
    quantity = quantity_of(frame, options, said, sources)
    scale, model, name = model_of(frame, options, said, sources)
    variance = variance_of(frame, options, said, sources)
    kernel, target = kernel_of(path, frame, options, scale, said, sources)
    warn_range(model, kernel, scale, said)
    return Resolved(frame, scale, quantity, variance, kernel, target, model, name, tuple(said), sources)


def saturated(frame: Frame, options: UpscaleOptions) -> Frame:
    """The frame with pixels at or above ``--saturation`` masked."""
    if options.saturation is None:
        return frame
    full = frame.pixels >= options.saturation
    old = frame.saturated if frame.saturated is not None else np.zeros_like(full)
    return frame.with_(saturated=full | old, mask=frame.mask | full)


def refuse_stack(path: str | Path, frame: Frame, options: UpscaleOptions) -> None:
    """A widefield z-stack is not a set of independent planes."""
    if frame.kind == "micro" and "Z" in frame.axes and frame.shape[frame.axes.index("Z")] > 1 and not options.assume_2d:
        raise InputError(
            f"{path}: a z-stack ({frame.shape[frame.axes.index('Z')]} planes); light from other planes is not "
            "modelled, give --assume-2d to restore it plane by plane all the same"
        )


def quantity_of(frame: Frame, options: UpscaleOptions, said: list[str], sources: dict[str, str]) -> Quantity:
    """``sum`` or ``mean``: the option, the file's unit, else by kind.

    Raises
    ------
    InputError : a unit per beam, and no beam in the header to say what it means.
    """
    if frame.unit and "beam" in frame.unit.lower():
        if "bmaj" not in frame.facts:
            raise InputError(f"unit: {frame.unit} has no meaning without a beam; add BMAJ and BMIN (degrees)")
        said.append(f"unit: {frame.unit} stays per beam of the input; BMAJ and BMIN are kept as its definition")
    if options.quantity:
        sources["quantity"] = "--quantity"
        return options.quantity
    if frame.quantity:
        sources["quantity"] = f"unit {frame.unit}"
        return frame.quantity
    default: Quantity = "sum" if frame.kind == "astro" else "mean"
    sources["quantity"] = "assumed"
    said.append(
        f"quantity: assumed {default} (pixels {'add up' if default == 'sum' else 'average'}); --quantity states it"
    )
    return default


def model_of(
    frame: Frame, options: UpscaleOptions, said: list[str], sources: dict[str, str]
) -> tuple[int, Model | None, str]:
    """The scale and the model: named, or the shipped one for the kind and scale."""
    from sciresdiff import model as models

    scale = options.scale or frame.kernel_scale
    sources["scale"] = "--scale" if options.scale else "file" if scale else "default"
    if options.model == "physics":
        return scale or 2, None, "physics"
    if options.model is None:
        scale = scale or 2
        name = models.default_for(frame.kind, scale)
        if name is None:
            has = ", ".join(f"{c['name']} (x{c['prior']['scale']}, {c['kind']})" for c in models.shipped()) or "none"
            raise UsageError(
                f"--scale {scale}: no shipped model for {frame.kind} at x{scale} ({has}); try --model physics"
            )
        said.append(f"model: {name}, the shipped model for {frame.kind} at x{scale}")
        return scale, models.load(name), name
    loaded = models.load(options.model)
    if scale and loaded.scale != scale:
        raise UsageError(
            f"--scale {scale}: model {options.model} has scale {loaded.scale}; give --scale {loaded.scale}"
        )
    return loaded.scale, loaded, str(loaded.card.get("name", options.model))


def variance_of(
    frame: Frame, options: UpscaleOptions, said: list[str], sources: dict[str, str]
) -> NDArray[np.float32]:
    """The variance of every pixel: option, plane of the file, gain and read noise, else the scatter of the sky."""
    if frame.variance is not None and options.gain is None:
        sources["noise"] = "--variance" if options.variance else "file"
        return inflated(frame, frame.variance, said, sources)
    detector = detector_of(frame, options, said, sources)
    if detector is None:
        return sky_scatter(frame, said, sources)
    return inflated(frame, np.asarray(detector.variance(frame.pixels), dtype=np.float32), said, sources)


def detector_of(
    frame: Frame, options: UpscaleOptions, said: list[str], sources: dict[str, str]
) -> Detector | None:
    """Gain, read noise and offset: options, else the header, else what a camera frame's histogram shows."""
    from sciresdiff.physics import measure
    from sciresdiff.physics.detector import Detector

    known = {name: options_or_fact(frame, options, name) for name in ("gain", "read_noise", "offset")}
    if (gain := known["gain"]) is not None and gain <= 0:
        raise UsageError(f"--gain {gain}: must be above zero (electrons per unit of the file)")
    if (read_noise := known["read_noise"]) is not None and read_noise < 0:
        raise UsageError(f"--read-noise {read_noise}: must not be negative (electrons)")
    sources["noise"] = "--gain" if options.gain else "header"
    if frame.kind == "micro" and frame.dtype.kind == "u" and gain is None:
        camera, lines = measure.camera_from_histogram(frame.pixels[0])
        said.extend(lines)
        sources["noise"] = "histogram"
        return camera
    if gain is None or read_noise is None:
        return None
    offset = known["offset"] or 0.0
    said.append(f"noise: gain {gain:.4g} e/unit, read noise {read_noise:.4g} e, offset {offset:.4g}")
    return Detector(gain=gain, read_noise=read_noise, offset=offset)


def options_or_fact(frame: Frame, options: UpscaleOptions, name: str) -> float | None:
    """An option, else the fact of that name in the file."""
    given: float | None = getattr(options, name)
    return given if given is not None else frame.facts.get(name)


def sky_scatter(frame: Frame, said: list[str], sources: dict[str, str]) -> NDArray[np.float32]:
    """One variance for every pixel of a plane, measured on its sky.

    Raises
    ------
    InputError : a constant image.
    """
    from sciresdiff.physics import measure

    sources["noise"] = "sky scatter"
    planes = []
    for plane in frame:
        sigma = measure.sky_noise(plane.pixels[0], plane.mask[0])
        if not sigma > 0:
            raise InputError("variance: the image is constant, its noise cannot be measured; give --variance or --gain")
        planes.append(np.full(plane.pixels[0].shape, sigma**2, dtype=np.float32))
        said.append(f"noise: sky scatter {sigma:.4g} per pixel; photon noise of bright sources is not in it")
    return np.stack(planes)


def inflated(
    frame: Frame, variance: NDArray[np.float32], said: list[str], sources: dict[str, str]
) -> NDArray[np.float32]:
    """The variance times the measured correlation of the noise, where that is more than slight."""
    from sciresdiff.physics import measure

    factor = measure.noise_correlation(frame.pixels[0], frame.mask[0], variance[0])
    sources["noise_correlation"] = f"{factor:.3f}"
    if factor <= CORRELATED:
        return variance
    said.append(
        f"noise: neighbouring pixels are correlated (box scatter {factor:.2f} times quadrature); variance inflated"
    )
    return variance * np.float32(factor**2)


def kernel_of(
    path: str | Path, frame: Frame, options: UpscaleOptions, scale: int, said: list[str], sources: dict[str, str]
) -> tuple[NDArray[np.float64] | None, float | None]:
    """The blur on the fine grid and the target's FWHM: --kernel, --psf, the file's kernel or PSF, else its sources."""
    from sciresdiff.physics import measure, psf

    fine = frame.pixel_size.finer(scale) if frame.pixel_size else None
    if options.kernel:
        sources["psf"] = "--kernel"
        return drawn_kernel(options.kernel, fine), options.target_fwhm
    target = options.target_fwhm or 2.0
    if options.psf and options.psf != "measure":
        sources["psf"] = "--psf"
        return psf.kernel_from_psf(options.psf, pixel=frame.pixel_size, scale=scale, target_fwhm_px_fine=target), target
    if options.psf is None and frame.kernel is not None and frame.kernel_scale == scale:
        sources["psf"] = "file"
        return (
            drawn_kernel(frame.kernel, fine) if isinstance(frame.kernel, str) else frame.kernel
        ), options.target_fwhm
    if options.psf is None and (stated := stated_psf(frame)):
        sources["psf"] = "header"
        said.append(f"psf: {stated}, from the file")
        return psf.kernel_from_psf(stated, pixel=frame.pixel_size, scale=scale, target_fwhm_px_fine=target), target
    sources["psf"] = "measured"
    variance = None if frame.variance is None else frame.variance[0]
    found, used, lines = measure.psf_from_sources(frame.pixels[0], frame.mask[0], variance, frame.kind)
    said.extend(lines)
    said.append(f"psf: measured from {used} sources of {path}")
    return psf.kernel_from_psf(found, pixel=frame.pixel_size, scale=scale, target_fwhm_px_fine=target), target


def stated_psf(frame: Frame) -> str | None:
    """The SPEC of the PSF that the file's header or metadata states, if any."""
    facts = frame.facts
    if frame.psf:
        return frame.psf
    if "fwhm" in facts:
        return f"gaussian:fwhm={facts['fwhm']}px"
    if "na" in facts and "wavelength" in facts:
        return f"airy:na={facts['na']},wavelength={facts['wavelength']}nm"
    return None


def drawn_kernel(spec: str, fine: PixelSize | None) -> NDArray[np.float64] | None:
    """The kernel of ``--kernel``: sampled at fine-pixel centres, or an image as it is; None for ``none``."""
    from sciresdiff.physics import psf

    parsed = psf.parse(spec)
    return None if parsed.shape == "none" else psf.render(parsed, fine, integrate=False)


def warn_range(model: Model | None, kernel: NDArray[np.float64] | None, scale: int, said: list[str]) -> None:
    """Say when the kernel is outside what the model was trained on."""
    if model is None or kernel is None:
        return
    yy, xx = (np.arange(n) - n // 2 for n in kernel.shape)
    weight = np.clip(kernel, 0, None) ** 2  # the square keeps far wings from deciding
    sigma = float(np.sqrt((weight.sum(1) * yy**2).sum() / weight.sum() + (weight.sum(0) * xx**2).sum() / weight.sum()))
    low, high = model.card.get("range", {}).get("sigma_low_px", (0.0, np.inf))
    if not 0.9 * low <= sigma / scale <= 1.1 * high:
        said.append(
            f"WARNING kernel: width {sigma / scale:.2f} input px (sigma) is outside the {low:g}-{high:g} that the "
            "model was trained on; compare with --model physics"
        )


def plan(path: str | Path, options: UpscaleOptions) -> dict[str, Any]:
    """What ``upscale`` would do with a file, as data."""
    resolved = resolve(path, options)
    frame = resolved.frame
    return {
        "input": str(path),
        "kind": frame.kind,
        "planes": frame.planes,
        "shape": list(frame.pixels.shape[1:]),
        "scale": resolved.scale,
        "model": resolved.name,
        "quantity": resolved.quantity,
        "kernel_px": list(resolved.kernel.shape) if resolved.kernel is not None else None,
        "target_fwhm_px": resolved.target_fwhm,
        "masked": int(frame.mask.sum()),
        "sources": resolved.sources,
        "said": list(resolved.said),
        "options": {f.name: getattr(options, f.name) for f in fields(options)},
    }


def run(
    path: str | Path, output: str | Path, options: UpscaleOptions, progress: Progress | None = None
) -> dict[str, Any]:
    """Restore one file and write it, its planes and its sidecar.

    Returns
    -------
    The record that stands in ``{output}.json``, with ``said`` for the user.

    Raises
    ------
    UsageError, InputError : as in `resolve`; an output that exists.
    """
    import torch

    from sciresdiff.model import device_of
    from sciresdiff.restore import Settings, restore

    if Path(output).exists() and not options.overwrite:
        raise UsageError(f"--output: {output} exists; give --overwrite or another name")
    if options.threads:
        torch.set_num_threads(options.threads)
    resolved = resolve(path, options)
    frame, s = resolved.frame, resolved.scale
    settings = Settings(
        options.samples,
        options.steps,
        options.refine,
        options.consistency,
        options.tile,
        options.seed,  # type: ignore[arg-type]
        keep_draws=options.save_samples,
    )
    device = device_of(options.device)
    if resolved.model:
        resolved.model.to(device)
    done: list[Restored] = []
    for i, plane in enumerate(frame):
        tell = (
            (lambda k, n, label, i=i: progress(i * n + k, n * frame.planes, label)) if progress else (lambda *_: None)
        )
        done.append(
            restore(
                plane.pixels[0],
                resolved.variance[i],
                plane.mask[0],
                resolved.kernel,
                s,
                resolved.quantity,
                resolved.model,
                settings,
                device,
                tell,
            )
        )
    return write(path, Path(output), options, resolved, done)


def put_back(frame: Frame, resolved: Resolved, done: list[Restored]) -> NDArray[np.float32]:
    """The means, with masked pixels as they came in: spread over their area, NaN where they were NaN."""
    s = resolved.scale
    share = s**2 if resolved.quantity == "sum" else 1
    mean = np.stack([r.mean for r in done])
    return np.where(finer(frame.mask, s), finer(frame.pixels / np.float32(share), s), mean)


def finer(plane: NDArray[Any], scale: int) -> NDArray[Any]:
    """Every pixel repeated over its area on the fine grid."""
    return plane.repeat(scale, axis=-2).repeat(scale, axis=-1)


def write(
    path: str | Path, output: Path, options: UpscaleOptions, resolved: Resolved, done: list[Restored]
) -> dict[str, Any]:
    """The image, its planes and its sidecar."""
    frame, s = resolved.frame, resolved.scale
    bad = finer(frame.mask, s)
    planes: dict[str, NDArray[Any]] = {
        "ERR": np.where(bad, np.nan, np.stack([r.err for r in done])).astype(np.float32),
        "SUPPORT": np.stack([r.support for r in done]),
        "GATE": np.stack([r.gate for r in done]),
        "DQ": quality(frame, s),
    }
    if options.save_samples and done[0].draws is not None:
        planes["DRAWS"] = np.stack([r.draws for r in done if r.draws is not None])[
            0 if frame.planes == 1 else slice(None)
        ]
    high = frame.with_(
        pixels=put_back(frame, resolved, done).astype(np.float32),
        mask=bad,
        variance=None,
        dq=None,
        saturated=None,
        quantity=resolved.quantity,
        kernel=None,
        kernel_scale=None,
    )
    cards = provenance(options, resolved, done)
    results = [judged_plane(resolved, done[i], i) for i in range(frame.planes)] if options.checks else []
    wrote = io.write(
        output,
        high,
        planes=planes,
        provenance=cards,
        history=history(options, resolved),
        scale=s,
        overwrite=options.overwrite,
        dtype=options.dtype,
    )
    record = {
        "schema": 1,
        "input": str(path),
        "output": str(output),
        "scale": s,
        "model": resolved.name,
        "quantity": resolved.quantity,
        "target_fwhm_px": resolved.target_fwhm,
        "sources": resolved.sources,
        "said": list(resolved.said),
        "chi2": [r.chi2 for r in done],
        "flux_ratio": [r.flux_ratio for r in done],
        "gated_share": [float(r.gate.mean()) for r in done],
        "masked": int(frame.mask.sum()),
        "provenance": cards,
        "checks": results,
        "options": {f.name: getattr(options, f.name) for f in fields(options)},
        "version": __version__,
        **wrote,
    }
    write_json(output.with_name(output.name + ".json"), record)
    return record


def judged_plane(resolved: Resolved, done: Restored, plane: int) -> list[dict[str, Any]]:
    """What the checks that need no truth and no search for sources say of one plane, as data."""
    from dataclasses import asdict

    import torch

    from sciresdiff import checks
    from sciresdiff.physics.operators import Operator

    frame, s = resolved.frame, resolved.scale
    low = frame.pixels[plane].astype(np.float64)
    operator = Operator(low.shape, s, resolved.kernel, resolved.quantity, torch.float64)
    evidence = checks.Evidence(
        done.mean.astype(np.float64),
        s,
        low=low,
        variance=resolved.variance[plane].astype(np.float64),
        mask_high=None,
        mask_low=frame.mask[plane],
        operator=operator,
        kind=frame.kind,
        quantity=resolved.quantity,
    )
    return [asdict(checks.judged(r, {})) for name in QUICK if (r := checks.CHECKS[name](evidence))]  # type: ignore[arg-type]


def quality(frame: Frame, scale: int) -> NDArray[np.int32]:
    """Data-quality bits on the fine grid: the file's own, else 1 for masked; 256 for saturated."""
    bits = frame.dq.copy() if frame.dq is not None else frame.mask.astype(np.int32)
    if frame.saturated is not None:
        bits = np.where(frame.saturated, bits | 256, bits)
    return np.asarray(finer(bits, scale), dtype=np.int32)


def provenance(options: UpscaleOptions, resolved: Resolved, done: list[Restored]) -> dict[str, Any]:
    """The header cards that say how the image came to be."""
    model = resolved.model
    steps = model.method.path(options.steps).T if model and model.method else None
    return {
        "SRDSCALE": resolved.scale,
        "SRDMODEL": resolved.name,
        "SRDHASH": model.hash if model else None,
        "SRDSEED": options.seed,
        "SRDDRAWS": done[0].draws_used,
        "SRDSTEPS": steps if done[0].draws_used and model else None,
        "SRDCONS": options.consistency,
        "SRDTFWHM": resolved.target_fwhm if resolved.target_fwhm is not None else "UNKNOWN",
        "SRDCHI2": round(float(np.mean([r.chi2 for r in done])), 6),
        "SRDFLUX": round(float(np.mean([r.flux_ratio for r in done])), 9),
    }


def history(options: UpscaleOptions, resolved: Resolved) -> list[str]:
    """HISTORY cards: version, model, what was assumed; no clock, host or path."""
    given = replace(options, device="auto", threads=None)
    words = {f.name: getattr(given, f.name) for f in fields(given) if getattr(given, f.name) != f.default}
    for name in ("variance", "mask", "model", "psf", "kernel"):
        if isinstance(words.get(name), str) and os.sep in words[name]:
            words[name] = os.path.basename(words[name])
    words.pop("overwrite", None)
    text = " ".join(f"{k}={v}" for k, v in sorted(words.items()))
    lines = [f"sciresdiff {__version__} upscale {text}".rstrip()]
    notes = [line for line in resolved.said if os.sep not in line]
    return lines + notes


def write_json(path: Path, record: dict[str, Any]) -> None:
    """Write JSON whole or not at all."""
    beside = path.with_name(path.name + ".part")
    beside.write_text(json.dumps(record, indent=1, sort_keys=True, default=str) + "\n")
    os.replace(beside, path)

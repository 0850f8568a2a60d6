"""Restoring files: settle what is needed, restore every plane, write the image and its record."""

from __future__ import annotations

import os
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff import __version__, io
from sciresdiff.errors import UsageError
from sciresdiff.frame import Frame
from sciresdiff.io.jsonable import write_json
from sciresdiff.jobs.batch import Progress, no_progress
from sciresdiff.jobs.draws import steps_taken
from sciresdiff.jobs.identity import checksums, known_by
from sciresdiff.jobs.options import UpscaleOptions
from sciresdiff.jobs.resolve import Resolved, resolve
from sciresdiff.jobs.trust import trusted

if TYPE_CHECKING:
    from sciresdiff.restore import Restored

__all__ = ["UpscaleOptions", "plan", "resolve", "run"]

QUICK = ("total_flux_ratio", "block_flux_rms_sigma", "chi2", "chi2_sources", "chi2_sky")
"""Checks that run on every output; ``evaluate`` has the others."""


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
    path: str | Path, output: str | Path, options: UpscaleOptions, progress: Progress = no_progress
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

    if Path(output).exists() and not options.overwrite:
        raise UsageError(f"--output: {output} exists; give --overwrite or another name")
    io.checked_output(output, options.dtype)
    if options.threads:
        torch.set_num_threads(options.threads)
    resolved = resolve(path, options)
    return write(path, Path(output), options, resolved, restored(resolved, options, progress))


def restored(resolved: Resolved, options: UpscaleOptions, progress: Progress = no_progress) -> list[Restored]:
    """Every plane of a frame, restored."""
    from sciresdiff.cascade import cascade
    from sciresdiff.model import device_of
    from sciresdiff.restore import Settings, restore

    names = {f.name for f in fields(Settings)} & {f.name for f in fields(options)}
    settings = Settings(**{n: getattr(options, n) for n in names}, keep_draws=options.save_samples)
    device = device_of(options.device)
    for model in (resolved.model, resolved.then):
        if model:
            model.to(device)
    frame = resolved.frame

    def one(i: int, plane: Frame) -> Restored:
        def tell(done: int, total: int, label: str) -> None:
            progress(i * total + done, total * frame.planes, label)

        seen = plane.pixels[0], resolved.variance[i], plane.mask[0], resolved.kernel
        if resolved.model and resolved.then:
            return cascade(*seen, resolved.quantity, (resolved.model, resolved.then), settings, device, tell)
        return restore(*seen, resolved.scale, resolved.quantity, resolved.model, settings, device, tell)

    return [one(i, plane) for i, plane in enumerate(frame)]


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
    trust = trusted(options, resolved, done)
    if trust.plane is not None:
        planes["TRUST"] = trust.plane
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
    cards = {**provenance(options, resolved, done), "SRDTRUST": trust.card}
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
        "said": [*resolved.said, *trust.said, *clipping(wrote["clipped"])],
        "chi2": [r.chi2 for r in done],
        "flux_ratio": [r.flux_ratio for r in done],
        "gated_share": [float(r.gate.mean()) for r in done],
        "masked": int(frame.mask.sum()),
        "provenance": cards,
        "checks": results,
        "options": {f.name: getattr(options, f.name) for f in fields(options)},
        "version": __version__,
        "identity": known_by(path, options),
        "checksums": checksums(wrote["files"]),
        **wrote,
    }
    try:
        write_json(output.with_name(output.name + ".json"), record)
    except BaseException:  # an image without its sidecar is half an output
        for file in wrote["files"]:
            Path(file).unlink(missing_ok=True)
        raise
    return record


def clipping(pixels: int) -> list[str]:
    """What the user is told of pixels that an integer type could not hold."""
    return (
        [f"dtype: {pixels} pixels are beyond the integer type and clipped; --dtype float32 keeps them"]
        if pixels
        else []
    )


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
    return [asdict(result) for result in checks.check(evidence, names=QUICK)]


def quality(frame: Frame, scale: int) -> NDArray[np.int32]:
    """Data-quality bits on the fine grid: the file's own, else 1 for masked; 256 for saturated."""
    bits = frame.dq.copy() if frame.dq is not None else frame.mask.astype(np.int32)
    if frame.saturated is not None:
        bits = np.where(frame.saturated, bits | 256, bits)
    return np.asarray(finer(bits, scale), dtype=np.int32)


def provenance(options: UpscaleOptions, resolved: Resolved, done: list[Restored]) -> dict[str, Any]:
    """The header cards that say how the image came to be."""
    model, then = resolved.model, resolved.then
    steps = steps_taken(model.method, options.steps) if model and model.method else None
    drawn = [m.method.name for m in (model, then) if m and m.method] if done[0].draws_used else []
    return {
        "SRDSCALE": resolved.scale,
        "SRDMODEL": resolved.name,
        "SRDHASH": model.hash if model else None,
        "SRDTHEN": f"{then.card.get('name')} {then.hash}" if then else None,
        "SRDMETH": ", then ".join(drawn) or None,
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
    for name in ("variance", "mask", "model", "then", "method", "psf", "kernel"):
        if isinstance(words.get(name), str) and os.sep in words[name]:
            words[name] = os.path.basename(words[name])
    words.pop("overwrite", None)
    text = " ".join(f"{k}={v}" for k, v in sorted(words.items()))
    lines = [f"sciresdiff {__version__} upscale {text}".rstrip()]
    notes = [line for line in resolved.said if os.sep not in line]
    return lines + notes

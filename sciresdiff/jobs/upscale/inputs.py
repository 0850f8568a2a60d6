"""What a restoration needs of one file: given, read from it, measured on it, or refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff import io
from sciresdiff.errors import InputError, UsageError
from sciresdiff.frame import Frame, PixelSize, Quantity
from sciresdiff.io.source import Source
from sciresdiff.jobs.upscale.models import models_of, stages
from sciresdiff.jobs.upscale.options import UpscaleOptions
from sciresdiff.jobs.upscale.sampling import check_steps, warn_codec
from sciresdiff.normalize import background
from sciresdiff.observation.noise import Noise, doubted, noise_of
from sciresdiff.observation.pixel_size import parse_pixel_size
from sciresdiff.observation.sample import Samples, refuse_empty, refuse_saturation, samples_of

if TYPE_CHECKING:
    from sciresdiff.restoration.model import Model


@dataclass(frozen=True)
class Resolved:
    """Everything that a restoration of one file needs, and where it came from."""

    frame: Frame
    """What the file says, without its values."""
    scale: int
    quantity: Quantity
    noise: Noise
    kernel: NDArray[np.float64] | None
    target_fwhm: float | None
    """Output px; None where only a kernel is known: the target is then whatever image the kernel speaks of."""
    model: Model | None
    name: str
    """Of the model, or ``physics``."""
    then: Model | None = None
    """The model that goes on where the first one ends; the scale is the product of both."""
    said: tuple[str, ...] = ()
    sources: dict[str, str] = field(default_factory=dict)
    """Where scale, quantity, noise and PSF came from."""


def resolve(path: str | Path, options: UpscaleOptions) -> Resolved:
    """Settle scale, quantity, noise, PSF and model of a file; see `settled`."""
    with io.opened(path, **reading(options)) as source:
        return settled(path, source, options)


def reading(options: UpscaleOptions) -> dict[str, Any]:
    """What `io.opened` is told."""
    names = ("variance", "mask", "axes", "quantity")
    return {**{name: getattr(options, name) for name in names}, "pixel_size": parse_pixel_size(options.pixel_size)}


def settled(path: str | Path, source: Source, options: UpscaleOptions) -> Resolved:
    """Settle scale, quantity, noise, PSF and model.

    Raises
    ------
    UsageError, InputError : what cannot be settled, and what to give.
    """
    frame, samples = source.frame, samples_of(source, options.saturation)
    refuse_empty(samples, frame.planes, str(path))
    refuse_saturation(samples, frame.planes, options.saturation)
    refuse_stack(path, frame, options)
    said: list[str] = list(frame.said)
    sources: dict[str, str] = {}
    quantity = quantity_of(frame, options, said, sources)
    scale, name, chosen = models_of(frame, options, said, sources)
    model, then = chosen
    said.extend(samples(0).said)
    noise = noise_of(frame, samples, options, said, sources)
    kernel, target = kernel_of(path, frame, samples, options, scale, said, sources)
    for stage, blur in stages(chosen, kernel):
        warn_kernel(stage, blur, stage.scale, said)
        check_steps(stage, options)
        warn_networks(stage, said)
        warn_codec(stage, options, said)
    warn_noise(model, frame, samples, noise, said)
    check_realism(options.realism, model, name, said)
    if model is None and not options.refine:
        said.append("ERR: without draws it is the scale that the physics assumes, before the data narrow it")
    noise = doubted(noise, frame, samples, sources["psf"], said)
    return Resolved(frame, scale, quantity, noise, kernel, target, model, name, then, tuple(said), sources)


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
    sources["quantity"] = "assumed"
    return frame.quantity_or_usual(None, said)


def kernel_of(
    path: str | Path,
    frame: Frame,
    samples: Samples,
    options: UpscaleOptions,
    scale: int,
    said: list[str],
    sources: dict[str, str],
) -> tuple[NDArray[np.float64] | None, float | None]:
    """The blur on the fine grid and the target's FWHM: --kernel, --psf, the file's kernel or PSF, else its sources."""
    from sciresdiff.physics import psf
    from sciresdiff.physics import sky as measure

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
    first = samples(0)
    variance = None if first.frame.variance is None else first.frame.variance[0]
    found, used, lines = measure.psf_from_sources(first.pixels, first.mask, variance, frame.kind)
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


def warn_kernel(model: Model | None, kernel: NDArray[np.float64] | None, scale: int, said: list[str]) -> None:
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


def warn_noise(model: Model | None, frame: Frame, samples: Samples, noise: Noise, said: list[str]) -> None:
    """Say when the noise grows with the light in another way than any that the model was trained on."""
    low, high = (model.card if model else {}).get("range", {}).get("photon", (0.0, np.inf))
    if (low, high) == (0.0, np.inf):
        return
    seen = ((samples(i), noise.over(samples(i), i)) for i in range(frame.planes))
    found = [s for one, v in seen if (s := photon_slope(one.pixels, v, one.mask)) is not None]
    if found and not low / 2 <= float(np.median(found)) <= 2 * high:
        said.append(
            f"WARNING noise: its variance grows by {float(np.median(found)):.2g} with the light (in units of the sky "
            f"noise), outside the {low:g}-{high:g} that the model was trained on; compare with --model physics"
        )


def warn_networks(model: Model | None, said: list[str]) -> None:
    """Say when a network's answer depends on the tiling."""
    if model is None:
        return
    refiner = model.refiner
    nets = [(model.prior.config.backbone, net) for net in model.prior.stages]
    nets += [(refiner.config.backbone, refiner.net)] if refiner else []
    if unlike := sorted({name for name, net in nets if not getattr(net, "tile_exact", True)}):
        said.append(
            f"WARNING tiles: {', '.join(unlike)} sees beyond a tile, so that another --tile gives another image; "
            "--tile 0 takes the frame, or a block of a large one, at once"
        )


def check_realism(realism: float | None, model: Model | None, name: str, said: list[str]) -> None:
    """Say what a realism other than the model's own means.

    Raises
    ------
    UsageError : outside 0..1, or a model without that knob.
    """
    if realism is None:
        return
    if not 0 <= realism <= 1:
        raise UsageError(f"--realism: {realism:g} is given, but 0 (a mean) to 1 (a likely image) is needed")
    if model is None or model.method is None or not model.method.has_knob:
        raise UsageError(f"--realism: the model {name} has no such knob; only a student that was taught with one has")
    if realism != 1:
        said.append(f"realism: {realism:g}; ERR was calibrated at 1 and is too small or too large here")


def photon_slope(pixels: NDArray[np.float32], variance: NDArray[np.float64], mask: NDArray[np.bool_]) -> float | None:
    """d(variance) / d(pixel value) in units of the sky noise, from pixels 30 sigma above the sky; None without such."""
    sky, _ = background(pixels, mask)
    sigma = float(np.sqrt(np.median(variance[~mask]))) if (~mask).any() else 0.0
    if not sigma > 0:
        return None
    light, noise = (pixels - sky) / sigma, variance / sigma**2
    bright = ~mask & np.isfinite(light) & (light > 30)
    return float(np.median((noise[bright] - 1) / light[bright])) if bright.sum() > 20 else None

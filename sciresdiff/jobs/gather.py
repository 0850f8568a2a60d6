"""The files that an evaluation looks at, read and brought together: image, data, truth, noise, blur and planes."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff import io
from sciresdiff.checks.evidence import Evidence
from sciresdiff.errors import InputError
from sciresdiff.frame import Frame, Kind, Quantity
from sciresdiff.io.files import split_spec
from sciresdiff.jobs import registration
from sciresdiff.jobs.again import Again, again_of
from sciresdiff.jobs.options import UpscaleOptions
from sciresdiff.jobs.resolve import kernel_of, stated_psf
from sciresdiff.jobs.sample import of_frame
from sciresdiff.jobs.upscale import finer
from sciresdiff.jobs.variance import doubted, noise_of, variance_of

PLANES = ("ERR", "SUPPORT", "TRUST")
"""Planes of an output that are judged, or judged by."""


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
    """ERR, SUPPORT and TRUST of the output, (planes, Y, X)."""
    draws: NDArray[np.float32] | None = None
    """(planes, K, Y, X)."""
    again: Again | None = None
    """Makes the image of other data, where the user wants probes."""
    target_fwhm: float | None = None
    registered: Mapping[str, Any] = field(default_factory=dict)
    """Of a truth by another instrument: zero points, PSFs and shift."""


@dataclass(frozen=True)
class Told:
    """What the user says of blur, noise and unit, and whether probes are wanted."""

    psf: str | None
    kernel: str | None
    target_fwhm: float | None
    variance: str | None
    quantity: Quantity | None
    probe: bool = False


def gather(high: str | Path, low: str | Path | None, truth: str | Path | None, told: Told, said: list[str]) -> Given:
    """Read the files, and settle scale, quantity, noise and blur.

    Raises
    ------
    InputError : files that do not fit each other, or that show different places of the sky.
    UsageError : probes without a sidecar.
    """
    image = io.read(high, quantity=told.quantity)
    note = sidecar(high, low)
    options = _options(note, told)
    data = None if low is None else io.read(low, variance=options.variance, mask=options.mask, axes=options.axes)
    scale = 1 if data is None else _scale(high, image, low, data)
    quantity = _quantity(told, note, data, image, said)
    true, registered = (None, {}) if truth is None else _truth(truth, image, high, scale, said)
    for name, other in ((low, data), (truth, true)):
        if name is not None and other is not None:
            refuse_elsewhere(high, image, name, other)
    say_odd({"image": image, "data": data, "truth": true}, said)
    noise = None if data is None else _variance(data, options, note, told, said)
    target = options.target_fwhm or note.get("target_fwhm_px")
    operator = None if data is None or low is None else _operator(low, data, options, scale, quantity, bool(note), said)
    planes = {name: plane for name in PLANES if (plane := beside(high, name, image)) is not None}
    again = again_of(high, low, note, scale, said) if told.probe else None
    draws = draws_beside(high, image)
    return Given(image, data, true, scale, quantity, noise, operator, planes, draws, again, target, registered)


def _truth(
    truth: str | Path, image: Frame, high: str | Path, scale: int, said: list[str]
) -> tuple[Frame | None, dict[str, Any]]:
    """The truth on the image's pixels; of one by another instrument, on other pixels, how the two are registered."""
    true = io.read(truth)
    if registration.other_grid(image, true):
        said.append(f"WARNING truth: {truth} has pixels of another size: it is registered, and nothing is scored by it")
        return None, registration.measured(image, true, said)
    return _cropped(true, truth, image, high, scale, said), {}


def refuse_elsewhere(high: str | Path, image: Frame, name: str | Path, other: Frame) -> None:
    """Two frames of which the header says that they show different places.

    Raises
    ------
    InputError : the centres are farther apart than the image's diagonal.
    """
    headers = [_sky_header(frame) for frame in (image, other)]
    if None in headers:
        return
    try:
        apart, size = _apart(headers, image, other)
    except Exception:  # a WCS that astropy cannot use says nothing of the place
        return
    if apart > size:
        raise InputError(
            f"{name}: its centre is {apart:.4g} degrees from that of {high}, whose diagonal is {size:.4g}, by their "
            "WCS; give the file of the same field"
        )


def _sky_header(frame: Frame) -> Any:
    """The header of a frame with celestial coordinates, else None."""
    from sciresdiff.io.wcs import has_wcs

    header = getattr(frame.header, "image", None)
    return header if header is not None and has_wcs(header) else None


def _apart(headers: list[Any], image: Frame, other: Frame) -> tuple[float, float]:
    """Distance between the centres of two frames and the diagonal of the first, degrees."""
    from astropy.wcs import WCS

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what astropy mends in a header
        first, second = (WCS(header, naxis=2) for header in headers)
        (h, w), (k, m) = image.pixels.shape[1:], other.pixels.shape[1:]
        centre, there = first.pixel_to_world((w - 1) / 2, (h - 1) / 2), second.pixel_to_world((m - 1) / 2, (k - 1) / 2)
        corner = first.pixel_to_world(-0.5, -0.5)
        return float(centre.separation(there).deg), 2 * float(centre.separation(corner).deg)


def say_odd(frames: Mapping[str, Frame | None], said: list[str]) -> None:
    """Note planes that are all masked or constant, and a truth without light above zero."""
    for name, frame in frames.items():
        for i in range(0 if frame is None else frame.planes):
            assert frame is not None
            values = frame.pixels[i][~frame.mask[i] & np.isfinite(frame.pixels[i])]
            where = f"{name}, plane {i}" if frame.planes > 1 else name
            if not values.size:
                said.append(f"WARNING {where}: every pixel is masked; nothing of it is judged")
            elif np.ptp(values) == 0:
                said.append(f"WARNING {where}: constant ({values[0]:g}); most checks have nothing to measure")
            elif name == "truth" and values.mean(dtype=np.float64) < 0:
                said.append(
                    f"WARNING {where}: its mean is negative ({values.mean():.4g}); fluxes are above the sky only"
                )


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


def _options(note: Mapping[str, Any], told: Told) -> UpscaleOptions:
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


def _quantity(told: Told, note: Mapping[str, Any], data: Frame | None, image: Frame, said: list[str]) -> Quantity:
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


def _variance(
    data: Frame, options: UpscaleOptions, note: Mapping[str, Any], told: Told, said: list[str]
) -> NDArray[np.floating[Any]] | None:
    """The data's variance: as the restoration took it where there is a note, else the plane as it is, else measured."""
    if not note and data.variance is not None and (options.variance or options.gain is None):
        return data.variance
    try:
        samples = of_frame(data)
        found = noise_of(data, samples, options, said, {})
    except InputError as problem:
        said.append(f"{problem}; checks in units of the noise are left out")
        return None
    source = "" if told.psf or told.kernel else str(note.get("sources", {}).get("psf", ""))
    return variance_of(data, doubted(found, data, samples, source, said))


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
    kernel, _ = kernel_of(low, data, of_frame(data), options, scale, said, {})
    return Operator(shape, scale, kernel, quantity, dtype=torch.float64)


def beside(high: str | Path, name: str, image: Frame) -> NDArray[np.float64] | None:
    """A plane of the output, (planes, Y, X): an extension, or for TIFF a file beside it; None where there is none."""
    found = _read_beside(high, name)
    return found if found is not None and found.shape == image.pixels.shape else None


def _read_beside(high: str | Path, name: str) -> NDArray[np.float64] | None:
    """What is written of that name, (n, Y, X); None where there is nothing."""
    file = split_spec(high)[0]
    tiff = file.with_name(f"{io.stem(file)}_{name.lower()}.tif")
    try:
        found = io.read_image(tiff if io.format_of(file) == "tiff" else f"{file}[{name}]")
    except InputError:
        return None
    return found.reshape(-1, *found.shape[-2:])


def draws_beside(high: str | Path, image: Frame) -> NDArray[np.float32] | None:
    """DRAWS of the output, (planes, K, Y, X), or None."""
    found = _read_beside(high, "DRAWS")
    count, (h, w) = image.planes, image.pixels.shape[1:]
    if found is None or found.shape[-2:] != (h, w) or not found.size or len(found) % count:
        return None
    return found.astype(np.float32).reshape(count, -1, h, w)


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
        trust=cut(given.planes.get("TRUST")),
        draws=None if given.draws is None else given.draws[plane],  # type: ignore[arg-type]
        again=None if given.again is None else partial(given.again, plane),
        kind=kind_of(given),
        quantity=given.quantity,
        target_fwhm_px=given.target_fwhm,
    )

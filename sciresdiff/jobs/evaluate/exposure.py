"""One exposure held against an image that was made of several: chi2 on the exposure's own pixels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sciresdiff import io
from sciresdiff.checks.consistency import chi2_of
from sciresdiff.checks.result import Result
from sciresdiff.errors import InputError
from sciresdiff.io.files import split_spec
from sciresdiff.io.source import Source
from sciresdiff.jobs.evaluate.options import EvaluateOptions
from sciresdiff.jobs.evaluate.sidecar import Sidecar, read_record, recorded_options
from sciresdiff.jobs.upscale.options import UpscaleOptions, of_exposures
from sciresdiff.notes import Notes
from sciresdiff.observation.flux_scale import choose_scale, stated_ratio, stated_scales
from sciresdiff.observation.joint import Joint, JointWindow, Part
from sciresdiff.observation.resolve_joint import Given, resolve_joint, without_outliers
from sciresdiff.observation.screening import reading_options
from sciresdiff.physics.sky import estimate_sky
from sciresdiff.region import Region
from sciresdiff.restoration.cosmic_rays import without_cosmic_rays
from sciresdiff.restoration.joint import core_mask
from sciresdiff.tiling import Tile

SIDE, HALO = 768, 48
"""Side of the parts of an image that are looked at, and what is read around them, px."""
EDGE = 16
"""Px at the border of an image whose light comes in part from beyond it, and is not known: nothing is judged there."""
TOUCHED = 1e-3
"""Part of a pixel's light that may come from where the image is not known."""


@dataclass(frozen=True)
class JudgedExposure:
    """What an exposure says of an image."""

    path: str
    results: tuple[Result, ...]
    notes: Notes


def judge_exposure(high: str | Path, low: str | Path, options: EvaluateOptions) -> JudgedExposure | None:
    """Hold an exposure against an image that was made of several; None for an image that was not.

    The image is seen through the exposure's PSF and on its own pixels, by the WCS of both, on a sky level that is
    fitted.

    Parameters
    ----------
    high : the image, FITS.
    low : the exposure, of those that the image was made of or not.
    options : what is stated of the exposure; else it is what was stated when the image was made.

    Raises
    ------
    InputError : no WCS, exposures whose places were measured, no pixel in common, units that contradict each other, an
        image that was widened.
    """
    with ExitStack() as stack:
        image = stack.enter_context(io.open_source(high, quantity=options.quantity))
        header = getattr(image.frame.header, "image", None)
        if header is None or "SRDNEXP" not in header:
            return None
        record = read_record(high)
        if header.get("SRDWIDEN") and record.get("options", {}).get("match_psf"):
            raise InputError(
                f"--low: {high} was widened (--match-psf, SRDWIDEN) after it was held to its data, which it no longer "
                "predicts; its chi2 before that stands in SRDCHI2 and in the sidecar"
            )
        if record.get("options", {}).get("align") == "measure":
            raise InputError(
                f"--low: the places of the exposures of {high} were measured (--align measure), and their WCS is not "
                "where they lie; chi2 of every exposure stands in the sidecar"
            )
        grid = header.copy()
        grid["NAXIS1"], grid["NAXIS2"] = image.frame.pixels.shape[-1], image.frame.pixels.shape[-2]
        joint, notes = place_exposure(stack, image, grid, record, str(low), options)
        squares, residuals, weights, pixels = np.sum([sums_of(w, x) for w, x in parts_of(joint, image)], axis=0)
    if not pixels:
        raise InputError(f"--low: no valid pixel of {low} lies {EDGE} px or more inside {high}")
    used = Path(low).name[:60] in [header[card] for card in header if card.startswith("SRDEXP")]
    squares -= residuals**2 / weights  # on the best level of the sky
    found = chi2_of({"squares": squares, "pixels": pixels}, "chi2", "all", image.frame.kind)
    assert found is not None
    meaning = f"mean of ((data - image seen by {Path(low).name}) / sigma)^2 over {int(pixels)} px of it"
    if used:
        found = replace(found, meaning=f"{meaning}; below 1 the noise is fitted")
    else:
        found = replace(found, limit=None, meaning=f"{meaning}, which the image was not made of; 1 if it knew all")
    return JudgedExposure(str(low), (found,), notes)


def place_exposure(
    stack: ExitStack, image: Source, grid: Any, record: Mapping[str, Any], low: str, options: EvaluateOptions
) -> tuple[Joint, Notes]:
    """The measurement of an image by one exposure, whose cosmic rays are known by the exposures that the image is of.

    Parameters
    ----------
    stack : closes the files.
    image, grid, record : the image, its header and its sidecar.
    low, options : the exposure, and what is stated of it; where the image's sidecar knows it, what was stated there
        holds too.
    """
    each, notes = options_of_exposures(record), Notes()
    others, own = find_others(each, low), options.stated
    if not others:
        notes += Notes(f"cosmic rays: {low}: the other exposures of the image are not at hand; those in it count")
    for path, recorded in each:
        if Path(path).name == Path(low).name:
            own = Sidecar({"options": asdict(recorded)}).merge(own)
    target = options.target_fwhm or record.get("target_fwhm_px")
    given = []
    for path, stated in [*others, (low, own)]:
        stated = replace(stated, target_fwhm=target)
        source = stack.enter_context(io.open_source(path, **reading_options(stated)))
        given.append(Given(path, source, stated, Path(path).name))
    joint = resolve_joint(given, 1.0, grid)
    if options.cosmic:
        joint = without_cosmic_rays(without_outliers(joint))
    name, notes = given[-1].name, notes + joint.notes
    # those of the others were said when the image was made; a flux is held to the image's below
    notes = Notes(*(line for line in notes if name in line and "flux: " not in line))
    part, first = joint.parts[-1], given[-1].source.frame
    ratio = stated_ratio(stated_scales(image.frame.unit, image.frame.facts), stated_scales(first.unit, first.facts))
    factor, _ = choose_scale(name, ratio, None, "not measured")
    assert ratio is not None  # else it is refused
    notes += Notes(f"flux: {name}: {factor:.5g} times the image's ({ratio[1]})")
    return in_units_of(joint, replace(part, factor=factor), image), notes


def options_of_exposures(record: Mapping[str, Any]) -> list[tuple[str, UpscaleOptions]]:
    """The files that were given for an image, and what was stated of each; none without a record."""
    paths = [str(path) for path in record.get("inputs", ())]
    return list(zip(paths, of_exposures(recorded_options(record), len(paths)), strict=True)) if paths else []


def find_others(each: Sequence[tuple[str, UpscaleOptions]], low: str) -> list[tuple[str, UpscaleOptions]]:
    """Those of an image's exposures that are not ``low``; none where a file is not there."""
    if not all(split_spec(path)[0].is_file() for path, _ in each):
        return []
    return [(path, stated) for path, stated in each if Path(path).name != Path(low).name]


def in_units_of(joint: Joint, part: Part, image: Source) -> Joint:
    """The measurement by one exposure alone, in the unit of an image and on its sky."""
    h, w = joint.grid.shape
    y, x = max((h - SIDE) // 2, 0), max((w - SIDE) // 2, 0)
    seen = image.window(0, Region(y, min(y + SIDE, h), x, min(x + SIDE, w)))
    sky, _ = estimate_sky(seen.pixels[0], seen.mask[0])
    return replace(joint, parts=[part], sky=float(sky) * joint.per_fine, sigma=part.sigma / part.factor)


def parts_of(joint: Joint, image: Source) -> Iterator[tuple[JointWindow, NDArray[np.floating]]]:
    """The image part by part, with what the exposure has there."""
    h, w = joint.grid.shape
    for y in range(EDGE, h - EDGE, SIDE):
        for x in range(EDGE, w - EDGE, SIDE):
            core = Region(y, min(y + SIDE, h - EDGE), x, min(x + SIDE, w - EDGE))
            tile = Tile(core, core.grown(HALO, (h, w)))
            window = joint.window(tile)
            if window.members and window.valid[0].any():
                frame = image.window(0, tile.window)
                yield window, np.where(frame.mask[0], np.nan, frame.pixels[0])


@torch.inference_mode()
def sums_of(window: JointWindow, image: NDArray[np.floating]) -> tuple[float, float, float, float]:
    """Sums of r^2 / N, r / N and 1 / N over the pixels of an exposure in the core of a window, and their number.

    Parameters
    ----------
    window : with one exposure.
    image : (Y, X) of the window; NaN where it is not known.
    """
    data, unknown = window.data(), ~np.isfinite(image)
    units = window.joint.units
    x = units.noise_units(np.where(unknown, units.sky / units.per_fine, image), data.y)
    data = data.renew_noise(x)
    touched = data.operator.apply(torch.from_numpy(unknown[None, None].astype(np.float32))) > TOUCHED * units.scale**2
    counted = core_mask(window, data) * ~touched
    left, weight = data.residual(x).double(), (counted / data.noise).double()
    return (
        float((left.square() * weight).sum()),
        float((left * weight).sum()),
        float(weight.sum()),
        float(counted.sum()),
    )

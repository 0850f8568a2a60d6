"""An image as it is measured and restored: without the pixels that are no data, which are counted aloud."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.frame import Frame
from sciresdiff.io import open_files
from sciresdiff.io import quality_bits as bits
from sciresdiff.io.quality_bits import Kind
from sciresdiff.io.source import Source
from sciresdiff.notes import Notes
from sciresdiff.observation.defects import Defects, believed_sharpness, count_objects, find_defects, masked_source
from sciresdiff.observation.noise import Noise
from sciresdiff.observation.options import Stated
from sciresdiff.observation.peaks import ANY_PSF, UNDERSAMPLED, least_neighbour, with_stated
from sciresdiff.observation.pixel_size import parse_pixel_size
from sciresdiff.observation.plane_defects import LEVELS, PlaneDefects
from sciresdiff.observation.sample import Samples, mask_saturated, samples_of_source
from sciresdiff.physics.psf.field import PSF
from sciresdiff.region import Region


def reading_options(stated: Stated) -> dict[str, Any]:
    """The keywords of `sciresdiff.io.open_source` that follow from what is stated."""
    names = ("variance", "mask", "axes", "quantity", "saturated")
    known = {**{name: getattr(stated, name) for name in names}, "pixel_size": parse_pixel_size(stated.pixel_size)}
    return {**known, "outside": True} if stated.allow_outside else known


@dataclass(frozen=True)
class Screened:
    """An open image, what is no data in it, and the samples of its planes without that."""

    source: Source
    """As it is in the file."""
    defects: Defects
    samples: Samples


def screen(source: Source, stated: Stated) -> Screened:
    """Find what is no data in an image, as far as it shows before the PSF is known.

    Parameters
    ----------
    source : the image, open.
    stated : which kinds are looked for.
    """
    defects = find_defects(source, stated)
    return Screened(source, defects, samples_of_source(masked_source(source, defects, stated.saturation)))


def screen_with_psf(
    found: Screened, stated: Stated, psfs: Sequence[PSF | None], scale: int, noise: Noise | None = None
) -> tuple[Screened, Notes]:
    """The same where PSF and noise are known, which peaks of a pixel are held against; and what was masked, by kinds.

    Parameters
    ----------
    found : without the PSF.
    stated : as for `screen`.
    psfs : on the output grid, one or one of each plane; None for integration over the pixel alone.
    scale : output pixels per pixel of the image and axis.
    noise : of the image, where it is known; one that was measured on the sky says nothing of light.
    """
    if noise is not None and (noise.depends_on_signal or not noise.detectors):
        found = replace(found, defects=_with_noise(found, noise.limited(0)))
    defects, notes = found.defects, Notes()
    if defects.peaks or defects.holes:
        least, notes = _sharpness(found, psfs, scale)
        defects = replace(defects, least=max(least, ANY_PSF))
    samples = samples_of_source(masked_source(found.source, defects, stated.saturation))
    return Screened(found.source, defects, samples), notes + describe_defects(defects, samples)


def _with_noise(found: Screened, noise: Noise) -> Defects:
    """What is no data, where the noise of light is stated."""
    planes = []
    for number, one in enumerate(found.defects.planes):
        if one.noise is not None:
            sample = found.samples(number)
            variance = noise.variance_of_sample(sample, number)
            one = replace(one, noise=with_stated(one.noise, sample.pixels, sample.mask, variance))
        planes.append(one)
    return replace(found.defects, planes=tuple(planes))


def _sharpness(found: Screened, psfs: Sequence[PSF | None], scale: int) -> tuple[float, Notes]:
    """T of `peaks.least_neighbour` that the frame bears out, and a line where it is not the PSF's."""
    stated = min(least_neighbour(psf, scale) for psf in psfs)
    if stated < UNDERSAMPLED:
        if not any(one.noise for one in found.defects.planes):
            return 0.0, Notes()
        return 0.0, Notes(
            "cosmic rays: the PSF is too narrow to tell them from stars; only peaks sharper than any star are masked"
        )
    least = believed_sharpness(found.samples, found.defects, stated)
    if least == stated:
        return stated, Notes()
    return least, Notes(
        "cosmic rays: more sources than chance are sharper than the PSF allows, so that it may be too wide; only those "
        "still sharper are masked"
    )


def read_window(path: str, stated: Stated, defects: Defects, plane: int, region: Region) -> Frame:
    """A window of a file, with what is stated of it; pixels that are no data masked.

    A function of its arguments, so that an observation of a file pickles and any process reads the same.

    Parameters
    ----------
    path : of the file.
    stated : which planes are its noise and mask, and from which value a pixel is saturated.
    defects : what is no data in its planes.
    plane, region : what is read.
    """

    def read(wide: Region) -> Frame:
        frame = open_files.window(path, plane, wide, **reading_options(stated))
        return mask_saturated(frame, stated.saturation)

    return defects.window(read, plane, region)


def observed_source(path: str | None, found: Screened, stated: Stated) -> Source:
    """The image of an observation, whose windows are without what is no data; of a file it pickles.

    Parameters
    ----------
    path : of the file; None for an image in memory.
    found : `screen_with_psf`.
    stated : as for `screen`.
    """
    if path is None:
        return masked_source(found.source, found.defects, stated.saturation)
    return Source(found.source.frame, partial(read_window, path, stated, found.defects), path)


def describe_defects(defects: Defects, samples: Samples) -> Notes:
    """A line for every kind of pixels that is masked: how many, of what value, their bit, and what keeps them.

    Parameters
    ----------
    defects : of the planes.
    samples : of the planes, masked.
    """
    pixels, objects = dict.fromkeys(bits.KINDS, 0), dict.fromkeys(bits.KINDS, 0)
    looked, constant = 0, [number for number, one in enumerate(defects.planes) if one.constant]
    for number, one in enumerate(defects.planes):
        if number in constant:
            continue
        frame = samples(number).frame
        assert frame.flags is not None
        looked += frame.pixels[0].size
        for kind, count in zip(LEVELS, one.counts, strict=True):  # other saturation is told by who knows it
            pixels[kind] += count
        objects[bits.SATURATED] += one.sources
        for kind in (kind for kind in bits.KINDS if kind not in LEVELS):
            mask = bits.where(frame.flags[0], kind)
            pixels[kind] += int(mask.sum())
            objects[kind] += count_objects(mask) if mask.any() else 0
    whole = looked == (len(defects.planes) - len(constant)) * defects.shape[0] * defects.shape[1]
    among = {kind: "" if whole or kind in LEVELS else f" of {looked} that were looked at" for kind in bits.KINDS}
    lines = [_line(kind, pixels[kind], objects[kind], among[kind], defects) for kind in bits.KINDS if pixels[kind]]
    if any(one.unweighted_count for one in defects.planes):
        lines.append(_unweighted(defects.planes))
    if constant:
        lines.append(_constant_planes(constant, len(defects.planes)))
    return Notes(*lines)


def _line(kind: Kind, pixels: int, objects: int, among: str, defects: Defects) -> str:
    """What is said of a kind."""
    some = f"{pixels} pixel{'s' if pixels > 1 else ''}{among}"
    what = {
        bits.BLANK: "without a value (NaN or BLANK)",
        bits.SENTINEL: f"of {_values(v for one in defects.planes for v in one.sentinels)}, far outside of all others,",
        bits.PADDING: f"of {_values(p.value for one in defects.planes for p in one.padding)} in borders and blocks",
        bits.ABSURD: f"beyond {min(one.absurd for one in defects.planes):.2g}",
        bits.SATURATED: f"in {objects} source{'s' if objects > 1 else ''} cut flat at "
        f"{_values(one.saturation for one in defects.planes)}",
        bits.HOT: f"in {objects} place{'s' if objects > 1 else ''}, hot or dead,",
        bits.COSMIC: f"in {objects} hit{'s' if objects > 1 else ''}, sharper than the PSF allows,",
    }[kind]
    keeps = f"; {kind.option} keeps {'them' if pixels > 1 else 'it'}" if kind.option else ""
    return f"{kind.name}: {some} {what} masked (DQ {kind.bit}){keeps}"


def _unweighted(planes: Sequence[PlaneDefects]) -> str:
    """The line about pixels whose stated noise is beyond that of all others."""
    count, least = sum(one.unweighted_count for one in planes), min(one.unweighted for one in planes)
    some = f"{count} pixel{'s' if count > 1 else ''}"
    what = f"whose stated noise is {least**0.5:.2g} or more, far above all others,"
    keeps = f"{bits.ABSURD.option} keeps {'them' if count > 1 else 'it'}"
    return f"{bits.ABSURD.name}: {some} {what} masked (DQ {bits.ABSURD.bit}); {keeps}"


def _values(found: Any) -> str:
    """Up to three finite numbers, and whether there are more."""
    numbers: NDArray[np.float64] = np.unique([v for v in found if np.isfinite(v)])
    return " or ".join(f"{v:.7g}" for v in numbers[:3]) + (" ..." if len(numbers) > 3 else "")


def _constant_planes(constant: list[int], planes: int) -> str:
    """The line about planes without a picture."""
    few = ", ".join(map(str, constant[:5])) + (" ..." if len(constant) > 5 else "")
    which = f"plane {few} of {planes} is" if len(constant) == 1 else f"{len(constant)} of {planes} planes ({few}) are"
    return f"padding: {which} constant, and passed through without ERR (DQ {bits.PADDING.bit})"

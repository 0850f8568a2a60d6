"""``sciresdiff.restore``: an image on a finer grid, with its error and what of it the data fix."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy.nddata import CCDData, StdDevUncertainty
from numpy.typing import NDArray

from sciresdiff import io
from sciresdiff.api.image import (
    Array,
    Image,
    Plane,
    header_on_grid,
    is_name,
    kernel_of,
    make_options,
    open_image,
    psf_of,
    squeeze,
    warn_of,
)
from sciresdiff.errors import CheckFailed, ResourceError, UsageError
from sciresdiff.frame import Frame, Kind, PixelSize
from sciresdiff.io.dtypes import parse_dtype
from sciresdiff.jobs.upscale.block import Done, Job, count_draws
from sciresdiff.jobs.upscale.header import history, provenance
from sciresdiff.jobs.upscale.inputs import Inputs, resolve_observation, resolve_source
from sciresdiff.jobs.upscale.job import Task, prepare
from sciresdiff.jobs.upscale.options import UpscaleOptions
from sciresdiff.jobs.upscale.piece import read_piece, restore_piece
from sciresdiff.notes import Notes
from sciresdiff.observation.observation import Observation
from sciresdiff.observation.options import Stated
from sciresdiff.observation.sample import samples_of_source
from sciresdiff.observation.screening import reading_options
from sciresdiff.physics.psf.field import PSF

BYTES = 21
"""Of a restored pixel: SCI, ERR, SUPPORT, GATE and DQ in four each, and TRUST."""
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, eq=False)
class Restored:
    """A restored image; arrays (s*h, s*w), or (planes, s*h, s*w) of an image of several planes."""

    sci: NDArray[np.float32]
    """Mean of the posterior samples, in the unit of the input."""
    err: NDArray[np.float32]
    """Standard deviation of the posterior, per pixel; **errors of neighbouring pixels are correlated**: measure the
    error of a sum on ``draws``."""
    support: NDArray[np.float32]
    """0..1, fraction of the structure that is constrained by the data."""
    gate: NDArray[np.float32]
    """0..1, weight of the physics-only estimate."""
    dq: NDArray[np.int32]
    """Data quality: the input's flags, 1 where it was masked, 256 where saturated."""
    trust: NDArray[np.uint8] | None
    """1 where claimed structure may be believed, at the risk that ``notes`` states; None where nothing is promised."""
    draws: NDArray[np.float32] | None
    """(K, s*h, s*w), or (planes, K, s*h, s*w): the posterior samples, where ``save_samples`` asked for them."""
    chi2: tuple[float, ...]
    """Of every plane: of the image, measured again, against the data."""
    flux_ratio: tuple[float, ...]
    """Of every plane: total of the image over that of the data."""
    observation: Observation
    """What it was restored from."""
    notes: Notes
    """What was read, measured, assumed and warned of; ``notes.origins`` says where each setting came from."""
    cards: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The header cards that say how it came to be."""
    history: tuple[str, ...] = field(default=(), repr=False)
    """HISTORY cards."""

    @property
    def scale(self) -> int:
        """Output pixels per input pixel and axis."""
        return self.observation.scale

    @property
    def frame(self) -> Frame:
        """The image as a frame, with unit, pixel size and header of the output grid."""
        frame = self.observation.exposure.image.frame
        stack = self.sci.reshape(-1, *self.sci.shape[-2:])
        shape = tuple(self.scale * n if axis in "YX" else n for axis, n in zip(frame.axes, frame.shape, strict=True))
        size = frame.pixel_size.refine(self.scale) if frame.pixel_size else None
        return frame.with_(
            pixels=stack, mask=~np.isfinite(stack), variance=None, dq=None, saturated=None, kernel=None,
            kernel_scale=None, quantity=self.observation.quantity, pixel_size=size, shape=shape,
            header=header_on_grid(frame.header, self.scale, self.observation.quantity),
        )  # fmt: skip

    def write(
        self, path: str | Path, *, overwrite: bool = False, dtype: str | None = None, pyramid: bool = False
    ) -> list[Path]:
        """Write the image and its planes, as ``sciresdiff upscale`` does, but without a sidecar.

        Parameters
        ----------
        path : its ending says the format: .fits, .tif, .ome.tif, .ome.zarr, .h5.
        overwrite : replace a file that exists.
        dtype : of the pixels; float32 for FITS, the input's for TIFF.
        pyramid : smaller copies to look at, in .ome.tif and .ome.zarr.

        Returns
        -------
        The files that were written.

        Raises
        ------
        UsageError : a file that exists, or a format that is not written.
        """
        if dtype is not None:
            parse_dtype(dtype)
        named = {"ERR": self.err, "SUPPORT": self.support, "GATE": self.gate, "DQ": self.dq, "TRUST": self.trust}
        height, width = self.sci.shape[-2:]
        planes = {name: p.reshape(-1, height, width) for name, p in named.items() if p is not None}
        if self.draws is not None:
            planes["DRAWS"] = self.draws.reshape(-1, height, width)
        source = self.observation.exposure.image.frame
        whole = self.frame.with_(header=source.header)  # the writer scales it
        whole = whole if source.header is None else whole.with_(pixel_size=source.pixel_size)
        wrote = io.write(path, whole, planes=planes, provenance=self.cards, history=self.history, scale=self.scale,
                         overwrite=overwrite, dtype=dtype, pyramid=pyramid)  # fmt: skip
        return [Path(file) for file in wrote["files"]]

    def to_ccddata(self) -> CCDData:
        """An image of one plane as astropy's ``CCDData``: ``err`` as its uncertainty, ``dq`` above 0 as its mask.

        Raises
        ------
        InputError : an image of several planes.
        """
        ccd = self.frame.to_ccddata()
        ccd.uncertainty = StdDevUncertainty(self.err)
        ccd.mask = self.dq > 0
        ccd.meta.update(self.cards)
        return ccd


def restore(
    image: Image | Observation,
    scale: int | None = None,
    *,
    psf: str | Path | Array | None = None,
    kernel: str | Path | Array | PSF | None = None,
    variance: Plane | None = None,
    mask: Plane | None = None,
    model: str | Path | None = None,
    samples: int = 8,
    save_samples: bool = False,
    kind: Kind = "astro",
    unit: str | None = None,
    pixel_size: PixelSize | str | None = None,
    options: UpscaleOptions | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Restored:
    """Restore an image on a grid ``scale`` times finer.

    Missing settings are read from the image's metadata or measured on it, and noted.

    Parameters
    ----------
    image : (h, w) or (planes, h, w) array in any linear unit, a file, a `Frame`, or astropy's ``NDData`` or
        ``CCDData``, whose header and WCS are kept; or an `Observation`, which states PSF, noise, mask and scale itself.
    scale : output pixels per input pixel and axis; by default the file's or the model's, else 2.
    psf : the image's whole PSF: a SPEC such as ``gaussian:fwhm=2.1px``, or an image of it (Y, X) on the input's grid.
    kernel : the blur between the wanted image and this one, on the output grid: a SPEC, an array (K, L), or a `PSF`
        that changes over the field; wins over ``psf``. An array is normalised to sum 1.
    variance : of the noise, unit**2, the image's shape or one number; for a file also the name of an extension or
        a file.
    mask : True where a pixel carries no information; likewise.
    model : a shipped model, a file, or ``physics``; by default by ``kind`` and ``scale``.
    samples : posterior samples that are drawn.
    save_samples : whether they are returned.
    kind : ``astro`` or ``micro``, of an image that is no file: which shipped model suits it.
    unit : of an array.
    pixel_size : of an array; may be a text such as ``0.11um``.
    options : further options; those that are given by name win.
    progress : told (done, total, what) between the steps.
    settings : any other option of ``sciresdiff upscale`` by its name in Python, for instance ``gain=2.0``,
        ``read_noise=5.0``, ``quantity="sum"``, ``refine=False``, ``seed=3``.

    Returns
    -------
    Restored

    Raises
    ------
    UsageError, InputError : the sentences of the command line: an option that does not fit, a file that cannot be read,
        noise or PSF that are not known and cannot be measured.

    Warns
    -----
    SciresdiffWarning : a setting outside of what the model was trained on.

    Examples
    --------
    >>> restored = sciresdiff.restore(image, scale=2, psf="gaussian:fwhm=2.5px", variance=variance)
    >>> restored.sci, restored.err, restored.notes.lines
    """
    by_name = {"scale": scale, "model": model, "samples": samples, "save_samples": save_samples, **settings}
    given = {"psf": psf, "kernel": kernel, "variance": variance, "mask": mask}
    by_name |= {name: value for name, value in given.items() if is_name(value)}
    if isinstance(pixel_size, str):
        by_name["pixel_size"] = pixel_size
    chosen = make_options(UpscaleOptions, options, {n: v for n, v in by_name.items() if v is not None})
    reading = reading_options(chosen)
    told = progress or (lambda done, total, label: None)
    if isinstance(image, Observation):
        beside = {"psf": psf, "kernel": kernel, "variance": variance, "mask": mask, "unit": unit}
        refuse_restatement(image, chosen, {**beside, "pixel_size": pixel_size})
        chosen = replace(chosen, scale=image.scale)
        return restore_inputs(resolve_observation(image, chosen), chosen, told)
    size = reading["pixel_size"] if isinstance(pixel_size, str) or pixel_size is None else pixel_size
    image_of_psf, blur = (None if is_name(psf) else psf_of(psf)), (None if is_name(kernel) else kernel_of(kernel))
    with open_image(image, kind, variance=variance, mask=mask, unit=unit, pixel_size=size, reading=reading) as (
        path,
        source,
    ):
        inputs = resolve_source(path, source, chosen, image_of_psf, blur)
        return restore_inputs(inputs, chosen, told)


def refuse_restatement(observation: Observation, options: UpscaleOptions, beside: Mapping[str, Any]) -> None:
    """Refuse what is stated of a measurement beside an observation, which states it itself.

    Parameters
    ----------
    observation : what is restored.
    options : of the restoration.
    beside : arguments by name; None where not given.

    Raises
    ------
    UsageError
    """
    stated = {f.name: getattr(options, f.name) for f in fields(Stated) if getattr(options, f.name) != f.default}
    for name in (name for name, value in {**stated, **beside}.items() if value is not None):
        raise UsageError(f"{name}: given beside an Observation, which has its own; leave it out, or give the image")
    if options.scale not in (None, observation.scale):
        raise UsageError(
            f"scale: {options.scale} is given, but the Observation's output grid has {observation.scale} pixels per "
            "pixel and axis; leave it out"
        )


def restore_inputs(inputs: Inputs, options: UpscaleOptions, progress: Progress) -> Restored:
    """Restore an image whose inputs are resolved, block by block, into memory.

    Parameters
    ----------
    inputs : with the source of the image open.
    options : of the restoration.
    progress : told (done, total, what).

    Raises
    ------
    ResourceError : planes that are larger than the memory.
    """
    refuse_size(inputs, options.samples if options.save_samples else 0)
    samples = samples_of_source(inputs.observation.exposure.image)
    inputs, blocks, marker = prepare(inputs, samples, options)
    job = Job("", options, inputs, marker)
    task = Task(Path(), inputs, job, blocks, {})
    done: list[Done] = []
    for block in blocks:
        done.append(restore_piece(job, block, read_piece(job, block)))
        progress(len(done), len(blocks), "blocks")
    sums = [block.sums for block in done]
    verdict, found, last = task.verdict(sums, written=False), task.planes(sums), task.guard(sums)
    if options.strict and last.names:
        raise CheckFailed(f"strict: outside its limits: {', '.join(last.names)}; {'; '.join(last.notes)}")
    arrays = assemble(done, inputs)
    if "TRUST" in arrays:
        arrays["TRUST"][list(verdict.empty)] = 0
    if verdict.silent:
        arrays.pop("TRUST", None)
    cards = {**provenance(options, inputs, count_draws(job)), **task.outcome(sums, verdict)}
    said = dict.fromkeys(line for block in done for line in block.notes)
    notes = inputs.notes + Notes(*said) + verdict.notes + last.notes
    return Restored(
        sci=squeeze(arrays["SCI"]),
        err=squeeze(arrays["ERR"]),
        support=squeeze(arrays["SUPPORT"]),
        gate=squeeze(arrays["GATE"]),
        dq=squeeze(arrays["DQ"]),
        trust=squeeze(arrays["TRUST"]) if "TRUST" in arrays else None,
        draws=squeeze(arrays["DRAWS"]) if "DRAWS" in arrays else None,
        chi2=tuple(plane["chi2"] for plane in found),
        flux_ratio=tuple(plane["flux_ratio"] for plane in found),
        observation=inputs.observation,
        notes=warn_of(notes),
        cards=cards,
        history=tuple(history(options, inputs)),
    )


def refuse_size(inputs: Inputs, draws: int) -> None:
    """Refuse an image whose restored planes the memory of this machine does not hold.

    Parameters
    ----------
    draws : posterior samples that are returned.

    Raises
    ------
    ResourceError
    """
    height, width = inputs.observation.grid.shape
    needed = 2 * inputs.frame.planes * height * width * (BYTES + 4 * draws) / 1e9  # the blocks, then all of them
    memory = physical_memory()
    if needed > memory:
        raise ResourceError(
            f"image: restored to {height} x {width} px it takes {needed:.0f} GB of memory, and this machine has "
            f"{memory:.0f}; cut it, or write it to a file for sciresdiff upscale, which goes block by block"
        )


def physical_memory() -> float:
    """Memory of this machine, GB; infinite where the system does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    except (AttributeError, ValueError, OSError):
        return float("inf")


def assemble(done: list[Done], inputs: Inputs) -> dict[str, Array]:
    """The planes of all blocks, each (planes, Y, X); DRAWS (planes, K, Y, X)."""
    count, shape = inputs.frame.planes, inputs.observation.grid.shape
    arrays: dict[str, Array] = {}
    for block in done:
        for name, plane, y, x, values in block.parts(inputs.scale)[0]:
            if name not in arrays:
                arrays[name] = np.empty((count, *values.shape[:-2], *shape), values.dtype)
            height, width = values.shape[-2:]
            arrays[name][plane, ..., y : y + height, x : x + width] = values
    return arrays

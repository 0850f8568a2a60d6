"""``sciresdiff.degrade``: the coarser, blurred, noisy image that an instrument would have taken of a fine one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from astropy.nddata import CCDData, VarianceUncertainty
from numpy.typing import NDArray

from sciresdiff import io
from sciresdiff.api.image import Array, Image, Plane, header_on_grid, make_options, open_image, squeeze, warn_of
from sciresdiff.errors import InputError, UsageError
from sciresdiff.frame import Frame, Kind, PixelSize
from sciresdiff.io.source import in_memory
from sciresdiff.jobs.degrade.block import Degraded as Block
from sciresdiff.jobs.degrade.block import degrade_block, read_window, without_no_data
from sciresdiff.jobs.degrade.job import (
    DegradedFile,
    describe_result,
    find_no_data,
    hash_values,
    plan_task,
    refuse_options,
    resolve_quantity,
    slim,
)
from sciresdiff.jobs.degrade.options import DegradeOptions
from sciresdiff.notes import Notes
from sciresdiff.observation.exposure import Exposure
from sciresdiff.observation.grid import Grid
from sciresdiff.observation.noise import Noise
from sciresdiff.observation.observation import Observation
from sciresdiff.observation.pixel_size import parse_pixel_size
from sciresdiff.physics.psf.field import PSF


@dataclass(frozen=True, eq=False)
class Degraded:
    """A coarse image; arrays (h, w), or (planes, h, w) of an image of several planes."""

    sci: NDArray[np.float32]
    """Values in the unit of the input; their expectation is the blurred and binned input."""
    var: NDArray[np.floating[Any]] | None
    """Variance of the noise that was added, unit**2; without noise, what the input's own becomes.  None where it is not
    known."""
    dq: NDArray[np.int32]
    """Data quality: the input's flags, 1 where it was masked, 256 where the simulated detector saturated."""
    kernel: Array | None
    """(K, L), the blur on the fine grid; None for none, or where ``unknown`` says that it is not known."""
    unknown: Mapping[str, str]
    """What is not known any more (``variance``, ``kernel``), and after which step."""
    frame: Frame
    """The image as a frame, which `restore` takes: with variance, kernel and scale."""
    drawn: Mapping[str, Any]
    """Blurs, detector and steps as used."""
    notes: Notes
    """What was read and assumed."""
    writing: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Cards, HISTORY and scale, as `io.write` takes them."""
    header: Any = field(default=None, repr=False)
    """Of the input, which the writer scales."""

    @property
    def observation(self) -> Observation:
        """The measurement that this image is, with the blur and the noise that were put in; `restore` takes it.

        Raises
        ------
        InputError : a blur or a noise that is not known, as ``unknown`` says.
        """
        for what, step in self.unknown.items():
            raise InputError(f"{what}: not known after the step {step}; restore the image, and state or measure it")
        if self.var is None:
            raise InputError("variance: no noise was added, and the image had none; give gain and read_noise")
        frame = self.frame
        grid = Grid((frame.pixels.shape[1], frame.pixels.shape[2]), frame.pixel_size)
        psf = None if self.kernel is None else PSF.constant(self.kernel)
        exposure = Exposure(in_memory(frame), grid, Noise(), psf, frame.quantity or "sum")
        return Observation([exposure], grid.refine(round(1 / self.writing["scale"])), notes=self.notes)

    def write(self, path: str | Path, *, overwrite: bool = False) -> list[Path]:
        """Write the image with VAR, DQ and KERNEL, as ``sciresdiff degrade`` does.

        Parameters
        ----------
        path : its ending says the format.
        overwrite : replace a file that exists.

        Returns
        -------
        The files that were written.

        Raises
        ------
        UsageError : a file that exists, or a format that is not written.
        """
        h, w = self.sci.shape[-2:]
        planes: dict[str, Array] = {"DQ": self.dq.reshape(-1, h, w)}
        if self.kernel is not None:
            planes["KERNEL"] = self.kernel
        if self.var is not None:
            planes["VAR"] = slim(np.asarray(self.var, np.float64)).reshape(-1, h, w)
        kernel = None if self.kernel is not None else self.frame.kernel
        whole = self.frame.with_(variance=None, kernel=kernel, header=self.header)
        wrote = io.write(path, whole, planes=planes, **{**self.writing, "overwrite": overwrite})
        return [Path(file) for file in wrote["files"]]

    def to_ccddata(self) -> CCDData:
        """An image of one plane as astropy's ``CCDData``: ``var`` as its uncertainty, ``dq`` above 0 as its mask.

        Raises
        ------
        InputError : an image of several planes.
        """
        ccd = self.frame.to_ccddata()
        ccd.uncertainty = None if self.var is None else VarianceUncertainty(self.var)
        ccd.mask = self.dq > 0
        return ccd


def degrade(
    image: Image,
    scale: int,
    *,
    kernel: str | Path | None = None,
    gain: float | None = None,
    read_noise: float | None = None,
    recipe: str | Path | None = None,
    mask: Plane | None = None,
    variance: Plane | None = None,
    kind: Kind = "astro",
    unit: str | None = None,
    pixel_size: PixelSize | str | None = None,
    seed: int = 0,
    options: DegradeOptions | None = None,
    **settings: Any,
) -> Degraded:
    """Blur, bin and read out an image, as an instrument would.

    Every random number follows from the seed, the image's own values and the number of the plane, so that the same call
    gives the same image.

    Parameters
    ----------
    image : (Y, X) or (planes, Y, X) array, a file, a `Frame`, or astropy's ``CCDData``; the scene, without blur.
    scale : fine pixels per coarse pixel and axis.
    kernel : SPEC of the blur on the fine grid, for instance ``gaussian:sigma=1.2px``.
    gain : electrons per unit; switches photon noise on.
    read_noise : electrons per coarse pixel.
    recipe : a name or a TOML file: blur and noise are drawn at random.
    mask : True where a pixel carries no information; the image's shape, or for a file the name of an extension or a
        file.
    variance : of the noise, unit**2; likewise, or one number.
    kind : ``astro`` or ``micro``, of an image that is no file.
    unit : of an array.
    pixel_size : of an array; may be a text such as ``0.11um``.
    seed : of the noise.
    options : further options; those that are given by name win.
    settings : any other option of ``sciresdiff degrade`` by its name in Python: ``sky``, ``dark``, ``full_well``,
        ``bits``, ``quantity``.

    Returns
    -------
    Degraded; `restore` takes it as it is.

    Raises
    ------
    UsageError, InputError : the sentences of the command line.

    Examples
    --------
    >>> low = sciresdiff.degrade(truth, scale=2, kernel="gaussian:sigma=1.2px", gain=2.0, read_noise=5.0)
    >>> high = sciresdiff.restore(low)
    """
    by_name = {"scale": scale, "kernel": kernel, "gain": gain, "read_noise": read_noise, "recipe": recipe, "seed": seed}
    chosen = make_options(DegradeOptions, options, {n: v for n, v in {**by_name, **settings}.items() if v is not None})
    if chosen.pairs:
        raise UsageError("--pairs: a training set is a file; make it with sciresdiff degrade on the command line")
    refuse_options(chosen)
    reading = {"axes": chosen.axes, "quantity": chosen.quantity, "outside": chosen.allow_outside}
    size = parse_pixel_size(pixel_size) if isinstance(pixel_size, str) else pixel_size
    with open_image(image, kind, variance=variance, mask=mask, unit=unit, pixel_size=size, reading=reading) as (
        path,
        source,
    ):
        quantity, notes = resolve_quantity(source.frame, chosen)
        defects, more = find_no_data(source, chosen)
        key, source = hash_values(source), without_no_data(source, defects)
        task = plan_task(path or "", Path(), chosen, source, defects, quantity, notes + more, key)
        done = [degrade_block(task.work, b, read_window(source, task.plan.scale, b)) for b in task.blocks]
    return collect(DegradedFile(task, done[:1]), done)


def collect(output: DegradedFile, done: list[Block]) -> Degraded:
    """The planes of all blocks, with what is known of them.

    Parameters
    ----------
    output : of the task, with its first block.
    done : all blocks.
    """
    task, empty = output.task, output.frame
    stacks: dict[str, Array] = {}
    for block in done:
        for name, plane, y0, x0, values in block.arrays():
            h, w = values.shape
            if name not in stacks:
                stacks[name] = np.empty(empty.pixels.shape, values.dtype)
            stacks[name][plane, y0 : y0 + h, x0 : x0 + w] = values
    masks = np.empty(empty.pixels.shape, bool)
    for block in done:
        masks[(block.block.plane, *block.block.tile.core.slices)] = block.low.mask
    sums = {name: sum(block.sums[name] for block in done) for name in ("masked", "saturated")}
    notes = task.source.frame.notes + task.notes + describe_result(task, output.low, sums)
    scales = [task.plan.scale if axis in "YX" else 1 for axis in empty.axes]
    frame = empty.with_(
        pixels=stacks["SCI"],
        mask=masks,
        variance=stacks.get("VAR"),
        dq=stacks["DQ"],
        notes=Notes(),
        header=header_on_grid(empty.header, output.writing["scale"], str(empty.quantity)),
        shape=tuple(n // s for n, s in zip(empty.shape, scales, strict=True)),
    )
    return Degraded(
        sci=squeeze(stacks["SCI"]),
        var=squeeze(stacks["VAR"]) if "VAR" in stacks else None,
        dq=squeeze(stacks["DQ"]),
        kernel=empty.kernel if isinstance(empty.kernel, np.ndarray) else None,
        unknown=dict(output.low.unknown),
        frame=frame,
        drawn=output.settings_used,
        notes=warn_of(notes),
        writing=output.writing,
        header=empty.header,
    )

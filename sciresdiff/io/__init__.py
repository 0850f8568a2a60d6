"""Image files in and out: every format behind `read` and `write`, as a `Frame`.

`open_source` and `open_sink` do the same region by region, for images larger than the memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.errors import InputError, UsageError
from sciresdiff.frame import Frame, PixelSize, Quantity
from sciresdiff.io import sink as sinks
from sciresdiff.io import source as sources
from sciresdiff.io.dtypes import parse_dtype
from sciresdiff.io.files import require_file, split_spec
from sciresdiff.io.sink import Plane, Sink
from sciresdiff.io.source import Source
from sciresdiff.notes import Notes

FORMATS: dict[str, str] = {
    ".fits": "fits", ".fit": "fits", ".fts": "fits", ".fits.fz": "fits", ".fits.gz": "fits", ".fit.gz": "fits",
    ".ome.tif": "tiff", ".ome.tiff": "tiff", ".tif": "tiff", ".tiff": "tiff",
    ".companion.ome": "tiff",
    ".h5": "hdf5", ".hdf5": "hdf5", ".ome.zarr": "ome_zarr", ".zarr": "ome_zarr",
}  # fmt: skip
"""End of a file's name -> subpackage that reads and writes it."""

PYRAMIDS = (".ome.tif", ".ome.tiff", ".ome.zarr", ".zarr")
"""Ends of names of formats that can hold smaller copies of their image."""

_MAGIC = {b"SIMPLE": "fits", b"II*\0": "tiff", b"MM\0*": "tiff", b"II+\0": "tiff", b"MM\0+": "tiff", b"\x89HDF": "hdf5"}


def suffix(path: str | Path) -> str:
    """Longest known end of a file's name (``.ome.tif``, ``.fits.fz``) in its own case, else the usual suffix."""
    file, _ = split_spec(path)
    known = [end for end in FORMATS if file.name.lower().endswith(end)]
    return file.name[-max(map(len, known)) :] if known else file.suffix


def stem(path: str | Path) -> str:
    """A file's name without its `suffix`."""
    name = split_spec(path)[0].name
    end = suffix(path)
    return name[: len(name) - len(end)] if end else name


def is_store(path: str | Path) -> bool:
    """Whether a name is that of an image that is a folder (OME-Zarr)."""
    return FORMATS.get(suffix(path).lower()) == "ome_zarr"


def format_of(path: str | Path, *, look: bool = True) -> str:
    """Find the format of a file: ``fits``, ``tiff``, ``hdf5`` or ``ome_zarr``.

    Parameters
    ----------
    path : str or Path
        A file, or a file with brackets.
    look : bool
        Whether to look at the first bytes if the name does not say.

    Raises
    ------
    InputError
        Neither says.
    """
    file, _ = split_spec(path)
    if found := FORMATS.get(suffix(file).lower()):
        return found
    if look:
        with require_file(file).open("rb") as stream:
            start = stream.read(8)
        if found := next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), None):
            return found
    raise InputError(f"{file}: not a format that is read here; one of {', '.join(FORMATS)}")


def read(
    path: str | Path,
    *,
    ext: str | None = None,
    variance: str | None = None,
    mask: str | None = None,
    axes: str | None = None,
    quantity: Quantity | None = None,
    pixel_size: float | PixelSize | None = None,
    saturated: bool = True,
    outside: bool = False,
) -> Frame:
    """Read one image and the physics that belongs to it.

    Parameters
    ----------
    path : str or Path
        A file, ``file.fits[EXT]`` or ``file.h5[dataset]``.
    ext : str, optional
        FITS extension (``NAME``, ``NAME,VERSION`` or a number) or HDF5 dataset; wins over brackets.
    variance, mask : str, optional
        ``EXT`` of the same file, or ``FILE`` or ``FILE[EXT]``. By its name an error plane is squared and a weight
        inverted; a mask is bad where it is not 0. Without them the file's own planes are used.
    axes : str, optional
        One letter per axis of the array (``TZCYX``), where the file does not say or is wrong.
    quantity : {"sum", "mean"}, optional
        Wins over BUNIT.
    pixel_size : float or PixelSize, optional
        In arcsec (FITS) or micrometres (TIFF); wins over the file.
    saturated : bool
        Whether pixels at the level of the header, or at the end of the integer range, are masked.
    outside : bool
        Whether the file may name or link to files outside its folder, which are read for its pixels (`io.outside`).

    Returns
    -------
    Frame
        Planes (planes, Y, X) in float32; ``notes`` has a line for each assumption. Pixels without a variance are
        masked, and their variance is the median of the others.

    Raises
    ------
    InputError
        Missing, truncated or foreign file, no image in it, NaN only, an axis without pixels, ambiguous or wrong axes,
        8-bit colour, a plane that does not fit.
    """
    module = _read_module(format_of(path))
    frame: Frame = module.read(
        path,
        ext=ext,
        variance=variance,
        mask=mask,
        axes=axes,
        quantity=quantity,
        pixel_size=pixel_size,
        saturated=saturated,
        **_outside_option(path, outside),
    )
    return frame


@contextmanager
def open_source(path: str | Path, **options: Any) -> Iterator[Source]:
    """Open a file, to be read region by region; options and errors as in `read`.

    Only what is asked for is in memory, where the format allows it.
    """
    module = _read_module(format_of(path))
    options |= _outside_option(path, bool(options.pop("outside", False)))
    if hasattr(module, "source"):
        with module.source(path, **options) as source:
            yield source
    else:
        yield sources.in_memory(read(path, **options))


def describe_output(frame: Frame, scale: float) -> Notes:
    """Name what an output does not have as the input has it: planes and tables of the input's own pixels.

    Parameters
    ----------
    frame : Frame
        Of the input.
    scale : float
        Output pixels per input pixel and axis.
    """
    describe = getattr(frame.header, "describe_output", None)
    return describe(scale) if describe else Notes()


def read_image(path: str | Path) -> NDArray[np.float64]:
    """Read one image as it is in the file: a PSF, a variance, a map. Brackets choose the extension.

    Returns
    -------
    array
        float64, (Y, X) or (planes, Y, X).

    Raises
    ------
    InputError
        As `read`; NaN is allowed here.
    """
    image: NDArray[np.float64] = _read_module(format_of(path)).read_image(path)
    return image if image.ndim == 2 else image.reshape(-1, *image.shape[-2:])


def write(
    path: str | Path,
    frame: Frame,
    *,
    planes: Mapping[str, NDArray[Any]] | None = None,
    provenance: Mapping[str, object] | None = None,
    history: Sequence[str] = (),
    scale: float = 1.0,
    overwrite: bool = False,
    dtype: str | np.dtype[Any] | None = None,
    pyramid: bool = False,
) -> dict[str, Any]:
    """Write a result in the format of its name, with the metadata of the file that ``frame.header`` came from.

    The output holds no clock, host or path: the same content gives the same bytes. It appears when it is complete.

    Parameters
    ----------
    path : str or Path
        Name of the output; missing folders are made.
    frame : Frame
        Pixels (planes, Y, X) of the new grid. If ``header`` is the one that `read` gave, all other fields describe the
        input's grid and are adapted; a frame without one gets a small header from ``unit`` and ``pixel_size``, which
        are then taken as those of the new grid.
    planes : mapping, optional
        Name (``ERR``, ``SUPPORT``, ``GATE``, ``TRUST``, ``DQ``, ``VAR``, ``KERNEL``, ``DRAWS``) -> array on the new
        grid. FITS holds each; TIFF has ERR, SUPPORT, TRUST, VAR, DQ and DRAWS in files of their own
        (``{stem}_err.tif``), and **no GATE**.
    provenance : mapping, optional
        Header cards (``SRDSCALE`` ...); None is left out.
    history : sequence of str
        HISTORY cards.
    scale : float
        New pixels per old pixel and axis: s for ``upscale``, 1/s for ``degrade``. Below 1 the frame's own ``kernel``
        and ``kernel_scale`` are written too, where it has them.
    overwrite : bool
        Whether an existing output is replaced.
    dtype : str or dtype, optional
        Type of the pixels; float32 for FITS, the input's for TIFF. Integers are rounded half to even and clipped,
        **never rescaled**.
    pyramid : bool
        Tiles, lossless compression and smaller copies for viewers, in .ome.tif and .ome.zarr.

    Returns
    -------
    dict
        ``clipped``: number of pixels outside the integer type's range; ``files``: all paths written.

    Raises
    ------
    UsageError
        The output exists, cannot be written, or its name is of no format that is written.
    ResourceError
        The disk is full.
    """
    report: dict[str, Any] = _write_module(path).write(
        path,
        frame,
        planes=planes or {},
        provenance=provenance or {},
        history=history,
        scale=scale,
        overwrite=overwrite,
        dtype=dtype,
        **_pyramid_option(path, pyramid),
    )
    return report


@contextmanager
def open_sink(
    path: str | Path,
    frame: Frame,
    *,
    planes: Mapping[str, Plane] | None = None,
    provenance: Mapping[str, object] | None = None,
    history: Sequence[str] = (),
    scale: float = 1.0,
    overwrite: bool = False,
    dtype: str | np.dtype[Any] | None = None,
    pyramid: bool = False,
    part: Path | None = None,
) -> Iterator[Sink]:
    """Open an output, to be written region by region; options, errors and bytes as in `write`.

    Parameters
    ----------
    path : str or Path
        Name of the output, which appears when the sink is finished.
    frame : Frame
        As in `write`; its arrays have the shape of the new grid and no values (`source.placeholder`).
    planes : mapping, optional
        Name -> type and layers of the planes that belong to it.
    provenance : mapping, optional
        As in `write`. **A card whose value is known only at the end must be here already**, with a value of its type.
    history, scale, overwrite, dtype, pyramid
        As in `write`.
    part : Path, optional
        Where the unfinished file lies. It is kept if the work stops, and resumed if it is there; without one nothing is
        kept. Formats that are written in one go begin again.
    """
    module, known = _write_module(path), dict(provenance or {})
    common: dict[str, Any] = {"history": history, "scale": scale, "overwrite": overwrite, "dtype": dtype}
    common |= _pyramid_option(path, pyramid)
    if hasattr(module, "sink"):
        with module.sink(path, frame, planes=planes or {}, provenance=known, part=part, **common) as sink:
            yield sink
        return

    def whole(pixels: NDArray[Any], others: Mapping[str, NDArray[Any]], cards: Mapping[str, object]) -> dict[str, Any]:
        full = frame.with_(pixels=pixels, mask=~np.isfinite(pixels))
        return write(path, full, planes=others, provenance={**known, **cards}, **common)

    yield sinks.in_memory(frame.pixels.shape, planes or {}, whole, dtype or np.float32)


def _read_module(name: str) -> Any:
    return import_module(f"sciresdiff.io.{name}.read")


def _outside_option(path: str | Path, outside: bool) -> dict[str, bool]:
    """Keyword of the readers whose files may name others; a FITS image has all of its pixels in one file."""
    return {"outside": True} if outside and format_of(path) != "fits" else {}


def _pyramid_option(path: str | Path, pyramid: bool) -> dict[str, bool]:
    """Keyword of the writers that can make a pyramid."""
    if pyramid and suffix(path).lower() not in PYRAMIDS:
        raise UsageError(f"--pyramid: {path} cannot hold one; give a name in {' or '.join(PYRAMIDS)}")
    return {"pyramid": True} if pyramid else {}


def _write_module(path: str | Path) -> Any:
    """Module that writes a file of this name."""
    end = suffix(path).lower()
    if end not in FORMATS:
        raise UsageError(f"{path}: not a format that is written here; one of {', '.join(FORMATS)}")
    if end == ".companion.ome":
        raise UsageError(f"{path}: OME in several files is read, not written; give a name in .ome.tif")
    if is_store(path):
        _read_module("ome_zarr").require_zarr(path)
    return import_module(f"sciresdiff.io.{FORMATS[end]}.write")


def check_output(path: str | Path, dtype: str | np.dtype[Any] | None = None, pyramid: bool = False) -> None:
    """Refuse, before any work, a name or type of pixels that `write` would refuse after it.

    Raises
    ------
    UsageError
        The name is of no format that is written, or of one without pyramids; the type is none of `dtypes.TYPES`.
    """
    _write_module(path)
    _pyramid_option(path, pyramid)
    if dtype is not None:
        parse_dtype(dtype)

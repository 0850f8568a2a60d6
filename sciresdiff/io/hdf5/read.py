"""HDF5 in: training sets (pairs of low and high frames), and single images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from sciresdiff.errors import InputError, UsageError
from sciresdiff.frame import Frame, PixelSize, Quantity
from sciresdiff.io.atomic import write_atomic
from sciresdiff.io.chunked import add_planes, frame_reader, plane_reader, read_whole, region_reader
from sciresdiff.io.files import first_line, require_file, split_spec
from sciresdiff.io.hdf5.outside import refuse_linked, refuse_stored
from sciresdiff.io.saturation import scan_maximum
from sciresdiff.io.source import ReadRegion, Source, check_size, count_planes, placeholder
from sciresdiff.region import Region

Array = NDArray[Any]
IMAGE = "image"
CACHE = 2**26
"""Bytes of the library's cache of unpacked chunks, for a dataset."""


@dataclass(frozen=True)
class Pairs:
    """A training set: n low-resolution frames, the high-resolution ones, and the physics between them."""

    low: NDArray[np.float32]
    """(n, h, w), data units."""
    high: NDArray[np.float32]
    """(n, scale h, scale w), data units."""
    scale: int
    quantity: Quantity = "sum"
    kind: str = "astro"
    seed: int = 0
    variance: NDArray[np.float32] | None = None
    """(n, h, w) variance of ``low``."""
    kernel: NDArray[np.float64] | None = None
    """(n, k, k) blur of each pair on the fine grid."""

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.low)


def write_pairs(
    path: str | Path,
    low: Array,
    high: Array,
    *,
    scale: int,
    variance: Array | None = None,
    kernel: Array | None = None,
    quantity: Quantity = "sum",
    kind: str = "astro",
    seed: int = 0,
    overwrite: bool = False,
) -> list[str]:
    """Write a training set.

    Parameters
    ----------
    path : str or Path
        Output.
    low, high : arrays
        (n, h, w) and (n, scale h, scale w), data units.
    scale : int
        Fine pixels per low pixel and axis.
    variance : array, optional
        (n, h, w), variance of ``low``.
    kernel : array, optional
        (n, k, k), or (k, k) for all pairs; kernels of several sizes are padded with zeros by the caller.
    quantity, kind, seed
        Stored as attributes.
    overwrite : bool
        Whether an existing file is replaced.

    Raises
    ------
    UsageError
        Shapes that do not fit, or an output that exists.
    """
    pairs = _check_pairs(str(path), low, high, scale, variance, kernel, UsageError)

    def save(temporary: Path) -> None:
        with h5py.File(temporary, "w") as file:
            for name, array in pairs.items():
                file.create_dataset(name, data=array, track_times=False)
            file.attrs.update({"scale": int(scale), "quantity": quantity, "kind": kind, "seed": int(seed)})

    return write_atomic({Path(path): save}, overwrite=overwrite)


def read_pairs(path: str | Path) -> Pairs:
    """Read a training set.

    Raises
    ------
    InputError
        Missing, truncated or foreign file, datasets that are missing or do not fit.
    """
    with _open(Path(path)) as file:
        if not {"low", "high"} <= set(file) or "scale" not in file.attrs:
            raise InputError(
                f"{path}: no training set (datasets low and high, attribute scale); made by degrade --pairs"
            )
        for name in ("low", "high", "variance", "kernel"):
            if name in set(file):
                refuse_linked(Path(path), file, name)
                refuse_stored(Path(path), file[name])
        attrs = dict(file.attrs)
        given = {name: file[name][()] for name in ("low", "high", "variance", "kernel") if name in file}
    scale = int(attrs["scale"])
    found = _check_pairs(
        str(path), given["low"], given["high"], scale, given.get("variance"), given.get("kernel"), InputError
    )
    quantity: Quantity = "mean" if attrs.get("quantity") == "mean" else "sum"
    kind, seed = str(attrs.get("kind", "astro")), int(attrs.get("seed", 0))
    return Pairs(scale=scale, quantity=quantity, kind=kind, seed=seed, **found)


def _check_pairs(
    path: str, low: Array, high: Array, scale: int, variance: Array | None, kernel: Array | None, error: type[Exception]
) -> dict[str, Any]:
    """Arrays in the types of `Pairs`; raises ``error`` where shapes do not fit."""
    low, high = np.asarray(low, np.float32), np.asarray(high, np.float32)
    if low.ndim != 3 or high.shape != (len(low), scale * low.shape[1], scale * low.shape[2]):
        raise error(f"{path}: low {low.shape} and high {high.shape} do not fit scale {scale}; (n, h, w), (n, s h, s w)")
    pairs: dict[str, Any] = {"low": low, "high": high}
    if variance is not None:
        pairs["variance"] = np.asarray(variance, np.float32)
        if pairs["variance"].shape != low.shape:
            raise error(f"{path}: variance {pairs['variance'].shape} does not fit low {low.shape}")
    if kernel is not None:
        one = np.asarray(kernel, np.float64)
        pairs["kernel"] = np.broadcast_to(one, (len(low), *one.shape[-2:])) if one.ndim == 2 else one
        if pairs["kernel"].ndim != 3 or len(pairs["kernel"]) != len(low):
            raise error(f"{path}: kernel {one.shape} does not fit {len(low)} pairs; (n, k, k) or (k, k)")
    return pairs


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    require_file(path)
    try:
        file = h5py.File(path, "r", rdcc_nbytes=CACHE)
    except OSError as error:
        raise InputError(f"{path}: not a whole HDF5 file ({first_line(error)}); check or fetch it again") from error
    with file:
        yield file


def _dataset_name(path: Path, file: Any, name: str | None, outside: bool = False) -> str:
    """Name of the image's dataset: the one asked for, else ``image``, else the only one.

    Links are followed where a name is asked for, or is ``image``; into files elsewhere only with ``outside``.
    """
    there: list[str] = []
    file.visititems(lambda key, item: there.append(key) if isinstance(item, h5py.Dataset) else None)
    # without a name and without `image`, a single dataset can only be the image
    wanted = name or (there[0] if len(there) == 1 and IMAGE not in there else IMAGE)
    if wanted.strip("/") not in there:
        if not outside:
            refuse_linked(path, file, wanted)
        if not isinstance(file.get(wanted), h5py.Dataset):
            raise InputError(f"{path}: no dataset {wanted!r}; there are {', '.join(there) or 'none'}; FILE[DATASET]")
    return wanted.strip("/")


def _dataset(path: Path, file: Any, name: str, outside: bool = False) -> tuple[Any, ReadRegion]:
    """A dataset that is an image, and the function that reads regions of it."""
    data = file[name]
    if not outside:
        refuse_stored(path, data)
    if data.ndim < 2 or 0 in data.shape or data.dtype.kind not in "iuf":
        raise InputError(f"{path}: dataset {name!r} of shape {data.shape} and type {data.dtype} is not an image")
    check_size(path, data.shape)
    # HDF5 raises OSError where a filter fails, RuntimeError where an index is damaged
    return data, region_reader(path, data, f"dataset {data.name.strip('/')!r}", (OSError, RuntimeError))


def read_image(path: str | Path) -> NDArray[np.float64]:
    """Read one dataset as it is, shape (..., h, w), without planes and facts.

    Raises
    ------
    InputError
        Missing or foreign file, no such dataset, a damaged chunk.
    """
    file_path, name = split_spec(path)
    with _open(file_path) as file:
        data, regions = _dataset(file_path, file, _dataset_name(file_path, file, name))
        return read_whole(regions, data.shape)


def read(path: str | Path, **options: Any) -> Frame:
    """Read one image: dataset ``image``, or the one named; ``variance`` and ``mask`` are datasets beside it.

    Raises
    ------
    InputError
        Missing or foreign file, no such dataset, NaN only, planes or axes that do not fit.
    """
    with source(path, **options) as opened:
        return opened.whole()


@contextmanager
def source(
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
) -> Iterator[Source]:
    """Open one image, to be read region by region; options and errors as in `read`.

    ``saturated`` says nothing here: an array has no level.
    """
    file_path, inside = split_spec(path)
    with _open(file_path) as file:
        name = _dataset_name(file_path, file, ext or inside, outside)
        data, regions = _dataset(file_path, file, name, outside)
        attrs = {**dict(file.attrs), **dict(file[name].attrs)}
        letters = (axes or str(attrs.get("axes", "TCZYX"[-data.ndim :]))).upper()
        if len(letters) != data.ndim or not letters.endswith("YX"):
            raise InputError(
                f"{file_path}: axes {letters!r} do not fit shape {data.shape}; one letter per axis, YX last"
            )
        frame = _frame(data, letters, attrs, quantity, pixel_size)
        image = Source(frame, frame_reader(file_path, regions, frame), str(file_path))
        if data.dtype.kind == "f":
            scan_maximum(file_path, image)
        # datasets of these names belong to the dataset `image`; beside another one they may be anything
        own = {"variance", "mask"} & set(file) if name == IMAGE else set()
        bad = _plane(file_path, file, mask or ("mask" if "mask" in own else None), image, outside)
        values = _plane(file_path, file, variance or ("variance" if "variance" in own else None), image, outside)
        yield add_planes(image, None if values is None else _positive(values), bad, variance is not None)


def _frame(
    data: Any, axes: str, attrs: Mapping[str, Any], quantity: Quantity | None, size: float | PixelSize | None
) -> Frame:
    shape = (count_planes(data.shape), *data.shape[-2:])
    unit: Any = str(attrs.get("pixel_unit", "arcsec"))
    if size is None and "pixel_size" in attrs:
        size = PixelSize(float(attrs["pixel_size"][0]), float(attrs["pixel_size"][1]), unit)
    if not isinstance(size, PixelSize | None):
        size = PixelSize(size, size, unit)
    stated = attrs.get("quantity")
    return Frame(
        pixels=placeholder(shape, np.float32),
        mask=placeholder(shape, bool),
        kind="micro" if attrs.get("kind") == "micro" else "astro",
        quantity=quantity or ("mean" if stated == "mean" else "sum" if stated == "sum" else None),
        unit=str(attrs["unit"]) if "unit" in attrs else None,
        pixel_size=size,
        axes=axes,
        shape=data.shape,
        dtype=data.dtype,
        header=IMAGE,
    )


def _plane(path: Path, file: Any, name: str | None, image: Source, outside: bool) -> ReadRegion | None:
    """Reads regions (1, h, w) of a dataset that belongs to the image; None without a name."""
    if name is None:
        return None
    data, regions = _dataset(path, file, _dataset_name(path, file, name, outside), outside)
    return plane_reader(regions, data.shape, image.frame.pixels.shape, f"{path}: dataset {name!r}")


def _positive(read_variance: ReadRegion) -> ReadRegion:
    """A variance that is not positive is unknown."""

    def positive(plane: int, region: Region) -> Array:
        found = read_variance(plane, region)
        return np.where(found > 0, found, np.nan)

    return positive

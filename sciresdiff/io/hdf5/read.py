"""HDF5: training sets (pairs of low and high frames), and single images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from sciresdiff.errors import InputError, UsageError
from sciresdiff.frame import Frame, PixelSize, Quantity
from sciresdiff.io.files import existing, first_line, split_spec, write_whole
from sciresdiff.io.planes import part_in_single, settled
from sciresdiff.io.source import Source, empty
from sciresdiff.io.windows import Cut, changed, looked_through, middle
from sciresdiff.region import Region

Array = NDArray[Any]
IMAGE = "image"
KEPT = 2**26
"""Bytes of unpacked chunks of a dataset that are kept for the next window."""


@dataclass(frozen=True)
class Pairs:
    """A training set: n low frames, the high frames that they came from, and the physics between them."""

    low: NDArray[np.float32]
    """(n, h, w), data units."""
    high: NDArray[np.float32]
    """(n, scale h, scale w), data units."""
    scale: int
    quantity: Quantity = "sum"
    kind: str = "astro"
    seed: int = 0
    variance: NDArray[np.float32] | None = None
    """(n, h, w): variance of ``low``."""
    kernel: NDArray[np.float64] | None = None
    """(n, k, k): blur on the fine grid, of each pair."""

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
        (n, h, w) and (n, scale h, scale w).
    scale : int
        Fine pixels per low pixel and axis.
    variance : array, optional
        (n, h, w).
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
    pairs = _checked(str(path), low, high, scale, variance, kernel, UsageError)

    def save(temporary: Path) -> None:
        with h5py.File(temporary, "w") as file:
            for name, array in pairs.items():
                file.create_dataset(name, data=array, track_times=False)
            file.attrs.update({"scale": int(scale), "quantity": quantity, "kind": kind, "seed": int(seed)})

    return write_whole({Path(path): save}, overwrite=overwrite)


def read_pairs(path: str | Path) -> Pairs:
    """Read a training set.

    Raises
    ------
    InputError
        Missing, truncated or foreign file, datasets that are missing or do not fit.
    """
    with _opened(Path(path)) as file:
        if not {"low", "high"} <= set(file) or "scale" not in file.attrs:
            raise InputError(
                f"{path}: no training set (datasets low and high, attribute scale); made by degrade --pairs"
            )
        attrs = dict(file.attrs)
        given = {name: file[name][()] for name in ("low", "high", "variance", "kernel") if name in file}
    scale = int(attrs["scale"])
    found = _checked(
        str(path), given["low"], given["high"], scale, given.get("variance"), given.get("kernel"), InputError
    )
    quantity: Quantity = "mean" if attrs.get("quantity") == "mean" else "sum"
    kind, seed = str(attrs.get("kind", "astro")), int(attrs.get("seed", 0))
    return Pairs(scale=scale, quantity=quantity, kind=kind, seed=seed, **found)


def _checked(
    path: str, low: Array, high: Array, scale: int, variance: Array | None, kernel: Array | None, error: type[Exception]
) -> dict[str, Any]:
    """Arrays in the types of ``Pairs``, or the error."""
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
def _opened(path: Path) -> Iterator[Any]:
    existing(path)
    try:
        file = h5py.File(path, "r", rdcc_nbytes=KEPT)
    except OSError as error:
        raise InputError(f"{path}: not a whole HDF5 file ({first_line(error)}); check or fetch it again") from error
    with file:
        yield file


def _dataset(path: Path, file: Any, name: str | None) -> str:
    """The image's dataset: the one asked for, else ``image``, else the only one."""
    there: list[str] = []
    file.visititems(lambda key, item: there.append(key) if isinstance(item, h5py.Dataset) else None)
    wanted = name or (IMAGE if IMAGE in there else there[0] if len(there) == 1 else None)
    if wanted is None or wanted.strip("/") not in there:
        raise InputError(
            f"{path}: no dataset {wanted or IMAGE!r}; there are {', '.join(there) or 'none'}; FILE[DATASET]"
        )
    return wanted.strip("/")


def _image(path: Path, file: Any, name: str) -> Any:
    data = file[name]
    if data.ndim < 2 or 0 in data.shape or data.dtype.kind not in "iuf":
        raise InputError(f"{path}: dataset {name!r} of shape {data.shape} and type {data.dtype} is not an image")
    return data


def _cut(path: Path, data: Any) -> Cut:
    """Regions of a dataset, of which the chunks that they touch are read."""

    def cut(plane: int, region: Region) -> Array:
        lead = tuple(int(i) for i in np.unravel_index(plane, data.shape[:-2])) if data.ndim > 2 else ()
        try:
            return np.asarray(data[(*lead, *region.slices)])
        except (OSError, RuntimeError) as error:
            raise InputError(
                f"{path}: dataset {data.name.strip('/')!r} cannot be read at plane {plane}, rows {region.y0} to "
                f"{region.y1 - 1} ({first_line(error)}); check or fetch it again"
            ) from error

    return cut


def read_image(path: str | Path) -> NDArray[np.float64]:
    """One dataset as it is."""
    file_path, name = split_spec(path)
    with _opened(file_path) as file:
        found = _image(file_path, file, _dataset(file_path, file, name))
        cut = _cut(file_path, found)
        planes = [cut(i, Region.of_shape(found.shape)) for i in range(_planes(found.shape))]
        return np.stack(planes).reshape(found.shape).astype(np.float64)


def _planes(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape[:-2], initial=1))


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
) -> Iterator[Source]:
    """One image, window by window; errors as in `read`."""
    file_path, inside = split_spec(path)
    with _opened(file_path) as file:
        name = _dataset(file_path, file, ext or inside)
        data = _image(file_path, file, name)
        told = {**dict(file.attrs), **dict(file[name].attrs)}
        letters = (axes or str(told.get("axes", "TCZYX"[-data.ndim :]))).upper()
        if len(letters) != data.ndim or not letters.endswith("YX"):
            raise InputError(
                f"{file_path}: axes {letters!r} do not fit shape {data.shape}; one letter per axis, YX last"
            )
        frame = _frame(data, letters, told, quantity, pixel_size)
        image = Source(frame, _plain(file_path, data, frame), str(file_path))
        if data.dtype.kind == "f":
            looked_through(file_path, image)
        beside = [asked or (key if key in file and name == IMAGE else None)
                  for key, asked in (("variance", variance), ("mask", mask))]  # fmt: skip
        yield _with_planes(image, file_path, file, *beside)


def _frame(
    data: Any, axes: str, told: Mapping[str, Any], quantity: Quantity | None, size: float | PixelSize | None
) -> Frame:
    shape = (_planes(data.shape), *data.shape[-2:])
    unit: Any = str(told.get("pixel_unit", "arcsec"))
    if size is None and "pixel_size" in told:
        size = PixelSize(float(told["pixel_size"][0]), float(told["pixel_size"][1]), unit)
    if not isinstance(size, PixelSize | None):
        size = PixelSize(size, size, unit)
    stated = told.get("quantity")
    return Frame(
        pixels=empty(shape, np.float32),
        mask=empty(shape, bool),
        kind="micro" if told.get("kind") == "micro" else "astro",
        quantity=quantity or ("mean" if stated == "mean" else "sum" if stated == "sum" else None),
        unit=str(told["unit"]) if "unit" in told else None,
        pixel_size=size,
        axes=axes,
        shape=data.shape,
        dtype=data.dtype,
        header=IMAGE,
    )


def _plain(path: Path, data: Any, frame: Frame) -> Callable[[int, Region], Frame]:
    """Regions of the image alone."""
    cut = _cut(path, data)

    def window(plane: int, region: Region) -> Frame:
        pixels, bad = part_in_single(path, cut(plane, region)[None])
        return frame.with_(pixels=pixels, mask=bad)

    return window


def _with_planes(image: Source, path: Path, file: Any, variance: str | None, mask: str | None) -> Source:
    shape = image.frame.pixels.shape
    if mask is not None:
        bad = _plane(path, file, "mask", mask, shape)

        def hide(window: Frame, plane: int, region: Region) -> Frame:
            return window.with_(mask=window.mask | (bad(plane, region) != 0))

        image = changed(image, hide, image.frame)
    if variance is None:
        return image
    values = _plane(path, file, "variance", variance, shape)

    def positive(plane: int, region: Region) -> Array:
        found = values(plane, region)
        return np.where(found > 0, found, np.nan)

    fill = middle(positive, shape)
    return changed(
        image,
        lambda window, plane, region: settled(window, positive(plane, region), fill),
        image.frame.with_(variance=empty(shape, np.float64)),
    )


def _plane(path: Path, file: Any, what: str, name: str, shape: tuple[int, ...]) -> Cut:
    """Regions (1, h, w) of a dataset that belongs to the image."""
    data = _image(path, file, _dataset(path, file, name))
    planes = _planes(data.shape)
    if data.shape[-2:] != shape[1:] or planes not in (1, shape[0]):
        raise InputError(f"{what}: shape {data.shape} does not fit the image's {shape}")
    cut = _cut(path, data)
    return lambda plane, region: cut(plane % planes, region)[None]

"""An image HDU's values, read by windows and never held."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from sciresdiff.errors import InputError
from sciresdiff.io import planes
from sciresdiff.io.files import first_line
from sciresdiff.io.fits.open import Opened, label, quiet
from sciresdiff.io.fits.wcs import number
from sciresdiff.io.flat import Flat
from sciresdiff.region import Region

Array = NDArray[Any]
Cut = Callable[[int, Region], Array]
"""(plane, region) -> values (h, w)."""


@dataclass(frozen=True)
class Layer:
    """An image of an open file."""

    path: Path
    name: str
    header: fits.Header
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    """Of the values, after BZERO, BSCALE and BLANK."""
    cut: Cut

    @property
    def planes(self) -> int:
        """How many (Y, X) planes there are."""
        return int(np.prod(self.shape[:-2], initial=1))

    def window(self, plane: int, region: Region) -> Array:
        """Values (h, w) of a region of a plane, native byte order; NaN where BLANK says.

        Raises
        ------
        InputError
            The file is damaged there.
        """
        try:
            found = self.cut(plane, region)
        except MemoryError:
            raise
        except Exception as error:  # decompressors raise many kinds on damaged tiles
            raise InputError(
                f"{self.path}: extension {self.name}, rows {region.y0} to {region.y1 - 1} cannot be read "
                f"({first_line(error)}); the file is damaged there: fetch it again"
            ) from error
        return found.astype(found.dtype.newbyteorder("="), copy=False)

    def whole(self) -> Array:
        """All values, in the file's shape."""
        found = [self.window(plane, Region.of_shape(self.shape)) for plane in range(self.planes)]
        return (found[0] if len(found) == 1 else np.stack(found)).reshape(self.shape)


def layer(file: Opened, index: int) -> Layer:
    """An image HDU of an open file; a small one is read at once.

    Raises
    ------
    InputError
        An axis without pixels, or values that are no numbers.
    """
    hdu: Any = file.hdus[index]
    shape = tuple(int(n) for n in hdu.shape)
    if 0 in shape:
        raise InputError(f"{file.path}: an axis has no pixel; shape {shape}")
    packed = isinstance(hdu, fits.CompImageHDU)
    cut = _tiles(hdu, shape) if packed else _rows(file.stream.fileno(), hdu, shape)
    made = Layer(file.path, label(file.hdus, index), hdu.header.copy(), shape, np.dtype("f4"), cut)
    kind = made.window(0, Region(0, 1, 0, 1)).dtype
    if kind.kind not in "iuf":
        raise InputError(f"{file.path}: pixels of type {kind}; integers or floats are read")
    made = replace(made, dtype=kind)
    if int(np.prod(shape)) > planes.MOST:
        return made
    return in_memory(made.path, made.name, made.whole(), made.header)


def in_memory(path: Path, name: str, data: Array, header: fits.Header | None = None) -> Layer:
    """An image that was read whole."""
    stack = data.reshape(-1, *data.shape[-2:])
    return Layer(path, name, header or fits.Header(), data.shape, data.dtype,
                 lambda plane, region: stack[(plane, *region.slices)])  # fmt: skip


def _tiles(hdu: Any, shape: tuple[int, ...]) -> Cut:
    """Of a tile-compressed image: the tiles that the window touches are unpacked."""
    lock = Lock()  # astropy seeks in the file

    def cut(plane: int, region: Region) -> Array:
        lead = tuple(int(i) for i in np.unravel_index(plane, shape[:-2])) if len(shape) > 2 else ()
        with lock, quiet():
            return np.asarray(hdu.section[(*lead, *region.slices)])

    return cut


def _rows(fd: int, hdu: Any, shape: tuple[int, ...]) -> Cut:
    """Of an image as it is: rows are read from the file; a memory map would keep them in memory."""
    bits, start = int(hdu.header["BITPIX"]), int(hdu.fileinfo()["datLoc"])
    kind = np.dtype(f">{'f' if bits < 0 else 'i' if bits > 8 else 'u'}{abs(bits) // 8}")
    zero, step, blank = (number(hdu.header, key) for key in ("BZERO", "BSCALE", "BLANK"))

    array = Flat(fd, start, kind, shape, axes_of(shape))

    def cut(plane: int, region: Region) -> Array:
        raw = array.get(plane, region)
        return scaled(raw, zero or 0.0, 1.0 if step is None else step, None if blank is None else int(blank))

    return cut


def axes_of(shape: Sequence[int]) -> str:
    """A letter for each axis, as `Flat` wants them."""
    return "ABCDEFGHIJKLM"[: len(shape) - 2] + "YX"


def scaled(raw: Array, zero: float, step: float, blank: int | None) -> Array:
    """BZERO + BSCALE times what is stored, NaN where it is BLANK.

    The types are astropy's: whole numbers with the BZERO of an unsigned (or signed 8-bit) type become that type, all
    others float32 up to 16 bits and float64 above; floats stay what they are.
    """
    bits = 8 * raw.itemsize
    if raw.dtype.kind == "f":
        blank = None
    if step == 1 and raw.dtype.kind != "f" and zero == (-128 if bits == 8 else 2 ** (bits - 1)):
        return turned(raw)
    if zero == 0 and step == 1 and blank is None:
        return raw
    kind = raw.dtype.newbyteorder("=") if raw.dtype.kind == "f" else np.dtype("f4" if bits <= 16 else "f8")
    values = raw.astype(kind)
    if step != 1:
        values *= step
    if zero != 0:
        values += zero
    if blank is not None:
        values[raw == blank] = np.nan
    return values


def turned(raw: Array) -> Array:
    """Whole numbers with half of their range added or taken away: the sign bit flips."""
    other = "i" if raw.dtype.kind == "u" else "u"
    words = raw.astype(f"u{raw.itemsize}") ^ np.array(1 << (8 * raw.itemsize - 1), f"u{raw.itemsize}")
    return words.view(f"{other}{raw.itemsize}")

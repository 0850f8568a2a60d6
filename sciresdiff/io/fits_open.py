"""FITS files: opened whole, and the image in them found."""

from __future__ import annotations

import gzip
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from sciresdiff.errors import InputError
from sciresdiff.io import wcs
from sciresdiff.io.files import existing, first_line
from sciresdiff.io.planes import DQ_PLANES, NOISE_PLANES, OUR_PLANES

Array = NDArray[Any]


@dataclass(frozen=True)
class Source:
    """An open file, and the image chosen from it."""

    path: Path
    hdus: fits.HDUList
    index: int

    @property
    def image(self) -> Any:
        """The HDU of the image."""
        return self.hdus[self.index]

    @property
    def headers(self) -> tuple[fits.Header, ...]:
        """The image's header, then the primary one, which fills its gaps."""
        return (self.image.header, self.hdus[0].header)


@contextmanager
def opened(path: Path) -> Iterator[fits.HDUList]:
    """The file's HDUs, images loaded; InputError where it is missing, truncated or no FITS."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message=".*truncated.*")
        hdus = _loaded(existing(path))
        try:
            yield hdus
        finally:
            hdus.close()


def _loaded(path: Path) -> fits.HDUList:
    try:
        hdus = fits.open(BytesIO(_bytes(path)), memmap=False, output_verify="silentfix", lazy_load_hdus=False)
        for hdu in hdus:
            _ = is_image(hdu) and hdu.data
        return hdus
    except Exception as error:  # astropy raises many kinds on damaged files, and none of them is this program's bug
        raise InputError(f"{path}: not a whole FITS file ({first_line(error)}); check or fetch it again") from error


def _bytes(path: Path) -> bytes:
    """The file's content; astropy would leave a damaged file open, and does not see gzip in a stream."""
    content = path.read_bytes()
    return gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content


def is_image(hdu: Any) -> bool:
    """Whether an HDU holds an image of two axes or more."""
    return isinstance(hdu, fits.PrimaryHDU | fits.ImageHDU | fits.CompImageHDU) and len(hdu.shape) >= 2


def label(hdus: fits.HDUList, index: int) -> str:
    """An HDU's name, else its number."""
    return str(hdus[index].name or index)


def choose(path: Path, hdus: fits.HDUList, ext: str | None) -> tuple[int, list[str]]:
    """Which HDU is the image: the one asked for, else SCI or IMAGE, else the first that is not a plane of another."""
    if ext is not None:
        return find(path, hdus, ext), []
    images = [i for i, hdu in enumerate(hdus) if is_image(hdu)]
    if not images:
        kinds = ", ".join(f"{label(hdus, i)} {type(h).__name__}" for i, h in enumerate(hdus))
        raise InputError(f"{path}: no image in it (only {kinds}); give a file with a 2-D image")
    named = [i for i in images if role_of(hdus[i]) == "SCI"]
    other = [i for i in images if role_of(hdus[i]) not in (*NOISE_PLANES, *DQ_PLANES, *OUR_PLANES)]
    chosen = (named or other or images)[0]
    alike = len(named or other)
    said = [f"{alike} images in the file: read {label(hdus, chosen)}; another with FILE[EXT]"] if alike > 1 else []
    return chosen, said


def role_of(hdu: Any) -> str:
    """What an HDU is: its EXTTYPE (LSST) or its name."""
    role = str(wcs.value(hdu.header, "EXTTYPE", "") or hdu.name).strip().upper()
    return {"IMAGE": "SCI", "SCIENCE": "SCI"}.get(role, role)


def find(path: Path, hdus: fits.HDUList, ext: str) -> int:
    """``NAME``, ``NAME,VERSION`` or a number -> index."""
    name, _, version = (part.strip() for part in ext.partition(","))
    key: Any = int(name) if name.isdigit() else (name, int(version)) if version.isdigit() else name
    try:
        index = int(hdus.index_of(key))
        hdus[index]
    except (KeyError, IndexError):
        there = ", ".join(label(hdus, i) for i in range(len(hdus)))
        raise InputError(f"{path}: no extension {ext!r}; there are {there}") from None
    if not is_image(hdus[index]):
        raise InputError(f"{path}: extension {ext!r} is not a 2-D image; shape {getattr(hdus[index], 'shape', ())}")
    return index


def pixels_of(source: Source) -> Array:
    """The image's values, native byte order; NaN where BLANK says."""
    path, hdu = source.path, source.image
    if 0 in hdu.shape:
        raise InputError(f"{path}: an axis has no pixel; shape {tuple(hdu.shape)}")
    data = np.asarray(hdu.data)
    if data.dtype.kind not in "iuf":
        raise InputError(f"{path}: pixels of type {data.dtype}; integers or floats are read")
    return data.astype(data.dtype.newbyteorder("="), copy=False)

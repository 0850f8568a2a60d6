"""FITS files: opened without their values, and the image in them found."""

from __future__ import annotations

import errno
import gzip
import math
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from astropy.io import fits

from sciresdiff.errors import InputError, ResourceError, SciresdiffError
from sciresdiff.io.files import existing, first_line
from sciresdiff.io.fits import wcs
from sciresdiff.io.fits.text import BLOCK
from sciresdiff.io.planes import DQ_PLANES, NOISE_PLANES, OUR_PLANES
from sciresdiff.notes import Notes

END = b"END".ljust(80)
MOST_CARDS = 100_000
"""Of a header; the largest that instruments write have some thousand."""

_COUNTS = re.compile(rb"Z?NAXIS\d*|[PG]COUNT")


@dataclass(frozen=True)
class Opened:
    """An open file."""

    path: Path
    stream: BinaryIO
    """Its bytes, unpacked."""
    hdus: fits.HDUList


@dataclass(frozen=True)
class Chosen:
    """An open file, and the image chosen from it."""

    file: Opened
    index: int

    @property
    def path(self) -> Path:
        """Of the file."""
        return self.file.path

    @property
    def hdus(self) -> fits.HDUList:
        """All HDUs of the file."""
        return self.file.hdus

    @property
    def image(self) -> Any:
        """The HDU of the image."""
        return self.hdus[self.index]

    @property
    def headers(self) -> tuple[fits.Header, ...]:
        """The image's header, then the primary one, which fills its gaps."""
        return (self.image.header, self.hdus[0].header)


@contextmanager
def quiet() -> Iterator[None]:
    """Without astropy's warnings on headers that it mends; a truncated file is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message=".*truncated.*")
        yield


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """What goes wrong here is the file's fault: astropy raises many kinds of errors on damaged files."""
    try:
        yield
    except (SciresdiffError, MemoryError):
        raise
    except Exception as error:
        raise InputError(f"{path}: not a whole FITS file ({first_line(error)}); check or fetch it again") from error


@contextmanager
def opened(path: Path) -> Iterator[Opened]:
    """The file's HDUs, their values unread; gzip is unpacked once, into a file without a name.

    Raises
    ------
    InputError
        The file is missing, shorter than its headers say, or no FITS.
    ResourceError
        There is no room to unpack it.
    """
    with ExitStack() as stack:
        stream: BinaryIO = stack.enter_context(existing(path).open("rb"))
        with readable(path):
            if packed(stream):
                stream = stack.enter_context(unpacked(path, stream))
            _counted(stream)
            with quiet():
                hdus = fits.open(stream, memmap=False, output_verify="silentfix", lazy_load_hdus=False)
                stack.callback(hdus.close)
                _checked(hdus)
        yield Opened(path, stream, hdus)


def packed(stream: BinaryIO) -> bool:
    """Whether a file is gzip; the stream is at its start afterwards."""
    start = stream.read(2)
    stream.seek(0)
    return start == b"\x1f\x8b"


@contextmanager
def unpacked(path: Path, stream: BinaryIO) -> Iterator[BinaryIO]:
    """A gzip file's content, on the disk until it is closed."""
    with tempfile.TemporaryFile() as space:
        try:
            with gzip.open(stream) as content:
                shutil.copyfileobj(content, space, 1 << 20)
            space.flush()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            where = tempfile.gettempdir()
            raise ResourceError(f"{path}: no room in {where} to unpack it; set TMPDIR, or unpack it first") from error
        space.seek(0)
        with open(space.fileno(), "rb", closefd=False) as reader:
            yield reader


def _counted(stream: BinaryIO) -> None:
    """Refuse counts that FITS does not allow and astropy would follow; the stream is at its start afterwards."""
    stream.seek(0)
    while start := stream.read(BLOCK):
        if not start.startswith((b"SIMPLE", b"XTENSION")):
            break
        cards = _cards(start)
        while END not in cards and len(cards) < MOST_CARDS and (more := stream.read(BLOCK)):
            cards += _cards(more)
        numbers = {m[1]: int(m[2]) for c in cards if (m := re.match(rb"(\w+) *= *(-?\d+)\b", c))}
        if many := next((key for key in (b"NAXIS", b"ZNAXIS", b"TFIELDS") if numbers.get(key, 0) > 999), None):
            raise ValueError(f"{many.decode()} is {numbers[many]}")
        if less := next((key for key, n in numbers.items() if _COUNTS.fullmatch(key) and n < 0), None):
            raise ValueError(f"{less.decode()} is {numbers[less]}")
        stream.seek(_data_blocks(numbers) * BLOCK, os.SEEK_CUR)
    stream.seek(0)


def _cards(header: bytes) -> list[bytes]:
    return [header[i : i + 80] for i in range(0, len(header), 80)]


def _data_blocks(numbers: Mapping[bytes, int]) -> int:
    sides = [numbers.get(b"NAXIS%d" % (i + 1), 0) for i in range(numbers.get(b"NAXIS", 0))]
    count = (math.prod(sides) if sides else 0) + numbers.get(b"PCOUNT", 0)
    return min(-(-numbers.get(b"GCOUNT", 1) * count * abs(numbers.get(b"BITPIX", 32)) // 8 // BLOCK), 2**40)


def _checked(hdus: fits.HDUList) -> None:
    """A header of which astropy makes nothing at all is a damaged file's."""
    for hdu in hdus:
        _ = hdu.name, int(hdu.ver)
        if is_image(hdu) and any(int(n) < 0 for n in hdu.shape):
            raise ValueError(f"shape {tuple(hdu.shape)}")


def chips(spec: str) -> list[str] | None:
    """``FILE[NAME,*]`` -> ``FILE[NAME,1]``, ``FILE[NAME,2]`` ...; ``FILE[*]`` -> all images but planes of others.

    Returns
    -------
    list of str or None
        None where the text is no such pattern, or no FITS file of that name is there.

    Raises
    ------
    InputError
        There is no such image in the file.
    """
    match = re.fullmatch(r"(.+)\[(?:([^\[\],*]+),)?\*\]", spec)
    if match is None or Path(spec).exists() or not Path(match[1]).is_file():
        return None
    file, name = match[1], (match[2] or "").strip().upper()
    with opened(Path(file)) as here, quiet():
        images = [(i, hdu) for i, hdu in enumerate(here.hdus) if is_image(hdu)]
        if name:
            found = [f"{file}[{name},{hdu.ver}]" for _, hdu in images if hdu.name.upper() == name]
        else:
            planes = (*NOISE_PLANES, *DQ_PLANES, *OUR_PLANES)
            found = [f"{file}[{i}]" for i, hdu in images if role_of(hdu) not in planes]
    if not found:
        raise InputError(f"{file}: no image {name or 'in it'}; info tells what there is")
    return found


def is_image(hdu: Any) -> bool:
    """Whether an HDU holds an image of two axes or more."""
    image = isinstance(hdu, fits.PrimaryHDU | fits.ImageHDU | fits.CompImageHDU)
    return image and not isinstance(hdu, fits.GroupsHDU) and len(hdu.shape) >= 2


def label(hdus: fits.HDUList, index: int) -> str:
    """An HDU's name, else its number."""
    return str(hdus[index].name or index)


def choose(path: Path, hdus: fits.HDUList, ext: str | None) -> tuple[int, Notes]:
    """Which HDU is the image: the one asked for, else SCI or IMAGE, else the first that is not a plane of another."""
    if ext is not None:
        return find(path, hdus, ext), Notes()
    images = [i for i, hdu in enumerate(hdus) if is_image(hdu)]
    if not images:
        kinds = ", ".join(f"{label(hdus, i)} {type(h).__name__}" for i, h in enumerate(hdus))
        raise InputError(f"{path}: no image in it (only {kinds}); give a file with a 2-D image")
    named = [i for i in images if role_of(hdus[i]) == "SCI"]
    other = [i for i in images if role_of(hdus[i]) not in (*NOISE_PLANES, *DQ_PLANES, *OUR_PLANES)]
    chosen = (named or other or images)[0]
    alike = len(named or other)
    several = f"{alike} images in the file: read {label(hdus, chosen)}; another with FILE[EXT]"
    return chosen, Notes(several) if alike > 1 else Notes()


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

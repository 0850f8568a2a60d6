"""Open FITS files without reading their data, and find the image in them."""

from __future__ import annotations

import errno
import gzip
import math
import os
import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

from astropy.io import fits

from sciresdiff.errors import InputError, ResourceError, SciresdiffError
from sciresdiff.io.files import first_line, require_file
from sciresdiff.io.fits.header import BLOCK
from sciresdiff.io.fits.roles import hdu_role, hdu_tag, is_plane
from sciresdiff.notes import Notes

END = b"END".ljust(80)
MOST_CARDS = 100_000
"""Most cards of a header that are looked through; the largest that instruments write have some thousand."""

_COUNTS = re.compile(rb"Z?NAXIS\d*|[PG]COUNT")


@dataclass(frozen=True)
class FitsFile:
    """An open FITS file."""

    path: Path
    stream: BinaryIO
    """Its bytes, without gzip."""
    hdus: fits.HDUList
    padded: bool = True
    """Whether the last block is filled, as FITS demands; every pixel is there all the same."""


@dataclass(frozen=True)
class ImageChoice:
    """An open file and the image chosen from it."""

    file: FitsFile
    index: int
    axes: str = ""
    """A letter for each axis of the image; its planes have the same where they have as many axes."""

    @property
    def path(self) -> Path:
        """Path of the file."""
        return self.file.path

    @property
    def hdus(self) -> fits.HDUList:
        """All HDUs of the file."""
        return self.file.hdus

    @property
    def image(self) -> Any:
        """HDU of the image."""
        return self.hdus[self.index]

    @property
    def headers(self) -> tuple[fits.Header, ...]:
        """Header of the image, then the primary one, which has what the first lacks."""
        return (self.image.header, self.hdus[0].header)


@contextmanager
def suppress_warnings(padded: bool = True) -> Iterator[None]:
    """Ignore astropy's warnings about headers that it mends.

    A truncated file, of which astropy only warns, is an error; unless just the padding of its last block is missing.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if padded:
            warnings.filterwarnings("error", message=".*truncated.*")
        yield


@contextmanager
def report_damage(path: Path) -> Iterator[None]:
    """Turn any error in the block into an InputError: astropy raises many kinds on damaged files.

    Raises
    ------
    InputError
        In place of whatever was raised, except our own errors and a lack of memory.
    """
    try:
        yield
    except (SciresdiffError, MemoryError):
        raise
    except Exception as error:
        raise InputError(f"{path}: not a whole FITS file ({first_line(error)}); check or fetch it again") from error


@contextmanager
def open_fits(path: Path) -> Iterator[FitsFile]:
    """Open a file; data are not read. A gzip file is unpacked once, into a temporary file.

    Raises
    ------
    InputError
        The file is missing, shorter than its headers say, or no FITS.
    ResourceError
        There is no room to unpack it.
    """
    with ExitStack() as stack:
        stream: BinaryIO = stack.enter_context(require_file(path).open("rb"))
        with report_damage(path):
            if is_gzip(stream):
                stream = stack.enter_context(gunzip(path, stream))
            padded = _check_counts(stream)  # before astropy, which would follow them
            with suppress_warnings(padded):
                hdus = fits.open(stream, memmap=False, output_verify="silentfix", lazy_load_hdus=False)
                stack.callback(hdus.close)
                _check_headers(hdus)
        yield FitsFile(path, stream, hdus, padded)


def is_gzip(stream: BinaryIO) -> bool:
    """Whether a stream is gzip; it is at its start afterwards."""
    start = stream.read(2)
    stream.seek(0)
    return start == b"\x1f\x8b"


@contextmanager
def gunzip(path: Path, stream: BinaryIO) -> Iterator[BinaryIO]:
    """Content of a gzip file in a temporary file, deleted when it is closed.

    astropy would unpack it into memory. **What comes behind the last HDU is not unpacked**: some kilobytes of gzip can
    hold gigabytes of zeros.
    """
    with tempfile.TemporaryFile() as space:  # deleted even if the process is killed
        try:
            with gzip.open(stream) as content:
                _copy_hdus(content, space)
            space.flush()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            where = tempfile.gettempdir()
            raise ResourceError(f"{path}: no room in {where} to unpack it; set TMPDIR, or unpack it first") from error
        space.seek(0)
        with open(space.fileno(), "rb", closefd=False) as reader:
            yield reader


def _check_counts(stream: BinaryIO) -> bool:
    """Refuse counts that FITS does not allow and astropy would follow (1e10 axes, negative sizes).

    Returns whether the last block is filled, or more than what fills it is missing. The stream is at its start
    afterwards.
    """
    stream.seek(0)
    end = filled = 0
    while start := stream.read(BLOCK):
        if not start.startswith((b"SIMPLE", b"XTENSION")):
            break
        numbers, _ = _read_numbers(stream, start)
        length = _data_length(numbers)
        end = stream.tell() + length
        filled = stream.seek(-(-length // BLOCK) * BLOCK, os.SEEK_CUR)
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    return not end <= size < filled


def _read_numbers(stream: BinaryIO | gzip.GzipFile, start: bytes) -> tuple[dict[bytes, int], bytes]:
    """The whole numbers of a header, by their keywords, and its bytes, of which ``start`` are read already.

    Raises
    ------
    ValueError
        A count that FITS does not allow.
    """
    cards, header = _split_cards(start), start
    while END not in cards and len(cards) < MOST_CARDS and (more := stream.read(BLOCK)):
        cards += _split_cards(more)
        header += more
    numbers = {m[1]: int(m[2]) for c in cards if (m := re.match(rb"(\w+) *= *(-?\d+)\b", c))}
    _refuse_counts(numbers)
    return numbers, header


def _copy_hdus(content: gzip.GzipFile, space: IO[bytes]) -> None:
    """Copy a stream HDU by HDU, as far as their headers say."""
    while start := content.read(BLOCK):
        if not start.startswith((b"SIMPLE", b"XTENSION")):
            space.write(start)
            return
        numbers, header = _read_numbers(content, start)
        space.write(header)
        left = -(-_data_length(numbers) // BLOCK) * BLOCK
        while left > 0 and (piece := content.read(min(left, 1 << 20))):
            space.write(piece)
            left -= len(piece)


def _refuse_counts(numbers: Mapping[bytes, int]) -> None:
    """Refuse counts that FITS does not allow."""
    if many := next((key for key in (b"NAXIS", b"ZNAXIS", b"TFIELDS") if numbers.get(key, 0) > 999), None):
        raise ValueError(f"{many.decode()} is {numbers[many]}")
    if less := next((key for key, n in numbers.items() if _COUNTS.fullmatch(key) and n < 0), None):
        raise ValueError(f"{less.decode()} is {numbers[less]}")


def _split_cards(header: bytes) -> list[bytes]:
    return [header[i : i + 80] for i in range(0, len(header), 80)]


def _data_length(numbers: Mapping[bytes, int]) -> int:
    """Bytes of the data of an HDU (FITS standard 4.0, equation 2), without what fills the last block."""
    sides = [numbers.get(b"NAXIS%d" % (i + 1), 0) for i in range(numbers.get(b"NAXIS", 0))]
    count = (math.prod(sides) if sides else 0) + numbers.get(b"PCOUNT", 0)
    return min(numbers.get(b"GCOUNT", 1) * count * abs(numbers.get(b"BITPIX", 32)) // 8, 2**40 * BLOCK)


def _check_headers(hdus: fits.HDUList) -> None:
    """Refuse headers of which astropy understands neither name nor shape."""
    for hdu in hdus:
        _ = hdu.name, int(hdu.ver)  # parsed when accessed
        if is_image(hdu) and any(int(n) < 0 for n in hdu.shape):
            raise ValueError(f"shape {tuple(hdu.shape)}")


def expand_chips(spec: str) -> list[str] | None:
    """Expand ``FILE[NAME,*]`` to ``FILE[NAME,1]`` and so on; ``FILE[*]`` to all images but noise, flags and PSFs.

    Returns
    -------
    list of str or None
        None where the text is no such pattern, or no FITS file of that name exists.

    Raises
    ------
    InputError
        There is no such image in the file.
    """
    match = re.fullmatch(r"(.+)\[(?:([^\[\],*]+),)?\*\]", spec)
    if match is None or Path(spec).exists() or not Path(match[1]).is_file():
        return None
    file, name = match[1], (match[2] or "").strip().upper()
    with open_fits(Path(file)) as here, suppress_warnings():
        images = [(i, hdu) for i, hdu in enumerate(here.hdus) if is_image(hdu)]
        if name:
            found = [f"{file}[{name},{hdu.ver}]" for _, hdu in images if hdu.name.upper() == name]
        else:
            found = [f"{file}[{i}]" for i, hdu in images if not is_plane(hdu)]
    if not found:
        raise InputError(f"{file}: no image {name or 'in it'}; info tells what there is")
    return found


def is_image(hdu: Any) -> bool:
    """Whether an HDU is an image of two axes or more."""
    image = isinstance(hdu, fits.PrimaryHDU | fits.ImageHDU | fits.CompImageHDU)
    return image and not isinstance(hdu, fits.GroupsHDU) and len(hdu.shape) >= 2


def hdu_name(hdus: fits.HDUList, index: int) -> str:
    """Name of an HDU, else its number."""
    return str(hdus[index].name or index)


def choose_image(path: Path, hdus: fits.HDUList, ext: str | None) -> tuple[int, Notes]:
    """Choose the image of a file: the one asked for, else SCI or IMAGE, else the first that is not a plane of another.

    Parameters
    ----------
    path : Path
        Named in errors.
    hdus : HDUList
        Of the file.
    ext : str or None
        What the user asked for, as in `find_extension`.

    Returns
    -------
    index : int
    notes : Notes
        Says so where there are several.

    Raises
    ------
    InputError
        No image, or not the one asked for.
    """
    if ext is not None:
        return find_extension(path, hdus, ext), Notes()
    images = [i for i, hdu in enumerate(hdus) if is_image(hdu)]
    if not images:
        kinds = ", ".join(f"{hdu_name(hdus, i)} {type(h).__name__}" for i, h in enumerate(hdus))
        raise InputError(f"{path}: no image in it (only {kinds}); give a file with a 2-D image")
    named = [i for i in images if hdu_role(hdus[i]) == "SCI" and not hdu_tag(hdus[i])]
    other = [i for i in images if not is_plane(hdus[i])]
    chosen = (named or other or images)[0]
    alike = len(named or other)
    several = f"{alike} images in the file: read {hdu_name(hdus, chosen)}; another with FILE[EXT]"
    return chosen, Notes(several) if alike > 1 else Notes()


def find_extension(path: Path, hdus: fits.HDUList, ext: str) -> int:
    """Index of the image ``NAME``, ``NAME,VERSION`` or number.

    Raises
    ------
    InputError
        There is no such extension, or it is not an image.
    """
    name, _, version = (part.strip() for part in ext.partition(","))
    key: Any = int(name) if name.isdigit() else (name, int(version)) if version.isdigit() else name
    try:
        index = int(hdus.index_of(key))
        hdus[index]
    except (KeyError, IndexError):
        there = ", ".join(hdu_name(hdus, i) for i in range(len(hdus)))
        raise InputError(f"{path}: no extension {ext!r}; there are {there}") from None
    if not is_image(hdus[index]):
        raise InputError(f"{path}: extension {ext!r} is not a 2-D image; shape {getattr(hdus[index], 'shape', ())}")
    return index

"""The file of a PSF, in any of the forms that observatories and programs write: images, sampling, places."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from sciresdiff.errors import InputError
from sciresdiff.io import format_of, open_source, read_image
from sciresdiff.io.files import split_spec
from sciresdiff.io.fits.dq import DQ_PLANES
from sciresdiff.io.fits.header import card_number, card_value
from sciresdiff.io.fits.image_reader import open_image
from sciresdiff.io.fits.open import (
    FitsFile,
    find_extension,
    hdu_name,
    hdu_role,
    is_image,
    open_fits,
    report_damage,
    suppress_warnings,
)
from sciresdiff.io.piff_model import draw_piff, is_piff
from sciresdiff.io.psf_places import Polynomial, Positions
from sciresdiff.io.psf_sampling import DETECTOR, OPTICAL, Sampling, sampling_of_header, with_stated
from sciresdiff.io.variance import NOISE_PLANES
from sciresdiff.notes import Notes

Array = NDArray[np.float64]

PREFERRED = (OPTICAL[1], OPTICAL[0], *reversed(DETECTOR))
"""Extensions of one STPSF file, the best first: with distortion and finer than the detector."""
COLUMNS = (("Y_IMAGE", "X_IMAGE"), ("Y", "X"), ("YC", "XC"), ("Y_CENTER", "X_CENTER"), ("YPOS", "XPOS"))
"""Columns of a table with the places of the images of a cube, y and x."""


@dataclass(frozen=True)
class PSFFile:
    """What the file of a PSF holds."""

    name: str
    """Of the file, as messages have it."""
    images: Array
    """(J, Y, X): one, one for each place or plane, or those that a polynomial weights."""
    sampling: Sampling
    field: Polynomial | Positions | None = None
    """How the images belong to the places of the frame; None for one image, or one for each plane."""
    notes: Notes = Notes()


def read_psf_file(
    spec: str | Path, stated: Mapping[str, float] | None = None, size: tuple[int, int] | None = None
) -> PSFFile:
    """Read the file of a PSF.

    Parameters
    ----------
    spec : str or Path
        ``FILE`` or ``FILE[EXT]``: an image or a cube in FITS, TIFF or HDF5, a PSFEx or Piff model, an STPSF or STDPSF
        grid, or a cube whose table has the images' places.
    stated : mapping, optional
        ``oversample`` (samples per frame pixel) and ``effective`` (1: the frame's pixel is in the image), which win
        over the file.
    size : (int, int), optional
        (h, w) of the frame, over which a model of Piff is drawn.

    Raises
    ------
    InputError
        Missing or damaged, no PSF in it, or of a form that is not read here.
    """
    path, inside = split_spec(spec)
    name = f"psf {path.name}" + (f"[{inside}]" if inside else "")
    fits_like = path.suffix.lower() in (".psf", ".piff") or format_of(path) == "fits"
    found = _read_fits(path, inside, name, size) if fits_like else _read_other(spec, name)
    return PSFFile(found.name, found.images, with_stated(found.sampling, stated or {}), found.field, found.notes)


def _read_other(spec: str | Path, name: str) -> PSFFile:
    """A TIFF, HDF5 or OME-Zarr image, with the pixel size of its metadata."""
    image = np.asarray(read_image(spec), np.float64)
    with open_source(split_spec(spec)[0] if format_of(spec) == "tiff" else spec) as source:
        size = source.frame.pixel_size
    words = "" if size is None else f"its pixel is {size.x:.4g} {size.unit}"
    return PSFFile(name, image.reshape(-1, *image.shape[-2:]), Sampling(size, of_size=words))


def _read_fits(path: Path, inside: str | None, name: str, size: tuple[int, int] | None) -> PSFFile:
    with open_fits(path) as file, suppress_warnings(), report_damage(path):
        if inside is None:
            if (index := _psfex_table(file.hdus)) is not None:
                return _read_psfex(file.hdus[index], name)
            if is_piff(file.hdus):
                images, places = draw_piff(path, size, name)
                like_frame = Sampling(step=1.0, of_step="drawn on its pixels", effective=True)
                return PSFFile(name, images, like_frame, Positions(places), Notes(f"{name}: drawn by Piff"))
        index, notes = _choose(file, inside, name)
        image = open_image(file, index).whole().astype(np.float64)
        header = file.hdus[index].header
        images = image.reshape(-1, *image.shape[-2:])
        field, more = _places(header, file.hdus, len(images), name)
        return PSFFile(name, images, sampling_of_header(header), field, notes + more)


def _choose(file: FitsFile, inside: str | None, name: str) -> tuple[int, Notes]:
    """The HDU of the PSF."""
    hdus = file.hdus
    if inside is not None:
        return find_extension(file.path, hdus, inside), Notes()
    images = [i for i, h in enumerate(hdus) if is_image(h) and hdu_role(h) not in (*NOISE_PLANES, *DQ_PLANES)]
    if not images:
        raise InputError(f"{name}: no image and no PSFEx table in it; give the file of a PSF")
    names = {str(card_value(hdus[i].header, "EXTNAME", "")).strip().upper(): i for i in reversed(images)}
    for wanted in PREFERRED:
        if wanted in names:
            return names[wanted], Notes(f"{name}: extension {wanted} of {len(images)}; another with FILE[EXT]")
    called = [i for key, i in names.items() if re.search(r"(^|_)E?PSF($|_)", key)]
    chosen = called[-1] if len(called) == 1 else images[0]
    if len(images) > 1 and len(called) != 1:
        return chosen, Notes(
            f"WARNING {name}: {len(images)} images in the file, and none is named as the PSF; {hdu_name(hdus, chosen)} "
            "is used, another with FILE[EXT]"
        )
    return chosen, Notes()


def _places(header: fits.Header, hdus: Any, count: int, name: str) -> tuple[Positions | None, Notes]:
    """Places of the images of a cube: of the header (STPSF, STDPSF), or of a table beside it."""
    if "DET_YX0" in header:
        texts = [str(card_value(header, f"DET_YX{i}", "")) for i in range(count)]
        pairs = [[float(n) for n in re.findall(r"[-+\d.eE]+", text)] for text in texts]
        if all(len(pair) == 2 for pair in pairs):
            return Positions(np.array(pairs)), Notes(f"{name}: an STPSF grid of {count} PSFs")
    if (nx := card_number(header, "NXPSFS")) and (ny := card_number(header, "NYPSFS")) and nx * ny == count:
        x, y = (
            [card_number(header, f"{key}{i + 1:02d}") or 0.0 for i in range(int(n))]
            for key, n in (("IPSFX", nx), ("JPSFY", ny))
        )
        grid = np.stack(np.meshgrid(y, x, indexing="ij"), -1).reshape(-1, 2)
        return Positions(grid - 1.0), Notes(f"{name}: an STDPSF grid of {int(nx)} x {int(ny)} PSFs")
    if count > 1:
        for hdu in hdus:
            if isinstance(hdu, fits.BinTableHDU) and not is_image(hdu) and len(hdu.data) == count:
                upper = {name.upper(): name for name in hdu.columns.names}
                for row, column in COLUMNS:
                    if row in upper and column in upper:
                        one = 1.0 if "IMAGE" in row else 0.0  # SExtractor counts from 1
                        at = np.stack([np.asarray(hdu.data[upper[key]], np.float64) - one for key in (row, column)], -1)
                        return Positions(at), Notes(f"{name}: {count} PSFs, places in the table's {row} and {column}")
    return None, Notes()


def _psfex_table(hdus: Any) -> int | None:
    """The HDU of a PSFEx model: a table with a column PSF_MASK."""
    for i, hdu in enumerate(hdus):
        table = isinstance(hdu, fits.BinTableHDU) and not is_image(hdu)
        if table and "PSF_MASK" in [column.upper() for column in hdu.columns.names]:
            return i
    return None


def _read_psfex(hdu: Any, name: str) -> PSFFile:
    """A PSFEx model, its numbers in the header or in columns of the one row.

    Raises
    ------
    InputError
        A polynomial of anything but the position, or in several groups.
    """
    columns = {column.upper(): column for column in hdu.columns.names}
    if len(hdu.data) != 1:
        raise InputError(f"{name}: {len(hdu.data)} PSFEx models in the table; give the one of this frame alone")

    def known(key: str, default: Any = None) -> Any:
        if key in columns:
            return hdu.data[columns[key]][0]
        return card_value(hdu.header, key, default)

    images = np.asarray(hdu.data[columns["PSF_MASK"]][0], np.float64)
    images = images.reshape(-1, *images.shape[-2:])
    axes = int(known("POLNAXIS", 0) or 0)
    names = [str(known(f"POLNAME{i + 1}", "")).strip().upper() for i in range(axes)]
    at = {key[0]: i + 1 for i, key in enumerate(names) if re.fullmatch(r"[XY]\w*_IMAGE", key)}
    groups = {int(known(f"POLGRP{i + 1}", 1) or 1) for i in range(axes)}
    field = None
    if axes:
        if len(at) != axes or len(groups) > 1 or (axes == 2 and list(at) != ["X", "Y"]):
            raise InputError(
                f"{name}: a polynomial of {', '.join(names)}; only X_IMAGE and Y_IMAGE, in one group, are read"
            )
        numbers = {key: float(known(key)) for i in at.values() for key in (f"POLZERO{i}", f"POLSCAL{i}")}
        zero, scale = (tuple(numbers.get(f"{key}{at.get(a)}", 1.0) for a in "YX") for key in ("POLZERO", "POLSCAL"))
        field = Polynomial(int(known("POLDEG1", 0) or 0), zero, scale, ("Y" in at, "X" in at))  # type: ignore[arg-type]
        if field.count != len(images):
            raise InputError(
                f"{name}: {len(images)} images for a polynomial of {field.count} terms; the file is damaged"
            )
    samples = float(known("PSF_SAMP", 1) or 1)
    sampling = Sampling(step=samples, of_step=f"PSF_SAMP = {samples:.4g} px a sample", effective=True)
    degree, variables = (field.degree if field else 0), ", ".join(names) or "nothing"
    notes = Notes(f"{name}: a PSFEx model, polynomial of degree {degree} in {variables}")
    return PSFFile(name, images[: field.count if field else 1], sampling, field if degree else None, notes)

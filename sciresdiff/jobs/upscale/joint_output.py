"""The grid and the header of an image that is made of several exposures."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from sciresdiff.errors import InputError
from sciresdiff.frame import Frame
from sciresdiff.io.files import split_spec
from sciresdiff.jobs.upscale.options import UpscaleOptions
from sciresdiff.observation.joint import Joint


def grid_of(options: UpscaleOptions) -> Any:
    """The header of the output's grid where one is stated, else None.

    Bands that are matched may have it with finer pixels.
    """
    if options.grid is None:
        return None
    header, scale = on_grid(options.grid), options.scale or 1
    if not options.match_psf or scale == 1:
        return header
    from sciresdiff.io.fits.wcs import rescale_header

    sides = {f"NAXIS{i}": round(scale * header[f"NAXIS{i}"]) for i in (1, 2)}
    finer = rescale_header(header, scale)
    finer.update(sides)
    return finer


def on_grid(name: str) -> Any:
    """The header of ``--grid``: of a FITS image, or of a text file with header cards.

    Raises
    ------
    InputError : a file that is no header of an image, or one without a WCS.
    """
    from astropy.io import fits

    from sciresdiff.io.fits.wcs import has_wcs

    path = split_spec(name)[0]
    if not Path(path).is_file():
        raise InputError(f"--grid: {name} does not exist; give a FITS image or a text file of its header")
    try:
        with warnings.catch_warnings(), open(path, "rb") as stream:
            warnings.simplefilter("ignore")  # astropy tells of every line that is no card
            start = stream.read(2880)
            is_text = b"\n" in start or not start.startswith(b"SIMPLE  =")
            header = fits.Header.fromtextfile(path) if is_text else image_header(name)
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"--grid: {name} is no header of an image ({error}); give a FITS image or its header"
        ) from error
    sides = [header.get(f"NAXIS{i}") for i in (1, 2)]
    if not all(isinstance(n, int) and n > 0 for n in sides):
        raise InputError(f"--grid: {name} is no header of an image: NAXIS1 and NAXIS2 are {sides[0]} and {sides[1]}")
    if not has_wcs(header):
        raise InputError(f"--grid: {name} has no WCS (CTYPE1 RA---TAN or the like); give one that has")
    return header


def image_header(name: str) -> Any:
    """The header of the first image of a FITS file, or of the extension that is named."""
    from sciresdiff.io import open_source

    with open_source(name) as source:
        return source.frame.header.image.copy()


def output_frame(first: Frame, joint: Joint, grid: Any) -> Frame:
    """The frame of the output: that of the first exposure, with the WCS of a grid where one is given."""
    from sciresdiff.io.fits.wcs import wcs_cards

    if grid is None or getattr(first.header, "image", None) is None:
        return first
    header = first.header.image.copy()
    for card in wcs_cards(header).cards:
        if card.keyword in header:
            del header[card.keyword]
    for card in wcs_cards(grid).cards:
        header[card.keyword] = (card.value, card.comment)
    return first.with_(header=replace(first.header, image=header), pixel_size=joint.grid.pixel_size)

"""A PSF model of Piff, drawn by its own library at places over a frame."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.errors import InputError
from sciresdiff.io.files import first_line

PLACES = 5
"""Places along each axis of a frame at which the model is drawn; between them it is interpolated."""
STAMP = 51
"""Side of a drawn stamp, px."""


def is_piff(hdus: Any) -> bool:
    """Whether a file holds a model of Piff: tables named ``psf`` or ``piff``, and what belongs to them."""
    names = {str(hdu.name).lower() for hdu in hdus}
    return bool(names & {"psf", "piff"}) and any("psf_" in name or name == "piff_version" for name in names)


def draw_piff(path: Path, size: tuple[int, int] | None, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Stamps of a Piff model on a frame's pixels, which they have in them.

    Parameters
    ----------
    path : Path
    size : (int, int) or None
        (h, w) of the frame; None: only at its first pixel.
    name : str
        Of the file, for messages.

    Returns
    -------
    images : (J, Y, X) array
    places : (J, 2) array
        y and x, px from the centre of the first.

    Raises
    ------
    InputError
        Piff is not installed, or its model needs more than a position (a chip, a colour).
    """
    try:
        piff: Any = import_module("piff")
    except ImportError as error:
        raise InputError(
            f"{name}: a Piff model, which only Piff can draw: pip install piff, or write draws of it at some places as "
            "a cube with a table of X and Y, and give that"
        ) from error
    lines = [np.unique(np.linspace(0, n - 1, PLACES if n > 1 else 1)) for n in size or (1, 1)]
    places = np.stack(np.meshgrid(*lines, indexing="ij"), -1).reshape(-1, 2)
    try:
        model = piff.read(str(path))
        # Piff counts pixels as FITS does; center=True puts the PSF on the middle of its stamp
        stamps = [model.draw(x=x + 1, y=y + 1, stamp_size=STAMP, center=True).array for y, x in places]
    except Exception as error:  # Piff raises what it likes
        raise InputError(
            f"{name}: Piff does not draw this model by position alone ({first_line(error)}); write draws of it as a "
            "cube with a table of X and Y, and give that"
        ) from error
    return np.asarray(stamps, np.float64), places

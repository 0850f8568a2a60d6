"""What this program writes about its own files, as JSON for the formats that have no header cards."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sciresdiff.frame import Frame, PixelSize

NAMESPACE = "sciresdiff"
"""Key under which it stands in the metadata of other formats."""


def to_float(text: str | None) -> float:
    """Number in a text; 0 where there is none."""
    try:
        return float(text or 0)
    except ValueError:
        return 0.0


def provenance_writer(
    frame: Frame, planes: Mapping[str, Any], provenance: Mapping[str, object], history: Sequence[str], scale: float
) -> Callable[[Mapping[str, object]], dict[str, Any]]:
    """Return the function that makes the record of an output: what FITS would have in cards and planes.

    Parameters
    ----------
    frame : Frame
        The output, with the input's header.
    planes, provenance, history, scale
        As in `sciresdiff.io.write`.

    Returns
    -------
    callable
        (cards whose values were not known before) -> record in JSON's types.
    """
    kernel = planes.get("KERNEL", frame.kernel if scale < 1 else None)

    def record(cards: Mapping[str, object]) -> dict[str, Any]:
        found: dict[str, Any] = {key: _to_json(x) for key, x in {**provenance, **cards}.items() if x is not None}
        if kernel is not None:
            found.setdefault("SRDKSCAL", frame.kernel_scale if frame.kernel_scale and scale < 1 else round(1 / scale))
            found["SRDKERN" if isinstance(kernel, str) else "KERNEL"] = _to_json(kernel)
        if "VAR" in planes:
            found["VAR"] = True
        if frame.quantity and found:  # alone it would be a record of nothing
            found["quantity"] = frame.quantity
        return {**found, "history": list(history)} if history else found

    return record


def apply_provenance(frame: Frame, provenance: Mapping[str, Any]) -> Frame:
    """Return a frame with what a record says of it.

    Parameters
    ----------
    frame : Frame
        Its own quantity wins.
    provenance : mapping
        Record of `provenance_writer`: kernel and its scale, SRDSCALE, FWHM of the target PSF, quantity.
    """
    if "SRDKSCAL" in provenance:
        kernel = provenance.get("KERNEL", provenance.get("SRDKERN", "none"))
        array = np.asarray(kernel, np.float64) if isinstance(kernel, list) else kernel
        frame = frame.with_(kernel=array, kernel_scale=round(float(provenance["SRDKSCAL"])))
    facts = dict(frame.facts)
    for name, key in (("scale", "SRDSCALE"), ("psf_known", "SRDTFWHM")):
        if (found := to_float(str(provenance.get(key, "")))) > 0:
            facts[name] = found
    psf = f"gaussian:fwhm={facts['psf_known']:g}px" if "psf_known" in facts else frame.psf
    return frame.with_(facts=facts, psf=psf, quantity=frame.quantity or provenance.get("quantity"))


def output_pixel_size(frame: Frame, scale: float) -> PixelSize | None:
    """Pixel size of an output with ``scale`` new pixels per old one.

    A frame without a header has the output's already (see `sciresdiff.io.write`).
    """
    if frame.pixel_size is None or frame.header is None:
        return frame.pixel_size
    return frame.pixel_size.refine(scale)


def _to_json(x: object) -> Any:
    if isinstance(x, np.ndarray | np.generic):
        return x.tolist()
    return x if isinstance(x, bool | int | float | str | list | dict) else str(x)

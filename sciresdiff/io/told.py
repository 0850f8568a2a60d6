"""What this program tells of its own files where there are no header cards: as JSON, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sciresdiff.frame import Frame, PixelSize
from sciresdiff.io.tiff.meta import to_float


def telling(
    frame: Frame, planes: Mapping[str, Any], provenance: Mapping[str, object], history: Sequence[str], scale: float
) -> Callable[[Mapping[str, object]], dict[str, Any]]:
    """(cards known at the end) -> everything that FITS would have in cards and planes, JSON-able.

    Parameters are those of `sciresdiff.io.write`.
    """
    kernel = planes.get("KERNEL", frame.kernel if scale < 1 else None)

    def told(cards: Mapping[str, object]) -> dict[str, Any]:
        found: dict[str, Any] = {key: _plain(x) for key, x in {**provenance, **cards}.items() if x is not None}
        if kernel is not None:
            found.setdefault("SRDKSCAL", frame.kernel_scale if frame.kernel_scale and scale < 1 else round(1 / scale))
            found["SRDKERN" if isinstance(kernel, str) else "KERNEL"] = _plain(kernel)
        if "VAR" in planes:
            found["VAR"] = True
        if frame.quantity and found:
            found["quantity"] = frame.quantity
        return {**found, "history": list(history)} if history else found

    return told


def restored(frame: Frame, told: Mapping[str, Any]) -> Frame:
    """A frame with what was told of it: kernel, scale, target PSF, quantity."""
    if "SRDKSCAL" in told:
        kernel = told.get("KERNEL", told.get("SRDKERN", "none"))
        array = np.asarray(kernel, np.float64) if isinstance(kernel, list) else kernel
        frame = frame.with_(kernel=array, kernel_scale=round(float(told["SRDKSCAL"])))
    facts = dict(frame.facts)
    for name, key in (("scale", "SRDSCALE"), ("psf_known", "SRDTFWHM")):
        if (found := to_float(str(told.get(key, "")))) > 0:
            facts[name] = found
    psf = f"gaussian:fwhm={facts['psf_known']:g}px" if "psf_known" in facts else frame.psf
    return frame.with_(facts=facts, psf=psf, quantity=frame.quantity or told.get("quantity"))


def new_size(frame: Frame, scale: float) -> PixelSize | None:
    """Pixel size of an output with ``scale`` new pixels per old one; a frame without a header has it already."""
    if frame.pixel_size is None or frame.header is None:
        return frame.pixel_size
    return frame.pixel_size.finer(scale)


def _plain(x: object) -> Any:
    if isinstance(x, np.ndarray | np.generic):
        return x.tolist()
    return x if isinstance(x, bool | int | float | str | list | dict) else str(x)

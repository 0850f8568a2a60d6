"""The sidecar of an image: what ``upscale`` has recorded of the frame that it restored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from sciresdiff.errors import InputError
from sciresdiff.frame import Quantity
from sciresdiff.io.files import split_spec
from sciresdiff.jobs.upscale.options import UpscaleOptions
from sciresdiff.observation.options import SWITCHES, Stated
from sciresdiff.parse import parse_json

OF_DATA = ("gain", "read_noise", "offset", "em_gain", "noise", "variance", "mask", "saturation", "axes", "target_fwhm",
           "psf", "kernel", "psf_error", "na", "ri", "wavelength", "pinhole")  # fmt: skip
"""Options of ``upscale`` that describe the frame that is restored."""


def read_record(high: str | Path) -> Mapping[str, Any]:
    """What stands in ``{high}.json``; empty where there is none that can be read."""
    file = split_spec(high)[0]
    try:
        record = parse_json(file.with_name(file.name + ".json").read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def recorded_options(record: Mapping[str, Any]) -> UpscaleOptions:
    """The options that an image was made with, those of them that this version knows."""
    known = {one.name for one in fields(UpscaleOptions)}
    return UpscaleOptions(**{name: value for name, value in record["options"].items() if name in known})


@dataclass(frozen=True)
class Sidecar:
    """The record beside an image; empty where there is none."""

    record: Mapping[str, Any]
    """As it stands in ``{image}.json``."""

    @classmethod
    def read(cls, high: str | Path, low: str | Path | None) -> Sidecar:
        """Read the sidecar of an image; empty where there is none, or it speaks of another input.

        Parameters
        ----------
        high : str or Path
            The image.
        low : str, Path or None
            The frame that it is judged against.

        Raises
        ------
        InputError
            An image whose planes were restored as one volume.
        """
        record = read_record(high)
        if not record or low is None:
            return cls({})
        same = Path(str(record.get("input", ""))).name == Path(str(low)).name
        provenance = record.get("provenance")
        if same and isinstance(provenance, dict) and provenance.get("SRDDEPTH"):
            raise InputError(
                f"{high}: restored in depth, where a plane's data hold the light of all others; what a plane alone "
                "tells is no check of it. chi2 of every plane stands in its sidecar; --truth without --low scores it"
            )
        return cls(record if same and isinstance(record.get("options"), dict) else {})

    def __bool__(self) -> bool:
        """Whether there is a record."""
        return bool(self.record)

    @property
    def quantity(self) -> Quantity | None:
        """As the restoration took it."""
        return self.record.get("quantity")

    @property
    def target_fwhm(self) -> float | None:
        """FWHM of the image's PSF, output px."""
        return self.record.get("target_fwhm_px")

    def merge(self, stated: Stated) -> Stated:
        """What was stated of the data for the restoration; what ``stated`` says of blur and variance wins, and a mask
        that either switches off is off."""
        before = self.record.get("options", {})
        switches: dict[str, Any] = {name: getattr(stated, name) and before.get(name) is not False for name in SWITCHES}
        merged = Stated(**{name: before.get(name) for name in OF_DATA}, **switches)
        if stated.psf or stated.kernel:
            merged = replace(merged, psf=stated.psf, kernel=stated.kernel)
        if stated.psf or stated.kernel or not self:
            merged = replace(merged, psf_error=0.0)  # an image is judged by what is said here, and not by what is usual
        return replace(
            merged,
            psf_error=merged.psf_error if stated.psf_error is None else stated.psf_error,
            variance=stated.variance or merged.variance,
            target_fwhm=stated.target_fwhm or merged.target_fwhm,
        )

"""From the whole PSF of a frame, as SPECs, files or images state it, to the blur on the output grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sciresdiff.errors import UsageError
from sciresdiff.frame import Frame
from sciresdiff.io.fits.header import card_number
from sciresdiff.io.psf_file import PSFFile
from sciresdiff.io.psf_places import Polynomial, Positions
from sciresdiff.io.psf_sampling import Sampling
from sciresdiff.notes import Notes
from sciresdiff.observation.optics import channel_of_planes
from sciresdiff.observation.origins import warn_instrument
from sciresdiff.physics import psf
from sciresdiff.physics.psf.field import PSF
from sciresdiff.physics.psf.file import field_of_file, fit_to_frame, kernels_of_file, open_psf
from sciresdiff.physics.psf.profile_fit import profile_of
from sciresdiff.physics.psf.spec import PSFSpec

Kernel = NDArray[np.float64]

PART = 0.8
"""Share of the field of a varying PSF below which a frame may be a part that was cut out of it."""
NEAR = 0.1
"""Distance from the frame's first pixel, as a share of the field, within which that field begins."""


@dataclass(frozen=True)
class WholePSF:
    """What turns the whole PSF of a frame into the blur between it and the wanted image."""

    frame: Frame
    """What the file says; its values are not used."""
    scale: int
    """Output pixels per pixel of the frame."""
    target: float
    """FWHM of the wanted image's PSF, output px."""

    @property
    def size(self) -> tuple[int, int]:
        """(Y, X) of the output grid."""
        h, w = self.frame.pixels.shape[1:]
        return self.scale * h, self.scale * w

    def of_specs(self, specs: Sequence[PSFSpec | str]) -> tuple[tuple[PSF | None, ...], Notes]:
        """The blurs of one SPEC for all planes, or of one for each; what two planes share is made once.

        Parameters
        ----------
        specs : sequence of PSFSpec or str

        Returns
        -------
        blurs : tuple
            One, or one for each plane.
        notes : Notes
        """
        if len(specs) == 1:
            return self.of_spec(specs[0])
        made: dict[PSFSpec | str, PSF | None] = {}
        notes, blurs = Notes(), []
        for plane, spec in enumerate(specs):
            if str(spec) not in made:
                found, more = self.of_spec(spec)
                made[str(spec)], notes = found[plane if len(found) > 1 else 0], notes + more
            blurs.append(made[str(spec)])
        return tuple(blurs), notes

    def of_spec(self, spec: PSFSpec | str) -> tuple[tuple[PSF | None, ...], Notes]:
        """The blur of one SPEC: several where it is a file with an image for each plane."""
        parsed = psf.parse(spec) if isinstance(spec, str) else spec
        if parsed.shape == "file":
            h, w = self.frame.pixels.shape[1:]
            blurs, notes = self.of_file(open_psf(parsed, (h, w)))
            return blurs, notes + warn_instrument(self.frame, str(parsed.path))
        pixel = self.frame.pixel_size
        kernel = psf.kernel_from_psf(parsed, pixel=pixel, scale=self.scale, target_fwhm_px_fine=self.target)
        return self.fit([kernel], "psf")

    def of_images(self, images: NDArray[np.float64]) -> tuple[tuple[PSF | None, ...], Notes]:
        """The blur of an image (Y, X) on the frame's pixels, which has the pixel in it, or of one for each plane."""
        if images.ndim not in (2, 3):
            images = images.reshape(-1, *images.shape[-2:]) if images.ndim > 3 else images[None]
        stack = images if images.ndim == 3 else images[None]
        like_frame = Sampling(step=1.0, of_step="given as an array", effective=True)
        blurs, notes = self.of_file(PSFFile("psf", stack, like_frame))
        return blurs, Notes(*(line for line in notes if "given as an array" not in line))

    def of_file(self, found: PSFFile) -> tuple[tuple[PSF | None, ...], Notes]:
        """The blur of the file of a PSF, in whatever form."""
        frame, target = self.frame, psf.target_psf(self.target)
        h, w = frame.pixels.shape[1:]
        if (profile := profile_of_file(found)) is not None:
            return self.of_spec(profile)[0], describe_profile(found.name, profile)
        if found.field is None:
            kernels, notes = kernels_of_file(found, frame.planes, frame.pixel_size, self.scale, target, (h, w))
            blurs, more = self.fit(kernels, found.name)
            return blurs, notes + more
        origin, of_place = origin_in_field(found.field, frame, found.name)
        blur, notes = field_of_file(found, frame.pixel_size, self.scale, target, (h, w), origin)
        return (blur,), notes + of_place

    def fit(self, kernels: Sequence[Kernel | None], name: str) -> tuple[tuple[PSF | None, ...], Notes]:
        """Kernels as PSFs, cut to the frame's size."""
        fitted = [(None, Notes()) if k is None else fit_to_frame(k, self.size, name) for k in kernels]
        notes = sum((more for _, more in fitted), Notes())
        return tuple(None if k is None else PSF.constant(k) for k, _ in fitted), notes.unique()


def profile_of_file(found: PSFFile) -> PSFSpec | None:
    """The profile that is the image of a PSF which its pixels sample too coarsely; None where there is none."""
    if found.field is not None or len(found.images) > 1 or found.sampling.step not in (None, 1.0):
        return None
    image = found.images[0]
    if any(n % 2 == 0 for n in image.shape) or not image.sum() > 0:
        return None
    return profile_of(image / image.sum())


def describe_profile(name: str, profile: PSFSpec) -> Notes:
    """The line about a profile that is used for the image of a PSF with such a name."""
    return Notes(f"{name} is undersampled; it is {profile} over the pixel to 1 % of its peak, which is used")


def split_specs(text: str, frame: Frame) -> list[str]:
    """The SPECs of ``--psf``, of which several stand with ``;`` between: one for each channel or plane.

    Parameters
    ----------
    text : str
        SPEC, or ``SPEC;SPEC;...``.
    frame : Frame
        What the file says.

    Returns
    -------
    list of str
        One, or one for each plane.

    Raises
    ------
    UsageError
        Another number of them than there are channels or planes.
    """
    specs = [part.strip() for part in text.split(";") if part.strip()]
    if len(specs) <= 1:
        return [text]
    of_plane = channel_of_planes(frame)
    channels = max(of_plane) + 1
    if channels > 1 and len(specs) == channels:
        return [specs[channel] for channel in of_plane]
    if len(specs) == frame.planes:
        return specs
    raise UsageError(
        f"--psf: {len(specs)} PSFs are given for {channels} channels and {frame.planes} planes; give one, or one for "
        "each"
    )


def origin_in_field(field: Polynomial | Positions, frame: Frame, name: str) -> tuple[tuple[float, float] | None, Notes]:
    """Where the first pixel of a frame lies in the field of a PSF.

    The places are pixels of the image that the PSF was made of.  A frame that was cut out of it has its place in LTV1
    and LTV2; **where it has not, nobody knows the place**.

    Parameters
    ----------
    field : Polynomial or Positions
        Of the PSF.
    frame : Frame
        What the file says.
    name : str
        Of the PSF's file, for messages.

    Returns
    -------
    origin : (y, x) or None
        Pixels of the field; None where the place is not known.
    notes : Notes
    """
    sides, extent = frame.pixels.shape[1:], field.extent
    lengths = [last - first for first, last in extent]
    part = all(n < PART * length for n, length in zip(sides, lengths, strict=True))
    begins = all(abs(first) < NEAR * length for (first, _), length in zip(extent, lengths, strict=True))
    if not (part and begins):
        return (0.0, 0.0), Notes(f"{name}: it varies over the field; places are counted from the frame's first pixel")
    header = getattr(frame.header, "image", None)
    shift = None if header is None else [card_number(header, key) for key in ("LTV2", "LTV1")]
    if shift and None not in shift and max(abs(float(one)) for one in shift if one is not None) > 2:
        y, x = (-float(one) for one in shift)  # type: ignore[arg-type]
        return (y, x), Notes(f"{name}: it varies over the field; by LTV1 and LTV2 the frame begins at y {y:g}, x {x:g}")
    size = f"{lengths[0]:.0f} x {lengths[1]:.0f}"
    return None, Notes(
        f"WARNING {name}: made for a field of {size} px, of which the frame of {sides[0]} x {sides[1]} px is a part; "
        "where it lies is not known (no LTV1, LTV2), and the PSF of the middle is used"
    )

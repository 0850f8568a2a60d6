"""A pair as its files have it, and how its fine image is matched in brightness to the coarse one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from sciresdiff.checks.check import UnmeasuredError
from sciresdiff.degradation.grids import block_view
from sciresdiff.errors import InputError
from sciresdiff.frame import Quantity
from sciresdiff.physics.operators import Operator
from sciresdiff.physics.registration import Displacement, displacement
from sciresdiff.region import Region
from sciresdiff.training.image_pair import ImagePair, find_bad, measure_noise, normalize_pair
from sciresdiff.training.intensity import Intensity, find_clipped, fit_intensity

Mask = NDArray[np.bool_]

CROP = 512
"""Side of the part, about the middle, that is compared, coarse px."""
ALIKE = 0.5
"""Least correlation of two images of one thing, after smoothing."""
REGISTERED = 1.0
"""Displacement beyond which a pair is refused, coarse px."""
LOST = 1e-3
"""Share of a coarse pixel's light that may come from bad fine pixels, which are often bright, for it to be compared."""
AMBIGUOUS = 0.1
"""Gain in correlation below which a displacement by whole pixels is one of a periodic pattern."""
BLURRED = 1.5
"""Standard deviation of the Gaussian that both images are smoothed by before they are registered, coarse px."""


@dataclass(frozen=True)
class GivenPair:
    """One plane of a pair, in the units of its files."""

    name: str
    """Of the coarse file, for errors."""
    low: NDArray[Any]
    """(h, w)"""
    high: NDArray[Any]
    """(s*h, s*w)"""
    kernel: NDArray[np.float64] | None
    """(K, K), PSF between them on the fine grid; None for pixel integration alone."""
    quantity: Quantity
    """Whether s^2 fine pixels add up to a coarse one (``sum``), or it is their mean."""
    variance: NDArray[Any] | None = None
    """(h, w), of ``low``."""
    step: NDArray[Any] | float = 0.0
    """What one code more adds to a pixel of ``low``."""
    mask: Mask | None = None
    """(h, w), True where ``low`` is bad."""
    high_mask: Mask | None = None
    """(s*h, s*w), True where ``high`` is bad."""

    @property
    def scale(self) -> int:
        """Fine pixels per coarse pixel and axis."""
        return int(self.high.shape[0] // self.low.shape[0])

    def normalize(self) -> ImagePair:
        """Bring the pair to noise units, see `normalize_pair`.

        Raises
        ------
        InputError : no valid pixel, or noise that cannot be measured.
        """
        return normalize_pair(
            self.name, self.low, self.high, kernel=self.kernel, quantity=self.quantity, variance=self.variance,
            step=self.step, mask=self.mask, high_mask=self.high_mask,
        )  # fmt: skip

    def match(self, gain: float, offset: float) -> GivenPair:
        """The pair with a fine image of which the coarse one is the image: gain * high + offset.

        Parameters
        ----------
        gain, offset : of a coarse pixel, in its unit; of a sum, a fine pixel has its share of the offset.
        """
        share = 1 / self.scale**2 if self.quantity == "sum" else 1.0
        return replace(self, high=gain * np.asarray(self.high, np.float64) + share * offset)

    def without_clipped(self, known: Intensity) -> GivenPair:
        """The pair without the pixels that are cut in the coarse image, and go on in the fine one."""
        wrong, bad = find_bad(self.low, self.high, self.mask, self.high_mask)
        share = self.scale**2 if self.quantity == "sum" else 1
        fine = block_view(np.where(wrong, 0, self.high), self.scale).mean((-3, -1)) * share
        clipped = find_clipped(self.low, known.gain * fine + known.offset, bad, known.noise)
        return replace(self, mask=clipped if self.mask is None else self.mask | clipped) if clipped.any() else self

    def compare(self, register: bool) -> Comparison:
        """Compare the brightness of the two images and, if ``register``, where they lie.

        The brightness is compared all over the image where that is no larger than CROP, else about its middle.
        """
        part = self._middle()
        wrong, bad = find_bad(part.low, part.high, part.mask, part.high_mask)
        if bad.all():
            return Comparison(None, None)
        low = np.where(bad, np.median(part.low[~bad]), part.low).astype(np.float64)
        high = np.where(wrong, np.median(part.high[~wrong]), part.high).astype(np.float64)
        kernel = np.ones((1, 1)) if self.kernel is None else self.kernel
        operator = Operator(low.shape, self.scale, kernel, self.quantity, torch.float64)
        seen = operator.apply(torch.from_numpy(high)).numpy()
        noise = measure_noise(low, bad)
        lost = operator.apply(torch.from_numpy(wrong.astype(np.float64))).numpy()
        bad |= np.abs(lost) > LOST * (self.scale**2 if self.quantity == "sum" else 1)
        if bad.all():
            return Comparison(None, None)
        shift = _registration(seen, low, ~bad) if register else None
        return Comparison(fit_intensity(low, seen, bad, noise), shift)

    def check(self, found: Comparison, partner: str) -> None:
        """Refuse a pair that lies apart, or does not show the same.

        Parameters
        ----------
        found : of `compare`.
        partner : name of the fine image.

        Raises
        ------
        InputError : a displacement above REGISTERED, another image, or an inverted contrast.
        """
        if found.shift is not None and found.apart > REGISTERED:
            raise InputError(
                f"{self.name}: lies ({found.shift.y:+.1f}, {found.shift.x:+.1f}) px (y, x) from {partner};"
                f" training takes pairs within {REGISTERED:g} px: register the two images, or leave the pair out"
            )
        if found.intensity is None or not np.isfinite(found.intensity.gain_error):
            return
        alike = found.intensity.correlation
        if alike < -ALIKE:
            raise InputError(
                f"{self.name}: is dark where {partner} is bright (correlation {alike:.2f}); invert one of the two"
            )
        if alike < ALIKE:
            raise InputError(
                f"{self.name}: does not show what {partner} shows (correlation {alike:.2f}); check that the two are"
                " partners, and neither turned nor mirrored"
            )

    def _middle(self) -> GivenPair:
        """The part that is compared."""
        (h, w), scale = self.low.shape, self.scale
        if max(h, w) <= CROP:
            return self
        y, x = max(0, (h - CROP) // 2), max(0, (w - CROP) // 2)
        part = Region(y, min(h, y + CROP), x, min(w, x + CROP))
        near, fine = part.slices, part.scaled(scale).slices
        return replace(
            self, low=self.low[near], high=self.high[fine],
            mask=None if self.mask is None else self.mask[near],
            high_mask=None if self.high_mask is None else self.high_mask[fine],
        )  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """What the two images of a pair have to do with each other."""

    intensity: Intensity | None
    """None where an image has too little contrast."""
    shift: Displacement | None
    """Of the coarse image against the fine one, coarse px; None where it cannot be measured."""

    @property
    def apart(self) -> float:
        """Displacement less five standard errors, coarse px; 0 where it is not measured."""
        return (
            0.0 if self.shift is None else max(0.0, float(np.hypot(self.shift.y, self.shift.x)) - 5 * self.shift.error)
        )


def _registration(seen: NDArray[np.float64], low: NDArray[np.float64], good: Mask) -> Displacement | None:
    """Displacement of ``low`` against ``seen``, both (h, w); None where there is too little in common."""
    seen, low = (ndimage.gaussian_filter(image, BLURRED) for image in (seen, low))
    try:
        found = displacement(seen, low, good)
    except UnmeasuredError:
        return None
    in_place = float(np.corrcoef(seen[good], low[good])[0, 1])
    is_pattern = np.hypot(found.y, found.x) > REGISTERED and found.correlation < in_place + AMBIGUOUS
    return None if is_pattern else found

"""What a check looks at: one image, the data it was made from, and the truth where it is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass, field, replace
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from sciresdiff.checks.arrays import Array, Mask, blocks, fill_with_median
from sciresdiff.frame import Kind, Quantity
from sciresdiff.region import Region

if TYPE_CHECKING:
    from sciresdiff.physics.operators import Operator

T = TypeVar("T")

NAMES = {"astro": ("sources", "sky"), "micro": ("foreground", "background")}
"""What the bright and the dark part of a frame are called."""

LEAK = 0.05
"""Share of a coarse pixel's area that may be masked fine pixels before the pixel is left out."""
CLEAR_PX = 6
"""Distance from masked pixels at which a pixel counts as clear of them, fine px."""
LIGHT = 0.5
"""Light from masked fine pixels that a coarse pixel may hold before it is left out, sigma."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """One plane: an image to be judged, the data it was made from, and the truth where it is known.

    The fine grid has (Y, X) = (scale*h, scale*w) pixels, the data (h, w); values are in the files' own unit. What the
    checks derive from it (backgrounds, source lists, the bicubic image) are functions of `Evidence` that remember their
    answer: see `evidence_cache` and `share`.
    """

    high: Array
    """(Y, X), the image that is judged."""
    scale: int
    """Fine pixels per coarse pixel and axis."""
    low: Array | None = None
    """(h, w), the data."""
    variance: Array | None = None
    """(h, w), variance of the data, unit^2."""
    truth: Array | None = None
    """(Y, X)."""
    mask_high: Mask | None = None
    """(Y, X), True where nothing is judged."""
    mask_low: Mask | None = None
    """(h, w), True where the data are not valid."""
    operator: Operator | None = None
    """From the fine grid to the data, in float64; None where the blur is not known."""
    err: Array | None = None
    """(Y, X), the standard deviation that is claimed for every pixel."""
    support: Array | None = None
    """(Y, X), 0..1."""
    draws: Array | None = None
    """(K, Y, X), posterior samples."""
    trust: Array | None = None
    """(Y, X), 1 where the image is to be trusted, else 0."""
    again: Callable[[Array], Array] | None = None
    """Restores other data (h, w) of the same noise, mask and blur in the same way: (Y, X)."""
    kind: Kind = "astro"
    quantity: Quantity = "sum"
    target_fwhm_px: float | None = None
    """FWHM of the PSF that ``high`` is meant to have, fine px; None where it is not known."""
    core: Region | None = None
    """Part that is judged of a window of a larger plane, fine px, whole coarse ones; the rest is its surroundings."""
    span: float | None = None
    """Range of the truth over that larger plane; None where this is all of it."""
    shared: dict[str, Any] = field(default_factory=dict, repr=False)
    """Values that depend on data and truth only, shared by all images that are compared on them."""
    cache: dict[str, Any] = field(default_factory=dict, init=False, repr=False)
    """Values of the functions marked `evidence_cache`, of this image alone."""

    def with_image(self, high: Array) -> Evidence:
        """Judge another image (Y, X), which claims no errors, on the same data and truth."""
        return replace(self, high=high, err=None, support=None, draws=None, trust=None, again=None, target_fwhm_px=None)

    def share(self, name: str, make: Callable[[], T]) -> T:
        """Compute a value that depends on data and truth only, once for all images compared on them.

        Parameters
        ----------
        name : of the value; whatever else it depends on (a threshold, say) has to be part of the name.
        make : computes it.
        """
        if name not in self.shared:
            self.shared[name] = make()
        value: T = self.shared[name]
        return value

    @property
    def bright_name(self) -> str:
        """``sources`` or ``foreground``."""
        return NAMES[self.kind][0]

    @property
    def dark_name(self) -> str:
        """``sky`` or ``background``."""
        return NAMES[self.kind][1]

    @property
    def mpix(self) -> float:
        """Millions of judged fine pixels, masked ones included."""
        return (self.high if self.core is None else self.high[self.core.slices]).size / 1e6

    @cached_property
    def valid_high(self) -> Mask:
        """(Y, X), fine pixels that are not masked and have finite values; those around a core included."""
        good = np.isfinite(self.high) if self.mask_high is None else np.isfinite(self.high) & ~self.mask_high
        return good if self.truth is None else good & np.isfinite(self.truth)

    @cached_property
    def good_high(self) -> Mask:
        """(Y, X), fine pixels that are judged: the valid ones, of the core where there is one."""
        return self.valid_high if self.core is None else self.valid_high & _inside(self.core, self.high.shape)

    @cached_property
    def unmasked_low(self) -> Mask | None:
        """(h, w), coarse pixels with a finite value that are not masked; None without data."""
        if self.low is None:
            return None
        return np.isfinite(self.low) if self.mask_low is None else np.isfinite(self.low) & ~self.mask_low

    @cached_property
    def valid_low(self) -> Mask | None:
        """(h, w), those of `unmasked_low` whose variance, where it is known, is finite and above 0."""
        good = self.unmasked_low
        if good is None or self.variance is None:
            return good
        return good & np.isfinite(self.variance) & (self.variance > 0)

    @cached_property
    def good_low(self) -> Mask | None:
        """(h, w), coarse pixels that are judged: valid data without light of masked fine pixels; None without data.

        The value of a masked fine pixel is not the image's claim, and light of a saturated star crosses the edge of its
        mask. A coarse pixel is left out where masked pixels make up 5 % of its area, or half a sigma of its value above
        the image's median.
        """
        good = self.valid_low
        if good is None:
            return None
        if self.core is not None:
            coarse = Region(*(end // self.scale for end in astuple(self.core)))
            good = good & _inside(coarse, good.shape)
        if self.operator is None or self.valid_high.all():
            return good & blocks(self.valid_high, self.scale).all((2, 3))
        bad = ~self.valid_high
        touched = self.degrade(bad.astype(float)) / float(self.degrade(np.ones_like(self.high)).max())
        good = good & (touched < LEAK)
        if self.variance is None:
            return good
        image = self.finite_high
        above = np.abs(image - np.median(image[self.valid_high])) if self.valid_high.any() else image
        return good & (self.degrade(np.where(bad, above, 0)) < LIGHT * np.sqrt(np.where(good, self.variance, 0)))

    @cached_property
    def finite_high(self) -> Array:
        """(Y, X), ``high`` with pixels that have no value replaced by the median of the valid ones."""
        finite = np.isfinite(self.high)
        good = self.valid_high if self.valid_high.any() else finite
        return np.where(finite, self.high, np.median(self.high[good]) if good.any() else 0.0)

    @cached_property
    def clear_of_mask(self) -> Mask:
        """(Y, X), judged pixels more than 6 px away from those that are not valid."""
        from scipy.ndimage import distance_transform_edt

        if self.valid_high.all():
            return self.good_high
        return np.asarray(self.good_high & (distance_transform_edt(self.valid_high) > CLEAR_PX))

    def degrade(self, fine: Array) -> Array:
        """Compute A x, the noiseless data (h, w) of an image x (Y, X).

        Raises
        ------
        ValueError : there is no operator.
        """
        import torch

        if self.operator is None:
            raise ValueError("operator: the blur is not known")
        image = torch.from_numpy(np.ascontiguousarray(fine)).to(self.operator.dtype)
        return np.asarray(self.operator.apply(image[None, None])[0, 0].numpy())

    @cached_property
    def predicted_low(self) -> Array | None:
        """(h, w), A x of the judged image; None where the blur is not known."""
        return None if self.operator is None else self.degrade(self.finite_high)

    @cached_property
    def sky_low(self) -> Mask | None:
        """(h, w), the darker half of the coarse pixels of A t, without a truth of A x; None where A is not known."""
        if self.operator is None:
            return None
        clean = self.predicted_low if self.truth is None else self.share("degraded_truth", self._degrade_truth)
        assert clean is not None
        return np.asarray(clean < np.percentile(clean, 50))

    def _degrade_truth(self) -> Array:
        assert self.truth is not None
        return self.degrade(fill_with_median(self.truth, np.isfinite(self.truth)))


def evidence_cache(make: Callable[[Evidence], T]) -> Callable[[Evidence], T]:
    """Decorate a function of one `Evidence`: its value is computed once and kept with that evidence.

    A plain function in its own module, and not a property of `Evidence`, so that imports run one way: detection and
    baselines know the evidence, the evidence knows neither.
    """
    name = f"{make.__module__}.{make.__qualname__}"

    @wraps(make)
    def value(evidence: Evidence) -> T:
        if name not in evidence.cache:
            evidence.cache[name] = make(evidence)
        found: T = evidence.cache[name]
        return found

    return value


def _inside(core: Region, shape: tuple[int, ...]) -> Mask:
    inside = np.zeros(shape, bool)
    inside[core.slices] = True
    return inside

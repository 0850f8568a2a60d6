"""What a check looks at, and what it says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.frame import Kind, Quantity

if TYPE_CHECKING:
    from sciresdiff.checks.sources import Sources
    from sciresdiff.physics.operators import Operator

Array = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]
Range = tuple[float | None, float | None]
"""Lowest and highest value that is accepted; None where there is no bound."""

NAMES = {"astro": ("sources", "sky"), "micro": ("foreground", "background")}
"""What the bright and the dark part of a frame are called."""

LEAK = 0.05
"""Share of a low pixel's area that may be masked fine pixels before the pixel is left out."""
CLEAR_PX = 6
"""Distance from masked pixels at which a pixel counts as clear of them, fine px."""
HIDDEN = 0.25
"""Share of the data's noise per fine pixel that the truth's noise is taken for at least; restored skies have that."""
LIGHT = 0.5
"""Light from masked fine pixels that a low pixel may hold before it is left out, in sigmas."""


@dataclass(frozen=True)
class Result:
    """One figure, where it was measured, what is accepted and what it means."""

    name: str
    value: float | None
    """None where it is not finite."""
    unit: str
    region: str
    limit: Range | None = None
    passed: bool | None = None
    """None where there is no limit."""
    meaning: str = ""
    weight: float = 1.0
    """How many pixels, sources ... the value speaks of; counts only where values of several parts are pooled."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """One plane: an image to be judged, the data it was made from, and the truth where it is known.

    Fine grid (Y, X) = scale * (h, w); all values are in the files' own unit.
    """

    high: Array
    """(Y, X), the image that is judged."""
    scale: int
    low: Array | None = None
    """(h, w), the data."""
    variance: Array | None = None
    """(h, w), variance of the data, unit**2."""
    truth: Array | None = None
    """(Y, X)."""
    mask_high: Mask | None = None
    """(Y, X), True where nothing is judged."""
    mask_low: Mask | None = None
    """(h, w), True where the data say nothing."""
    operator: Operator | None = None
    """From the fine grid to the data, in float64; None where the blur is not known."""
    err: Array | None = None
    """(Y, X), the standard deviation that is claimed for every pixel."""
    support: Array | None = None
    """(Y, X), 0..1."""
    draws: Array | None = None
    """(K, Y, X)."""
    trust: Array | None = None
    """(Y, X), 1 where the image is to be trusted, else 0."""
    again: Callable[[Array], Array] | None = None
    """Makes the image of other data (h, w) of the same noise, mask and blur, in the same way: (Y, X)."""
    kind: Kind = "astro"
    quantity: Quantity = "sum"
    target_fwhm_px: float | None = None
    """FWHM of the PSF that ``high`` is meant to have, fine px; None where it is not known."""
    core: tuple[slice, slice] | None = None
    """What is judged of a window of a larger plane, fine px, whole coarse ones; the rest is its surroundings."""
    span: float | None = None
    """Range of the truth over that larger plane; None where this is all of it."""
    shared: dict[str, Any] = field(default_factory=dict, repr=False)
    """What was found out of low and truth; the same for every image that is compared on them."""

    def other(self, high: Array) -> Evidence:
        """The same data and truth with another image, which claims no errors."""
        return replace(self, high=high, err=None, support=None, draws=None, trust=None, again=None, target_fwhm_px=None)

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """Something that depends on low and truth only, made at the first call."""
        if name not in self.shared:
            self.shared[name] = make()
        return self.shared[name]

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
        """Millions of fine pixels that are looked at, masked ones too."""
        return (self.high if self.core is None else self.high[self.core]).size / 1e6

    @cached_property
    def known(self) -> Mask:
        """Fine pixels that are not masked, and finite wherever there is a value; those about a core, too."""
        good = np.isfinite(self.high) if self.mask_high is None else np.isfinite(self.high) & ~self.mask_high
        return good if self.truth is None else good & np.isfinite(self.truth)

    @cached_property
    def good_high(self) -> Mask:
        """Fine pixels that are judged: those that are known, of the core where there is one."""
        return self.known if self.core is None else self.known & _inside(self.core, self.high.shape)

    @cached_property
    def good_low(self) -> Mask | None:
        """Coarse pixels that are judged: valid data without light of masked fine pixels; None without data.

        What a masked pixel holds is not the image's word for it, and light of a saturated star crosses its mask's edge:
        a coarse pixel is left out where masked pixels make up 5 % of its area, or half a sigma of its value above the
        image's median.
        """
        if self.low is None:
            return None
        good = np.isfinite(self.low) if self.mask_low is None else np.isfinite(self.low) & ~self.mask_low
        if self.variance is not None:
            good = good & np.isfinite(self.variance) & (self.variance > 0)
        if self.core is not None:
            here = (slice(side.start // self.scale, side.stop // self.scale) for side in self.core)
            good = good & _inside(tuple(here), good.shape)
        if self.operator is None or self.known.all():
            return good & blocks(self.known, self.scale).all((2, 3))
        bad = ~self.known
        touched = self.degraded(bad.astype(float)) / float(self.degraded(np.ones_like(self.high)).max())
        good = good & (touched < LEAK)
        if self.variance is None:
            return good
        above = np.abs(self.whole - np.median(self.whole[self.known])) if self.known.any() else self.whole
        return good & (self.degraded(np.where(bad, above, 0)) < LIGHT * np.sqrt(np.where(good, self.variance, 0)))

    @cached_property
    def whole(self) -> Array:
        """``high`` with pixels that have no value replaced by the median of those that are known."""
        finite = np.isfinite(self.high)
        good = self.known if self.known.any() else finite
        return np.where(finite, self.high, np.median(self.high[good]) if good.any() else 0.0)

    @cached_property
    def clear(self) -> Mask:
        """Judged pixels that are more than 6 px away from those that are not known."""
        from scipy.ndimage import distance_transform_edt

        if self.known.all():
            return self.good_high
        return np.asarray(self.good_high & (distance_transform_edt(self.known) > CLEAR_PX))

    def degraded(self, fine: Array) -> Array:
        """A x: what the data would be, were ``fine`` (Y, X) the sky; without noise.

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
    def redegraded(self) -> Array | None:
        """A x of the judged image; None where the blur is not known."""
        return None if self.operator is None else self.degraded(self.whole)

    @cached_property
    def sky_low(self) -> Mask | None:
        """The darker half of the coarse pixels, by the re-degraded truth, else by the re-degraded image."""
        if self.operator is None:
            return None
        clean: Array | None = self.redegraded if self.truth is None else self.once("clean", self._clean)
        assert clean is not None
        return np.asarray(clean < np.percentile(clean, 50))

    def _clean(self) -> Array:
        assert self.truth is not None
        return self.degraded(filled(self.truth, np.isfinite(self.truth)))

    @cached_property
    def bright(self) -> Mask:
        """Fine pixels on sources: the truth, else the bicubic image, else the image itself, smoothed and cut.

        Cut for ``astro`` at the sky + 3 sigma, for ``micro`` at Otsu's threshold.
        """
        if self.truth is None and self.low is None:
            return bright_pixels(self.whole, self.kind)
        return np.asarray(self.once("bright", lambda: bright_pixels(self._best_known(), self.kind)))

    def _best_known(self) -> Array:
        return self.bicubic if self.truth is None else filled(self.truth, np.isfinite(self.truth))

    @cached_property
    def bicubic(self) -> Array:
        """The data, interpolated; needs ``low``."""
        return np.asarray(self.once("bicubic", self._bicubic))

    def _bicubic(self) -> Array:
        from sciresdiff.checks.baselines import bicubic

        assert self.low is not None
        return bicubic(filled(self.low, np.isfinite(self.low)), self.scale, self.quantity)

    @cached_property
    def noise(self) -> float:
        """Noise of a pixel that detection counts in: the truth's, else the larger of the image's and the bicubic one's.

        The image alone will not do: one without any noise would turn every ripple into a source. Nor will a truth
        without noise: what the data hide under theirs is no source that could be found.
        """
        if self.truth is not None:
            return max(self.reference.rms, self.hidden)
        from sciresdiff.checks.sources import noise_of

        own = self.sky[1]
        if self.low is None:
            return own
        return max(own, float(self.once("bicubic_noise", lambda: noise_of(self.bicubic, ~self.known))))

    @cached_property
    def sky(self) -> tuple[Array, float]:
        """Background (Y, X) and noise of the judged image, as measured on itself."""
        from sciresdiff.checks.sources import background

        return background(self.high, ~self.known)

    @cached_property
    def hidden(self) -> float:
        """A quarter of the data's noise, spread over the fine pixels: less of it is not looked for; 0 without data."""
        if self.variance is None or self.good_low is None or not self.good_low.any():
            return 0.0
        share = self.scale**2 if self.quantity == "sum" else 1
        return float(HIDDEN * np.median(np.sqrt(self.variance[self.good_low])) / share)

    @cached_property
    def reference(self) -> Sources:
        """Sources of the truth, at 5 sigma of its own noise or of what the data hide; needs ``truth``."""
        from sciresdiff.checks.sources import detect

        assert self.truth is not None
        truth, mask = self.truth, ~self.known

        def found() -> Sources:
            own = detect(truth, mask=mask, core=self.core)
            return own if own.rms >= self.hidden else detect(truth, noise=self.hidden, mask=mask, core=self.core)

        sources: Sources = self.once("reference", found)
        return sources

    @cached_property
    def detected(self) -> Sources:
        """Sources of the judged image, at 5 sigma of ``noise``."""
        from sciresdiff.checks.sources import detect

        return detect(self.high, noise=self.noise, mask=~self.known, sky=self.sky, core=self.core)

    @cached_property
    def detected_bicubic(self) -> Sources:
        """Sources that the same detector finds in the bicubic image, at the same threshold; needs ``low``."""
        from sciresdiff.checks.sources import detect

        found: Sources = self.once(
            f"bicubic_{self.noise:.9g}",
            lambda: detect(self.bicubic, noise=self.noise, mask=~self.known, core=self.core),
        )
        return found


def _inside(core: tuple[slice, ...], shape: tuple[int, ...]) -> Mask:
    inside = np.zeros(shape, bool)
    inside[core] = True
    return inside


def blocks(fine: NDArray[Any], scale: int) -> NDArray[Any]:
    """A fine plane (Y, X) as (h, w, s, s)."""
    h, w = fine.shape[0] // scale, fine.shape[1] // scale
    return fine.reshape(h, scale, w, scale).swapaxes(1, 2)


def filled(plane: Array, good: Mask) -> Array:
    """A plane with its bad pixels replaced by the median of the good ones (0 where there is none)."""
    if good.all():
        return plane
    return np.where(good, plane, np.median(plane[good]) if good.any() else 0.0)


def bright_pixels(plane: Array, kind: Kind) -> Mask:
    """Pixels that belong to something: (Y, X), the plane smoothed by 1 px (sigma) and cut."""
    from scipy.ndimage import gaussian_filter

    smooth = gaussian_filter(plane, 1.0, mode="reflect")
    if kind == "micro":
        from skimage.filters import threshold_otsu

        return np.asarray(smooth > threshold_otsu(smooth)) if np.ptp(smooth) > 0 else np.zeros(plane.shape, bool)
    from sciresdiff.checks.sources import background

    sky, _ = background(plane)
    flat = smooth - sky
    # scatter of the lower half, where no source is
    dark = flat[flat < np.median(flat)] - np.median(flat)
    sigma = float(np.sqrt(np.mean(dark**2))) if dark.size else 0.0
    return np.asarray(flat > np.median(flat) + 3 * sigma)

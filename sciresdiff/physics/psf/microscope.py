"""The three-dimensional PSF of a microscope from its optics: widefield, confocal, light sheet; scalar or vectorial.

Light of a point that lies z from the focus, at the radius r in the image plane, for a pupil of the aperture NA under
an index n (Born & Wolf, Principles of Optics, 8.8; in the form of Gibson & Lanni 1992):

    I(r, z) = |int_0^1 J0(k NA q r) exp(i k z n cos(theta)) q dq|^2,  sin(theta) = NA q / n,  k = 2 pi / wavelength

With a specimen of another index the phase k d (ns cos(theta_s) - n cos(theta)) of a point d below the cover glass is
added (Gibson & Lanni 1992, eq. 5, all layers but the specimen as they were designed for), less what shifts the image
and its focus: z is counted from where the point appears.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from sciresdiff.errors import UsageError
from sciresdiff.frame import PixelSize
from sciresdiff.physics.psf.volume import VolumePSF

Array = NDArray[np.float64]

WIDEST = 96
"""Fine px from the axis at which a kernel is cut."""
WINGS = 12.0
"""Radius, in wavelength / (2 NA), that the light of a plane reaches beyond the cone of its rays."""
STEP = 0.05
"""Of the radii at which a pattern is computed, in wavelength / (2 NA)."""
SUB = 3
"""Points along a side of a fine pixel over which the light is averaged, Gauss-Legendre."""


@dataclass(frozen=True)
class Microscope:
    """The optics of one channel; lengths in micrometres."""

    na: float
    ri: float
    """Refractive index of the immersion, above ``na``."""
    wavelength: float
    """Of the emission, in vacuum."""
    excitation: float | None = None
    """Wavelength of the excitation; that of the emission where it is not known."""
    pinhole: float | None = None
    """Diameter of a confocal pinhole in Airy units (1.22 wavelength / NA); None: widefield."""
    sheet: float | None = None
    """FWHM of the thickness of a light sheet; None: all planes are lit alike."""
    sample_ri: float | None = None
    """Refractive index of the specimen; None: that of the immersion."""
    sample_depth: float = 0.0
    """How deep below the cover glass the specimen's middle lies."""
    vectorial: bool = False
    """Richards and Wolf's field instead of the scalar one."""

    def __post_init__(self) -> None:
        """Refuse an aperture that no ray has."""
        if not 0 < self.na < self.ri:
            raise UsageError(
                f"--ri: {self.ri:g} is not above the numerical aperture {self.na:g}; give that of the immersion"
            )

    @property
    def kind(self) -> str:
        """``widefield``, ``confocal`` or ``light sheet``."""
        return "confocal" if self.pinhole else "light sheet" if self.sheet else "widefield"

    @property
    def model(self) -> str:
        """Name of the model of diffraction."""
        if self.vectorial:
            return "vectorial"
        return "Gibson and Lanni" if self.is_aberrated else "Born and Wolf"

    @property
    def is_aberrated(self) -> bool:
        """Whether the specimen has another index, below some depth of it."""
        return self.sample_ri not in (None, self.ri) and self.sample_depth > 0

    def intensity(self, r: Array, z: Array) -> Array:
        """Light per um^2 at the radii r (R,) in the planes z (Z,), um: (Z, R).

        Widefield: the integral over every plane is 1, as light is conserved (Parseval).  Confocal and light sheet:
        that, times the excitation relative to the focus and the share that the pinhole lets through.
        """
        if self.pinhole:
            return self._confocal(r, z)
        light = self._widefield(r, z, self.wavelength)
        if self.sheet:
            light = light * np.exp(-4 * np.log(2) * (z / self.sheet) ** 2)[:, None]
        return light

    def _widefield(self, r: Array, z: Array, wavelength: float) -> Array:
        """`intensity` without pinhole and sheet, of one wavelength."""
        k, sine = 2 * np.pi / wavelength, self.na / self.ri
        turns = k * (self.na * r.max() + self.ri * np.abs(z).max() * (1 - np.sqrt(1 - sine**2)))
        q, weight = np.polynomial.legendre.leggauss(int(64 + 0.7 * turns))
        q, weight = (q + 1) / 2, weight / 2
        cosine = np.sqrt(1 - (sine * q) ** 2)
        phase = k * self.ri * z[:, None] * cosine + self._aberration(k, q, cosine)
        waves = np.exp(1j * phase) * self._passes(q)
        pattern, power = np.zeros((len(z), len(r))), 0.0
        for order, amplitude, count in self._fields(q, cosine):
            found = (waves * amplitude * weight * q) @ special.jv(order, k * self.na * r[:, None] * q).T
            pattern += count * np.abs(found) ** 2
            power += count * float((weight * q * (amplitude * self._passes(q)) ** 2).sum())
        # int |U|^2 2 pi r dr = 2 pi / (k NA)^2 int |P|^2 q dq for every order of the Hankel transform
        return pattern * ((k * self.na) ** 2 / (2 * np.pi * power))

    def _fields(self, q: Array, cosine: Array) -> list[tuple[int, Array, int]]:
        """Order of the Bessel function, amplitude over the pupil, and how often it counts.

        Scalar: a uniform pupil.  Vectorial: I0, I1 and I2 of Richards & Wolf 1959, eq. 3.16 averaged over the azimuth,
        with the apodisation sqrt(cos theta) of an aplanatic lens and d theta = (NA / n) dq / cos(theta).
        """
        if not self.vectorial:
            return [(0, np.ones_like(q), 1)]
        root = 1 / np.sqrt(cosine)
        sine = q * self.na / self.ri
        return [(0, root * (1 + cosine), 1), (1, root * sine, 2), (2, root * (1 - cosine), 1)]

    def _passes(self, q: Array) -> Array:
        """1 where rays reach the pupil from inside the specimen, else 0."""
        limit = self.sample_ri if self.is_aberrated and self.sample_ri else self.ri
        return (self.na * q < limit).astype(float)

    def _aberration(self, k: float, q: Array, cosine: Array) -> Array | float:
        """Phase over the pupil that the specimen adds, without its tilt of the focus."""
        if not self.is_aberrated:
            return 0.0
        assert self.sample_ri is not None
        below = self.sample_ri * np.sqrt(np.clip(1 - (self.na * q / self.sample_ri) ** 2, 0, 1))
        phase = k * self.sample_depth * (below - self.ri * cosine)
        used, root = self._passes(q) > 0, np.sqrt(q)
        known = np.stack([np.ones_like(q), cosine], 1)
        fit, *_ = np.linalg.lstsq((known * root[:, None])[used], (phase * root)[used], rcond=None)
        return np.asarray(np.where(used, phase - known @ fit, 0.0))

    def _confocal(self, r: Array, z: Array) -> Array:
        """Excitation, relative to its focus, times the emission averaged over the pinhole, times the pinhole's area."""
        assert self.pinhole is not None
        unit = 1.22 * self.wavelength / self.na
        nodes = int(12 + 6 * self.pinhole)
        rho, weight = np.polynomial.legendre.leggauss(nodes)
        rho, angle = unit * self.pinhole * (rho + 1) / 4, np.pi * (np.arange(nodes) + 0.5) / nodes
        away = np.sqrt(r[:, None, None] ** 2 + rho[:, None] ** 2 + 2 * r[:, None, None] * rho[:, None] * np.cos(angle))
        wide = np.arange(0, away.max() + (r[1] - r[0]), r[1] - r[0])
        emission = self._widefield(wide, z, self.wavelength)
        seen = np.stack([(np.interp(away, wide, one).mean(2) * (weight * rho)).sum(1) for one in emission])
        lit = self._widefield(r, z, self.excitation or self.wavelength)
        return seen * lit / lit.max()

    def kernel(self, pixel: PixelSize, step: float, planes: int) -> tuple[VolumePSF, float]:
        """The PSF on a stack's planes and the pixels of the wanted volume, each integrated over its pixel.

        Over a plane's distance it is not integrated: a camera sees one plane at a time.

        Parameters
        ----------
        pixel : of the wanted volume, um.
        step : distance of the planes, um.
        planes : on either side of the focus.

        Returns
        -------
        psf : VolumePSF
            Of (2 planes + 1, Ky, Kx).
        lost : float
            Share of the light of the outermost plane that lies beyond the kernel.
        """
        z = step * np.arange(-planes, planes + 1, dtype=np.float64)
        unit = self.wavelength / (2 * self.na)
        cone = planes * step * np.tan(np.arcsin(self.na / self.ri))
        reach = [min(int(np.ceil((cone + WINGS * unit) / side)), WIDEST) for side in (pixel.y, pixel.x)]
        nodes, weights = np.polynomial.legendre.leggauss(SUB)
        largest = np.hypot((reach[0] + 1) * pixel.y, (reach[1] + 1) * pixel.x)
        radii = np.arange(0, largest + unit * STEP, unit * STEP)
        table = self.intensity(radii, z)
        quarter = np.zeros((len(z), reach[0] + 1, reach[1] + 1))
        for dy, wy in zip(nodes / 2, weights / 2, strict=True):
            for dx, wx in zip(nodes / 2, weights / 2, strict=True):
                y, x = (np.arange(n + 1) + d for n, d in zip(reach, (dy, dx), strict=True))
                r = np.hypot(y[:, None] * pixel.y, x[None, :] * pixel.x)
                for plane, one in zip(quarter, table, strict=True):
                    plane += wy * wx * np.interp(r, radii, one)
        rows = np.concatenate([quarter[:, :0:-1], quarter], 1)
        whole = np.concatenate([rows[:, :, :0:-1], rows], 2) * (pixel.y * pixel.x)
        kept = float(whole[0].sum())
        psf = VolumePSF.of_array(whole, f"psf: {self.kind}")
        return psf, 1 - kept / self._plane_sum(z[:1], kept)

    def _plane_sum(self, z: Array, kept: float) -> float:
        """All light of a plane; that within the kernel where it is not known."""
        if self.pinhole:
            return kept
        return float(np.exp(-4 * np.log(2) * (z[0] / self.sheet) ** 2)) if self.sheet else 1.0

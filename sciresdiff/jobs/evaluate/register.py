"""Two frames of one sky by different instruments: ratio of zero points, PSFs and displacement, before any scoring."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff import io
from sciresdiff.checks import registration as pure
from sciresdiff.checks.arrays import Array, Mask, fill_with_median
from sciresdiff.checks.check import UnmeasuredError
from sciresdiff.errors import InputError, UsageError
from sciresdiff.frame import Frame, PixelSize, Quantity
from sciresdiff.io.jsonable import plain
from sciresdiff.observation.psf import psf_of_header

LARGEST = 1024
"""Side of the middle of the overlap that is looked at, px of the finer grid."""
LATTICE = 33
"""Points to a side at which world coordinates are computed; between them splines do."""
RADIUS_FWHM = 6.0
"""Radius of the aperture where none is given, in FWHM of the blurrier PSF: 0.5 % of a Moffat's light is beyond."""
WIDE_PX = 3.0
"""FWHM that is taken for it where no PSF is known, px of the coarser frame."""
HOLLOW = 0.02
"""Share of a PSF's light that its wings may take back before the image is called in question."""
SAME = 0.005
"""Relative difference of pixel sides below which two frames are on one grid."""
BIAS = ("fk5", "icrs")
"""Systems of coordinates that differ by 0.02 arcsec, and that headers mix up by more than that."""


@dataclass(frozen=True)
class Registration:
    """What lies between two frames of one sky; lengths in ``unit``."""

    flux_ratio: float | None
    """Flux in ``high`` over flux in ``low``, in the same aperture; None where it could not be measured."""
    radius: float | None
    """Of the aperture."""
    place: tuple[float, float] | None
    """Its centre, (y, x) px of ``high``."""
    fitted_ratio: float | None
    """The same ratio from a straight line through all pixels of the matched images."""
    shift: tuple[float, float] | None
    """Where ``low`` shows things less where ``high`` shows them, along the rows and columns (y, x) of ``high``."""
    shift_error: float | None
    """Standard error per axis."""
    correlation: float | None
    """Of the registered and matched images."""
    fwhm_high: float | None
    fwhm_low: float | None
    unit: str
    """arcsec, um, or px of ``high``."""
    said: tuple[str, ...] = ()

    @property
    def distance(self) -> float | None:
        """Length of the displacement."""
        return None if self.shift is None else float(np.hypot(*self.shift))


@dataclass(frozen=True)
class _Side:
    """One plane of a frame."""

    frame: Frame
    name: str
    pixels: Array
    good: Mask
    sides: tuple[float, float] | None
    psf: Array | None

    def fwhm(self) -> float | None:
        """Of the PSF, in px."""
        from sciresdiff.physics.psf.image import fwhm

        return None if self.psf is None else fwhm(self.psf)


@dataclass(frozen=True)
class _Grid:
    """Where the pixels of the finer frame lie on the coarser one."""

    places: Array
    """(2, Y, X), rows and columns of ``low``."""
    jacobian: NDArray[np.float64]
    """(2, 2), px of ``low`` to a px of ``high``, in the middle."""


def register(
    high: str | Path | Frame,
    low: str | Path | Frame,
    *,
    psf_high: str | Path | Array | None = None,
    psf_low: str | Path | Array | None = None,
    pixel_high: float | PixelSize | None = None,
    pixel_low: float | PixelSize | None = None,
    plane_high: int = 0,
    plane_low: int = 0,
    radius: float | None = None,
    quantity: Quantity | None = None,
) -> Registration:
    """Measure ratio of zero points, PSFs and displacement of two frames of one sky.

    The coarser frame is brought to the finer one's pixels, by world coordinates where both frames have them, else
    middle on middle by the sides of the pixels (no rotation). Each image is blurred with the *other's* PSF, so that
    both have the same one and nothing is divided; then `checks.registration.displacement` and
    `checks.registration.aperture` measure, the latter on the brightest source about which the aperture fits. ICRS and
    FK5 (J2000) are taken as one system, since headers do not tell them apart; what the difference would be is said.

    Parameters
    ----------
    high, low : the finer and the coarser frame, files or read.
    psf_high, psf_low : SPEC, file (of a cube the plane of the frame) or image, on the frame's own pixels and with the
        pixel in it; without them what the frame states, else what its stars show.
    pixel_high, pixel_low : sides of the pixels (a number is arcsec); win over the files.
    plane_high, plane_low : which planes of the frames.
    radius : of the aperture, in the unit of the pixel sizes (without any, px of ``high``); by default 6 FWHM of the
        blurrier PSF, or less where the frame is small.
    quantity : whether pixels add up; by default what the frames say, else by kind.

    Raises
    ------
    InputError : a file that cannot be read, ``high`` coarser than ``low``, no overlap, or no such plane.
    UsageError : a radius that is not above 0.
    """
    if radius is not None and not radius > 0:
        raise UsageError(f"radius: {radius:g} is no radius; give a number above 0")
    said: list[str] = []
    fine = _side(high, plane_high, pixel_high, psf_high, said)
    coarse = _side(low, plane_low, pixel_low, psf_low, said)
    grid = _cut(_grid(fine, coarse, said), coarse, said)
    return _measured(fine, coarse, *grid, radius, _quantity(fine, coarse, quantity, said), said)


def _side(given: str | Path | Frame, plane: int, pixel: float | PixelSize | None, psf: Any, said: list[str]) -> _Side:
    """One plane of a frame, its pixel's sides and its PSF."""
    frame = given if isinstance(given, Frame) else io.read(given)
    name = "frame" if isinstance(given, Frame) else Path(given).name
    if not 0 <= plane < frame.planes:
        raise InputError(f"{name}: no plane {plane}; it has {frame.planes}, counted from 0")
    size = PixelSize(float(pixel), float(pixel), "arcsec") if isinstance(pixel, int | float) else pixel
    size = size or frame.pixel_size
    frame = frame.with_(pixel_size=size)
    good = ~frame.mask[plane] & np.isfinite(frame.pixels[plane])
    if not good.any():
        raise InputError(f"{name}: every pixel is masked; there is nothing to register")
    sides = None if size is None else (size.y, size.x)
    image = _psf(frame, plane, psf, name, said)
    if image is not None and (share := pure.negative_wings(image)) > HOLLOW:
        said.append(
            f"{name}: the PSF's wings are negative, {100 * share:.0f} % of its light; its sky was taken too high, and"
            " the ratio that is fitted to matched images is wrong by as much"
        )
    return _Side(frame, name, frame.pixels[plane].astype(np.float64), good, sides, image)


def _psf(frame: Frame, plane: int, given: Any, name: str, said: list[str]) -> Array | None:
    """The PSF with the pixel in it: given, stated, or of the frame's stars; None where there is none."""
    from sciresdiff.physics import psf
    from sciresdiff.physics.psf.measure import psf_from_sources

    if isinstance(given, np.ndarray):
        return psf.centre_psf(given)
    if given is not None:
        parsed = psf.parse(str(given))
        if parsed.shape != "file":
            return psf.render(parsed, frame.pixel_size, integrate=True)
        image = io.read_image(str(given))
        return psf.centre_psf(image if image.ndim < 3 else image[min(plane, len(image) - 1)])
    if stated := psf_of_header(frame):
        return psf.render(stated, frame.pixel_size, integrate="psf_known" not in frame.facts)
    variance = None if frame.variance is None else frame.variance[plane]
    try:
        found, used, _ = psf_from_sources(frame.pixels[plane], frame.mask[plane], variance, frame.kind)
    except InputError:
        said.append(f"{name}: no PSF is given or stated, and there are too few stars to measure one")
        return None
    said.append(f"{name}: PSF {found} px measured on {used} stars")
    return psf.render(found, frame.pixel_size, integrate=True)


def _quantity(fine: _Side, coarse: _Side, told: Quantity | None, said: list[str]) -> Quantity:
    quantity, notes = fine.frame.quantity_or_usual(told or fine.frame.quantity or coarse.frame.quantity)
    said.extend(notes)
    return quantity


def _grid(fine: _Side, coarse: _Side, said: list[str]) -> _Grid:
    """Rows and columns of the coarse frame for every pixel of the fine one."""
    headers = [_sky_header(side.frame) for side in (fine, coarse)]
    if headers[0] is not None and headers[1] is not None:
        nodes = [np.linspace(0, n - 1, LATTICE) for n in fine.pixels.shape]
        y, x = np.meshgrid(*nodes, indexing="ij")
        seen = _through_sky(headers[0], headers[1], y, x)
        places, jacobian = _between(nodes, seen, fine.pixels.shape)
        _say_bias(headers, fine, jacobian, said)
    else:
        steps = _steps(fine, coarse)
        jacobian = np.diag(steps)
        lines = [
            (m - 1) / 2 + (np.arange(n) - (n - 1) / 2) * step
            for n, m, step in zip(fine.pixels.shape, coarse.pixels.shape, steps, strict=True)
        ]
        places = np.stack(np.meshgrid(*lines, indexing="ij"))
        said.append("grid: no world coordinates in both frames; laid middle on middle by the sides of the pixels")
    if np.sqrt(abs(np.linalg.det(jacobian))) > 1 + SAME:
        raise InputError(f"{fine.name}: its pixels are larger than those of {coarse.name}; give the finer frame first")
    return _Grid(places, jacobian)


def _sky_header(frame: Frame) -> Any:
    """The header of a frame with celestial coordinates, else None."""
    from sciresdiff.io.fits.wcs import has_wcs

    header = getattr(frame.header, "image", None)
    return header if frame.kind == "astro" and header is not None and has_wcs(header) else None


def _steps(fine: _Side, coarse: _Side) -> tuple[float, float]:
    """Px of the coarse frame to a px of the fine one, by their sides, else by their shapes."""
    if fine.sides is not None and coarse.sides is not None:
        return fine.sides[0] / coarse.sides[0], fine.sides[1] / coarse.sides[1]
    ratios = [n / m for n, m in zip(fine.pixels.shape, coarse.pixels.shape, strict=True)]
    if ratios[0] == ratios[1] and ratios[0] == round(ratios[0]):
        return 1 / ratios[0], 1 / ratios[1]
    raise InputError(f"{fine.name}, {coarse.name}: the sides of the pixels are not known; give --pixel-size")


def _through_sky(header: Any, other: Any, y: Array, x: Array) -> Array:
    """Rows and columns on ``other`` of pixels of ``header``, ICRS and FK5 taken as one: (2, ...)."""
    from astropy.wcs import WCS

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what astropy mends in a header
        one, two = WCS(header, naxis=2), WCS(other, naxis=2)
        if _system(one) == _system(two):
            sky = one.all_pix2world(np.stack([x.ravel(), y.ravel()], 1), 0)
            seen = two.all_world2pix(sky, 0, quiet=True)[:, ::-1].T
        else:
            seen = np.stack(two.world_to_pixel(one.pixel_to_world(x.ravel(), y.ravel()))[::-1])
    return np.asarray(seen.reshape(2, *y.shape))


def _system(wcs: Any) -> str:
    """Name and equinox of the celestial system; ICRS for both of `BIAS`."""
    from astropy.wcs.utils import wcs_to_celestial_frame

    frame = wcs_to_celestial_frame(wcs)
    year = float(frame.equinox.jyear) if hasattr(frame, "equinox") else 2000.0
    return "icrs" if frame.name in BIAS and abs(year - 2000) < 0.01 else f"{frame.name} {year:.3f}"


def _between(nodes: Sequence[Array], seen: Array, shape: tuple[int, ...]) -> tuple[Array, NDArray[np.float64]]:
    """Places of all pixels from those on a lattice, and the jacobian in the middle."""
    from scipy.interpolate import RectBivariateSpline

    if not np.isfinite(seen).all():
        raise InputError("grid: the world coordinates of one frame have no place on the other")
    lines = [np.arange(n) for n in shape]
    splines = [RectBivariateSpline(*nodes, plane) for plane in seen]
    middle = [(n - 1) / 2 for n in shape]
    jacobian = np.array([[float(s(*middle, dx=1)[0, 0]), float(s(*middle, dy=1)[0, 0])] for s in splines])
    return np.stack([spline(*lines) for spline in splines]), jacobian


def _say_bias(headers: Sequence[Any], fine: _Side, jacobian: NDArray[np.float64], said: list[str]) -> None:
    """Say what taking ICRS and FK5 as one has done to the displacement."""
    from astropy.wcs import WCS

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one, two = (WCS(header, naxis=2) for header in headers)
        if _system(one) != _system(two) or one.wcs.radesys == two.wcs.radesys:
            return
        y, x = ((n - 1) / 2 for n in fine.pixels.shape)
        told = np.array(two.world_to_pixel(one.pixel_to_world(x, y))[::-1], float)
    as_one = _through_sky(headers[0], headers[1], np.array([[y]]), np.array([[x]])).ravel()
    off = -np.linalg.inv(jacobian) @ (told - as_one) * np.array(fine.sides)
    said.append(
        f"grid: RADESYS {one.wcs.radesys} and {two.wcs.radesys} taken as one system; told apart,"
        f" the shift would differ by ({off[0]:+.4f}, {off[1]:+.4f}) arcsec"
    )


def _cut(grid: _Grid, coarse: _Side, said: list[str]) -> tuple[_Grid, tuple[slice, slice]]:
    """The overlap, at most `LARGEST` px to a side about its middle, and where it lies on the fine frame."""
    h, w = coarse.pixels.shape
    inside = (abs(grid.places[0] - (h - 1) / 2) <= h / 2) & (abs(grid.places[1] - (w - 1) / 2) <= w / 2)
    if not inside.any():
        raise InputError(f"{coarse.name}: does not overlap the other frame; give two frames of the same sky")
    cut = _span(inside.any(1)), _span(inside.any(0))
    if max(s.stop - s.start for s in cut) == LARGEST < max(inside.shape):
        said.append(f"registration: measured on the middle {LARGEST} px of the overlap")
    return _Grid(grid.places[:, *cut], grid.jacobian), cut


def _span(line: NDArray[np.bool_]) -> slice:
    """From the first to the last True, or the middle of it."""
    at = np.flatnonzero(line)
    start, stop = int(at[0]), int(at[-1]) + 1
    spare = max(0, stop - start - LARGEST)
    return slice(start + spare // 2, start + spare // 2 + min(stop - start, LARGEST))


def _onto(coarse: _Side, grid: _Grid, quantity: Quantity) -> tuple[Array, Mask]:
    """The coarse frame on the fine grid, in flux per fine pixel, and where it is good."""
    from scipy.ndimage import map_coordinates

    image = map_coordinates(fill_with_median(coarse.pixels, coarse.good), grid.places, order=3, mode="nearest")
    # pixels beyond the frame are bad; any part of a bad pixel spoils
    bad = map_coordinates((~coarse.good).astype(float), grid.places, order=1, mode="nearest")
    edge = [(abs(p - (n - 1) / 2) <= n / 2) for p, n in zip(grid.places, coarse.pixels.shape, strict=True)]
    area = abs(float(np.linalg.det(grid.jacobian))) if quantity == "sum" else 1.0
    return np.asarray(image * area), np.asarray((bad < 0.01) & edge[0] & edge[1])


def _measured(
    fine: _Side,
    coarse: _Side,
    grid: _Grid,
    cut: tuple[slice, slice],
    radius: float | None,
    quantity: Quantity,
    said: list[str],
) -> Registration:
    """Displacement and flux on the common grid."""
    high, good_high = fine.pixels[cut], fine.good[cut]
    low, good_low = _onto(coarse, grid, quantity)
    widths = _widths(fine, coarse, grid)
    if fine.psf is not None and coarse.psf is not None:
        high, good_high = pure.convolve(high, good_high, pure.resample_psf(coarse.psf, grid.jacobian))
        low, good_low = pure.convolve(low, good_low, fine.psf)
    else:
        said.append("psf: not known of both frames; they are compared as they are, and the flux ratio has the light in"
                    " it that the blurrier one spreads beyond the aperture")  # fmt: skip
    good = good_high & good_low
    sides = fine.sides or (1.0, 1.0)
    moved = _displacement(high, low, good, said)
    back = low if moved is None else pure.shift_image(low, (-moved.y, -moved.x))
    wide = widths[1] or WIDE_PX * float(np.sqrt(sides[0] * sides[1] / abs(np.linalg.det(grid.jacobian))))
    found = _aperture(fill_with_median(high, good), fill_with_median(back, good), good, radius, wide, sides, said)
    side = float(np.sqrt(sides[0] * sides[1]))
    return Registration(
        flux_ratio=None if found is None or not found[0].low > 0 else found[0].high / found[0].low,
        radius=None if found is None else found[0].radius,
        place=None if found is None else (float(found[1][0] + cut[0].start), float(found[1][1] + cut[1].start)),
        fitted_ratio=None if moved is None or not moved.slope > 0 else 1 / moved.slope,
        shift=None if moved is None else (moved.y * sides[0], moved.x * sides[1]),
        shift_error=None if moved is None else moved.error * side,
        correlation=None if moved is None else moved.correlation,
        fwhm_high=widths[0],
        fwhm_low=widths[1],
        unit=fine.frame.pixel_size.unit if fine.frame.pixel_size else "px",
        said=tuple(said),
    )


def _widths(fine: _Side, coarse: _Side, grid: _Grid) -> tuple[float | None, float | None]:
    """FWHM of both PSFs in the unit of the fine frame's pixel."""
    side = float(np.sqrt(np.prod(fine.sides or (1.0, 1.0))))
    step = side / float(np.sqrt(abs(np.linalg.det(grid.jacobian))))
    found = fine.fwhm(), coarse.fwhm()
    return None if found[0] is None else found[0] * side, None if found[1] is None else found[1] * step


def _displacement(high: Array, low: Array, good: Mask, said: list[str]) -> pure.Displacement | None:
    try:
        return pure.displacement(high, low, good)
    except UnmeasuredError as why:
        said.append(f"shift: not measured: {why}")
        return None


def _aperture(
    high: Array,
    low: Array,
    good: Mask,
    radius: float | None,
    wide: float,
    sides: tuple[float, float],
    said: list[str],
) -> tuple[pure.Aperture, tuple[int, int]] | None:
    """Fluxes about the brightest source that there is room for, and its place."""
    room = radius or RADIUS_FWHM / 2 * wide
    if (place := pure.brightest(high, good, room, sides)) is None:
        said.append(f"flux ratio: not measured: no place for an aperture of radius {room:.3g} in the overlap")
        return None
    edge = min((min(p, n - 1 - p) + 0.5) * s for p, n, s in zip(place, high.shape, sides, strict=True))
    try:
        found = pure.aperture(high, low, good, place, radius or min(RADIUS_FWHM * wide, edge / pure.ANNULUS[1]), sides)
    except UnmeasuredError as why:
        said.append(f"flux ratio: not measured: {why}")
        return None
    said.append(f"flux ratio: aperture of radius {found.radius:.3g}, sky the {found.sky}")
    return found, place


def other_grid(image: Frame, truth: Frame) -> bool:
    """Whether two frames have pixels of different sizes, so that no pixel of one is a pixel of the other."""
    one, two = image.pixel_size, truth.pixel_size
    if one is None or two is None or one.unit != two.unit:
        return False
    return max(abs(one.y / two.y - 1), abs(one.x / two.x - 1)) > SAME


def measured(
    image: Frame,
    truth: Frame,
    said: list[str],
    psf_image: str | Path | Array | None = None,
    psf_truth: str | Path | Array | None = None,
) -> dict[str, Any]:
    """What lies between an image and a truth by another instrument, for the record of an evaluation.

    Parameters
    ----------
    image, truth : the first plane of each is looked at.
    said : gets a line with the figures, and one for every assumption.
    psf_image, psf_truth : as in `register`.

    Returns
    -------
    ``flux_ratio`` and ``fitted_ratio`` (truth over image), ``shift`` (where the truth shows things less where the
    image does, y and x of the finer frame), ``shift_error``, ``distance``, ``fwhm_image``, ``fwhm_truth``, ``unit``,
    ``radius`` and ``place`` of the aperture, ``finer``, ``said``. What cannot be measured is None, and ``said`` has
    the reason.
    """
    sizes = [1.0 if f.pixel_size is None else f.pixel_size.y * f.pixel_size.x for f in (image, truth)]
    swapped = sizes[0] > sizes[1]
    try:
        found = (
            register(truth, image, psf_high=psf_truth, psf_low=psf_image)
            if swapped
            else register(image, truth, psf_high=psf_image, psf_low=psf_truth)
        )
    except InputError as problem:
        said.append(f"registration: {problem}")
        return {"said": [str(problem)]}
    told = asdict(found)
    widths = told.pop("fwhm_high"), told.pop("fwhm_low")
    told["fwhm_image"], told["fwhm_truth"] = widths[::-1] if swapped else widths
    if not swapped:
        told |= {name: told[name] and 1 / told[name] for name in ("flux_ratio", "fitted_ratio")}
    elif told["shift"] is not None:
        told["shift"] = [-part for part in told["shift"]]
    told |= {"finer": "truth" if swapped else "image", "distance": found.distance}
    said.append(f"registration: {summary(found)}")
    said.extend(f"registration: {line}" for line in found.said)
    return dict(plain(told))


def summary(found: Registration) -> str:
    """The figures in one line."""
    ratio = "-" if found.flux_ratio is None else f"{found.flux_ratio:.4g} (radius {found.radius:.3g} {found.unit})"
    wide = ["-" if x is None else f"{x:.3g}" for x in (found.fwhm_high, found.fwhm_low)]
    moved = "-" if found.shift is None else (
        f"({found.shift[0]:+.3f}, {found.shift[1]:+.3f}) +- {found.shift_error:.3f} {found.unit}"
    )  # fmt: skip
    return f"flux finer / coarser {ratio}, FWHM {wide[0]} and {wide[1]} {found.unit}, shift {moved}"

"""How two frames lie on each other: by their world coordinates, or middle on middle by the sizes of their pixels."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.checks.arrays import Array, Mask, fill_with_median
from sciresdiff.errors import InputError
from sciresdiff.frame import Frame, Quantity
from sciresdiff.io.fits.wcs import has_wcs
from sciresdiff.jobs.evaluate.image_plane import ImagePlane
from sciresdiff.notes import Notes
from sciresdiff.region import Region

Matrix = NDArray[np.float64]

LARGEST = 1024
"""Longest side of the part of an overlap that is compared, px of the finer grid."""
LATTICE = 33
"""Points to a side at which world coordinates are computed; splines interpolate between them."""
SAME_SIZE = 0.005
"""Relative difference of pixel sizes below which two frames have the same pixels."""
SPOILED = 0.01
"""Share of bad pixels in an interpolated mask from which a pixel is bad."""
ONE_SYSTEM = ("fk5", "icrs")
"""Celestial systems that differ by 0.02 arcsec, and that headers confuse more often than that matters."""

# astropy warns of every card that it mends in a header
_without_warnings = partial(warnings.catch_warnings, action="ignore")


@dataclass(frozen=True)
class PixelMap:
    """Where the pixels of the finer of two frames lie on the coarser one."""

    positions: Array
    """(2, Y, X), rows and columns of the coarse frame, px."""
    jacobian: Matrix
    """(2, 2), steps (y, x) on the coarse frame, px, for a step (y, x) of one fine pixel; in the middle of the frame."""

    @property
    def area(self) -> float:
        """Area of a fine pixel in coarse pixels."""
        return abs(float(np.linalg.det(self.jacobian)))


def differ_in_pixel_size(one: Frame, other: Frame) -> bool:
    """Whether the pixels of two frames differ in size, so that no pixel of one is a pixel of the other.

    False where a size is not known, or the two are in different units.
    """
    size, size_other = one.pixel_size, other.pixel_size
    if size is None or size_other is None or size.unit != size_other.unit:
        return False
    return max(abs(size.y / size_other.y - 1), abs(size.x / size_other.x - 1)) > SAME_SIZE


def refuse_separate_fields(high: str | Path, image: Frame, name: str | Path, other: Frame) -> None:
    """Refuse two frames that by their headers show different parts of the sky.

    Parameters
    ----------
    high : str or Path
        File of the image, for the message.
    image : Frame
    name : str or Path
        File of the other frame.
    other : Frame

    Raises
    ------
    InputError
        The centres are farther apart than the image's diagonal.
    """
    headers = [celestial_header(frame) for frame in (image, other)]
    if None in headers:
        return
    try:
        separation, diagonal = _measure_separation(headers, image, other)
    except Exception:  # a WCS that astropy cannot use says nothing of the position
        return
    if separation > diagonal:
        raise InputError(
            f"{name}: its centre is {separation:.4g} degrees from that of {high}, whose diagonal is {diagonal:.4g}, by"
            " their WCS; give the file of the same field"
        )


def celestial_header(frame: Frame) -> Any:
    """The FITS header of a frame with celestial coordinates; None where it has none."""
    header = getattr(frame.header, "image", None)
    return header if header is not None and has_wcs(header) else None


def _measure_separation(headers: Sequence[Any], image: Frame, other: Frame) -> tuple[float, float]:
    """Distance between the centres of two frames and the diagonal of the first, degrees."""
    from astropy.wcs import WCS

    with _without_warnings():
        first, second = (WCS(header, naxis=2) for header in headers)
        (h, w), (k, m) = image.pixels.shape[1:], other.pixels.shape[1:]
        centre = first.pixel_to_world((w - 1) / 2, (h - 1) / 2)
        centre_other = second.pixel_to_world((m - 1) / 2, (k - 1) / 2)
        corner = first.pixel_to_world(-0.5, -0.5)
        return float(centre.separation(centre_other).deg), 2 * float(centre.separation(corner).deg)


def map_pixels(fine: ImagePlane, coarse: ImagePlane) -> tuple[PixelMap, Notes]:
    """Find the position of every pixel of the finer frame on the coarser one.

    World coordinates are used where both frames have them: computed on a lattice of 33 x 33 points, with bicubic
    splines between. ICRS and FK5 (J2000) are taken as one system, since headers do not tell them apart; what the
    difference would be is noted. Without world coordinates the middles of the frames are laid on each other, and **a
    rotation is not known**.

    Parameters
    ----------
    fine, coarse : ImagePlane

    Returns
    -------
    pixel_map : PixelMap
    notes : Notes

    Raises
    ------
    InputError
        ``fine`` is the coarser one, the sizes of the pixels are not known, or the coordinates do not meet.
    """
    headers = [celestial_header(plane.frame) for plane in (fine, coarse)]
    if None not in headers and fine.frame.kind == coarse.frame.kind == "astro":
        pixel_map, notes = _map_by_sky(headers, fine)
    else:
        pixel_map, notes = _map_by_size(fine, coarse)
    if np.sqrt(pixel_map.area) > 1 + SAME_SIZE:
        raise InputError(f"{fine.name}: its pixels are larger than those of {coarse.name}; give the finer frame first")
    return pixel_map, notes


def _map_by_sky(headers: Sequence[Any], fine: ImagePlane) -> tuple[PixelMap, Notes]:
    """The map by world coordinates."""
    # the inverse of a distorted WCS is found by iteration: too slow for every pixel, and smooth enough for splines
    nodes = [np.linspace(0, n - 1, LATTICE) for n in fine.pixels.shape]
    y, x = np.meshgrid(*nodes, indexing="ij")
    pixel_map = _interpolate_map(nodes, _transform_pixels(headers, y, x), fine.pixels.shape)
    return pixel_map, _note_system_bias(headers, fine, pixel_map.jacobian)


def _map_by_size(fine: ImagePlane, coarse: ImagePlane) -> tuple[PixelMap, Notes]:
    """The map by pixel sizes, middle on middle."""
    steps = _pixel_ratio(fine, coarse)
    # n pixels have their middle at (n - 1) / 2
    lines = [
        (m - 1) / 2 + (np.arange(n) - (n - 1) / 2) * step
        for n, m, step in zip(fine.pixels.shape, coarse.pixels.shape, steps, strict=True)
    ]
    positions = np.stack(np.meshgrid(*lines, indexing="ij"))
    notes = Notes("grid: no world coordinates in both frames; laid middle on middle by the sides of the pixels")
    return PixelMap(positions, np.diag(steps)), notes


def _pixel_ratio(fine: ImagePlane, coarse: ImagePlane) -> tuple[float, float]:
    """Coarse px per fine px along (y, x): by the pixel sizes, else by the shapes of the frames."""
    if fine.frame.pixel_size is not None and coarse.frame.pixel_size is not None:
        return fine.sides[0] / coarse.sides[0], fine.sides[1] / coarse.sides[1]
    ratios = [n / m for n, m in zip(fine.pixels.shape, coarse.pixels.shape, strict=True)]
    if ratios[0] == ratios[1] and ratios[0] == round(ratios[0]):
        return 1 / ratios[0], 1 / ratios[1]
    raise InputError(f"{fine.name}, {coarse.name}: the sides of the pixels are not known; give --pixel-size")


def _transform_pixels(headers: Sequence[Any], y: Array, x: Array) -> Array:
    """Rows and columns (2, ...) on the second frame of pixels of the first, ICRS and FK5 taken as one."""
    from astropy.wcs import WCS

    with _without_warnings():
        first, second = (WCS(header, naxis=2) for header in headers)
        if _celestial_system(first) == _celestial_system(second):
            sky = first.all_pix2world(np.stack([x.ravel(), y.ravel()], 1), 0)
            found = second.all_world2pix(sky, 0, quiet=True)[:, ::-1].T
        else:
            found = np.stack(second.world_to_pixel(first.pixel_to_world(x.ravel(), y.ravel()))[::-1])
    return np.asarray(found.reshape(2, *y.shape))


def _celestial_system(wcs: Any) -> str:
    """Name and equinox of the celestial system; ICRS for both of `ONE_SYSTEM`."""
    from astropy.wcs.utils import wcs_to_celestial_frame

    frame = wcs_to_celestial_frame(wcs)
    year = float(frame.equinox.jyear) if hasattr(frame, "equinox") else 2000.0
    return "icrs" if frame.name in ONE_SYSTEM and abs(year - 2000) < 0.01 else f"{frame.name} {year:.3f}"


def _interpolate_map(nodes: Sequence[Array], positions: Array, shape: tuple[int, ...]) -> PixelMap:
    """The map of all pixels of a shape from positions (2, n, m) on a lattice with these nodes, (n,) and (m,)."""
    from scipy.interpolate import RectBivariateSpline

    if not np.isfinite(positions).all():
        raise InputError("grid: the world coordinates of one frame have no place on the other")
    lines = [np.arange(n) for n in shape]
    splines = [RectBivariateSpline(*nodes, plane) for plane in positions]
    middle = [(n - 1) / 2 for n in shape]
    jacobian = np.array([[float(s(*middle, dx=1)[0, 0]), float(s(*middle, dy=1)[0, 0])] for s in splines])
    return PixelMap(np.stack([spline(*lines) for spline in splines]), jacobian)


def _note_system_bias(headers: Sequence[Any], fine: ImagePlane, jacobian: Matrix) -> Notes:
    """Note by how much the displacement would differ if ICRS and FK5 were told apart."""
    from astropy.wcs import WCS

    with _without_warnings():
        first, second = (WCS(header, naxis=2) for header in headers)
        radesys = first.wcs.radesys, second.wcs.radesys
        if _celestial_system(first) != _celestial_system(second) or radesys[0] == radesys[1]:
            return Notes()
        y, x = ((n - 1) / 2 for n in fine.pixels.shape)
        apart = np.array(second.world_to_pixel(first.pixel_to_world(x, y))[::-1], float)
    as_one = _transform_pixels(headers, np.array([[y]]), np.array([[x]])).ravel()
    # from coarse px to fine px, and with the sign of `Registration.shift`
    off = -np.linalg.inv(jacobian) @ (apart - as_one) * np.array(fine.sides)
    return Notes(
        f"grid: RADESYS {radesys[0]} and {radesys[1]} taken as one system; told apart,"
        f" the shift would differ by ({off[0]:+.4f}, {off[1]:+.4f}) arcsec"
    )


def crop_overlap(pixel_map: PixelMap, coarse: ImagePlane) -> tuple[PixelMap, Region, Notes]:
    """Cut a map to the overlap of the frames, at most 1024 px to a side about its middle.

    Parameters
    ----------
    pixel_map : PixelMap
        Of all pixels of the finer frame.
    coarse : ImagePlane

    Returns
    -------
    pixel_map : PixelMap
        Of the overlap.
    region : Region
        The overlap on the finer frame.
    notes : Notes

    Raises
    ------
    InputError
        The frames do not overlap.
    """
    inside = _inside(pixel_map, coarse)
    if not inside.any():
        raise InputError(f"{coarse.name}: does not overlap the other frame; give two frames of the same sky")
    rows, columns = (_middle_span(np.asarray(inside.any(axis))) for axis in (1, 0))
    region = Region(*rows, *columns)
    notes = Notes()
    if max(region.shape) == LARGEST < max(inside.shape):
        notes = Notes(f"registration: measured on the middle {LARGEST} px of the overlap")
    return PixelMap(pixel_map.positions[:, *region.slices], pixel_map.jacobian), region, notes


def _inside(pixel_map: PixelMap, coarse: ImagePlane) -> Mask:
    """Where the positions of a map lie on the coarse frame, (Y, X)."""
    (y, x), (h, w) = pixel_map.positions, coarse.pixels.shape
    # the outermost pixels reach half a pixel beyond their centres
    return (abs(y - (h - 1) / 2) <= h / 2) & (abs(x - (w - 1) / 2) <= w / 2)


def _middle_span(inside: NDArray[np.bool_]) -> tuple[int, int]:
    """First and last + 1 of the True of (n,), or of the `LARGEST` in their middle."""
    true = np.flatnonzero(inside)
    first, count = int(true[0]), int(true[-1]) + 1 - int(true[0])
    start = first + max(0, count - LARGEST) // 2
    return start, start + min(count, LARGEST)


def resample(coarse: ImagePlane, pixel_map: PixelMap, quantity: Quantity) -> tuple[Array, Mask]:
    """Resample the coarser frame to the pixels of the finer one by cubic splines.

    **The total flux is conserved to the accuracy of the splines only**: pixels are interpolated, not integrated.

    Parameters
    ----------
    coarse : ImagePlane
    pixel_map : PixelMap
    quantity : {"sum", "mean"}
        With ``sum`` values are multiplied by the area of a fine pixel.

    Returns
    -------
    image : (Y, X) array
        In the frame's unit per fine pixel.
    good : (Y, X) bool array
        True where no part of a bad pixel, and nothing beyond the frame, is in the value.
    """
    from scipy.ndimage import map_coordinates

    image = map_coordinates(fill_with_median(coarse.pixels, coarse.good), pixel_map.positions, order=3, mode="nearest")
    bad = map_coordinates((~coarse.good).astype(float), pixel_map.positions, order=1, mode="nearest")
    area = pixel_map.area if quantity == "sum" else 1.0
    return np.asarray(image * area), np.asarray((bad < SPOILED) & _inside(pixel_map, coarse))

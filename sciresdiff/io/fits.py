"""FITS in: an image with its noise and quality planes, and what its header knows."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from sciresdiff.errors import InputError
from sciresdiff.frame import Frame, PixelSize, Quantity
from sciresdiff.io import wcs
from sciresdiff.io.facts import facts_of, quantity_of, unit_of
from sciresdiff.io.files import existing, first_line, split_spec
from sciresdiff.io.planes import (
    DQ_PLANES,
    NOISE_PLANES,
    OUR_PLANES,
    RELATIVE,
    file_to_variance,
    flagged,
    siblings,
    to_variance,
)

Array = NDArray[Any]


@dataclass(frozen=True)
class FitsHeader:
    """What the writer needs of the input."""

    primary: fits.Header
    image: fits.Header
    rest: tuple[Any, ...] = ()
    version: int = 1
    plain: bool = False
    checksum: bool = False
    quantity: str | None = None


@dataclass(frozen=True)
class _Source:
    """An open file, and the image chosen from it."""

    path: Path
    hdus: fits.HDUList
    index: int

    @property
    def image(self) -> Any:
        return self.hdus[self.index]

    @property
    def headers(self) -> tuple[fits.Header, ...]:
        return (self.image.header, self.hdus[0].header)


def read(
    path: str | Path,
    *,
    ext: str | None = None,
    variance: str | None = None,
    mask: str | None = None,
    axes: str | None = None,
    quantity: Quantity | None = None,
    pixel_size: float | PixelSize | None = None,
) -> Frame:
    """Read one FITS image with all that belongs to it; ``sciresdiff.io.read`` describes the parameters.

    Raises
    ------
    InputError
        Missing, truncated or foreign file, no image in it, an extension that it has not, NaN only, wrong axes.
    """
    file, inside = split_spec(path)
    with _opened(file) as hdus:
        index, said = _choose(file, hdus, ext or inside)
        source = _Source(file, hdus, index)
        data = _pixels(source)
        letters = _axes(file, data.shape, axes)
        frame = _frame(source, data, letters, pixel_size)
        frame = frame.say(*said)
        frame, used = _with_planes(frame, source, variance, mask)
        return _finished(frame, source, used, quantity)


def read_image(path: str | Path) -> NDArray[np.float64]:
    """One image, or stack of planes, as it is: no planes, no facts."""
    file, inside = split_spec(path)
    with _opened(file) as hdus:
        index, _ = _choose(file, hdus, inside)
        return _pixels(_Source(file, hdus, index)).astype(np.float64)


@contextmanager
def _opened(path: Path) -> Iterator[fits.HDUList]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message=".*truncated.*")
        hdus = _loaded(existing(path))
        try:
            yield hdus
        finally:
            hdus.close()


def _loaded(path: Path) -> fits.HDUList:
    try:
        hdus = fits.open(path, memmap=False, output_verify="silentfix", lazy_load_hdus=False)
        for hdu in hdus:
            _ = _is_image(hdu) and hdu.data
        return hdus
    except Exception as error:  # astropy raises many kinds on damaged files, and none of them is this program's bug
        raise InputError(f"{path}: not a whole FITS file ({first_line(error)}); check or fetch it again") from error


def _is_image(hdu: Any) -> bool:
    return isinstance(hdu, fits.PrimaryHDU | fits.ImageHDU | fits.CompImageHDU) and len(hdu.shape) >= 2


def _label(hdus: fits.HDUList, index: int) -> str:
    return str(hdus[index].name or index)


def _choose(path: Path, hdus: fits.HDUList, ext: str | None) -> tuple[int, list[str]]:
    """Which HDU is the image: the one asked for, else SCI or IMAGE, else the first that is not a plane of another."""
    if ext is not None:
        return _find(path, hdus, ext), []
    images = [i for i, hdu in enumerate(hdus) if _is_image(hdu)]
    if not images:
        kinds = ", ".join(f"{_label(hdus, i)} {type(h).__name__}" for i, h in enumerate(hdus))
        raise InputError(f"{path}: no image in it (only {kinds}); give a file with a 2-D image")
    named = [i for i in images if _role(hdus[i]) == "SCI"]
    other = [i for i in images if _role(hdus[i]) not in (*NOISE_PLANES, *DQ_PLANES, *OUR_PLANES)]
    chosen = (named or other or images)[0]
    alike = len(named or other)
    said = [f"{alike} images in the file: read {_label(hdus, chosen)}; another with FILE[EXT]"] if alike > 1 else []
    return chosen, said


def _role(hdu: Any) -> str:
    """What an HDU is: its EXTTYPE (LSST) or its name."""
    role = str(wcs.value(hdu.header, "EXTTYPE", "") or hdu.name).strip().upper()
    return {"IMAGE": "SCI", "SCIENCE": "SCI"}.get(role, role)


def _find(path: Path, hdus: fits.HDUList, ext: str) -> int:
    """``NAME``, ``NAME,VERSION`` or a number -> index."""
    name, _, version = (part.strip() for part in ext.partition(","))
    key: Any = int(name) if name.isdigit() else (name, int(version)) if version.isdigit() else name
    try:
        index = int(hdus.index_of(key))
        hdus[index]
    except (KeyError, IndexError):
        there = ", ".join(_label(hdus, i) for i in range(len(hdus)))
        raise InputError(f"{path}: no extension {ext!r}; there are {there}") from None
    if not _is_image(hdus[index]):
        raise InputError(f"{path}: extension {ext!r} is not a 2-D image; shape {getattr(hdus[index], 'shape', ())}")
    return index


def _pixels(source: _Source) -> Array:
    """The image's values, native byte order; NaN where BLANK says."""
    path, hdu = source.path, source.image
    if 0 in hdu.shape:
        raise InputError(f"{path}: an axis has no pixel; shape {tuple(hdu.shape)}")
    data = np.asarray(hdu.data)
    if data.dtype.kind not in "iuf":
        raise InputError(f"{path}: pixels of type {data.dtype}; integers or floats are read")
    return data.astype(data.dtype.newbyteorder("="), copy=False)


def _axes(path: Path, shape: tuple[int, ...], axes: str | None) -> str:
    letters = axes.upper() if axes else "TCZYX"[-len(shape) :] if len(shape) <= 5 else ""
    if len(letters) != len(shape) or not letters.endswith("YX") or len(set(letters)) != len(letters):
        raise InputError(f"{path}: axes {axes or '?'!r} do not fit shape {shape}; one letter per axis, YX last")
    return letters


def _frame(source: _Source, data: Array, axes: str, size: float | PixelSize | None) -> Frame:
    planes = data.reshape(-1, *data.shape[-2:]).astype(np.float32)
    bad = ~np.isfinite(planes)
    if bad.all():
        raise InputError(f"{source.path}: all pixels are NaN or infinite; nothing to restore from")
    planes[bad] = np.nan
    headers = source.headers
    if not isinstance(size, PixelSize | None):
        size = PixelSize(float(size), float(size), "arcsec")
    size = size or next((found for h in headers if (found := wcs.pixel_size(h))), None)
    unit = unit_of(headers)
    facts, said = facts_of(headers, unit, size)
    return Frame(
        pixels=planes,
        mask=bad,
        kind="astro",
        unit=unit,
        pixel_size=size,
        facts={**facts, **_our_facts(headers)},
        axes=axes,
        shape=data.shape,
        dtype=data.dtype,
        said=tuple(said),
    )


def _our_facts(headers: tuple[fits.Header, ...]) -> dict[str, float]:
    found = {name: next((x for h in headers if (x := wcs.number(h, key))), None) for name, key in
             (("scale", "SRDSCALE"), ("psf_known", "SRDTFWHM"))}  # fmt: skip
    return {name: x for name, x in found.items() if x is not None}


def _with_planes(frame: Frame, source: _Source, variance: str | None, mask: str | None) -> tuple[Frame, set[int]]:
    """Add noise, flags and saturation; also which HDUs were used for that."""
    used = {source.index}
    frame = _flags(frame, source, mask, used)
    frame = _noise(frame, source, variance, used)
    return _kernel(_saturation(frame, source), source, used), used


def _companions(source: _Source, names: Sequence[str]) -> list[int]:
    """HDUs of the image's group that bear one of the names, in the order of the names; empty planes are left out."""
    version = source.image.ver
    found = [
        (names.index(_role(hdu)), i)
        for i, hdu in enumerate(source.hdus)
        if i != source.index and _is_image(hdu) and _role(hdu) in names and hdu.ver == version
    ]
    return [i for _, i in sorted(found)]


def _fitted(frame: Frame, data: Array | None) -> Array | None:
    """A plane in the frame's shape, one plane serving all; None where it does not fit."""
    if data is None or data.shape[-2:] != frame.pixels.shape[1:]:
        return None
    stack = data.reshape(-1, *data.shape[-2:])
    return np.broadcast_to(stack, frame.pixels.shape) if len(stack) in (1, frame.planes) else None


def _flags(frame: Frame, source: _Source, spec: str | None, used: set[int]) -> Frame:
    """Mask from the option, else from a quality plane of the file or its triplet."""
    found = _asked(source, spec, used) if spec is not None else _own_flags(source, used)
    if found is None:
        return frame
    name, data, header, simple = found
    plane = _fitted(frame, data)
    if plane is None:
        if spec is not None:
            raise InputError(f"{source.path}: mask {spec} has shape {data.shape}, the image {frame.shape}")
        return frame.say(f"{name}: shape {data.shape} does not fit the image; not used")
    if simple or plane.dtype.kind not in "iu":
        return frame.with_(mask=frame.mask | (np.nan_to_num(plane, nan=1.0) != 0))
    dq = plane.astype(np.int64).astype(np.int32)
    bad, saturated, rule = flagged(dq, source.headers, header)
    frame = frame.with_(mask=frame.mask | bad | saturated, dq=dq, saturated=saturated)
    return frame.say(f"mask: {name}, {rule}; {100 * float((bad | saturated).mean()):.2g} % of the pixels")


def _own_flags(source: _Source, used: set[int]) -> tuple[str, Array, fits.Header, bool] | None:
    for i in _companions(source, DQ_PLANES):
        used.add(i)
        return _label(source.hdus, i), np.asarray(source.hdus[i].data), source.hdus[i].header, False
    if other := siblings(source.path).get("ood"):
        data, header, _ = _from_file(source, other, None)
        return other.name, data, header, False
    return None


def _from_file(source: _Source, path: Path, ext: str | None) -> tuple[Array, fits.Header, str]:
    """An image of another file: the extension asked for, else the one named like ours, else its own choice."""
    with _opened(path) as hdus:
        same = [i for i, hdu in enumerate(hdus) if _is_image(hdu) and hdu.name == source.image.name]
        index = _choose(path, hdus, ext)[0] if ext or not same else same[0]
        data = _pixels(_Source(path, hdus, index))
        return np.array(data), hdus[index].header.copy(), str(hdus[index].name)


def _asked(source: _Source, spec: str, used: set[int]) -> tuple[str, Array, fits.Header, bool]:
    """A plane that the user named: a file, a file's extension, or an extension of this file."""
    file, inside = split_spec(spec)
    if file.is_file():
        if file.suffix.lower() in (".fits", ".fit", ".fts", ".fz", ".gz"):
            data, header, name = _from_file(source, file, inside)
            return f"{file.name}[{name}]", data, header, True
        from sciresdiff.io import read_image as read_any

        return file.name, read_any(spec), fits.Header(), True
    if inside is not None or file.suffix:
        raise InputError(f"{file}: no such file, nor an extension of {source.path}")
    index = _find(source.path, source.hdus, spec)
    used.add(index)
    hdu = source.hdus[index]
    return _label(source.hdus, index), np.asarray(hdu.data), hdu.header, _role(hdu) not in DQ_PLANES


def _noise(frame: Frame, source: _Source, spec: str | None, used: set[int]) -> Frame:
    """Variance from the option, else from a noise plane of the file or its triplet."""
    if spec is not None:
        return _asked_noise(frame, source, spec, used)
    for i in _companions(source, tuple(NOISE_PLANES)):
        hdu = source.hdus[i]
        plane = _fitted(frame, np.asarray(hdu.data))
        if plane is None:
            frame = frame.say(f"{_label(source.hdus, i)}: shape {hdu.shape} does not fit the image; not used")
            continue
        used.add(i)
        var, said = _absolute(frame, _role(hdu), to_variance(_role(hdu), plane))
        return _settled(frame, var).say(f"noise: plane {_label(source.hdus, i)}", *said)
    if other := siblings(source.path).get("oow"):
        data, _, _ = _from_file(source, other, None)
        if (plane := _fitted(frame, data)) is not None:
            return _settled(frame, to_variance("WEIGHT", plane)).say(f"noise: 1/weight of {other.name}")
    return frame


def _asked_noise(frame: Frame, source: _Source, spec: str, used: set[int]) -> Frame:
    name, data, header, _ = _asked(source, spec, used)
    plane = _fitted(frame, data)
    if plane is None:
        raise InputError(f"{source.path}: variance {spec} has shape {data.shape}, the image {frame.shape}")
    file = split_spec(spec)[0]
    role = str(wcs.value(header, "EXTTYPE", "") or wcs.value(header, "EXTNAME", "") or "")
    in_file = not file.is_file()
    stem = Path(name.upper() if in_file else file.name)
    return _settled(frame, file_to_variance(stem, role if role else name, plane))


def _absolute(frame: Frame, role: str, var: Array) -> tuple[Array, list[str]]:
    """Weights in a unit of their own (exposure time, say) are brought to the noise between neighbouring pixels."""
    steps = np.diff(frame.pixels, axis=2)[~(frame.mask[..., 1:] | frame.mask[..., :-1])]
    seen = np.median(np.abs(steps)) ** 2 * 1.0990 if steps.size else 0.0  # MAD of a difference of two Gaussians
    stated = np.nanmedian(var) if np.isfinite(var).any() else 0.0
    if role not in RELATIVE or not (seen > 0 and stated > 0) or 1 / 30 < stated / seen < 30:
        return var, []
    return var * (seen / stated), [f"noise: {role} is no inverse variance; scaled to the scatter of neighbours"]


def _settled(frame: Frame, variance: Array) -> Frame:
    """Mask the pixels without a variance; they get the median of the others, so that arithmetic stays finite."""
    good = np.isfinite(variance)
    if not good.any():
        raise InputError("variance: no pixel has one above 0; give another plane, or gain and read noise")
    filled = np.where(good, variance, np.median(variance[good])).astype(np.float32)
    return frame.with_(variance=filled, mask=frame.mask | ~good)


def _saturation(frame: Frame, source: _Source) -> Frame:
    """Flag pixels at the header's saturation level, unless the level is plainly in another unit."""
    level = frame.facts.get("saturation")
    flags = np.zeros(frame.mask.shape, bool) if frame.saturated is None else frame.saturated
    if level is not None:
        with np.errstate(invalid="ignore"):
            full = frame.pixels >= level
        if full.mean() > 0.5:
            facts = {key: x for key, x in frame.facts.items() if key != "saturation"}
            return frame.with_(facts=facts).say(f"saturation: half of the pixels are above {level:g}; not used")
        flags = flags | full
        if full.any():
            frame = frame.say(f"saturation: {int(full.sum())} pixels at or above the header's {level:g}, masked")
    known = level is not None or frame.saturated is not None
    return frame.with_(saturated=flags if known else None, mask=frame.mask | flags)


def _kernel(frame: Frame, source: _Source, used: set[int]) -> Frame:
    """The blur that ``degrade`` wrote: an image, or a SPEC in SRDKERN."""
    scale = next((x for h in source.headers if (x := wcs.number(h, "SRDKSCAL"))), None)
    if scale is None:
        return frame
    spec = next((x for h in source.headers if (x := wcs.value(h, "SRDKERN"))), "none")
    kernel: Any = str(spec)
    for i in _companions(source, ("KERNEL",)):
        used.add(i)
        kernel = np.asarray(source.hdus[i].data).astype(np.float64)
    return frame.with_(kernel=kernel, kernel_scale=round(scale))


def _finished(frame: Frame, source: _Source, used: set[int], quantity: Quantity | None) -> Frame:
    stated = quantity_of(frame.unit)
    if quantity is None and stated is None:
        what = f"BUNIT {frame.unit!r} does not" if frame.unit else "there is no BUNIT to"
        frame = frame.say(f"quantity: {what} say whether blocks of pixels add up or average")
    final = quantity or stated
    others = [h for i, h in enumerate(source.hdus) if i not in used and (i > 0 or _is_image(h))]
    rest = [hdu for h in others if (hdu := _carried(h)) is not None]
    plain = source.index == 0
    header = FitsHeader(
        primary=wcs.sanitised(source.hdus[0].header),
        image=wcs.sanitised(source.image.header),
        rest=tuple(rest),
        version=int(source.image.ver),
        plain=plain,
        checksum="CHECKSUM" in source.image.header,
        quantity=final,
    )
    psf = f"gaussian:fwhm={wide:g}px" if (wide := frame.facts.get("psf_known")) else None
    return frame.with_(quantity=final, header=header, psf=psf)


def _carried(hdu: Any) -> Any:
    """A copy of an HDU that lives on after the file is closed; None for planes of ours and for what cannot be read."""
    if _role(hdu) in OUR_PLANES:
        return None
    try:
        if isinstance(hdu, fits.PrimaryHDU | fits.ImageHDU | fits.CompImageHDU):
            data = None if hdu.data is None else np.array(hdu.data)
            return fits.ImageHDU(data, wcs.sanitised(hdu.header))
        return hdu.copy()
    except Exception:  # a damaged extension that is only carried over has no say over the image
        return None

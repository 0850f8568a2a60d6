"""What a user's DATA holds: frames, pictures, HDF5 sets, and folders of pairs, as scenes and as given pairs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sciresdiff.errors import InputError, UsageError
from sciresdiff.io.hdf5.read import Pairs, read_pairs
from sciresdiff.physics.sky import estimate_sky
from sciresdiff.training import images
from sciresdiff.training.given import Given, given, stated_kernel
from sciresdiff.training.layouts import files_of, is_paired, matched, sides_of

KEPT = 16
"""Files of a folder that are drawn from at a time."""

PER_LOAD = 32
"""Pairs of a set that are brought to noise units at a time."""

LIGHTS = ("auto", "linear", "srgb")

Scene = NDArray[np.float32]
Load = Callable[[], Sequence[Given | Scene]]


@dataclass(frozen=True)
class Wanted:
    """What training asks of its data."""

    scale: int
    patch: int
    """Side of a patch, coarse px."""
    kernel: str = ""
    """SPEC of the blur of pairs that do not state theirs."""
    light: str = "auto"


@dataclass
class Shelf:
    """Pairs, or scenes, in files, of which the last few are in memory; planes of one file lie together."""

    loads: Sequence[Load]
    kept: OrderedDict[int, Sequence[Given | Scene]] = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        """Number of files, or of pairs of a set."""
        return len(self.loads)

    def recent(self, pair: int, reuse: int, rng: np.random.Generator) -> Given | Scene:
        """One from a window over the files that moves on by one every ``reuse`` pairs; all have their turn."""
        first, count = pair // reuse, len(self.loads)
        planes = self._file((first + int(rng.integers(min(count, KEPT)))) % count)
        return planes[int(rng.integers(len(planes)))]

    def _file(self, number: int) -> Sequence[Given | Scene]:
        if number not in self.kept:
            self.kept[number] = self.loads[number]()
            while len(self.kept) > KEPT + 4:
                self.kept.popitem(last=False)
        return self.kept[number]


@dataclass(frozen=True)
class UserData:
    """What DATA on the command line names; opened when pairs are made."""

    paths: Sequence[str]
    side: int
    """Side of a patch, fine px, which every image has to hold."""

    def opened(self, scale: int, kernel: str = "", light: str = "auto") -> tuple[list[Scene], Shelf]:
        """Frames as scenes, and what is read when it is used: pairs, and the pictures of a folder.

        Parameters
        ----------
        scale, kernel, light : as in `Wanted`.

        Raises
        ------
        InputError : a file that cannot be read, is too small, has no partner, or does not fit its partner.
        UsageError : a kernel or a light that is none.
        """
        if light not in LIGHTS:
            raise UsageError(f"--recipe: [data] light = {light!r}; give {', '.join(LIGHTS)}")
        wanted = Wanted(scale, self.side // scale, kernel, light)
        scenes: list[Scene] = []
        loads: list[Load] = []
        for path in map(Path, self.paths):
            if is_paired(path):
                loads += folder_pairs(path, wanted)
            elif path.is_dir():
                loads += folder_scenes(path, wanted)
            elif is_set(path):
                loads += set_pairs(path, wanted)
            else:
                scenes += real_scenes(path, wanted)
        return scenes, Shelf(loads)


def real_scenes(path: Path, wanted: Wanted) -> list[Scene]:
    """A frame's planes as scenes: the sky removed, in units of the sky noise, masked pixels at the sky.

    Raises
    ------
    InputError : a frame smaller than a training patch.
    """
    image, scenes, side = images.read(path, wanted.light), [], wanted.patch * wanted.scale
    for pixels, bad in zip(image.pixels, image.mask, strict=True):
        sky, sigma = estimate_sky(pixels, bad)
        if min(pixels.shape) < side:
            raise InputError(f"{path}: {pixels.shape} px is smaller than a training patch of {side} px")
        scenes.append(np.where(bad, 0, (pixels - sky) / max(sigma, 1e-9)).astype(np.float32))
    return scenes


def folder_scenes(folder: Path, wanted: Wanted) -> list[Load]:
    """The images of a folder as scenes, one file at a time.

    Raises
    ------
    InputError : no image in it.
    """
    if not files_of(folder):
        raise InputError(f"{folder}: no image in this folder")
    return [lambda path=path: real_scenes(path, wanted) for path in files_of(folder)]  # type: ignore[misc]


def is_ours(folder: Path) -> bool:
    """Whether a folder is to be taken whole: one of pairs, or of pictures."""
    return is_paired(folder) or (folder.is_dir() and any(p.suffix.lower() in images.PICTURES for p in folder.iterdir()))


# HDF5 sets


def is_set(path: Path) -> bool:
    """Whether a file is a training set of ``degrade --pairs``: HDF5 with the datasets low and high."""
    if path.suffix.lower() not in (".h5", ".hdf5") or not path.is_file():
        return False
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return {"low", "high"} <= set(file)
    except OSError:  # what is wrong is said where it is read
        return False


def set_pairs(path: Path, wanted: Wanted) -> list[Load]:
    """The pairs of a set, PER_LOAD at a time.

    Raises
    ------
    InputError : another scale, patches that are too small, or a pair without a kernel where none is wanted either.
    """
    found = read_pairs(path)
    if found.scale != wanted.scale:
        raise InputError(
            f"{path}: pairs of scale {found.scale}, but --scale is {wanted.scale}; make a set of that scale"
        )
    _large_enough(str(path), found.low.shape[1:], wanted)
    if not all(_stated(found, i) for i in range(len(found))):
        _wanted_kernel(str(path), wanted)

    def load(first: int) -> Load:
        return lambda: [_of_set(path, found, i, wanted) for i in range(first, min(first + PER_LOAD, len(found)))]

    return [load(first) for first in range(0, len(found), PER_LOAD)]


def _stated(found: Pairs, i: int) -> bool:
    """Whether a set knows the kernel of a pair."""
    return found.kernel is not None and bool(np.isfinite(found.kernel[i]).all())


def _of_set(path: Path, found: Pairs, i: int, wanted: Wanted) -> Given:
    name = f"{path}, pair {i}"
    kernel = found.kernel[i] if found.kernel is not None and _stated(found, i) else _wanted_kernel(name, wanted)
    noise = None if found.variance is None else found.variance[i]
    return given(name, found.low[i], found.high[i], kernel=kernel, quantity=found.quantity, variance=noise)


# Folders


def folder_pairs(folder: Path, wanted: Wanted) -> list[Load]:
    """The pairs of a folder, one file at a time; sizes are looked at when a pair is read.

    Raises
    ------
    InputError : no such layout or scale, or a file without a partner.
    """
    high, low = sides_of(folder, wanted.scale)
    partners = matched(high, low, wanted.scale)
    first = images.read(partners[0][1], wanted.light)
    if not _states_kernel(first, wanted.scale):
        _wanted_kernel(str(partners[0][1]), wanted)

    def load(fine: Path, coarse: Path) -> Load:
        return lambda: file_pair(fine, coarse, wanted)

    return [load(*pair) for pair in partners]


def file_pair(high: Path, low: Path, wanted: Wanted) -> list[Given]:
    """Every plane of a pair of files.

    Raises
    ------
    InputError : sizes without the ratio, other numbers of planes, too small, no kernel, noise that cannot be measured.
    """
    fine, coarse = images.read(high, wanted.light), images.read(low, wanted.light)
    small, large = coarse.pixels.shape, fine.pixels.shape
    if large != (small[0], *(wanted.scale * n for n in small[1:])):
        need = f"{small[1] * wanted.scale} x {small[2] * wanted.scale} px in {small[0]} planes"
        raise InputError(f"{low}: {_size(small)} does not fit {high} of {_size(large)}; x{wanted.scale} needs {need}")
    _large_enough(str(low), small[1:], wanted)
    kernel = _kernel_of(coarse, wanted)
    steps = np.broadcast_to(np.asarray(coarse.step), small)
    return [
        given(
            str(low), coarse.pixels[i], fine.pixels[i], kernel=kernel, quantity=coarse.quantity or "mean",
            variance=None if coarse.variance is None else coarse.variance[i], step=steps[i], mask=coarse.mask[i],
            high_mask=fine.mask[i],
        )
        for i in range(small[0])
    ]  # fmt: skip


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} x {shape[2]} px in {shape[0]} planes"


def _large_enough(name: str, shape: tuple[int, ...], wanted: Wanted) -> None:
    if min(shape) < wanted.patch:
        raise InputError(f"{name}: {shape[0]} x {shape[1]} px is smaller than a training patch of {wanted.patch} px")


def _states_kernel(image: images.Image, scale: int) -> bool:
    return image.kernel is not None and image.kernel_scale == scale


def _kernel_of(low: images.Image, wanted: Wanted) -> NDArray[np.float64] | None:
    """The kernel that the low file states for this scale, else the one that is wanted."""
    if not _states_kernel(low, wanted.scale):
        return _wanted_kernel(low.name, wanted)
    return stated_kernel(low.kernel, wanted.scale) if isinstance(low.kernel, str) else low.kernel


def _wanted_kernel(name: str, wanted: Wanted) -> NDArray[np.float64] | None:
    if not wanted.kernel:
        raise InputError(
            f"{name}: the blur of this pair is not stated, and training goes through it; give [data] kernel in "
            "--recipe: bicubic, area, or a SPEC in fine px"
        )
    try:
        return stated_kernel(wanted.kernel, wanted.scale)
    except UsageError as error:
        raise UsageError(f"--recipe: [data] kernel = {wanted.kernel!r}: {error}") from None

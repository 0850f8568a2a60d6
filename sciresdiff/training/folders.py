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
from sciresdiff.notes import Notes
from sciresdiff.physics.sky import estimate_sky
from sciresdiff.training import images
from sciresdiff.training.given_pair import ALIKE, Comparison, GivenPair
from sciresdiff.training.image_pair import ImagePair, render_kernel
from sciresdiff.training.layouts import find_sides, is_paired, list_images, match_files
from sciresdiff.training.pair_survey import PairSurvey

POOL = 16
"""Files of a folder that are drawn from at a time."""
PER_LOAD = 32
"""Pairs of a set that are brought to noise units at a time."""
LOOKED = 1000
"""Files of a folder, or pairs of a set, that are looked at before training, evenly spread over all."""
CHANNELS = 4
"""Planes of a file up to which each is a channel, with a brightness of its own."""
LIGHTS = ("auto", "linear", "srgb")

Scene = NDArray[np.float32]
"""(H, W), in units of its sky noise, the sky at 0."""
Load = Callable[[], Sequence[ImagePair | Scene]]


@dataclass(frozen=True)
class ReadOptions:
    """What training asks of the user's data."""

    scale: int
    """Fine pixels per coarse pixel and axis."""
    patch: int
    """Side of a patch, coarse px, which every image has to hold."""
    kernel: str = ""
    """SPEC of the blur of pairs that do not state theirs."""
    light: str = "auto"
    """How the codes of pictures are read, one of LIGHTS."""


@dataclass
class FilePool:
    """Pairs, or scenes, in files, of which the last few are in memory; planes of one file lie together."""

    loads: Sequence[Load]
    cache: OrderedDict[int, Sequence[ImagePair | Scene]] = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        """Number of files, or of parts of a set."""
        return len(self.loads)

    def draw(self, pair: int, reuse: int, rng: np.random.Generator) -> ImagePair | Scene:
        """Draw from a window over the files that moves on by one every ``reuse`` pairs, so that all have their turn.

        Parameters
        ----------
        pair : number of the training pair.
        reuse : pairs drawn for every new file.
        rng : of the pair.
        """
        first, count = pair // reuse, len(self.loads)
        planes = self._load((first + int(rng.integers(min(count, POOL)))) % count)
        return planes[int(rng.integers(len(planes)))]

    def _load(self, number: int) -> Sequence[ImagePair | Scene]:
        if number not in self.cache:
            self.cache[number] = self.loads[number]()
            while len(self.cache) > POOL + 4:
                self.cache.popitem(last=False)
        return self.cache[number]


@dataclass(frozen=True)
class UserData:
    """What DATA on the command line names; opened when pairs are made."""

    paths: Sequence[str]

    def open(self, options: ReadOptions) -> tuple[list[Scene], FilePool, Notes]:
        """Frames as scenes; what is read when it is used, pairs and the pictures of a folder; what is found of them.

        All files, or LOOKED of a folder, are read once, so that what cannot be used is known before training begins.

        Raises
        ------
        InputError : a file that cannot be read, is too small, has no partner, or does not fit its partner.
        UsageError : a kernel or a light that is none.
        """
        if options.light not in LIGHTS:
            raise UsageError(f"--recipe: [data] light = {options.light!r}; give {', '.join(LIGHTS)}")
        scenes: list[Scene] = []
        loads: list[Load] = []
        notes = Notes()
        for path in map(Path, self.paths):
            if is_paired(path):
                found, told = folder_pairs(path, options)
            elif path.is_dir():
                found, told = folder_scenes(path, options), Notes()
            elif is_pair_set(path):
                found, told = set_pairs(path, options)
            else:
                scenes += read_scenes(path, options)
                continue
            loads, notes = [*loads, *found], notes + told
        return scenes, FilePool(loads), notes


def spread(count: int) -> list[int]:
    """Numbers of the files, or pairs, that are looked at before training: all, or LOOKED evenly spread over all."""
    return sorted({int(n) for n in np.linspace(0, count - 1, min(count, LOOKED))})


def read_scenes(path: Path, options: ReadOptions) -> list[Scene]:
    """Read a frame's planes as scenes: the sky removed, in units of the sky noise, masked pixels at the sky.

    Raises
    ------
    InputError : a frame smaller than a training patch.
    """
    image, scenes, side = images.read(path, options.light), [], options.patch * options.scale
    for pixels, bad in zip(image.pixels, image.mask, strict=True):
        sky, sigma = estimate_sky(pixels, bad)
        if min(pixels.shape) < side:
            raise InputError(f"{path}: {pixels.shape} px is smaller than a training patch of {side} px")
        scenes.append(np.where(bad, 0, (pixels - sky) / max(sigma, 1e-9)).astype(np.float32))
    return scenes


def folder_scenes(folder: Path, options: ReadOptions) -> list[Load]:
    """The images of a folder as scenes, one file at a time.

    Raises
    ------
    InputError : no image in it, or one that cannot be read or is too small.
    """
    paths = list_images(folder)
    if not paths:
        raise InputError(f"{folder}: no image in this folder")
    for number in spread(len(paths)):
        read_scenes(paths[number], options)
    return [lambda path=path: read_scenes(path, options) for path in paths]  # type: ignore[misc]


def is_data_folder(folder: Path) -> bool:
    """Whether a folder is to be taken whole: one of pairs, or of pictures."""
    return is_paired(folder) or (folder.is_dir() and any(p.suffix.lower() in images.PICTURES for p in folder.iterdir()))


# HDF5 sets


def is_pair_set(path: Path) -> bool:
    """Whether a file is a training set of ``degrade --pairs``: HDF5 with the datasets low and high."""
    if path.suffix.lower() not in (".h5", ".hdf5") or not path.is_file():
        return False
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return {"low", "high"} <= set(file)
    except OSError:  # what is wrong is reported where the file is read
        return False


def set_pairs(path: Path, options: ReadOptions) -> tuple[list[Load], Notes]:
    """The pairs of a set, PER_LOAD at a time, all matched in brightness by one relation, and what is found of them.

    Raises
    ------
    InputError : another scale, patches that are too small, a pair without a kernel and none in the recipe, images that
        do not show the same.
    """
    pairs = read_pairs(path)
    if pairs.scale != options.scale:
        raise InputError(
            f"{path}: pairs of scale {pairs.scale}, but --scale is {options.scale}; make a set of that scale"
        )
    _check_size(str(path), pairs.low.shape[1:], options)
    if not all(_has_kernel(pairs, i) for i in range(len(pairs))):
        _recipe_kernel(str(path), options)
    survey = _survey_set(path, pairs, options)

    def pair(i: int) -> ImagePair:
        return survey.match(_set_pair(path, pairs, i, options), 0, None).normalize()

    def load(first: int) -> Load:
        return lambda: [pair(i) for i in range(first, min(first + PER_LOAD, len(pairs)))]

    return [load(first) for first in range(0, len(pairs), PER_LOAD)], survey.notes()


def _survey_set(path: Path, pairs: Pairs, options: ReadOptions) -> PairSurvey:
    """Look at the pairs of a set, which are patches: one alone tells little.

    Raises
    ------
    InputError : most pairs do not show the same, or one cannot be brought to noise units.
    """
    found: list[Comparison] = []
    for i in spread(len(pairs)):
        pair = _set_pair(path, pairs, i, options)
        pair.normalize()
        found.append(pair.compare(register=False))
    alike = [c.intensity.correlation for c in found if c.intensity is not None]
    if alike and np.median(alike) < ALIKE:
        raise InputError(
            f"{path}: the low images do not show what the high ones show (correlation {np.median(alike):.2f} in the"
            " median); check that pair i of the one is of pair i of the other"
        )
    survey = PairSurvey(str(path), len(found), {0: found})
    return survey if survey.usual(0) else PairSurvey(str(path), len(found))


def _has_kernel(pairs: Pairs, i: int) -> bool:
    """Whether a set knows the PSF of pair ``i``."""
    return pairs.kernel is not None and bool(np.isfinite(pairs.kernel[i]).all())


def _set_pair(path: Path, pairs: Pairs, i: int, options: ReadOptions) -> GivenPair:
    """Pair ``i`` of a set."""
    name = f"{path}, pair {i}"
    kernel = pairs.kernel[i] if pairs.kernel is not None and _has_kernel(pairs, i) else _recipe_kernel(name, options)
    variance = None if pairs.variance is None else pairs.variance[i]
    return GivenPair(name, pairs.low[i], pairs.high[i], kernel, pairs.quantity, variance)


# Folders of pairs


def folder_pairs(folder: Path, options: ReadOptions) -> tuple[list[Load], Notes]:
    """The pairs of a folder, one file at a time, matched in brightness, and what is found of them.

    Raises
    ------
    InputError : no such layout or scale, a file without a partner, and as in `read_file_pair` and `GivenPair.check`.
    """
    high, low = find_sides(folder, options.scale)
    partners = match_files(high, low, options.scale)
    looked: dict[int, list[Comparison]] = {}
    for number in spread(len(partners)):
        for plane, (pair, found) in enumerate(_compare_files(*partners[number], options, register=True)):
            pair.normalize()
            looked.setdefault(plane, []).append(found)
    if len(looked) > CHANNELS:
        looked = {0: [found for planes in looked.values() for found in planes]}
    survey = PairSurvey(str(folder), len(partners), looked)

    def load(fine: Path, coarse: Path) -> Load:
        def read() -> list[ImagePair]:
            planes = _compare_files(fine, coarse, options, register=False)
            channels = range(len(planes)) if len(planes) <= CHANNELS else [0] * len(planes)
            return [
                survey.match(pair, channel, own).normalize()
                for channel, (pair, own) in zip(channels, planes, strict=True)
            ]

        return read

    return [load(*pair) for pair in partners], survey.notes()


def _compare_files(high: Path, low: Path, options: ReadOptions, register: bool) -> list[tuple[GivenPair, Comparison]]:
    """Every plane of a pair of files, and what its images have to do with each other.

    Raises
    ------
    InputError : as in `read_file_pair` and `GivenPair.check`.
    """
    planes = [(pair, pair.compare(register)) for pair in read_file_pair(high, low, options)]
    for pair, found in planes:
        pair.check(found, str(high))
    return planes


def read_file_pair(high: Path, low: Path, options: ReadOptions) -> list[GivenPair]:
    """Read every plane of a pair of files.

    Parameters
    ----------
    high, low : files of the fine and of the coarse image.
    options : scale and smallest size that are asked for, and the PSF of a file that states none.

    Raises
    ------
    InputError : sizes without the ratio, other numbers of planes, too small, no kernel.
    """
    fine, coarse = images.read(high, options.light), images.read(low, options.light)
    small, large = coarse.pixels.shape, fine.pixels.shape
    if large != (small[0], *(options.scale * n for n in small[1:])):
        need = f"x{options.scale} needs {small[1] * options.scale} x {small[2] * options.scale} px in {small[0]} planes"
        sizes = f"{_format_shape(small)} does not fit {high} of {_format_shape(large)}"
        raise InputError(f"{low}: {sizes}; {need}{_other_scale(small, large)}")
    _check_size(str(low), small[1:], options)
    kernel = _file_kernel(coarse, options)
    steps = np.broadcast_to(np.asarray(coarse.step), small)
    return [
        GivenPair(
            str(low), coarse.pixels[i], fine.pixels[i], kernel, coarse.quantity or "mean",
            None if coarse.variance is None else coarse.variance[i], steps[i], coarse.mask[i], fine.mask[i],
        )
        for i in range(small[0])
    ]  # fmt: skip


def _other_scale(small: tuple[int, ...], large: tuple[int, ...]) -> str:
    """The scale that would fit two shapes (planes, h, w), as a hint; nothing where none does."""
    scale = large[1] // small[1]
    return f"; these fit --scale {scale}" if scale and large == (small[0], scale * small[1], scale * small[2]) else ""


def _format_shape(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} x {shape[2]} px in {shape[0]} planes"


def _check_size(name: str, shape: tuple[int, ...], options: ReadOptions) -> None:
    """Refuse a coarse image (h, w) that does not hold a patch."""
    if min(shape) < options.patch:
        raise InputError(
            f"{name}: {shape[0]} x {shape[1]} px is smaller than a training patch of {options.patch} px; give a smaller"
            " [data] patch in --recipe"
        )


def _states_kernel(image: images.Image, scale: int) -> bool:
    """Whether a coarse file states its PSF on the fine grid of this scale."""
    return image.kernel is not None and image.kernel_scale == scale


def _file_kernel(low: images.Image, options: ReadOptions) -> NDArray[np.float64] | None:
    """The PSF that the coarse file states for this scale, else the recipe's."""
    if not _states_kernel(low, options.scale):
        return _recipe_kernel(low.name, options)
    return render_kernel(low.kernel, options.scale) if isinstance(low.kernel, str) else low.kernel


def _recipe_kernel(name: str, options: ReadOptions) -> NDArray[np.float64] | None:
    """The PSF that the recipe gives for pairs that do not state theirs."""
    if not options.kernel:
        raise InputError(
            f"{name}: the blur of this pair is not stated, and training goes through it; give [data] kernel in "
            "--recipe: bicubic, area, a SPEC in fine px, or none where the two differ by sampling and noise alone"
        )
    try:
        return render_kernel(options.kernel, options.scale)
    except UsageError as error:
        raise UsageError(f"--recipe: [data] kernel = {options.kernel!r}: {error}") from None

"""Folders of pairs, in the layouts that are in use.

One folder of fine images and one of coarse ones of the same stems:

- ``HR/0001.png`` and ``LR/0001.png``; ``LR/X4/0001x4.png`` where there are several scales (also ``GT``, ``high`` and
  ``LQ``, ``low``, ``input``, with words before and behind, as ``DIV2K_train_HR`` and ``DIV2K_train_LR_bicubic/X4``);
- ``X1``, ``X2``, ``X4``: the factor by which images are coarser (or finer: the larger ones are the truth).
"""

from __future__ import annotations

import re
from pathlib import Path

from sciresdiff import io
from sciresdiff.errors import InputError
from sciresdiff.training import images

HIGH = re.compile(r"(^|[_\-. ])(hr|gt|high|target|truth)([_\-. ]|$)", re.IGNORECASE)
LOW = re.compile(r"(^|[_\-. ])(lr|lq|low|input)([_\-. ]|$)", re.IGNORECASE)
FACTOR = re.compile(r"[xX](\d+)")
MARK = re.compile(r"[_\-]?(hr|lr|gt|lq|high|low)$", re.IGNORECASE)


def is_paired(folder: Path) -> bool:
    """Whether a folder holds pairs: a folder of fine images beside one of coarse ones."""
    return folder.is_dir() and _sides(folder) is not None


def _folders(folder: Path) -> list[Path]:
    """The visible folders in a folder, by name."""
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _sides(folder: Path) -> tuple[Path, Path] | dict[int, Path] | None:
    """The folders of fine and of coarse images, or those of the factors; None where there are none."""
    below = _folders(folder)
    high = [p for p in below if HIGH.search(p.name) and not LOW.search(p.name)]
    low = [p for p in below if LOW.search(p.name) and not HIGH.search(p.name)]
    if high and low:
        return high[0], low[0]
    factors = {int(m[1]): p for p in below if (m := FACTOR.fullmatch(p.name))}
    return factors if len(factors) > 1 else None


def find_sides(folder: Path, scale: int) -> tuple[Path, Path]:
    """The folders of the fine and of the coarse images of a scale.

    Raises
    ------
    InputError : no such layout, several coarse folders, or none of this scale.
    """
    found = _sides(folder)
    if found is None:
        raise InputError(f"{folder}: no folders of pairs in it; HR and LR, or X1 and X{scale}, with files of one stem")
    if isinstance(found, tuple):
        low = [p for p in _folders(folder) if LOW.search(p.name) and not HIGH.search(p.name)]
        if len(low) > 1:
            raise InputError(f"{folder}: {low[0].name} and {low[1].name} both hold coarse images; keep one")
        return _scale_folder(found[0], 1), _scale_folder(found[1], scale)
    if 1 not in found or scale not in found:
        there = ", ".join(p.name for p in found.values())
        raise InputError(f"{folder}: has {there}, but --scale {scale} needs X1 and X{scale}")
    one, other = found[1], found[scale]
    return (one, other) if _is_larger(one, other) else (other, one)


def _scale_folder(folder: Path, scale: int) -> Path:
    """The folder of this scale in a folder, or the folder itself where it holds the images."""
    factors = {int(m[1]): p for p in _folders(folder) if (m := FACTOR.fullmatch(p.name))}
    if scale in factors:
        return factors[scale]
    if list_images(folder) or not factors:
        return folder
    there = ", ".join(p.name for p in factors.values())
    raise InputError(f"{folder}: has {there}, but --scale is {scale}")


def _is_larger(one: Path, other: Path) -> bool:
    """Whether the first image of one folder is the larger."""
    sizes = [images.read(list_images(p)[0]).pixels.shape[-1] if list_images(p) else 0 for p in (one, other)]
    return sizes[0] >= sizes[1]


def list_images(folder: Path) -> list[Path]:
    """The images of a folder, in the order of their names."""
    return sorted(p for p in folder.iterdir() if p.is_file() and images.is_image(p))


def match_files(high: Path, low: Path, scale: int) -> list[tuple[Path, Path]]:
    """Every fine file with its coarse partner, by their stems without scale and mark (x4, _HR, _LR).

    Parameters
    ----------
    high, low : folders of the fine and of the coarse images.
    scale : of the coarse images, which their stems may end in.

    Raises
    ------
    InputError : a folder without images, two files of one stem, or a file without a partner, by its name.
    """
    fine, coarse = (_files_by_stem(folder, scale) for folder in (high, low))
    for here, there, folder in ((fine, coarse, low), (coarse, fine, high)):
        for stem in sorted(set(here) - set(there))[:1]:
            raise InputError(f"{here[stem]}: no partner in {folder}; looked for {stem}, {stem}x{scale}")
    return [(fine[stem], coarse[stem]) for stem in sorted(fine)]


def _files_by_stem(folder: Path, scale: int) -> dict[str, Path]:
    """The images of a folder by their stems without scale and mark."""
    found: dict[str, Path] = {}
    for path in list_images(folder):
        stem = re.sub(rf"_?[xX]{scale}$", "", io.stem(path) if io.suffix(path).lower() in io.FORMATS else path.stem)
        stem = MARK.sub("", stem) or stem
        if stem in found:
            raise InputError(f"{path}: {found[stem].name} has the same stem; keep one of the two")
        found[stem] = path
    if not found:
        raise InputError(f"{folder}: no image in this folder")
    return found

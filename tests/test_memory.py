"""When memory runs out, less is done at once, and that is said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from astropy.io import fits

from sciresdiff.errors import ResourceError
from sciresdiff.jobs.upscale import block
from sciresdiff.jobs.upscale import job as upscale
from sciresdiff.jobs.upscale.options import UpscaleOptions
from sciresdiff.notes import Notes
from sciresdiff.restoration.model import shipped_cards
from sciresdiff.restoration.settings import Settings as RestoreSettings
from sciresdiff.run import memory


@dataclass(frozen=True)
class Settings:
    tile: int = 256


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_limits", {})


PROBLEMS = (
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
)


def holds(room: int, seen: list[Settings], problem: Exception) -> Callable[[Settings], str]:
    """Work that fails where the tile is more than there is room for."""

    def attempt(settings: Settings) -> str:
        seen.append(settings)
        if (settings.tile or 200) > room:
            raise problem
        return "image"

    return attempt


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: type(problem).__name__)
def test_the_tile_is_halved_until_it_fits(problem: Exception) -> None:
    seen: list[Settings] = []
    image, said = memory.retry_with_smaller_tiles(holds(100, seen, problem), Settings(256), 2048)
    assert image == "image"
    assert [s.tile for s in seen] == [256, 128, 64]
    assert said.lines[0] == "WARNING memory ran out; going on with --tile 128"
    assert said.lines[-1] == "WARNING memory ran out; going on with --tile 64"


def test_the_blocks_that_follow_begin_with_what_memory_holds() -> None:
    seen: list[Settings] = []
    said = Notes()
    for _ in range(3):
        said += memory.retry_with_smaller_tiles(holds(128, seen, MemoryError()), Settings(0), 200)[1]
    assert [s.tile for s in seen] == [0, 100, 100, 100], "0 is the frame, of 200"
    assert len(said.lines) == 1


def test_it_ends_with_what_to_try() -> None:
    with pytest.raises(ResourceError, match=r"^memory ran out with --tile 32 .*--device cpu"):
        memory.retry_with_smaller_tiles(holds(1, [], MemoryError()), Settings(), 4000)


def test_a_network_that_sees_beyond_a_tile_is_not_cut() -> None:
    seen: list[Settings] = []
    with pytest.raises(ResourceError, match="sees beyond a tile"):
        memory.retry_with_smaller_tiles(holds(1, seen, MemoryError()), Settings(), 4000, exact=False)
    assert len(seen) == 1


def test_other_problems_pass() -> None:
    with pytest.raises(ZeroDivisionError):
        memory.retry_with_smaller_tiles(lambda settings: 1 / 0, Settings(), 100)
    assert not memory.is_out_of_memory(RuntimeError("shape mismatch"))


def test_an_image_is_the_same_with_less_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not shipped_cards():
        pytest.skip("the default models are not in this checkout")
    pixels = (100 + np.random.default_rng(0).normal(0, 3, (72, 40))).astype("f4")
    pixels[30:34, 20:24] += 400
    low = tmp_path / "low.fits"
    fits.HDUList([fits.PrimaryHDU(pixels), fits.ImageHDU(np.full_like(pixels, 9), name="VAR")]).writeto(low)
    options = UpscaleOptions(model="astro-x2", psf="gaussian:fwhm=2.5px", variance="VAR", samples=2, checks=False)
    upscale.run(low, tmp_path / "easy.fits", options)
    real = block.restore

    def small(*given: Any, **more: Any) -> Any:
        settings = next(one for one in given if isinstance(one, RestoreSettings))
        if settings.tile > 40:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return real(*given, **more)

    monkeypatch.setattr(block, "restore", small)
    said = upscale.run(low, tmp_path / "hard.fits", options)["said"]
    assert [line for line in said if "memory" in line] == ["WARNING memory ran out; going on with --tile 36"]
    easy, hard, err = (
        fits.getdata(tmp_path / f"{name}.fits", plane).astype(float)
        for name, plane in (("easy", "SCI"), ("hard", "SCI"), ("easy", "ERR"))
    )
    worst = float(np.abs(hard - easy).max() / np.median(err))
    assert worst < 0.02, worst  # bfloat16 convolutions of another size round in another way

"""A frame restored in blocks is the frame restored whole, but for what the halo cuts off."""

from __future__ import annotations

import numpy as np
import pytest

from sciresdiff.jobs import blocks


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 700, 2600), (1, 5000, 300), (3, 3073, 3072)])
def test_blocks_cover_a_frame_once(shape: tuple[int, int, int], scale: int) -> None:
    found = blocks.plan(shape, scale)
    seen = np.zeros(shape, int)
    for block in found:
        tile = block.tile
        seen[(block.plane, *tile.core())] += 1
        assert tile.y0 % 16 == tile.x0 % 16 == tile.ry0 % 16 == tile.rx0 % 16 == 0, "cells lie in one block each"
        for a, b, ra, rb, n in ((tile.y0, tile.y1, tile.ry0, tile.ry1, shape[1]),
                                (tile.x0, tile.x1, tile.rx0, tile.rx1, shape[2])):  # fmt: skip
            assert (b - a) * scale <= 1.5 * 2048
            assert ra == max(a - 64, 0) if a else ra == 0
            assert rb == min(b + 64, n)
    assert (seen == 1).all()
    assert [block.number for block in found] == list(range(len(found)))
    assert all(block.whole == (len(found) == shape[0]) for block in found)


def test_small_frames_are_one_block() -> None:
    assert len(blocks.plan((1, 1536, 1536), 2)) == 1
    assert len(blocks.plan((1, 1536, 1537), 2)) == 2
    assert len(blocks.plan((4, 512, 512), 4)) == 4
    assert len(blocks.plan((1, 20000, 20000), 2)) == 400
    assert len(blocks.plan((1, 20000, 20000), 2, whole=True)) == 1

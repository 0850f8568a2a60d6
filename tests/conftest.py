"""What every test gets: fixed seeds, one torch thread, and the real frames where they are."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


def shared_folder() -> Path:
    """Where the real frames are: SCIRESDIFF_TEST_DATA, else ../shared/data beside the repository."""
    return Path(os.environ.get("SCIRESDIFF_TEST_DATA") or REPOSITORY.parent / "shared" / "data")


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    """The same random numbers in every run, whatever ran before."""
    random.seed(0)
    np.random.seed(0)
    if "torch" in sys.modules:
        import torch

        torch.manual_seed(0)
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real frames; skips where it is absent."""
    folder = shared_folder()
    if not folder.is_dir():
        pytest.skip(f"no real frames in {folder}; set SCIRESDIFF_TEST_DATA to the folder that holds astro/ and micro/")
    return folder


@pytest.fixture(scope="session")
def sample_data() -> Path:
    """The small real frames that the repository carries."""
    return REPOSITORY / "sample_data"

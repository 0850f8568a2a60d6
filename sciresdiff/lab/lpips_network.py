"""The network behind the loss ``lpips``, with weights from a folder of the user's; nothing is fetched."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from sciresdiff.errors import UsageError

FOLDER, FILE = "SCIRESDIFF_LPIPS", "alexnet-owt-7be5be79.pth"
"""Environment variable that names the folder with torchvision's AlexNet weights, and their file."""


def load_network() -> Any:
    """AlexNet and LPIPS's weights for it (Zhang et al. 2018, version 0.1), frozen.

    Raises
    ------
    UsageError : the package or the weights are not there; it says where they are looked for.
    """
    return _network(os.environ.get(FOLDER, ""))


@lru_cache(maxsize=1)
def _network(folder: str) -> Any:
    """LPIPS's network with weights from a folder; nothing is fetched."""
    import torch

    file = Path(folder) / FILE
    if not folder or not file.is_file():
        raise UsageError(f"loss: 'lpips' needs AlexNet's weights: set {FOLDER} to the folder with {FILE}")
    try:
        from lpips import LPIPS
    except ImportError as problem:
        raise UsageError(
            f"loss: 'lpips' needs the package lpips (pip install 'sciresdiff[perceptual]'; {problem.name or problem})"
        ) from problem
    network = LPIPS(net="alex", pnet_rand=True, verbose=False)  # pnet_rand: the trunk without fetching its weights
    stored = torch.load(file, map_location="cpu", weights_only=True)
    network.net.load_state_dict({k: stored[f"features.{k.split('.', 1)[1]}"] for k in network.net.state_dict()})
    return network.eval().requires_grad_(False)

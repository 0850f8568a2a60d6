"""Networks that others trained: which architecture a state dictionary is of, and that network rebuilt and filled.

Only tensors are read, never code.  What is not known here is asked of the library spandrel, where it is installed.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sciresdiff.lab.published import edsr, rrdb, swinir
from sciresdiff.lab.published.rrdb import Shapes
from sciresdiff.nets import MisfitError

WRAPPERS = ("params_ema", "params", "state_dict", "model_state_dict", "model")
"""Keys under which files keep the weights, the better ones first."""
PREFIXES = ("module.", "net_g.", "generator.", "model.net_g.")
"""What training code puts before every name."""
LIBRARY = "spandrel"


@dataclass(frozen=True)
class Architecture:
    """How one published network is recognised and rebuilt."""

    title: str
    sizes: Callable[[Shapes], Mapping[str, Any] | None]
    """Names and shapes -> arguments of ``build``, None where they are of another network."""
    build: Callable[..., nn.Module]
    """-> a module with channels, scale, receptive_px and multiple_of: (B, channels, h, w) in [0, 1] to scale times."""
    names: Callable[[Shapes], Mapping[str, str]] = lambda shapes: {name: name for name in shapes}
    """Names in the file -> names of the module; a name that is missing here is not needed."""


ARCHITECTURES: dict[str, Architecture] = {
    "rrdb": Architecture("ESRGAN / Real-ESRGAN (RRDBNet)", rrdb.rrdb_sizes, rrdb.RRDBNet, rrdb.new_names),
    "compact": Architecture("Real-ESRGAN compact (SRVGG)", rrdb.compact_sizes, rrdb.Compact),
    "swinir": Architecture("SwinIR", swinir.swinir_sizes, swinir.SwinIRNet, swinir.swinir_names),
    "edsr": Architecture("EDSR", edsr.edsr_sizes, edsr.EDSRNet),
}
"""Name -> architecture; the first that recognises a state dictionary takes it."""


@dataclass(frozen=True)
class Recognised:
    """A state dictionary under the names of the architecture that it is of."""

    name: str
    sizes: dict[str, Any]
    weights: dict[str, Tensor]


def unwrap(content: Any) -> dict[str, Tensor]:
    """The weights inside what a file held: without wrapper, and without what training code puts before the names.

    Raises
    ------
    MisfitError : no tensors by name.
    """
    for key in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping):
        raise MisfitError(f"holds a {type(content).__name__} and no tensors by name")
    weights = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
    if not weights:
        raise MisfitError("holds no tensors by name")
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): v for name, v in weights.items()}
    return weights


def shapes_of(weights: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor."""
    return {name: tuple(v.shape) for name, v in weights.items()}


def recognise(content: Any) -> Recognised:
    """The architecture, its sizes, and the weights under its names.

    Raises
    ------
    MisfitError : no network known here or to spandrel has these names and shapes.
    """
    weights = unwrap(content)
    for name, architecture in ARCHITECTURES.items():
        new = architecture.names(shapes_of(weights))
        mapped = {new[k]: v for k, v in weights.items() if k in new}
        sizes = architecture.sizes(shapes_of(mapped))
        if sizes is not None:
            check_fit(architecture, sizes, shapes_of(mapped))
            return Recognised(name, dict(sizes), {k: v.float().contiguous() for k, v in mapped.items()})
    by_library(weights)
    return Recognised(LIBRARY, {}, {k: v.contiguous() for k, v in weights.items()})


def check_fit(architecture: Architecture, sizes: Mapping[str, Any], found: Shapes) -> None:
    """Compare names and shapes with those of the network that they were taken for.

    Raises
    ------
    MisfitError : which are missing, which are left over, which have other shapes.
    """
    try:
        with torch.device("meta"):
            wanted = shapes_of(architecture.build(**sizes).state_dict())
    except (RuntimeError, ValueError, ZeroDivisionError) as error:
        raise MisfitError(f"looks like {architecture.title} but has impossible sizes ({error})") from None
    other = [f"{k} {found[k]} instead of {wanted[k]}" for k in wanted if k in found and found[k] != wanted[k]]
    parts = [
        ("missing", [k for k in wanted if k not in found]),
        ("unexpected", [k for k in found if k not in wanted]),
        ("of another shape", other),
    ]
    wrong = [f"{len(names)} {what}: {first_names(names)}" for what, names in parts if names]
    if wrong:
        raise MisfitError(f"looks like {architecture.title} but does not fit; {'; '.join(wrong)}")


def first_names(names: list[str], most: int = 3) -> str:
    """The first few of a list, as words."""
    return ", ".join(names[:most]) + (" ..." if len(names) > most else "")


def build_network(name: str, sizes: Mapping[str, Any], weights: Mapping[str, Tensor] | None = None) -> nn.Module:
    """A published network, filled where weights are given; spandrel's need them to be built.

    Parameters
    ----------
    name : of `ARCHITECTURES`, or `LIBRARY`. sizes : arguments of its ``build``.
    weights : under the names of the module.

    Returns
    -------
    (B, channels, h, w) in [0, 1] to (B, channels, scale h, scale w).

    Raises
    ------
    MisfitError : a network of spandrel's where that is not installed.
    """
    if name == LIBRARY:
        return by_library(weights or {})
    net = ARCHITECTURES[name].build(**sizes)
    if weights is not None:
        net.load_state_dict(dict(weights))
    return net


class ByLibrary(nn.Module):
    """A network of spandrel's with the attributes of ours."""

    tile_exact = False

    def __init__(self, found: Any) -> None:
        """``found``: spandrel's ImageModelDescriptor."""
        super().__init__()
        self.net, self.scale, self.channels = found.model, int(found.scale), int(found.input_channels)
        size = found.size_requirements
        self.multiple_of = math.lcm(int(size.multiple_of), 1)
        self.receptive_px = 64  # the library does not tell; tiles of such a network are not promised to agree

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, h, w) in [0, 1] to (B, channels, scale h, scale w)."""
        out: Tensor = self.net(x)
        return out


def by_library(weights: Mapping[str, Tensor]) -> nn.Module:
    """A network that spandrel recognises (ATD and many others).

    Raises
    ------
    MisfitError : spandrel is not installed, does not know the names either, or knows no network from image to image.
    """
    names = first_names(list(weights))
    try:
        library = importlib.import_module(LIBRARY)
    except ImportError:
        known = ", ".join(a.title for a in ARCHITECTURES.values())
        raise MisfitError(
            f"is of no architecture known here ({known}); it begins with {names}; "
            f"'pip install {LIBRARY}' and try again: it knows ATD and others"
        ) from None
    try:
        found = library.ModelLoader().load_from_state_dict(dict(weights))
    except Exception as error:  # the library's own errors, which are many
        raise MisfitError(
            f"is of no architecture known here or to {LIBRARY} ({error}); it begins with {names}"
        ) from None
    if getattr(found, "input_channels", 0) != getattr(found, "output_channels", -1):
        raise MisfitError(f"holds a network of {LIBRARY} that is not one from an image to an image of as many planes")
    return ByLibrary(found)

"""A model: a prior, perhaps a refiner and its method, and the card that says what they are and where they hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sciresdiff import plugins
from sciresdiff.diffusion.method import Method
from sciresdiff.errors import InputError, UsageError
from sciresdiff.nets import MisfitError
from sciresdiff.nets.half import use_bfloat16
from sciresdiff.plugins import Registry
from sciresdiff.restoration.model_file import (
    CARD,
    is_safetensors,
    parse_card,
    read_metadata,
    read_tensors,
    verify,
    write_model,
)
from sciresdiff.restoration.prior import Prior, PriorConfig
from sciresdiff.restoration.refiner import Refiner, refiner_from_card

FORMAT = 1
_WRONG_CARD = (RuntimeError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError)
PRESETS: dict[str, dict[str, int]] = {
    "tiny": {"width": 16, "depth": 1, "stages": 1},
    "small": {"width": 32, "depth": 4, "stages": 2},
    "base": {"width": 64, "depth": 5, "stages": 2},
}
"""Sizes of a network by name."""
PRIORS: Registry[Callable[[Mapping[str, Any], Mapping[str, Tensor]], Prior]] = Registry(
    {
        "published": "sciresdiff.lab.published.prior:PublishedPrior.from_card",
    }
)
"""Priors that were not trained here: the ``kind`` in their card -> (card, weights of the model file) -> prior."""


@dataclass(frozen=True)
class Model:
    """Networks and their card."""

    prior: Prior
    refiner: Refiner | None = None
    method: Method | None = None
    card: dict[str, Any] = field(default_factory=dict)
    """JSON-able: name, kind, scale, target_fwhm_px, range (what it was trained on), calibration, trained."""
    hash: str = ""
    """First 12 digits of the checksum of its tensors and card (`model_file.checksum`); empty before it was saved."""
    is_checked: bool = True
    """Whether its file holds a checksum, and it agrees."""

    @property
    def scale(self) -> int:
        """Fine pixels per coarse pixel and axis."""
        return self.prior.config.scale

    @property
    def calibration(self) -> dict[str, Any]:
        """What the calibration found, empty before there was one."""
        found: dict[str, Any] = self.card.get("calibration", {})
        return found

    def with_card(self, **entries: Any) -> Model:
        """A copy whose card has more entries."""
        return replace(self, card={**self.card, **entries})

    def run_by(self, method: Method) -> Model:
        """A copy whose refiner is run by another method: its start, solver and hooks, on the network as it is.

        **What was measured on the draws of the model's own method, its ERR and TRUST, does not hold and is left out.**

        Raises
        ------
        UsageError : no refiner, or one that has not learned what the method asks of it.
        """
        if self.refiner is None or self.method is None:
            raise UsageError(f"--method {method.name}: the model {self.card.get('name')} has no refiner to run")
        borrow = plugins.load("sciresdiff.lab.borrow:borrow")
        return replace(self, method=borrow(self.method, method), card=prior_card(self.card))

    def to(self, device: torch.device) -> Model:
        """The networks on a device, ready to be used: in bfloat16 where that is fast and harmless, see `nets.half`."""
        for part in (self.prior, self.refiner):
            if part is not None:
                part.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
                part.eval().requires_grad_(False)
                use_bfloat16(part, device)
        return self


def prior_card(card: Mapping[str, Any]) -> dict[str, Any]:
    """A card without what was measured on a refiner's draws: TRUST, and all of the calibration but the prior's own."""
    kept = {key: value for key, value in card.items() if key not in ("calibration", "trust")}
    own = {key: value for key, value in card.get("calibration", {}).items() if key == "prior_err"}
    return {**kept, "calibration": own} if own else kept


def tensors(model: Model) -> dict[str, Tensor]:
    """Every weight by name, ``prior.*`` and ``refiner.*``, on the CPU."""
    named = {f"prior.{k}": v for k, v in model.prior.state_dict().items()}
    if model.refiner is not None:
        named |= {f"refiner.{k}": v for k, v in model.refiner.state_dict().items()}
    return {k: v.detach().cpu().contiguous() for k, v in named.items()}


def save(model: Model, path: Path) -> None:
    """Write a model as one ``.safetensors`` file with its JSON card inside, whole or not at all."""
    card = {
        **model.card,
        "format": FORMAT,
        "prior": model.prior.config.to_dict(),
        "refiner": model.refiner.config.to_dict() if model.refiner else None,
        "method": model.method.to_dict() if model.method else None,
    }
    write_model(path, card, tensors(model))


def locate(name: str) -> Path:
    """The file of a model: a path, a folder that holds one, or the name of a shipped model.

    Raises
    ------
    InputError : nothing of that name; the message lists what there is.
    """
    path = Path(name)
    if path.is_dir():
        found = sorted(path.glob("*.safetensors"))
        if len(found) != 1:
            raise InputError(f"--model: {name} holds {len(found)} .safetensors files, one is needed; name the file")
        return found[0]
    if path.is_file():
        return path
    shipped_file = Path(str(resources.files("sciresdiff"))) / "models" / f"{name}.safetensors"
    if shipped_file.is_file():
        return shipped_file
    known = ", ".join([*(card["name"] for card in shipped_cards()), "physics"])
    raise InputError(f"--model: no model or file {name!r}; shipped models are {known}")


def read_card(path: Path) -> dict[str, Any]:
    """The card inside a model file, without its weights.

    Raises
    ------
    InputError : not a safetensors file, or not one of ours.
    """
    text = read_metadata(path).get(CARD)
    if text is None:
        raise InputError(
            f"--model: {path} holds no sciresdiff card; only files written by train-prior or train-refiner"
        )
    card = parse_card(path, text)
    if card.get("format") != FORMAT:
        raise InputError(f"--model: {path} has format {card.get('format')}, this version reads {FORMAT}; retrain it")
    return card


def has_card(path: Path) -> bool:
    """Whether a file is one of this package's models, by its content; a damaged safetensors file counts as one."""
    if not is_safetensors(path):
        return False
    try:
        return CARD in read_metadata(path)
    except InputError:
        return True  # the message of `load` says how


def load(name: str) -> Model:
    """A model by name or path.

    Raises
    ------
    InputError : a missing, damaged or foreign file.
    """
    path = locate(name)
    card, weights = read_card(path), read_tensors(path)
    digest, is_checked = verify(path, card, weights)
    try:
        prior = prior_of(card["prior"], weights)
        refiner = refiner_from_card(card["refiner"]) if card["refiner"] else None
        method = Method.from_dict(card["method"]) if card["method"] else None
        model = Model(prior, refiner, method, card, digest[:12], is_checked)
        fill(model, weights)
    except MisfitError as error:
        raise InputError(f"--model: {path} {error}") from None
    except (UsageError, *_WRONG_CARD) as error:  # whatever the networks say of sizes that they cannot have
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"--model: the weights in {path} do not fit its card ({reason})") from None
    return model.to(torch.device("cpu"))


def prior_of(card: dict[str, Any], weights: dict[str, Tensor]) -> Prior:
    """The prior that a card describes, not filled yet: trained here, or of a kind in `PRIORS`.

    Parameters
    ----------
    card : the entry ``prior`` of a model's card. weights : all tensors of the file by name.
    """
    kind = card.get("kind")
    return Prior(PriorConfig(**card)) if kind is None else PRIORS[kind](card, weights)


def fill(model: Model, weights: dict[str, Tensor]) -> None:
    """Put weights by name into the networks of a model.

    Parameters
    ----------
    weights : names begin with ``prior.`` and ``refiner.``.

    Raises
    ------
    RuntimeError : a name is missing or left over, or a shape or the kind of number differs.
    """
    for part, module in (("prior", model.prior), ("refiner", model.refiner)):
        if module is not None:
            named = {k[len(part) + 1 :]: v for k, v in weights.items() if k.startswith(part + ".")}
            for key, own in module.state_dict().items():
                if key in named and named[key].is_floating_point() != own.is_floating_point():
                    raise RuntimeError(f"{key} is of type {named[key].dtype}")
            module.load_state_dict(named)


def shipped_cards() -> list[dict[str, Any]]:
    """The cards of the models that come with the package, by name."""
    folder = Path(str(resources.files("sciresdiff"))) / "models"
    return [read_card(path) for path in sorted(folder.glob("*.safetensors"))]


def default_for(kind: str, scale: int) -> str | None:
    """The name of the shipped model for a kind of frame (``astro``, ``micro``) and a scale, None if there is none."""
    for card in shipped_cards():
        if card["kind"] == kind and card["prior"]["scale"] == scale:
            return str(card["name"])
    return None


def device_of(name: str) -> torch.device:
    """The device of ``--device``; ``auto`` takes a GPU where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"--device: {name!r} is not a device; allowed are auto, cpu, cuda, cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"--device: {name} is not on this machine; allowed here are auto, cpu, or another cuda:N")
    return device

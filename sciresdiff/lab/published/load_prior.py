"""Taking over a network that others trained as the prior of a refiner: read, recognised, and its error measured."""

from __future__ import annotations

import hashlib
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as load_file
from torch import nn

from sciresdiff.errors import InputError, UsageError
from sciresdiff.lab.published.networks import ARCHITECTURES, MisfitError, Recognised, build_network, recognise
from sciresdiff.lab.published.prior import STRETCHES, PublishedConfig, PublishedPrior
from sciresdiff.restoration.model import Model
from sciresdiff.restoration.model_file import is_safetensors
from sciresdiff.training.data import Pairs
from sciresdiff.training.loop import Say
from sciresdiff.training.options import TrainOptions
from sciresdiff.training.prepare import count_millions
from sciresdiff.training.recipe import DataRecipe, read_recipe, read_tables

PAIRS = 32
"""Simulated pairs on which the scale of the error is measured."""
CUT = 50.0
"""Squared error over squared scale beyond which a pixel says no more, as in the training of a prior."""
WIDEST = 1e4
"""Contrasts by which an image may be wrong before a network is refused."""


def contents(path: Path) -> Any:
    """What a file holds; **no code in it is run**.

    Raises
    ------
    InputError : unreadable, or more than tensors inside.
    """
    try:
        if is_safetensors(path):
            return load_file(path.read_bytes())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of unusual pickles: they are read or they are refused
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0].split(" This file")[0]
        raise InputError(
            f"--prior: {path} holds more than tensors and is not read, as it could run code ({reason[:120]}); "
            "give a file of weights alone"
        ) from None
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, SafetensorError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"--prior: {path} is not a readable file of weights (.pth or .safetensors; {reason[:120]})"
        ) from None


def network_of(path: Path) -> tuple[Recognised, int, nn.Module]:
    """The network in a file: what it was recognised as, its scale, and the network itself.

    Raises
    ------
    InputError : of no known architecture, or it leaves the size of an image as it is.
    """
    try:
        found = recognise(contents(path))
        net = build_network(found.name, found.sizes, found.weights)
    except MisfitError as error:
        raise InputError(f"--prior: {path} {error}") from None
    scale = int(net.scale)  # type: ignore[arg-type]
    if scale < 2:
        raise InputError(f"--prior: {path} holds a network of scale x{scale}; one that enlarges is needed (x2 to x8)")
    return found, scale, net


def settings_of(recipe: str | None) -> dict[str, Any]:
    """The table [prior] of a training recipe: ``stretch``, ``halo``, and numbers for the stretch.

    Raises
    ------
    UsageError : an unknown stretch, or a value that is no number.
    """
    table: dict[str, Any] = read_tables(recipe).get("prior", {})
    stretch, halo = table.get("stretch", "linear"), table.get("halo")
    numbers = {k: v for k, v in table.items() if k not in ("stretch", "halo")}
    if stretch not in STRETCHES:
        raise UsageError(f"--recipe: [prior] stretch {stretch!r} is not known; one of {', '.join(STRETCHES)}")
    if halo is not None and not (isinstance(halo, int) and halo >= 0):
        raise UsageError(f"--recipe: [prior] halo {halo!r} is no number of pixels; 0 or more")
    for key, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UsageError(f"--recipe: [prior] {key} = {value!r} is no number")
    return {"stretch": stretch, "halo": halo, "settings": numbers}


def most_likely_factor(ratio: NDArray[Any]) -> float:
    """The f that makes mean(log f + min(r^2 / f^2, CUT) / 2) smallest: the scale of errors r, outliers cut.

    Parameters
    ----------
    ratio : |error| over local contrast, any shape.
    """
    squares = np.square(ratio, dtype=np.float64).ravel()
    at = np.geomspace(1e-3, WIDEST, 281)  # 6 % apart
    costs = [np.log(f) + 0.5 * np.minimum(squares / f**2, CUT).mean() for f in at]
    return float(at[int(np.argmin(costs))])


@torch.no_grad()
def measure_error(
    prior: PublishedPrior, recipe: DataRecipe, seed: int, count: int = PAIRS
) -> tuple[float, float, float]:
    """The scale of the error of a network's guess in units of the local contrast, on simulated pairs.

    Returns
    -------
    factor, and the mean chi2 of the guess and of the estimate once held to the data with that factor.
    """
    pairs = Pairs(recipe, seed)
    batches = [pairs.batch(n, 4) for n in range(0, count, 4)]
    prior.config = replace(prior.config, factor=1.0)
    ratios = []
    for batch in batches:
        estimate = prior(batch.data, batch.kernel)[-1]
        ratios.append(((estimate.guess - batch.truth).abs() / estimate.w).numpy())
    prior.config = replace(prior.config, factor=round(most_likely_factor(np.concatenate(ratios)), 4))
    found = [(b.data, prior(b.data, b.kernel)[-1]) for b in batches]
    before, after = (float(np.mean([float(d.chi2(v).mean()) for d, v in pick])) for pick in (
        [(d, e.guess) for d, e in found], [(d, e.x) for d, e in found]
    ))  # fmt: skip
    return prior.config.factor, before, after


def take_over(path: Path, recipe: DataRecipe, settings: Mapping[str, Any], seed: int, say: Say) -> Model:
    """A model whose prior is the network in a file, with the scale of its error measured on simulated frames.

    Parameters
    ----------
    path : the file. recipe : of the simulated frames; its scale is the network's. settings : `settings_of`.
    seed : of the simulated frames. say : is told what was found.

    Raises
    ------
    InputError : a file that does not fit, or a network whose images have nothing to do with the frames.
    """
    found, scale, _ = network_of(path)
    title = ARCHITECTURES[found.name].title if found.name in ARCHITECTURES else found.name
    sizes = {k: found.sizes[k] for k in ("width", "depth") if k in found.sizes}
    prior = PublishedPrior(PublishedConfig(scale, found.name, **sizes, sizes=found.sizes, **settings), found.weights)
    factor, before, after = measure_error(prior, replace(recipe, scale=scale), seed)
    if not np.isfinite(before) or factor >= WIDEST:
        raise InputError(
            f"--prior: {path} answers simulated frames with images far from them; is it an x{scale} network?"
        )
    say(f"prior: {title} x{scale} from {path.name}, {count_millions(prior):.2f} M parameters, not trained further")
    say(f"its error is {factor:.2g} times the local contrast; chi2 {before:.3g}, {after:.3g} once held to the data")
    say(
        "networks trained for L1 or with a discriminator are not flux-true; the consistency step and the gate hold"
        " the image to the data: look at CHI2 and GATE"
    )
    source = {
        "published": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "architecture": title,
        "factor_pairs": PAIRS,
        "chi2_guess": round(before, 4),
        "chi2": round(after, 4),
    }
    limits = {"sigma_low_px": recipe.sigma, "photon": recipe.photon}
    return Model(
        prior,
        card={
            "name": path.stem,
            "kind": recipe.kind,
            "scale": scale,
            "target_fwhm_px": 2.0,
            "range": limits,
            "trained": {"prior": source},
        },
    )


def prior_model(path: Path, options: TrainOptions, say: Say) -> Model:
    """The network in a file as the prior of a refiner that is trained with ``options``.

    Parameters
    ----------
    path : the file. options : with the recipe, whose table [prior] says how a plane is brought to [0, 1].
    say : is told what was found.

    Raises
    ------
    InputError, UsageError : as in `take_over` and `settings_of`.
    """
    return take_over(path, read_recipe(options)[0], settings_of(options.recipe), options.seed + 31_717, say)

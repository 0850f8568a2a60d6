"""How the refiner of a model will draw: its steps, and what its draws do not keep."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sciresdiff.errors import UsageError
from sciresdiff.jobs.upscale.options import UpscaleOptions
from sciresdiff.notes import Notes

if TYPE_CHECKING:
    from sciresdiff.diffusion.method import Method
    from sciresdiff.restoration.model import Model


def check_steps(model: Model | None, options: UpscaleOptions) -> None:
    """Refuse a number of steps that the model's method cannot take, before anything is computed.

    Raises
    ------
    UsageError : more steps than the method's path has, or several of a student of one.
    """
    if model is None or model.method is None or options.steps is None or not options.refine:
        return
    if model.method.solver == "one-step" and options.steps != 1:
        raise UsageError(
            f"--steps {options.steps}: {model.method.name} draws in one step; leave the option out, or give 1"
        )
    model.method.path(options.steps)


def count_steps(method: Method, steps: int | None) -> int:
    """Steps from the start to the image: the path's, fewer from a start on the way, one of a one-step student."""
    T = method.path(steps).T
    if method.solver == "one-step":
        return 1
    return max(1, round(float(method.start_params["t0"]) * T)) if method.start == "sdedit" else T


def warn_codec(model: Model | None, options: UpscaleOptions) -> Notes:
    """Warn that a decoder does not conserve flux, and say what does."""
    from sciresdiff.restoration.refiner import REFINERS

    if model is None or model.method is None or model.method.space not in REFINERS or not options.refine:
        return Notes()
    several = options.samples > 1
    mean = {
        "noise": "their mean has the data's flux in cells of 16 x 16 input px" if several else "--samples 2 closes it",
        "exact": "their mean has the data's flux in every input px",
        "off": "and --consistency off leaves their mean like them",
    }[options.consistency]
    return Notes(
        f"WARNING flux: {model.method.name} draws through a decoder ({model.method.space}), which does not conserve "
        f"flux; draws are held to the data as far as the prior's scale allows, {mean}"
    )

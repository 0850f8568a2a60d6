"""The names of solvers, and what a method file may say of each.

A solver is ``solve(task, x, *, eta, numbers of its own) -> x_0``, with x the state at ``task.times[0]``, see
`sciresdiff.diffusion.sampler.Task`.  The default method's stands beside its equations in
`sciresdiff.diffusion.sampler`, the others in `sciresdiff.lab.solvers`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sciresdiff.plugins import Registry

if TYPE_CHECKING:
    from torch import Tensor

SOLVERS: Registry[Callable[..., Tensor]] = Registry(
    {
        "ancestral": "sciresdiff.diffusion.sampler:ancestral",
        "ddim": "sciresdiff.lab.solvers:ddim",
        "euler": "sciresdiff.lab.solvers:euler",
        "heun": "sciresdiff.lab.solvers:heun",
        "plms": "sciresdiff.lab.solvers:plms",
        "pndm": "sciresdiff.lab.solvers:pndm",
        "dpmpp2m": "sciresdiff.lab.solvers:dpmpp2m",
        "reverse-diffusion": "sciresdiff.lab.solvers:reverse_diffusion",
        "predictor-corrector": "sciresdiff.lab.solvers:predictor_corrector",
        "consistency": "sciresdiff.lab.solvers:consistency",
        "one-step": "sciresdiff.lab.solvers:one_step",
    }
)
"""Solvers by the name that a method file gives them."""
ETAS: dict[str, tuple[float, float]] = {
    **dict.fromkeys(SOLVERS, (0.0, 0.0)),
    **dict.fromkeys(("ancestral", "reverse-diffusion", "predictor-corrector", "consistency"), (1.0, 1.0)),
    **dict.fromkeys(("ddim", "dpmpp2m"), (0.0, 1.0)),
}
"""Smallest and largest eta of every solver; without one in a method file the smallest is taken."""
NEEDS_DISTIL = {"consistency": "consistency", "one-step": "one-step"}
"""Solvers that only a distilled model can be run with, and how it is taught."""

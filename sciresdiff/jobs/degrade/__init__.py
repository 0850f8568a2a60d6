"""``degrade``: read, blur, bin and read out every plane, write the coarse image with its noise and kernel."""

from sciresdiff.jobs.degrade.options import DegradeOptions
from sciresdiff.plugins import on_first_use

__all__ = ["DegradeOptions"]
__getattr__ = on_first_use(
    __name__, {"plan": "sciresdiff.jobs.degrade.job:plan", "run": "sciresdiff.jobs.degrade.job:run"}
)

"""``degrade``: read, blur, bin and read out every plane, write the coarse image with its noise and kernel."""

from sciresdiff.jobs.degrade.job import plan, run
from sciresdiff.jobs.degrade.plan import DegradeOptions

__all__ = ["DegradeOptions", "plan", "run"]

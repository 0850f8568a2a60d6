"""``upscale``: resolve what a file needs, restore it block by block, write the image and its record."""

from sciresdiff.jobs.upscale.job import plan, run
from sciresdiff.jobs.upscale.options import UpscaleOptions

__all__ = ["UpscaleOptions", "plan", "run"]

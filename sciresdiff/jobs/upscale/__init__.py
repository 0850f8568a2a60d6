"""``upscale``: resolve what a file needs, restore it block by block, write the image and its record."""

from sciresdiff.jobs.upscale.options import UpscaleOptions
from sciresdiff.plugins import on_first_use

__all__ = ["UpscaleOptions"]
__getattr__ = on_first_use(
    __name__, {"plan": "sciresdiff.jobs.upscale.job:plan", "run": "sciresdiff.jobs.upscale.job:run"}
)

"""sciresdiff: super-resolution of science images that can be defended in a paper."""

from __future__ import annotations

from sciresdiff.plugins import on_first_use

__version__ = "0.1.0"

PUBLIC = {
    "restore": "sciresdiff.api.restored:restore",
    "degrade": "sciresdiff.api.degraded:degrade",
    "evaluate": "sciresdiff.api.evaluation:evaluate",
    "Restored": "sciresdiff.api.restored:Restored",
    "Degraded": "sciresdiff.api.degraded:Degraded",
    "Evaluation": "sciresdiff.api.evaluation:Evaluation",
    "Exposure": "sciresdiff.observation.exposure:Exposure",
    "Observation": "sciresdiff.observation.observation:Observation",
    "PSF": "sciresdiff.physics.psf.field:PSF",
    "Model": "sciresdiff.restoration.model:Model",
    "Notes": "sciresdiff.notes:Notes",
    "Frame": "sciresdiff.frame:Frame",
    "PixelSize": "sciresdiff.frame:PixelSize",
    "read": "sciresdiff.io:read",
    "write": "sciresdiff.io:write",
}
"""Public name -> where it is defined; imported when it is first used."""

__all__ = ["PUBLIC", "__version__"]
__getattr__ = on_first_use(__name__, PUBLIC)


def __dir__() -> list[str]:
    """Everything public."""
    return sorted([*globals(), *PUBLIC])

"""The front door in Python: arrays or files in, results out; no file is needed, and none is written unasked."""

from sciresdiff.plugins import on_first_use

PUBLIC = {
    "Degraded": "sciresdiff.api.degrade:Degraded",
    "Evaluation": "sciresdiff.api.evaluate:Evaluation",
    "Restored": "sciresdiff.api.restore:Restored",
    "degrade": "sciresdiff.api.degrade:degrade",
    "evaluate": "sciresdiff.api.evaluate:evaluate",
    "restore": "sciresdiff.api.restore:restore",
}
"""Public name -> where it is defined."""

__all__ = ["PUBLIC"]
__getattr__ = on_first_use(__name__, PUBLIC)

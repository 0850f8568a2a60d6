"""``evaluate``: bring image, data and truth together, run the checks, and the baselines beside them."""

from sciresdiff.jobs.evaluate.options import DEFAULT_BASELINES, EvaluateOptions
from sciresdiff.plugins import on_first_use

__all__ = ["DEFAULT_BASELINES", "EvaluateOptions"]
__getattr__ = on_first_use(
    __name__, {"pairs": "sciresdiff.jobs.evaluate.job:pairs", "run": "sciresdiff.jobs.evaluate.job:run"}
)

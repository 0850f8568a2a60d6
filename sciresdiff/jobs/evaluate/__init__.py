"""``evaluate``: bring image, data and truth together, run the checks, and the baselines beside them."""

from sciresdiff.jobs.evaluate.job import DEFAULT_BASELINES, pairs, run

__all__ = ["DEFAULT_BASELINES", "pairs", "run"]

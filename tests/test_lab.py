"""The laboratory is loaded by name alone: what the product runs does not bring it along."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import sciresdiff
from sciresdiff.diffusion.schedule import SCHEDULES
from sciresdiff.diffusion.solvers import SOLVERS
from sciresdiff.diffusion.weight import WEIGHTS
from sciresdiff.nets import BACKBONES
from sciresdiff.plugins import Registry, load
from sciresdiff.restoration.hooks import HOOKS
from sciresdiff.restoration.model import PRIORS, shipped_cards
from sciresdiff.restoration.refiner import CONDITIONS, REFINERS

PACKAGE = Path(sciresdiff.__file__).parent

LOADED = "print(*sorted(name for name in sys.modules if name.startswith('sciresdiff.lab') or name == 'torch'))"
RESTORE = """
import sys
import numpy as np
from sciresdiff.observation.observation import Observation
from sciresdiff.restoration import model
from sciresdiff.restoration.restore import restore
from sciresdiff.restoration.settings import Settings

pixels = np.random.default_rng(0).normal(100, 1, (24, 24)).astype("f4")
one = model.load("{name}")
done = restore(Observation.of_arrays(pixels, 0 * pixels + 1, one.scale), one, Settings(samples=2))
assert np.isfinite(done.mean).all() and done.draws_used == 2
"""


def modules_after(code: str) -> list[str]:
    """Modules of the laboratory, and torch, that a fresh interpreter has after running the code."""
    done = subprocess.run([sys.executable, "-c", f"{code}\n{LOADED}"], capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.parametrize("name", [card["name"] for card in shipped_cards()])
def test_a_shipped_model_restores_without_the_laboratory(name: str) -> None:
    assert modules_after(RESTORE.format(name=name)) == ["torch"]


@pytest.mark.parametrize("module", ["nets", "plugins", "diffusion.method", "cli.train"])
def test_names_are_listed_without_torch(module: str) -> None:
    assert modules_after(f"import sys; import sciresdiff.{module}") == []


def test_every_name_leads_somewhere() -> None:
    registries: list[Registry] = [BACKBONES, CONDITIONS, HOOKS, PRIORS, REFINERS, SCHEDULES, SOLVERS, WEIGHTS]
    entries = {entry for registry in registries for entry in registry.entries.values()}
    for path in PACKAGE.rglob("*.py"):
        entries |= set(re.findall(r'"(sciresdiff\.lab(?:\.\w+)+:[\w.]+)"', path.read_text()))
    assert len(entries) > 50
    for entry in sorted(entries):
        assert load(entry) is not None


def test_a_name_is_looked_up_without_importing_it() -> None:
    registry: Registry = Registry({"here": "math:sqrt", "nowhere": "sciresdiff.nowhere:nothing"})
    assert list(registry) == ["here", "nowhere"] and "nowhere" in registry and len(registry) == 2
    assert registry["here"](4) == 2
    with pytest.raises(ImportError):
        registry["nowhere"]
    with pytest.raises(KeyError):
        registry["missing"]

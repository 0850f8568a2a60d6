"""Methods that train nothing: run on any network that has learned the levels they ask for, refused on others."""

import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sciresdiff.diffusion import method as methods
from sciresdiff.diffusion.schedule import SCHEDULES
from sciresdiff.errors import UsageError
from sciresdiff.lab.borrow import borrow, covers

PLAN = tomllib.loads((Path(__file__).parents[1] / "docs/benchmarks/bench_methods.toml").read_text())


@pytest.mark.parametrize(("asked", "trained"), PLAN["borrows"].items())
def test_the_benchmark_borrows_what_can_be_borrowed(asked, trained):
    found = borrow(methods.load(trained), methods.load(asked))
    own = methods.load(asked)
    for name in ("name", "schedule", "params", "start", "hooks", "hook_params", "solver", "eta", "steps", "anchor"):
        assert getattr(found, name) == getattr(own, name)


@pytest.mark.parametrize("name", methods.names())
def test_every_method_runs_on_its_own_network(name):
    own = methods.load(name)
    assert borrow(own, own) == own


def test_what_the_network_sees_stays_as_trained():
    trained = replace(methods.load("ddpm"), conditions=("frequency",), backbone="freq", space="pixel-unshuffle")
    found = borrow(trained, methods.load("ddnm"))
    assert (found.conditions, found.backbone, found.space) == (("frequency",), "freq", "pixel-unshuffle")
    assert found.hooks == ("project",)


@pytest.mark.parametrize(
    ("trained", "asked", "said"),
    [
        ("resshift", "ddnm", r"--method ddnm: the prediction is eps, but the model was trained with x0 \(resshift\)"),
        ("ddpm", "flow-matching", "the prediction is flow"),
        ("ddpm", "srdiff", r"the space is residual \(base = up, clip = 20.0, gain = 2.0\)"),
        ("resshift", "upsr", r"the weight is upsr \(floor = 0.4, knee = 0.1\), but the model was trained with scale"),
        ("ddpm", "lcm", "the distillation is consistency, but the model was trained with none"),
        ("sinsr", "resshift", "the distillation is none, but the model was trained with one-step"),
        ("ddpm", "score-sde-ve", r"the path is ve \(T = 1000, first = 1e-05"),
        ("ddpm", "sr3", "the path is vp-linear"),  # begins at a hundredth of the noise that ddpm has seen least
        ("resshift", "sciresdiff", r"the path is resshift \(T = 4"),  # another kappa: at one ratio another a
    ],
)  # fmt: skip
def test_what_the_network_has_not_learned_is_refused(trained, asked, said):
    with pytest.raises(UsageError, match=said) as caught:
        borrow(methods.load(trained), methods.load(asked))
    assert "\n" not in str(caught.value)


def test_a_preconditioning_of_another_spread_is_refused():
    own = methods.load("edm")
    other = replace(own, params={**own.params, "sd": 0.5})
    with pytest.raises(UsageError, match="sd is 0.5, but the model was trained with 1 "):
        borrow(own, other)


def test_levels_are_compared_and_not_schedules():
    linear, scaled = SCHEDULES["vp-linear"](), SCHEDULES["scaled-linear"](beta_start=0.00085, beta_end=0.012)
    assert covers(linear, scaled)  # both keep a^2 + s^2 = 1, and the second stays within the first's noise
    assert not covers(scaled, linear)
    flow = SCHEDULES["linear-flow"](T=100)
    assert not covers(linear, flow)  # ends with nothing of the image
    assert not covers(flow, flow)  # likewise: only the very same schedule is taken to be the same there
    bridge = SCHEDULES["bridge"](T=10)
    assert not covers(bridge, linear) and not covers(linear, bridge)
    steps = np.unique(np.round(np.geomspace(1, 1000, 30)).astype(int))
    part = type(linear)(*(v[np.r_[0, steps]] for v in (linear.a, linear.b, linear.s)))
    assert covers(linear, part)

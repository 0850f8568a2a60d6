"""Method files: read, checked, stored and run."""

from __future__ import annotations

import json
import math
from pathlib import Path as File
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sciresdiff.diffusion import method as methods
from sciresdiff.diffusion.method import Method, load, names
from sciresdiff.diffusion.path import marginal
from sciresdiff.diffusion.prediction import PREDICTIONS
from sciresdiff.diffusion.sampler import sample, train_pair
from sciresdiff.diffusion.schedule import SCHEDULES
from sciresdiff.diffusion.solvers import NEEDS_DISTIL, SOLVERS
from sciresdiff.errors import UsageError

NAMES = names()


def images(*shape: int) -> list[Tensor]:
    """Truth, anchor, weight and noise of one shape, float32."""
    generator = torch.Generator().manual_seed(2)
    truth, anchor, weight, eps = (torch.randn(shape, generator=generator) for _ in range(4))
    return [truth, anchor, weight.abs() + 0.2, eps]


def keyed(t: int) -> Tensor:
    """Unit noise, a pure function of t."""
    return torch.randn(1, 1, 6, 7, generator=torch.Generator().manual_seed(t))


def test_the_default_comes_first_and_is_four_steps_around_the_prior() -> None:
    assert names()[0] == "sciresdiff"
    assert {"sciresdiff", "resshift", "resshift-4", "upsr", "ddpm", "ddim"} <= set(names())
    m = load("sciresdiff")
    assert (m.anchor, m.weight, m.prediction, m.hooks, m.solver, m.eta) == (
        "prior",
        "scale",
        "x0",
        ("consistency",),
        "ancestral",
        1.0,
    )
    assert m.path().T == m.training_path().T == 4


@pytest.mark.parametrize("name", NAMES)
def test_a_method_survives_the_model_card(name: str) -> None:
    m = load(name)
    assert m.name == name and m.about
    assert Method.from_dict(json.loads(json.dumps(m.to_dict()))) == m


def sqrt_eta(name: str) -> list[float]:
    """The published way to write a ResShift schedule."""
    return [round(float(v), 4) for v in np.sqrt(load(name).training_path().b[1:])]


def test_published_schedules() -> None:
    assert sqrt_eta("resshift") == [
        0.02,
        0.1172,
        0.1763,
        0.2336,
        0.2916,
        0.351,
        0.4124,
        0.4759,
        0.5417,
        0.6099,
        0.6807,
        0.754,
        0.83,
        0.9086,
        0.99,
    ]
    assert sqrt_eta("resshift-4") == [0.1, 0.5201, 0.7614, 0.99]
    assert sqrt_eta("upsr") == [0.0316, 0.43, 0.6339, 0.8166, 0.99]
    abar = load("ddpm").training_path().a[1000] ** 2
    assert abar == pytest.approx(4.0358e-5, rel=1e-3)  # DDPM's last abar, to the digits published


@pytest.mark.parametrize("name", NAMES)
def test_with_a_perfect_denoiser_every_method_returns_the_truth(name: str) -> None:
    truth, anchor, weight, _ = images(1, 1, 6, 7)
    m, seen = load(name), []

    def denoise(x: Tensor, t: int) -> Tensor:
        seen.append(t)
        assert torch.isfinite(x).all()
        return truth

    assert torch.equal(sample(m, denoise, anchor, weight, keyed), truth)
    first = max(seen)
    assert seen[0] == first == (m.path().T // 2 if m.start == "sdedit" else m.path().T)
    if m.solver in ("ancestral", "ddim", "euler", "reverse-diffusion", "consistency", "dpmpp2m"):
        assert seen == list(range(first, 0, -1))
    if m.solver in ("heun", "predictor-corrector"):
        assert len(seen) == 2 * first - 1


@pytest.mark.parametrize("name", NAMES)
def test_the_training_pair_is_undone_by_the_estimate(name: str) -> None:
    m = load(name)
    truth, anchor, weight, eps = (v.double() for v in images(3, 1, 6, 7))
    t = torch.tensor([1, m.training_path().T // 2, m.training_path().T])
    x, target, factor = train_pair(m, truth, anchor, weight, t, eps)
    assert torch.equal(x, marginal(m.training_path(), t, truth, anchor, weight, eps))
    p = m.training_path().at(t, truth)
    back = PREDICTIONS[m.prediction].estimate(p, x, target, anchor, weight)
    assert (back - truth).abs().max() < 1e-9  # rounding over a = 0.0005 of SR3's last index
    assert factor == 1.0
    one = train_pair(m, truth[:1], anchor[:1], weight[:1], 1, eps[:1])
    assert torch.allclose(one[0], x[:1], rtol=1e-14, atol=1e-14)  # the same number by another way


def test_the_start_is_the_anchor_with_noise() -> None:
    _, anchor, weight, _ = images(1, 1, 6, 7)
    for name in NAMES:
        m, states = load(name), []
        sample(m, lambda x, t, states=states: states.append(x) or x, anchor, weight, keyed, 1)
        p = m.path(1)
        noise = 0.0 if m.start == "anchor" else float(p.s[-1])
        expected = float(p.a[-1] + p.b[-1]) * anchor + noise * weight * keyed(1)
        assert torch.allclose(states[0], expected, rtol=1e-6, atol=1e-6)  # float32


def test_a_bridge_starts_without_noise_and_hooks_come_last() -> None:
    truth, anchor, weight, _ = images(1, 1, 6, 7)
    record = {"name": "bridge", "start": "anchor", "prediction": "bridge", "path": {"schedule": "bridge", "T": 10}}
    m, states = Method.from_dict(record), []
    hooks = [lambda v: v + 1, lambda v: 2 * v]
    done = sample(m, lambda x, t: states.append(x) or truth, anchor, weight, keyed, hooks=hooks)
    assert torch.equal(states[0], anchor)
    assert torch.equal(done, 2 * (truth + 1))


def test_the_weighted_form_is_the_plain_one_in_units_of_the_scale() -> None:
    """With z = (x - mu) / w the step is the same step with anchor 0 and weight 1: what the trainer uses."""
    _, anchor, weight, _ = (v.double() for v in images(1, 1, 6, 7))

    def denoise(z: Tensor, t: int) -> Tensor:
        return torch.tanh(z) * (1 - t / 50)

    for name in NAMES:
        m = load(name)
        steps = min(m.path().T, 20)
        path = m.path(steps)

        def outside(x: Tensor, t: int, path: Any = path) -> Tensor:
            p = path.at(t)
            return anchor + weight * denoise((x - (p.a + p.b) * anchor) / weight, t)

        weighted = sample(m, outside, anchor, weight, keyed, steps)
        plain = sample(m, denoise, 0 * anchor, 1 + 0 * weight, keyed, steps)
        assert torch.allclose(weighted, anchor + weight * plain, rtol=1e-9, atol=1e-9), name  # rounding over a = 0.006


def test_a_card_of_the_first_version_loads_unchanged() -> None:
    old = {
        "name": "old",
        "about": "",
        "space": "pixel-unshuffle",
        "anchor": "prior",
        "prediction": "x0",
        "start": "noise",
        "hooks": ["consistency"],
        "loss": "huber",
        "path": {"schedule": "resshift", "T": 4, "kappa": 1.0},
        "weight": {"name": "scale"},
        "solver": {"name": "ancestral", "eta": 1.0, "grid": "time"},
    }
    m = Method.from_dict(old)
    assert (m.space, m.start, m.hooks, m.params, m.backbone, m.conditions, m.distil) == (
        "pixel-unshuffle",
        "noise",
        ("consistency",),
        {"T": 4, "kappa": 1.0},
        "",
        (),
        "",
    )
    assert Method.from_dict(json.loads(json.dumps(m.to_dict()))) == m


def test_a_method_brings_its_network_and_an_option_overrides_it() -> None:
    m = Method.from_dict({"backbone": "unet"}, "mine.toml")
    assert (m.network(), m.network("resnet"), Method("plain").network()) == ("unet", "resnet", "resnet")
    with pytest.raises(UsageError, match="--backbone: backbone = 'resnett'; allowed are .*; nearest: resnet"):
        m.network("resnett")
    with pytest.raises(UsageError, match="--method mine.toml: backbone = 'umet'; allowed are .*nearest: unet"):
        Method.from_dict({"backbone": "umet"}, "mine.toml").network()


def test_steps() -> None:
    m = load("ddim")
    assert (m.path().T, m.path(7).T, m.training_path().T) == (50, 7, 1000)
    with pytest.raises(UsageError, match="--steps 5: this method has 4 steps; give 1 to 4"):
        load("sciresdiff").path(5)
    with pytest.raises(UsageError, match="--steps 0"):
        load("sciresdiff").path(0)


def test_anchor_and_weight_of_a_method() -> None:
    prior, scale, up = torch.tensor([3.0]), torch.tensor([2.0]), torch.tensor([2.9])
    assert torch.equal(load("sciresdiff").noise_scale(prior, scale, up), scale)
    assert torch.equal(load("sciresdiff").anchor_image(prior, up), prior)
    upsr = load("upsr")
    assert float(upsr.noise_scale(prior, scale, up)) == pytest.approx(0.7, rel=1e-5)  # 0.4 + 0.6 * 0.05 / 0.1, float32
    assert torch.equal(upsr.anchor_image(prior, up), up)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_goes_with_every_solver(schedule: str, solver: str) -> None:
    truth, anchor, weight, _ = images(1, 1, 6, 7)
    taught = {"distil": {"kind": NEEDS_DISTIL[solver]}} if solver in NEEDS_DISTIL else {}
    m = Method.from_dict({"path": {"schedule": schedule}, "solver": {"name": solver, "steps": 6}, **taught})
    assert torch.equal(sample(m, finite(truth), anchor, weight, keyed), truth)


def finite(truth: Tensor) -> Any:
    """The perfect denoiser; it insists on a state of numbers."""

    def denoise(x: Tensor, t: float) -> Tensor:
        assert torch.isfinite(x).all()
        return truth

    return denoise


@pytest.mark.parametrize("grid", ["time", "lambda", "karras"])
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("name", NAMES)
def test_with_a_perfect_denoiser_every_method_returns_the_truth_by_every_solver(
    name: str, solver: str, grid: str
) -> None:
    truth, anchor, weight, _ = images(1, 1, 6, 7)
    m = load(name)
    steps = min(6, m.path().T)
    taught = {"distil": {"kind": NEEDS_DISTIL[solver]}} if solver in NEEDS_DISTIL else {}
    record = {**m.to_dict(), "solver": {"name": solver, "grid": grid, "steps": steps}, **taught}
    if grid != "time" and m.training_path().a[-1] == 0:
        with pytest.raises(UsageError, match=r"grid = .*; the path ends with nothing of the image left \(a = 0\)"):
            Method.from_dict(record)
        return
    mine = Method.from_dict(record)
    assert torch.equal(sample(mine, finite(truth), anchor, weight, keyed), truth)


BASE: dict[str, Any] = load("sciresdiff").to_dict()
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"spcae": "pixel"}, "unknown key 'spcae'; allowed are name, about, .*; nearest: space"),
    ({"space": "wavelet"}, "space = 'wavelet'; allowed are pixel, pixel-unshuffle"),
    ({"space": {"name": "pixel", "gain": 2}}, r"unknown \[space\] key 'gain'; allowed are none but its name"),
    ({"space": {"name": "residual", "gain": "2"}}, r"\[space\] gain = '2'; allowed is a number"),
    ({"space": {"name": "residual", "base": "down"}}, r"\[space\] base = 'down'; allowed are up, prior"),
    ({"anchor": 3}, "anchor = 3; allowed are zero, up, prior"),
    ({"prediction": "score"}, "prediction = 'score'; allowed are x0, eps"),
    ({"start": "middle"}, "start = 'middle'; allowed are noise, anchor"),
    ({"start": "anchor"}, "start = 'anchor' needs a path that ends without noise"),
    ({"start": {"name": "sdedit", "t0": 0}}, r"\[start\] t0 = 0 needs a share of the path, above 0 up to 1"),
    ({"start": {"name": "sdedit", "t0": 1.5}}, r"\[start\] t0 = 1.5 needs a share"),
    ({"backbone": 3}, "backbone = 3; allowed is a text"),
    ({"conditions": ["psf"]}, "conditions = 'psf'; allowed are frequency, snr"),
    ({"hooks": ["clip", "clip"]}, "names one twice"),
    ({"hooks": ["clip"], "hook": {"clip_limit": "3"}}, r"\[hook\] clip_limit = '3'; allowed is a number"),
    ({"hook": {"clip_limit": 3.0}}, r"unknown \[hook\] key 'clip_limit'; allowed are none"),
    ({"distil": {"kind": "two-step"}}, r"\[distil\] kind = 'two-step'; allowed are .*; nearest: one-step"),
    ({"distil": "one-step"}, r"distil = 'one-step' is not a table; write \[distil\], then kind"),
    ({"loss": "l3"}, "loss = 'l3'; allowed are mse, l1, huber"),
    ({"hooks": "consistency"}, "hooks = 'consistency' is not a list"),
    ({"hooks": ["clap"]}, "hooks = 'clap'; allowed are consistency, .*nearest: clip"),
    ({"path": "resshift"}, r"path = 'resshift' is not a table; write \[path\], then schedule"),
    ({"path": {"schedule": "subvp"}}, r"\[path\] schedule = 'subvp'; allowed are resshift, .*; nearest: sub-vp"),
    ({"path": {"schedule": "resshift", "kapa": 1}}, r"unknown \[path\] key 'kapa'; allowed are T, power, kappa"),
    ({"path": {"schedule": "resshift", "T": 4.0}}, r"\[path\] T = 4.0; allowed is a whole number from 1"),
    ({"path": {"schedule": "resshift", "T": 0}}, r"\[path\] T = 0; allowed is a whole number from 1"),
    ({"path": {"schedule": "resshift", "power": True}}, r"\[path\] power = True; allowed is a number"),
    ({"path": {"schedule": "resshift", "power": math.nan}}, r"\[path\] power = nan; allowed is a number"),
    ({"path": {"schedule": "resshift", "kappa": -1}}, r"\[path\] .* gives no resshift path"),
    ({"path": {"schedule": "resshift", "kappa": 0}}, r"\[path\] .* gives no resshift path"),
    ({"path": {"schedule": "resshift", "end": 0.01}}, r"gives no resshift path: .* falls with the index"),
    ({"path": {"schedule": "vp-linear", "beta_end": 1.5}}, r"gives no vp-linear path"),
    ({"weight": {"name": "upsr", "b": 1}}, r"unknown \[weight\] key 'b'; allowed are floor, knee, unit"),
    ({"weight": {"name": "psi"}}, r"\[weight\] name = 'psi'; allowed are ones, scale, upsr"),
    ({"solver": {"name": "unipc"}}, r"\[solver\] name = 'unipc'; allowed are ancestral, ddim"),
    ({"solver": {"name": "dpmpp2"}}, r"\[solver\] name = 'dpmpp2'; allowed are .*; nearest: dpmpp2m"),
    ({"solver": {"name": "ddim", "snr": 0.1}}, r"unknown \[solver\] key 'snr'; allowed are name, .*, heat"),
    ({"solver": {"name": "predictor-corrector", "corrector": 1.5}}, r"corrector = 1.5; allowed is a whole number"),
    (
        {"solver": {"name": "consistency"}},
        r"needs a distilled model; add \[distil\] kind = \"consistency\", or take ddim",
    ),
    ({"solver": {"name": "one-step"}}, r"needs a distilled model; add \[distil\] kind = \"one-step\", or take ddim"),
    (
        {"solver": {"name": "one-step"}, "distil": {"kind": "consistency"}},
        r"'one-step' needs a distilled model; add \[distil\] kind = \"one-step\"",
    ),
    (
        {"path": {"schedule": "linear-flow"}, "solver": {"name": "ddim", "grid": "lambda"}},
        r"grid = 'lambda'; the path ends with nothing of the image left \(a = 0\), where the log-SNR is minus infinity",
    ),
    ({"weight": {"name": "edge-frequency"}, "prediction": "eps"}, "'edge-frequency' needs prediction x0 or residual"),
    ({"solver": {"name": "ddim", "order": 2}}, r"unknown \[solver\] key 'order'; allowed are name, steps, eta, grid"),
    ({"solver": {"name": "ddim", "eta": 1.5}}, r"\[solver\] eta = 1.5; allowed for ddim is 0 to 1"),
    ({"solver": {"name": "heun", "eta": 0.5}}, r"\[solver\] eta = 0.5; allowed for heun is 0"),
    ({"solver": {"name": "ddim", "eta": "1"}}, r"\[solver\] eta = '1'; allowed is a number"),
    ({"solver": {"name": "ddim", "steps": 9}}, r"\[solver\] steps = 9; the path allows 1 to 4"),
    ({"solver": {"name": "ddim", "grid": "cosine"}}, r"\[solver\] grid = 'cosine'; allowed are time, lambda, karras"),
    ({"path": {"schedule": "linear-flow"}, "prediction": "eps"}, "prediction = 'eps' needs .* keeps some of the image"),
    ({"prediction": "v"}, "prediction = 'v' needs a variance-preserving path"),
    ({"prediction": "flow"}, "prediction = 'flow' needs a straight path"),
    ({"prediction": "bridge"}, "prediction = 'bridge' needs schedule bridge"),
    ({"conditions": ["augmentation"]}, r"conditions = 'augmentation' needs the levels to tell; add \[augment\] sigma"),
    ({"augment": 0.5}, r"augment = 0.5 is not a table; write \[augment\], then sigma = \[0.1, 1.0\]"),
    ({"augment": {"sigma": 0.5}}, r"\[augment\] sigma = 0.5; allowed are two numbers"),
    ({"augment": {"sigma": [0.5, "1"]}}, r"\[augment\] sigma = '1'; allowed is a number"),
    ({"augment": {"sigma": [0, 1]}}, r"\[augment\] sigma = \[0, 1\]; allowed are two numbers above 0, up to 1"),
    ({"augment": {"sigma": [0.5, 0.2]}}, r"\[augment\] sigma = \[0.5, 0.2\]; allowed"),
    ({"augment": {"use": 0.9}}, r"\[augment\] use = 0.9; allowed is 0.1 to 0.7, within sigma"),
    ({"augment": {"sigma": [0.2, 0.4], "use": 0.5}}, r"\[augment\] use = 0.5; allowed is 0.2 to 0.4"),
    ({"augment": {"level": 0.5}}, r"unknown \[augment\] key 'level'; allowed are sigma, use"),
]


@pytest.mark.parametrize(("change", "match"), WRONG, ids=[f"{i}-{next(iter(c))}" for i, (c, _) in enumerate(WRONG)])
def test_a_wrong_value_is_named_with_what_is_allowed(change: dict[str, Any], match: str) -> None:
    with pytest.raises(UsageError, match=match) as caught:
        Method.from_dict({**BASE, **change}, "mine.toml")
    assert str(caught.value).startswith("mine.toml: ") and "\n" not in str(caught.value)


def test_a_file_of_ones_own(tmp_path: File) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('prediction = "v"\n[path]\nschedule = "vp-cosine"\nT = 20\n[solver]\nname = "heun"\nsteps = 5\n')
    m = load(file)
    assert (m.name, m.eta, m.path().T) == ("mine", 0.0, 5)
    assert load(str(file)) == m
    file.write_text("prediction = ")
    with pytest.raises(UsageError, match=r"--method: .*mine.toml is not a TOML file"):
        load(file)
    with pytest.raises(
        UsageError, match="--method: no method or file 'resshfit'; methods are sciresdiff, .*; nearest: resshift"
    ):
        load("resshfit")


def test_listing_needs_no_torch() -> None:
    import subprocess
    import sys

    code = "import sys; from sciresdiff.diffusion import method as m; m.load('ddim'); assert 'torch' not in sys.modules"
    root = File(methods.__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)

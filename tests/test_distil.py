"""Distillation: students of a linear teacher come to the optimum in closed form; runs resume; refusals say why."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path as File
from typing import Any

import numpy as np
import pytest
import torch
from astropy.io import fits
from torch import Tensor
from typer.testing import CliRunner

from sciresdiff.cli.app import app
from sciresdiff.diffusion import method as methods
from sciresdiff.diffusion.losses import charbonnier, mse
from sciresdiff.diffusion.path import Path
from sciresdiff.diffusion.schedule import SCHEDULES
from sciresdiff.errors import InputError, UsageError
from sciresdiff.jobs.upscale import job as upscale
from sciresdiff.lab.distillation import losses as teaching
from sciresdiff.lab.distillation import train as distil
from sciresdiff.lab.distillation.losses import Lesson
from sciresdiff.nets import BACKBONES
from sciresdiff.options import Option
from sciresdiff.restoration import model as models
from sciresdiff.restoration.refiner import level_features, with_realism
from sciresdiff.training import prior as prior_training
from sciresdiff.training import refiner as refiner_training
from sciresdiff.training.loop import Run
from sciresdiff.training.options import TrainOptions

SD = 0.7
"""Standard deviation of the linear teacher's data."""
PATHS = {
    "resshift": SCHEDULES["resshift"](T=5, kappa=1.0, min_noise=0.2),
    "vp-linear": SCHEDULES["vp-linear"](T=5, beta_start=0.1, beta_end=0.6),
    "linear-flow": SCHEDULES["linear-flow"](T=4),
}


def gain(path: Path, t: int) -> float:
    """E[x_0 | x_t] / x_t for data N(0, SD^2) and the anchor 0, by Gaussian conditioning."""
    a, s = float(path.a[t]), float(path.s[t])
    return a * SD**2 / (a**2 * SD**2 + s**2)


def kept(path: Path, t: int, r: int) -> float:
    """x_r / x_t of the teacher's deterministic steps from t to r, one index at a time."""
    product = 1.0
    for i in range(t, r, -1):
        a, a_, s, s_ = (float(v) for v in (path.a[i], path.a[i - 1], path.s[i], path.s[i - 1]))
        estimate = gain(path, i)
        product *= a_ * estimate + s_ / s * (1 - a * estimate)
    return product


def of_index(values: Callable[[int], float], t: int | Tensor) -> float | Tensor:
    """A number of every index, as one or (B, 1, 1, 1)."""
    if isinstance(t, int):
        return values(t)
    return torch.tensor([values(int(i)) for i in t], dtype=torch.float64).view(-1, 1, 1, 1)


def lesson(path: Path, student: Callable[..., Tensor], back: Callable[[Tensor], Tensor], n: int = 64) -> Lesson:
    """A lesson of the linear teacher on Gaussian data with the anchor 0."""
    zero = torch.zeros(n, 1, 1, 1, dtype=torch.float64)
    truth = SD * torch.randn(n, 1, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    teacher = lambda x, t, realism: of_index(lambda i: gain(path, i), t) * x  # noqa: E731
    return Lesson(path, teacher, student, student, back, truth, zero, zero + 1)


def taught(parameters: list[Tensor], value: Callable[[torch.Generator], Tensor], steps: int, rate: float) -> None:
    """Minimise by Adam with a falling rate."""
    optimizer = torch.optim.Adam(parameters, lr=rate)
    for n in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - n / steps)
        optimizer.zero_grad()
        value(torch.Generator().manual_seed(n)).backward()
        optimizer.step()


def test_the_linear_teacher_is_right() -> None:
    path = SCHEDULES["linear-flow"](T=2000)
    # the probability flow of a Gaussian keeps its place in units of the standard deviation: x_0 / x_T = SD
    assert kept(path, 2000, 0) == pytest.approx(SD, rel=2e-3)  # first order, 2000 steps


@pytest.mark.parametrize("name", PATHS)
def test_a_shot_lands_where_the_teacher_lands(name: str) -> None:
    path, mu = PATHS[name], torch.full((3, 1, 2, 2), 0.4, dtype=torch.float64)
    x_T = torch.randn(3, 1, 2, 2, dtype=torch.float64)
    teach = lambda x, t, realism: torch.tanh(x) + 0.1 * t  # noqa: E731
    states = teaching.teacher_states(path, teach, x_T, mu)
    p = path.at(path.T)
    for r in range(path.T):
        estimate = teaching.one_step_target(path, x_T, states[path.T - r], r, mu)
        landed = teaching.ddim_step(p, path.at(r), x_T, estimate, mu)
        assert torch.allclose(landed, states[path.T - r], rtol=0, atol=1e-12)  # rounding
    first = teaching.one_step_target(path, x_T, states[1], path.T - 1, mu)
    assert torch.allclose(first, teach(x_T, path.T, 0), rtol=0, atol=1e-11)  # a difference of neighbours is small
    end = teaching.one_step_target(path, x_T, states[-1], 0, mu)
    assert torch.allclose(end, states[-1], rtol=0, atol=1e-12)  # rounding


@pytest.mark.parametrize("name", PATHS)
def test_landings_of_the_linear_teacher_are_a_product(name: str) -> None:
    path = PATHS[name]
    one = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    states = teaching.teacher_states(path, lambda x, t, realism: gain(path, t) * x, one, 0 * one)
    for r in range(path.T + 1):
        assert float(states[path.T - r]) == pytest.approx(kept(path, path.T, r), abs=1e-14)  # rounding


@pytest.mark.parametrize("name", PATHS)
def test_the_one_step_student_comes_to_the_end_of_the_teachers_way(name: str) -> None:
    path = PATHS[name]
    there, back = (torch.ones((), dtype=torch.float64, requires_grad=True) for _ in range(2))
    school = lesson(path, lambda x, t, realism: there * x, lambda x: back * x)
    numbers = {"inverse": 1.0, "truth": 1.0}
    taught([there, back], lambda g: sum(teaching.one_step(school, g, numbers, mse).values()), 400, 0.05)
    exact = kept(path, path.T, 0)
    assert float(there.detach()) == pytest.approx(exact, rel=1e-3)  # Adam's last steps
    assert float(back.detach()) == pytest.approx(1 / exact, rel=1e-3)  # likewise
    parts = teaching.one_step(school, torch.Generator().manual_seed(1), numbers, mse)
    assert set(parts) == {"match", "inverse", "truth"}
    assert all(float(v.detach()) < 1e-5 for v in parts.values())  # a perfect student has nothing left to learn


def test_the_knob_goes_from_the_mean_to_the_draw() -> None:
    path = PATHS["resshift"]
    T, table = path.T, torch.zeros(path.T, dtype=torch.float64, requires_grad=True)

    def guess(x: Tensor, t: int, realism: Tensor) -> Tensor:
        return table[(torch.as_tensor(realism).reshape(-1) * (T - 1)).round().long()].view(-1, 1, 1, 1) * x

    numbers = {"inverse": 0.0, "truth": 0.0, "knob": 0.8}
    school = lesson(path, guess, lambda x: x)
    taught([table], lambda g: teaching.one_step(school, g, numbers, mse)["match"], 800, 0.05)
    assert float(table[0].detach()) == pytest.approx(gain(path, T), abs=1e-3)  # Adam's last steps
    assert float(table[-1].detach()) == pytest.approx(kept(path, T, 0), abs=1e-3)  # likewise
    for step in range(T):  # realism step / (T - 1) is landing at r = T - 1 - step
        r = T - 1 - step
        c = float(path.s[r] / path.s[T])
        expected = (kept(path, T, r) - c) / (float(path.a[r]) - c * float(path.a[T]))
        assert float(table[step].detach()) == pytest.approx(expected, abs=1e-3)  # likewise
    # variance of what is drawn: a mean varies less than the data, the end of the flow as much
    spread = [float(table[i].detach()) * float(path.s[T]) for i in (0, -1)]
    assert spread[0] < spread[1]


@pytest.mark.parametrize("name", ["resshift", "vp-linear"])
def test_the_consistent_student_gives_one_image_along_the_way(name: str) -> None:
    path = PATHS[name]
    table = torch.ones(path.T + 1, dtype=torch.float64, requires_grad=True)
    school = lesson(path, lambda x, t, realism: table[t].view(-1, 1, 1, 1) * x, lambda x: x)
    distance = lambda e: charbonnier(e, width=1e-3)  # noqa: E731
    taught([table], lambda g: teaching.consistency(school, g, {"skip": 20}, distance)["match"], 1500, 0.03)
    for t in range(1, path.T + 1):
        c_skip, c_out = teaching.skip_out(torch.tensor(float(t)), path.T)
        found = float(c_skip + c_out * table[t].detach())
        assert found == pytest.approx(kept(path, t, 0), abs=5e-3)  # the target moves while it is followed


def test_skip_and_out_are_the_published_ones() -> None:
    c_skip, c_out = teaching.skip_out(torch.tensor([0.0, 1.0, 20.0]), 1000)
    assert c_skip.tolist() == pytest.approx([1, 0.25 / 100.25, 0.25 / 40000.25], rel=1e-6)  # float32
    assert c_out.tolist() == pytest.approx([0, 10 / math.sqrt(100.25), 200 / math.sqrt(40000.25)], rel=1e-6)  # float32


def test_a_state_without_noise_carries_none() -> None:
    path = SCHEDULES["bridge"](T=6)
    x, mu = torch.full((1, 1, 1, 1), 2.0), torch.full((1, 1, 1, 1), 2.0)
    moved = teaching.ddim_step(path.at(6), path.at(3), x, 0 * x, mu)
    assert float(moved) == pytest.approx(2 * float(path.b[3]))
    both = torch.cat([x, x])
    p, q = (path.at(torch.tensor(t), both) for t in ((6, 3), (3, 1)))
    assert bool(torch.isfinite(teaching.ddim_step(p, q, both, 0 * both, torch.cat([mu, mu]))).all())


def test_the_knob_is_one_more_number_of_the_level() -> None:
    levels = level_features(PATHS["resshift"].at(5), torch.zeros(2, 1, 4, 4))
    assert torch.equal(with_realism(levels, 0.0), levels)
    half, one = (with_realism(levels, r) for r in (0.5, 1.0))
    assert torch.allclose(half[:, :2].sum(1), levels[:, :2].sum(1))
    assert torch.equal(half[:, 2], levels[:, 2])
    assert float(one[0, 1]) == 0
    each = with_realism(levels, torch.tensor([0.0, 1.0]).view(-1, 1, 1, 1))
    assert torch.equal(each, torch.stack([levels[0], one[1]]))


# Whole runs

RECIPE = """
[data]
patch = 12
scene_px = 64
pool = 2
sigma = [0.4, 0.7]
focus = [0.4, 0.7]
[loop]
batch = 4
warmup = 8
interval = 1e9
bf16 = false
"""
TEACHER = """
hooks = ["consistency"]
loss = "huber"
[path]
schedule = "resshift"
T = 3
kappa = 1.0
min_noise = 0.2
"""


BRIDGE = replace(methods.load("resshift"), name="bridge", schedule="bridge", params={"T": 6}, start="anchor")


@pytest.fixture
def folder(tmp_path: File, monkeypatch: pytest.MonkeyPatch) -> File:
    """A recipe, a teacher of three steps, and checks of next to nothing."""
    monkeypatch.setattr(prior_training, "Validation", lambda pairs: lambda prior: {"gain_db": 0.0})
    monkeypatch.setattr(refiner_training, "validation", lambda *_: lambda refiner: {"held_out": 0.0})
    monkeypatch.setattr(distil, "validation", lambda *_: lambda student: {"held_out": 0.0})
    (tmp_path / "recipe.toml").write_text(RECIPE)
    (tmp_path / "three.toml").write_text(TEACHER)
    (tmp_path / "knob.toml").write_text(
        TEACHER + '[solver]\nname = "one-step"\nsteps = 1\n[distil]\nkind = "one-step"\nknob = 0.5\n'
    )
    prior_training.train(options(tmp_path, "prior"), lambda line: None)
    refiner_training.train(
        options(tmp_path, "teacher", prior=str(tmp_path / "prior.safetensors"), method=str(tmp_path / "three.toml")),
        lambda line: None,
    )
    return tmp_path


def options(folder: File, name: str, **changes: object) -> TrainOptions:
    small = {"scale": 2, "recipe": str(folder / "recipe.toml"), "preset": "tiny", "images": 16, "calibrate": False}
    return TrainOptions(**{"output": str(folder / f"{name}.safetensors"), **small, **changes})  # type: ignore[arg-type]


def student(folder: File, name: str, method: str = "sinsr", **changes: object) -> models.Model:
    told = options(folder, name, method=method, distil=str(folder / "teacher.safetensors"), **changes)
    return models.load(str(distil.train(told, lambda line: None)))


@pytest.mark.parametrize("method", ["sinsr", "lcm", "knob.toml"])
def test_students_keep_the_prior_the_path_and_say_who_taught_them(folder: File, method: str) -> None:
    name = str(folder / method) if method.endswith(".toml") else method
    teacher, taught_one = models.load(str(folder / "teacher.safetensors")), student(folder, "student", name)
    assert taught_one.method is not None and teacher.method is not None and taught_one.refiner is not None
    before, after = models.tensors(teacher), models.tensors(taught_one)
    assert all(torch.equal(before[k], after[k]) for k in before if k.startswith("prior."))
    assert any(not torch.equal(before[k], after[k]) for k in before if k.startswith("refiner."))
    assert (taught_one.method.schedule, taught_one.method.params) == (teacher.method.schedule, teacher.method.params)
    assert taught_one.method.hooks == teacher.method.hooks
    assert taught_one.method.solver in ("one-step", "consistency")
    assert taught_one.card["trained"]["refiner"]["teacher"] == {"name": "teacher", "hash": teacher.hash}
    assert taught_one.card["scale"] == 2


def test_realism_is_asked_of_those_who_have_it(folder: File, sample_data: File) -> None:
    low, plain, with_knob = folder / "low.fits", folder / "sinsr.safetensors", folder / "oftsr.safetensors"
    fits.writeto(low, fits.getdata(sample_data / "47tuc.fits", "SCI")[:48, :48])
    student(folder, "sinsr")
    student(folder, "oftsr", "oftsr", images=80)
    shared = {"samples": 1, "checks": False, "psf": "gaussian:fwhm=2px", "overwrite": True}

    def image(model: File, realism: float | None) -> tuple[Any, dict[str, Any]]:
        told = upscale.UpscaleOptions(model=str(model), realism=realism, **shared)  # type: ignore[arg-type]
        record = upscale.run(low, folder / "high.fits", told)
        return fits.getdata(folder / "high.fits", "SCI"), record

    usual, mean, draw = (image(with_knob, realism) for realism in (None, 0.0, 1.0))
    assert np.array_equal(usual[0], draw[0])
    assert not np.array_equal(mean[0], draw[0])
    assert any(line.startswith("realism: 0; ERR was calibrated at 1") for line in mean[1]["said"])
    for model, realism, said in [(plain, 0.5, "has no such knob"), (with_knob, 1.5, "1.5 is given, but 0")]:
        with pytest.raises(UsageError, match=f"^--realism: .*{said}"):
            image(model, realism)


def test_a_student_that_is_interrupted_goes_on_as_if_it_were_not(folder: File, monkeypatch: pytest.MonkeyPatch) -> None:
    for method in ("sinsr", "lcm"):
        whole = models.tensors(student(folder, f"{method}-whole", method))
        count = 0

        def interrupted(self, batch, loss, original=Run.step):  # type: ignore[no-untyped-def]
            nonlocal count
            count += 1
            if count == 3:
                self.save()
                raise KeyboardInterrupt
            return original(self, batch, loss)

        with monkeypatch.context() as patch:
            patch.setattr(Run, "step", interrupted)
            with pytest.raises(KeyboardInterrupt):
                student(folder, f"{method}-parts", method)
        parts = models.tensors(student(folder, f"{method}-parts", method))
        assert all(torch.equal(whole[k], parts[k]) for k in whole)


def test_without_resume_a_student_begins_afresh(folder: File) -> None:
    first = models.tensors(student(folder, "one"))
    again = models.tensors(student(folder, "one", resume=False))
    assert all(torch.equal(first[k], again[k]) for k in first)
    longer = models.tensors(student(folder, "one", images=24))
    assert any(not torch.equal(first[k], longer[k]) for k in first)


def test_teaching_lowers_what_is_left_to_learn(folder: File) -> None:
    teacher = models.load(str(folder / "teacher.safetensors"))
    assert teacher.refiner is not None
    taught_one = student(folder, "longer", images=160)
    assert taught_one.refiner is not None and taught_one.method is not None
    recipe, _ = prior_training.read_recipe(options(folder, "x"))
    batch = distil.Pairs(recipe, 99).batch(0, 32)
    left = []
    for refiner in (teacher.refiner, taught_one.refiner):
        with torch.no_grad():
            generator = torch.Generator().manual_seed(1)
            left.append(float(distil.loss(refiner, refiner, batch, generator, teacher, taught_one.method, False)[0]))
    assert left[1] < left[0]


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        (
            {"method": "ddpm"},
            UsageError,
            "--method: ddpm says nothing of how to teach; with --distil allowed are .*lcm",
        ),
        ({"method": "sinrs"}, UsageError, "--method: no method or file 'sinrs'.*nearest: sinsr"),
        ({"distil": "nonesuch"}, InputError, "--distil: no model or file 'nonesuch'"),
        ({"distil": None}, UsageError, "--method: sinsr needs a teacher; give --distil"),
        ({"distil": "prior"}, UsageError, "--distil: .*prior.safetensors has no refiner to learn from"),
        ({"backbone": "unet"}, UsageError, "--backbone: unet is given, but a student has its teacher's, resnet"),
    ],
    ids=str,
)
def test_what_cannot_be_taught_says_why(
    folder: File, changes: dict[str, str], error: type[Exception], said: str
) -> None:
    if changes.get("distil") == "prior":
        changes = {"distil": str(folder / "prior.safetensors")}
    told = {"method": "sinsr", "distil": str(folder / "teacher.safetensors"), **changes}
    with pytest.raises(error, match=f"^{said}"):
        distil.train(options(folder, "x", **told), lambda line: None)
    assert not (folder / "x.safetensors").exists()


@pytest.mark.parametrize(
    ("teacher", "asked", "said"),
    [
        ("sinsr", "sinsr", "is a student itself"),
        ("sdedit", "sinsr", "starts part of the way"),
        ("edge-frequency", "sinsr", "moves its noise on the way"),
        ("bridge", "lcm", "begins without noise"),
    ],
)
def test_teachers_that_cannot_teach_are_refused(teacher: str, asked: str, said: str) -> None:
    with pytest.raises(UsageError, match=f"^--distil: the teacher {said}"):
        distil.student_method(methods.load(asked), BRIDGE if teacher == "bridge" else methods.load(teacher))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("train-refiner", "--prior: a refiner needs the prior that it refines; give the file that train-prior wrote"),
        ("train-refiner --prior PRIOR --method sinsr", "--method: sinsr needs a teacher; give --distil"),
        ("train-refiner --prior PRIOR --method sciresdif", "--method: no method or file 'sciresdif'"),
        ("train-refiner --prior PRIOR --backbone rsnet", "--backbone: .*'rsnet'.*nearest: resnet"),
        ("train-refiner --distil nonesuch", "--distil: no model or file 'nonesuch'"),
        ("train-refiner --distil PRIOR", "--distil: .*prior.safetensors has no refiner to learn from"),
        ("train-prior --backbone rsnet", "--backbone: 'rsnet' is no network; allowed are resnet, .*nearest: resnet"),
        ("train-prior --recipe LOSS", r"--recipe: \[loss\] has no loss 'hubre'; allowed are .*nearest: huber"),
    ],
)
def test_the_command_line_says_what_is_wrong_in_one_line(folder: File, words: str, said: str) -> None:
    (folder / "loss.toml").write_text("[loss]\nhubre = 1.0\n")
    files = {"PRIOR": str(folder / "prior.safetensors"), "LOSS": str(folder / "loss.toml")}
    told = [files.get(word, word) for word in words.split()]
    result = CliRunner().invoke(app, [*told, "-o", str(folder / "x.safetensors")])
    line = result.stderr.strip()
    assert result.exit_code in (2, 3)
    assert "\n" not in line
    assert re.search(f"^sciresdiff: {said}", line), line
    assert not (folder / "x.safetensors").exists()


def test_a_student_is_planned_and_taught_from_the_command_line(folder: File) -> None:
    words = ["train-refiner", "--distil", str(folder / "teacher.safetensors"), "-o", str(folder / "s.safetensors")]
    told = CliRunner().invoke(app, [*words, "--dry-run", "--json"])
    plan = json.loads(told.stdout)
    assert (plan["method"], plan["scale"], plan["backbone"]) == ("sinsr", 2, None)
    rest = [
        "--recipe",
        str(folder / "recipe.toml"),
        "--images",
        "4",
        "--preset",
        "tiny",
        "--json",
        "-q",
        "--no-calibrate",
    ]
    done = CliRunner().invoke(app, [*words, *rest])
    assert done.exit_code == 0, done.stderr
    taught_one = models.load(json.loads(done.stdout)["model"])
    assert taught_one.method is not None and taught_one.method.name == "sinsr"


def test_help_names_the_networks_of_the_registry() -> None:
    help_text = Option.of(TrainOptions, "backbone").help
    assert help_text.startswith(f"The network: {', '.join(BACKBONES)}.")


@pytest.mark.parametrize("name", ["ssim", "flux", "gaussian-nll", "lpips"])
def test_a_method_takes_losses_that_an_error_is_enough_for(name: str) -> None:
    with pytest.raises(UsageError, match=f"loss = '{name}'; allowed are mse, l1, huber, charbonnier"):
        methods.Method.from_dict({"loss": name}, "m.toml")


def test_a_share_outside_zero_and_one_is_refused() -> None:
    asked = methods.load("sinsr")
    asked = replace(asked, distil_params={**asked.distil_params, "knob": 1.5})
    with pytest.raises(UsageError, match=r"--method: sinsr has \[distil\] knob = 1.5; allowed is a share from 0 to 1"):
        distil.student_method(asked, methods.load("resshift"))

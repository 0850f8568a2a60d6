"""Teaching a refiner to need fewer steps: a student learns where a trained model's way ends, or that its states agree.

The student begins as a copy of its teacher and lives on the teacher's path, in its units and with its hooks; the method
file says how it is taught.  `one_step` and `consistency` are the mathematics, on functions alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path as File
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sciresdiff.diffusion import method as methods
from sciresdiff.diffusion.losses import LOSSES, charbonnier
from sciresdiff.diffusion.method import Method
from sciresdiff.diffusion.method_check import check_together
from sciresdiff.diffusion.path import Level, Path
from sciresdiff.diffusion.prediction import PREDICTIONS
from sciresdiff.diffusion.weight import DYNAMIC
from sciresdiff.errors import InputError, UsageError
from sciresdiff.hooks import hooked
from sciresdiff.model import Model, device_of, load, save
from sciresdiff.prior import finer
from sciresdiff.refiner import Refiner, condition, knobbed, levels_of
from sciresdiff.spaces import CODED, framed
from sciresdiff.training.calibrate import calibrated_card
from sciresdiff.training.data import Ahead, Batch, Pairs
from sciresdiff.training.loop import Say, State, fit, in_hardware, quick
from sciresdiff.training.prior import TrainOptions, begun, provenance, real_images, recipe_of
from sciresdiff.training.refiner import anchored, card_of
from sciresdiff.training.trust import trusted_card

TEACHER_STEPS = 15
"""Most steps of the teacher's way to an image; a longer path is walked on so many of its indices."""
INDICES = 1000
"""Length of the path that the published numbers of LCM are meant for."""
CUT = 20.0
"""Errors beyond so many scales weigh no more, as in the training of a refiner."""
Guess = Callable[[Tensor, Any, Any], Tensor]
"""(x_t, t, realism) -> estimate of x_0; t an index or (B,), realism a number or (B, 1, 1, 1) in 0..1."""
Distance = Callable[[Tensor], Tensor]
"""An error -> how much it counts, a map."""


@dataclass(frozen=True, eq=False)
class Lesson:
    """What is taught on one batch; images are (B, C, Y, X) in the refiner's units."""

    path: Path
    teach: Guess
    """The teacher; it takes no notice of realism."""
    guess: Guess
    """The student."""
    aim: Guess
    """A slow average of the student."""
    back: Callable[[Tensor], Tensor]
    """x_0 -> the x_T that leads to it: the student asked at index 0 (SinSR)."""
    truth: Tensor
    mu: Tensor
    w: Tensor

    def noise(self, generator: torch.Generator) -> Tensor:
        """Unit noise of the images' shape."""
        return torch.randn(self.truth.shape, generator=generator, device=self.truth.device, dtype=self.truth.dtype)


def jump(p: Level, q: Level, x: Tensor, x_hat: Tensor, mu: Tensor) -> Tensor:
    """The deterministic step (DDIM) from level p to q, x_r = a_r x^ + b_r mu + (s_r / s_t) (x_t - a_t x^ - b_t mu).

    From a level without noise none is carried.
    """
    s, s_r = (torch.as_tensor(v, dtype=x.dtype, device=x.device) for v in (p.s, q.s))
    c = torch.where(s > 0, s_r / s.clamp_min(1e-30), 0.0)
    return q.a * x_hat + q.b * mu + c * (x - p.a * x_hat - p.b * mu)


def landings(path: Path, teach: Guess, x_T: Tensor, mu: Tensor) -> list[Tensor]:
    """Every state of the teacher's deterministic way, from x_T (first) to x_0 (last)."""
    states = [x_T]
    for t in range(path.T, 0, -1):
        states.append(jump(path.at(t), path.at(t - 1), states[-1], teach(states[-1], t, 0.0), mu))
    return states


def shot(path: Path, x_T: Tensor, x_r: Tensor, r: int, mu: Tensor) -> Tensor:
    """The estimate of x_0 that leads from x_T to x_r in one deterministic step.

    X(r) = (x_r - b_r mu - c (x_T - b_T mu)) / (a_r - c a_T), c = s_r / s_T.  For r = T - 1 it is the teacher's first
    estimate, a mean (fidelity); for r = 0 the end of the teacher's way, a draw (realism); between them the average
    estimate of the way so far, which on a straight path is the one-step velocity of OFTSR (Zhu et al. 2024).
    """
    p, q = path.at(path.T), path.at(r)
    c = q.s / p.s if p.s > 0 else 0.0
    return (x_r - q.b * mu - c * (x_T - p.b * mu)) / (q.a - c * p.a)


def one_step(
    lesson: Lesson, generator: torch.Generator, numbers: Mapping[str, float], distance: Distance
) -> dict[str, Tensor]:
    """The three losses of SinSR (Wang et al. 2024, Eqs. 6 to 8), and the way between fidelity and realism.

    ``match``: the student's estimate from x_T = (a_T + b_T) mu + s_T w eps against the teacher's end; ``inverse``: the
    student, asked at index 0, finds x_T from that end; ``truth``: from the x_T that it finds for the truth it returns.

    Parameters
    ----------
    numbers : the weights ``inverse`` and ``truth``, and ``knob``, the share of pairs that learn another realism than 1.

    Returns
    -------
    Weighted means by name; their sum is the loss.
    """
    path, p = lesson.path, lesson.path.at(lesson.path.T)
    x_T = (p.a + p.b) * lesson.mu + p.s * (lesson.w * lesson.noise(generator))
    draw = torch.rand(len(x_T), generator=generator, device=x_T.device)
    end = 1.0 if numbers.get("knob") else 0.0
    with torch.no_grad():
        states = landings(path, lesson.teach, x_T, lesson.mu)
        target, realism = picked(path, states, numbers.get("knob", 0.0), draw, lesson.mu)
    parts = {"match": distance(lesson.guess(x_T, path.T, realism) - target).mean()}
    if numbers.get("inverse"):
        parts["inverse"] = numbers["inverse"] * distance(lesson.back(states[-1]) - x_T).mean()
    if numbers.get("truth"):
        with torch.no_grad():
            found = lesson.back(lesson.truth)
        parts["truth"] = numbers["truth"] * distance(lesson.guess(found, path.T, end) - lesson.truth).mean()
    return parts


def picked(path: Path, states: list[Tensor], share: float, draw: Tensor, mu: Tensor) -> tuple[Tensor, Any]:
    """The estimate that every pair is taught and its realism, (B, 1, 1, 1); without a knob the end, and 0.

    Parameters
    ----------
    draw : (B,), uniform in 0..1; below ``share`` it picks any landing, else the end.
    """
    T = path.T
    if not share:
        return states[-1], 0.0
    r = torch.where(draw < share, (draw / share * T).long().clamp(0, T - 1), 0)
    shots = torch.stack([shot(path, states[0], states[T - k], k, mu) for k in range(T)])
    realism = 1 - r / max(T - 1, 1)
    return shots[r, torch.arange(len(r), device=r.device)], realism.view(-1, 1, 1, 1).to(states[0])


def skip_out(t: Tensor, T: int, sd: float = 0.5) -> tuple[Tensor, Tensor]:
    """LCM's c_skip = sd^2 / ((10 n)^2 + sd^2) and c_out = 10 n / sqrt((10 n)^2 + sd^2), n the index out of 1000."""
    n = 10 * t * (INDICES / T)
    return sd**2 / (n**2 + sd**2), n / (n**2 + sd**2).sqrt()


def consistency(
    lesson: Lesson, generator: torch.Generator, numbers: Mapping[str, float], distance: Distance
) -> dict[str, Tensor]:
    """Consistency distillation (Song et al. 2023; LCM, Luo et al. 2023).

    A state x_t of the truth, and the state x_r to which one deterministic step of the teacher leads from it, have to
    give the same image: the student's from x_t, its slow average's from x_r; at index 0 x_r is the image.  Images are
    c_skip x + c_out x^ (`skip_out`).

    Parameters
    ----------
    numbers : ``skip``, indices out of 1000 between t and r; at least one of the path's own.
    """
    path, size = lesson.path, len(lesson.truth)
    t = torch.randint(1, path.T + 1, (size,), generator=generator, device=lesson.truth.device)
    r = (t - max(1, round(numbers["skip"] * path.T / INDICES))).clamp_min(0)
    p, q = path.at(t, lesson.truth), path.at(r, lesson.truth)
    x = p.a * lesson.truth + p.b * lesson.mu + p.s * (lesson.w * lesson.noise(generator))
    with torch.no_grad():
        y = jump(p, q, x, lesson.teach(x, t, 0.0), lesson.mu)
        there = torch.where(r.view(-1, 1, 1, 1) > 0, image(lesson.aim, y, r.clamp_min(1), path.T), y)
    return {"match": distance(image(lesson.guess, x, t, path.T) - there).mean()}


def image(guess: Guess, x: Tensor, t: Tensor, T: int) -> Tensor:
    """c_skip x + c_out x^."""
    c_skip, c_out = skip_out(t.view(-1, 1, 1, 1).to(x), T)
    return c_skip * x + c_out * guess(x, t, 0.0)


KINDS = {"one-step": one_step, "consistency": consistency}
"""How a student is taught, by the ``kind`` of [distil]."""


def student_of(asked: Method, teacher: Method) -> Method:
    """The student's method: where the teacher's way runs, and how the file that was asked for solves and teaches.

    Raises
    ------
    UsageError : a method that teaches nobody, or a teacher whose way cannot be taught.
    """
    if not asked.distil:
        known = ", ".join(name for name in methods.names() if methods.load(name).distil)
        raise UsageError(f"--method: {asked.name} says nothing of how to teach; with --distil allowed are {known}")
    if not 0 <= asked.distil_params.get("knob", 0.0) <= 1:
        knob = asked.distil_params["knob"]
        raise UsageError(f"--method: {asked.name} has [distil] knob = {knob}; allowed is a share from 0 to 1")
    reasons = {
        f"is a student itself ({teacher.name}); give its teacher": bool(teacher.distil),
        f"moves its noise on the way ([weight] {teacher.weight}); give one that does not": teacher.weight in DYNAMIC,
        "starts part of the way (sdedit); give one that starts at its end": teacher.start == "sdedit",
        f"runs in a code of the image (space {teacher.space}); give one that does not": teacher.space in CODED,
        "begins without noise, so that nothing is there to agree; take --method sinsr": asked.distil == "consistency"
        and not teacher.training_path().s[-1] > 0,
    }
    for reason, holds in reasons.items():
        if holds:
            raise UsageError(f"--distil: the teacher {reason}")
    own = ("name", "about", "loss", "solver", "solver_params", "eta", "grid", "distil", "distil_params")
    steps = min(asked.steps or 1, teacher.training_path().T)
    student = replace(teacher, steps=steps, **{name: getattr(asked, name) for name in own})
    check_together(student, f"--method {asked.name}")
    return student


def lesson_of(
    student: Refiner, aim: Refiner, teacher: Model, method: Method, batch: Batch, bf16: bool
) -> tuple[Lesson, Distance]:
    """A batch as a lesson, and how errors on it count: none where the data are masked."""
    assert teacher.refiner is not None and teacher.method is not None
    best, whole = anchored(teacher.prior, batch, bf16), method.training_path()
    path = method.path(min(whole.T, TEACHER_STEPS)) if method.distil == "one-step" else whole
    around = framed(method, batch.data, best)
    known = condition(batch.data, best, batch.kernel, student.config.conditions)
    estimate, run = PREDICTIONS[method.prediction].estimate, quick(bf16)

    def asked(refiner: Refiner) -> Guess:
        def guess(x: Tensor, t: Any, realism: Any) -> Tensor:
            p = path.at(t) if isinstance(t, int) else path.at(t, x)
            answer = refiner(x - p.b * around.mu, knobbed(levels_of(p, x), realism), known, run)
            z = estimate(p, x, answer, around.mu, around.w)
            if "consistency" not in method.hooks:
                return z  # type: ignore[no-any-return]
            return around.truth(hooked(batch.data, around.image(z), best.w, p, method))

        return guess

    def back(x: Tensor) -> Tensor:
        p, end = path.at(0), path.at(path.T)
        return end.b * around.mu + student(x - p.b * around.mu, levels_of(p, x), known, run)

    valid = finer(batch.data.valid, teacher.scale)
    if method.distil == "consistency":
        count = lambda e: charbonnier(e, width=method.distil_params["huber"])  # noqa: E731
    else:
        count = LOSSES[method.loss]
    truth = around.truth(batch.truth)
    taught = Lesson(path, asked(teacher.refiner), asked(student), asked(aim), back, truth, around.mu, around.w)
    return taught, lambda error: count(error.clamp(-CUT, CUT)) * valid


def loss(
    student: Refiner,
    aim: Refiner,
    batch: Batch,
    generator: torch.Generator,
    teacher: Model,
    method: Method,
    bf16: bool,
) -> tuple[Tensor, dict[str, float]]:
    """What the student still gets wrong on a batch, and its parts."""
    lesson, distance = lesson_of(student, aim, teacher, method, batch, bf16)
    parts = KINDS[method.distil](lesson, generator, method.distil_params, distance)
    return torch.stack(list(parts.values())).sum(), {k: float(v.detach()) for k, v in parts.items()}


def teacher_of(name: str) -> Model:
    """A model to learn from.

    Raises
    ------
    InputError : it cannot be read. UsageError : it has no refiner.
    """
    try:
        teacher = load(name)
    except InputError as error:
        raise InputError(str(error).replace("--model:", "--distil:", 1)) from None
    if teacher.refiner is None or teacher.method is None:
        raise UsageError(f"--distil: {name} has no refiner to learn from; give a model that train-refiner wrote")
    return teacher


def called(options: TrainOptions) -> tuple[Model, Method]:
    """The teacher and the student's method.

    Raises
    ------
    UsageError, InputError : as in `teacher_of` and `student_of`; no teacher, or a network that is not the teacher's.
    """
    if options.distil is None:
        raise UsageError(f"--method: {options.method} needs a teacher; give --distil with a model of train-refiner")
    teacher = teacher_of(options.distil)
    assert teacher.refiner is not None and teacher.method is not None
    own = teacher.refiner.config.backbone
    if options.backbone not in (None, own):
        raise UsageError(f"--backbone: {options.backbone} is given, but a student has its teacher's, {own}; leave it")
    return teacher, student_of(methods.load(options.method), teacher.method)


def train(options: TrainOptions, say: Say) -> File:
    """Teach a student by the model ``options.distil``, or go on where the same command left off.

    The student has the teacher's prior and network; the target of consistency is the average of the weights that the
    loop keeps (`loop.follow`), so that a resumed run goes through the same numbers.

    Returns
    -------
    The path of the whole model (prior, student, method), usable from the first report on.

    Raises
    ------
    UsageError, InputError : as in `called`.
    """
    device = device_of(options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    teacher, method = called(options)
    teacher.to(device)
    assert teacher.refiner is not None and teacher.method is not None
    options = replace(options, kind=str(teacher.card["kind"]), scale=teacher.scale)
    recipe, loop = recipe_of(options)
    output = File(options.output)
    run = begun(deepcopy(teacher.refiner).train().requires_grad_(True), options, loop, device)
    pairs = Pairs(recipe, options.seed + 1, real_images(options.data, recipe.patch * recipe.scale))
    bf16 = loop.bf16 and in_hardware(device)

    def lesson_loss(module: nn.Module, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        assert isinstance(module, Refiner) and isinstance(run.average, Refiner)
        return loss(module, run.average, batch, generator, teacher, method, bf16)

    def snapshot(average: nn.Module, state: State) -> None:
        assert isinstance(average, Refiner)
        told = {
            **provenance(recipe, options, state),
            "teacher": {"name": teacher.card.get("name"), "hash": teacher.hash},
        }
        save(Model(teacher.prior, average, method, card_of(teacher.card, output.stem, told)), output)

    ways = f"{method.distil}, {method.name}, taught by {teacher.card.get('name')} ({teacher.method.name})"
    say(f"student of {sum(p.numel() for p in run.module.parameters()) / 1e6:.2f} M parameters: {ways}")
    validate = validation(Pairs(recipe, options.seed + 7_919), teacher, method)
    fit(run, Ahead(lambda n: pairs.batch(n, loop.batch, device)), lesson_loss, validate, snapshot, say)
    if not options.calibrate:
        return output
    say("calibrating ERR and TRUST on simulated frames")
    model = calibrated_card(load(str(output)).to(device), recipe, options.seed + 15_859)
    save(trusted_card(model, recipe, options.seed + 23_788), output)
    return output


def validation(pairs: Pairs, teacher: Model, method: Method) -> Callable[[nn.Module], dict[str, float]]:
    """Loss on pairs that training never draws, with fixed noise."""
    batches = [pairs.batch(n, 16) for n in (0, 16)]

    def measure(student: nn.Module) -> dict[str, float]:
        assert isinstance(student, Refiner)
        with torch.no_grad():
            found = [
                loss(student, student, b, torch.Generator().manual_seed(7), teacher, method, False)[0] for b in batches
            ]
        return {"held_out": float(np.mean([float(v) for v in found]))}

    return measure

"""Teaching a refiner to need fewer steps: a student learns where a trained model's way ends, or that its states agree.

The student begins as a copy of its teacher and lives on the teacher's path, in its units and with its hooks; the method
file says how it is taught; `lesson` has the mathematics.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path as File
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sciresdiff.diffusion import method as methods
from sciresdiff.diffusion.losses import LOSSES, charbonnier
from sciresdiff.diffusion.method import Method, check_together
from sciresdiff.diffusion.prediction import PREDICTIONS
from sciresdiff.diffusion.weight import DYNAMIC
from sciresdiff.errors import InputError, UsageError
from sciresdiff.lab.distillation.losses import KINDS, Distance, Guess, Lesson
from sciresdiff.nets.half import has_fast_bfloat16
from sciresdiff.restoration.hooks import apply_training_hooks
from sciresdiff.restoration.model import Model, load, save
from sciresdiff.restoration.ops import upsample_nearest
from sciresdiff.restoration.refiner import REFINERS, Refiner, condition, level_features, with_realism
from sciresdiff.restoration.residual_space import residual_space
from sciresdiff.training.batch import Batch
from sciresdiff.training.data import Pairs, Prefetch
from sciresdiff.training.loop import LoopOptions, Say, State, mixed_precision, training_loop
from sciresdiff.training.options import TrainOptions
from sciresdiff.training.prepare import (
    VALIDATION,
    check_state,
    count_millions,
    open_data,
    provenance,
    resume,
    set_up,
)
from sciresdiff.training.process_group import SINGLE, ProcessGroup
from sciresdiff.training.recipe import DataRecipe, read_recipe
from sciresdiff.training.refiner import calibrate, model_card, prior_estimate

TEACHER_STEPS = 15
"""Most steps of the teacher's way to an image; a longer path is walked on so many of its indices."""
CUT = 20.0
"""Errors beyond so many scales weigh no more, as in the training of a refiner."""


def student_method(asked: Method, teacher: Method) -> Method:
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
        f"runs in a code of the image (space {teacher.space}); give one that does not": teacher.space in REFINERS,
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


def make_lesson(
    student: Refiner, aim: Refiner, teacher: Model, method: Method, batch: Batch, bf16: bool
) -> tuple[Lesson, Distance]:
    """A batch as a lesson, and how errors on it count: none where the data are masked."""
    assert teacher.refiner is not None and teacher.method is not None
    best, whole = prior_estimate(teacher.prior, batch, bf16), method.training_path()
    path = method.path(min(whole.T, TEACHER_STEPS)) if method.distil == "one-step" else whole
    space = residual_space(method, batch.data, best)
    known = condition(batch.data, best, batch.kernel, student.config.conditions)
    estimate, run = PREDICTIONS[method.prediction].estimate, mixed_precision(bf16)

    def guess_by(refiner: Refiner) -> Guess:
        def guess(x: Tensor, t: Any, realism: Any) -> Tensor:
            p = path.at(t) if isinstance(t, int) else path.at(t, x)
            answer = refiner(x - p.b * space.mu, with_realism(level_features(p, x), realism), known, run)
            z = estimate(p, x, answer, space.mu, space.w)
            if "consistency" not in method.hooks:
                return z  # type: ignore[no-any-return]
            return space.truth(apply_training_hooks(method, batch.data, space.image(z), best.w, p))

        return guess

    def back(x: Tensor) -> Tensor:
        p, end = path.at(0), path.at(path.T)
        return end.b * space.mu + student(x - p.b * space.mu, level_features(p, x), known, run)

    valid = upsample_nearest(batch.data.valid, teacher.scale)
    if method.distil == "consistency":
        count = lambda e: charbonnier(e, width=method.distil_params["huber"])  # noqa: E731
    else:
        count = LOSSES[method.loss]
    truth = space.truth(batch.truth)
    taught = Lesson(path, guess_by(teacher.refiner), guess_by(student), guess_by(aim), back, truth, space.mu, space.w)
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
    lesson, distance = make_lesson(student, aim, teacher, method, batch, bf16)
    parts = KINDS[method.distil](lesson, generator, method.distil_params, distance)
    return torch.stack(list(parts.values())).sum(), {k: float(v.detach()) for k, v in parts.items()}


def load_teacher(name: str) -> Model:
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


def teacher_and_student(options: TrainOptions) -> tuple[Model, Method]:
    """The teacher and the student's method.

    Raises
    ------
    UsageError, InputError : as in `load_teacher` and `student_method`; no teacher, or another network than its.
    """
    if options.distil is None:
        raise UsageError(
            f"--method: {options.method_name} needs a teacher; give --distil with a model of train-refiner"
        )
    teacher = load_teacher(options.distil)
    assert teacher.refiner is not None and teacher.method is not None
    own = teacher.refiner.config.backbone
    if options.backbone not in (None, own):
        raise UsageError(f"--backbone: {options.backbone} is given, but a student has its teacher's, {own}; leave it")
    return teacher, student_method(methods.load(options.method_name), teacher.method)


@dataclass(frozen=True)
class Plan:
    """What a distillation begins with."""

    device: torch.device
    teacher: Model
    method: Method
    """Of the student."""
    recipe: DataRecipe
    loop: LoopOptions
    student: Refiner
    """A copy of the teacher's refiner."""
    pairs: Pairs


def plan(options: TrainOptions, say: Say, group: ProcessGroup = SINGLE) -> Plan:
    """Resolve and check all that a distillation begins with.

    Parameters
    ----------
    options, say, group : as for `train`.

    Raises
    ------
    UsageError, InputError : as in `teacher_and_student`; a recipe or data that do not fit.
    """
    device = set_up(options, group)
    teacher, method = teacher_and_student(options)
    teacher.to(device)
    assert teacher.refiner is not None
    recipe, loop = read_recipe(replace(options, kind=teacher.card["kind"], scale=teacher.scale))
    student = deepcopy(teacher.refiner).train().requires_grad_(True)
    return Plan(device, teacher, method, recipe, loop, student, open_data(recipe, options.seed + 1, options, say))


def check(options: TrainOptions, say: Say) -> None:
    """Refuse what `train` would refuse, in the same words; nothing is written.

    Raises
    ------
    UsageError, InputError : as in `train`.
    """
    found = plan(options, say)
    check_state(found.student, options, found.loop, found.device)


def train(options: TrainOptions, say: Say, group: ProcessGroup = SINGLE) -> File:
    """Teach a student by the model ``options.distil``, or go on where the same command left off.

    The student has the teacher's prior and network; the target of consistency is the average of the weights that the
    loop keeps (`loop.update_average`), so that a resumed run goes through the same numbers.

    Parameters
    ----------
    group : the processes that share the work, connected; the first of them calibrates alone, after the others ended.

    Returns
    -------
    The path of the whole model (prior, student, method), usable from the first report on.

    Raises
    ------
    UsageError, InputError : as in `teacher_and_student`.
    """
    # Setup: the device, the teacher, the student, which begins as its copy, and the data.
    found = plan(options, say, group)
    device, teacher, method, recipe, loop, student, pairs = (
        found.device, found.teacher, found.method, found.recipe, found.loop, found.student, found.pairs,
    )  # fmt: skip
    assert teacher.method is not None
    output, bf16 = File(options.output), loop.bf16 and has_fast_bfloat16(device)
    held_out = Pairs(recipe, options.seed + VALIDATION)  # from another stream

    # Resume where the same command was stopped, else begin.
    run = resume(student, options, loop, device, group)
    ways = f"{method.distil}, {method.name}, taught by {teacher.card.get('name')} ({teacher.method.name})"
    say(f"student of {count_millions(student):.2f} M parameters: {ways}")

    # Loop: batch, lesson, step; report and snapshot at intervals and at the end.
    def lesson_loss(module: nn.Module, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        assert isinstance(module, Refiner) and isinstance(run.average, Refiner)
        return loss(module, run.average, batch, generator, teacher, method, bf16)

    def snapshot(average: nn.Module, state: State) -> None:
        assert isinstance(average, Refiner)
        source = {"name": teacher.card.get("name"), "hash": teacher.hash}
        card = model_card(teacher.card, output.stem, {**provenance(recipe, options, state), "teacher": source})
        save(Model(teacher.prior, average, method, card), output)

    validate = validation(held_out, teacher, method)
    training_loop(run, Prefetch(pairs, run.share, device), lesson_loss, validate, snapshot, say)

    # Calibrate ERR and TRUST.
    if options.calibrate and group.first:
        calibrate(output, recipe, options.seed, device, say)
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

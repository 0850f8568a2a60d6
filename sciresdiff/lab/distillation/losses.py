"""What a student is taught: where a teacher's way ends (one step), or that its states agree (consistency).

The mathematics alone, on functions of images; `distil` makes them of networks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sciresdiff.diffusion.path import NoiseLevel, Path
from sciresdiff.diffusion.share import draw_samples

INDICES = 1000
"""Length of the path that the published numbers of LCM are meant for."""
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
        (size, *shape), x = self.truth.shape, self.truth
        return draw_samples(
            lambda n: torch.randn((n, *shape), generator=generator, device=x.device, dtype=x.dtype), size, generator
        )


def ddim_step(p: NoiseLevel, q: NoiseLevel, x: Tensor, x_hat: Tensor, mu: Tensor) -> Tensor:
    """The deterministic step (DDIM) from level p to q, x_r = a_r x^ + b_r mu + (s_r / s_t) (x_t - a_t x^ - b_t mu).

    From a level without noise none is carried.

    Parameters
    ----------
    p, q : levels, one for all or (B, 1, 1, 1). x, x_hat, mu : (B, C, Y, X), state, estimate, anchor.
    """
    s, s_r = (torch.as_tensor(v, dtype=x.dtype, device=x.device) for v in (p.s, q.s))
    c = torch.where(s > 0, s_r / s.clamp_min(1e-30), 0.0)
    return q.a * x_hat + q.b * mu + c * (x - p.a * x_hat - p.b * mu)


def teacher_states(path: Path, teach: Guess, x_T: Tensor, mu: Tensor) -> list[Tensor]:
    """Every state of the teacher's deterministic way, from x_T (first) to x_0 (last).

    Parameters
    ----------
    teach : the teacher's estimate of x_0. x_T, mu : (B, C, Y, X), start and anchor.

    Returns
    -------
    T + 1 states, (B, C, Y, X) each.
    """
    states = [x_T]
    for t in range(path.T, 0, -1):
        states.append(ddim_step(path.at(t), path.at(t - 1), states[-1], teach(states[-1], t, 0.0), mu))
    return states


def one_step_target(path: Path, x_T: Tensor, x_r: Tensor, r: int, mu: Tensor) -> Tensor:
    """The estimate of x_0 that leads from x_T to x_r in one deterministic step.

    X(r) = (x_r - b_r mu - c (x_T - b_T mu)) / (a_r - c a_T), c = s_r / s_T.  For r = T - 1 it is the teacher's first
    estimate, a mean (fidelity); for r = 0 the end of the teacher's way, a draw (realism); between them the average
    estimate of the way so far, which on a straight path is the one-step velocity of OFTSR (Zhu et al. 2024).

    Parameters
    ----------
    x_T, x_r, mu : (B, C, Y, X), start, the teacher's state at index r, anchor.
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
    draw = draw_samples(lambda n: torch.rand(n, generator=generator, device=x_T.device), len(x_T), generator)
    end = 1.0 if numbers.get("knob") else 0.0
    with torch.no_grad():
        states = teacher_states(path, lesson.teach, x_T, lesson.mu)
        target, realism = pick_targets(path, states, numbers.get("knob", 0.0), draw, lesson.mu)
    parts = {"match": distance(lesson.guess(x_T, path.T, realism) - target).mean()}
    if numbers.get("inverse"):
        parts["inverse"] = numbers["inverse"] * distance(lesson.back(states[-1]) - x_T).mean()
    if numbers.get("truth"):
        with torch.no_grad():
            found = lesson.back(lesson.truth)
        parts["truth"] = numbers["truth"] * distance(lesson.guess(found, path.T, end) - lesson.truth).mean()
    return parts


def pick_targets(path: Path, states: list[Tensor], share: float, draw: Tensor, mu: Tensor) -> tuple[Tensor, Any]:
    """The estimate that every pair is taught and its realism, (B, 1, 1, 1); without a knob the end, and 0.

    Parameters
    ----------
    draw : (B,), uniform in 0..1; below ``share`` it picks any landing, else the end.
    """
    T = path.T
    if not share:
        return states[-1], 0.0
    r = torch.where(draw < share, (draw / share * T).long().clamp(0, T - 1), 0)
    shots = torch.stack([one_step_target(path, states[0], states[T - k], k, mu) for k in range(T)])
    realism = 1 - r / max(T - 1, 1)
    return shots[r, torch.arange(len(r), device=r.device)], realism.view(-1, 1, 1, 1).to(states[0])


def skip_out(t: Tensor, T: int, sd: float = 0.5) -> tuple[Tensor, Tensor]:
    """LCM's c_skip = sd^2 / ((10 n)^2 + sd^2) and c_out = 10 n / sqrt((10 n)^2 + sd^2), n the index out of 1000.

    Parameters
    ----------
    t : indices, any shape, as (B, 1, 1, 1). T : length of the path. sd : of the images, as published.
    """
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
    path, size, device = lesson.path, len(lesson.truth), lesson.truth.device
    t = draw_samples(lambda n: torch.randint(1, path.T + 1, (n,), generator=generator, device=device), size, generator)
    r = (t - max(1, round(numbers["skip"] * path.T / INDICES))).clamp_min(0)
    p, q = path.at(t, lesson.truth), path.at(r, lesson.truth)
    x = p.a * lesson.truth + p.b * lesson.mu + p.s * (lesson.w * lesson.noise(generator))
    with torch.no_grad():
        y = ddim_step(p, q, x, lesson.teach(x, t, 0.0), lesson.mu)
        there = torch.where(r.view(-1, 1, 1, 1) > 0, consistency_image(lesson.aim, y, r.clamp_min(1), path.T), y)
    return {"match": distance(consistency_image(lesson.guess, x, t, path.T) - there).mean()}


def consistency_image(guess: Guess, x: Tensor, t: Tensor, T: int) -> Tensor:
    """c_skip x + c_out x^: at index 0 the state itself, whatever the network answers.

    Parameters
    ----------
    x : (B, C, Y, X), states. t : (B,), their indices. T : length of the path.
    """
    c_skip, c_out = skip_out(t.view(-1, 1, 1, 1).to(x), T)
    return c_skip * x + c_out * guess(x, t, 0.0)


KINDS = {"one-step": one_step, "consistency": consistency}
"""How a student is taught, by the ``kind`` of [distil]."""

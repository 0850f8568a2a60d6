"""A method: one value for each of the concepts that a diffusion is made of, read from a TOML file."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path as File
from typing import TYPE_CHECKING, Any, Union

from sciresdiff.diffusion import method_file
from sciresdiff.diffusion.method_check import check_together
from sciresdiff.diffusion.method_file import ANCHORS, CONDITIONS, HOOKS, SPACES, STARTS
from sciresdiff.diffusion.path import Path, marginal, subset
from sciresdiff.diffusion.prediction import PREDICTIONS
from sciresdiff.diffusion.schedule import SCHEDULES
from sciresdiff.diffusion.solvers import SOLVERS
from sciresdiff.diffusion.step import Denoise, Hook, Noise, Task, Weigh
from sciresdiff.diffusion.weight import DYNAMIC, WEIGHTS, Staged, staged
from sciresdiff.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ANCHORS", "CONDITIONS", "HOOKS", "SPACES", "STARTS", "Method", "load", "names", "sample", "train_pair"]


Scale = Union["Tensor", Staged, Weigh]
"""The scale of the noise, and how it changes on the way."""


@dataclass(frozen=True)
class Method:
    """A diffusion method; checked when it is read, see `from_dict`."""

    name: str
    about: str = ""
    """One line: whose method, and what differs from the paper."""
    space: str = "pixel-unshuffle"
    """What is diffused, a name of SPACES."""
    space_params: Mapping[str, Any] = field(default_factory=dict)
    anchor: str = "prior"
    """mu: ``zero``, the interpolated frame (``up``) or the ``prior``'s mean."""
    prediction: str = "x0"
    start: str = "noise"
    """``noise``: (a + b) mu + s w eps at the last index; ``anchor``: the same without noise, for paths that end
    there; ``sdedit``: the path is entered at the share t0 of it, at a prior + b mu + s w eps."""
    start_params: Mapping[str, Any] = field(default_factory=dict)
    hooks: tuple[str, ...] = ()
    """What is done to every estimate of the clean image, in order, names of HOOKS; the physics supplies it."""
    hook_params: Mapping[str, Any] = field(default_factory=dict)
    loss: str = "mse"
    backbone: str = ""
    """The network that the method brings, a name of BACKBONES; empty: whichever is usual."""
    conditions: tuple[str, ...] = ()
    """What the network sees beside what all of them see, names of CONDITIONS."""
    schedule: str = "resshift"
    params: Mapping[str, float] = field(default_factory=dict)
    """Arguments of the schedule."""
    weight: str = "scale"
    weight_params: Mapping[str, float] = field(default_factory=dict)
    solver: str = "ancestral"
    steps: int | None = None
    """Steps taken unless others are asked for; None for all of the path."""
    eta: float = 1.0
    grid: str = "time"
    """Which indices of the path fewer steps use, see `path.subset`."""
    solver_params: Mapping[str, float] = field(default_factory=dict)
    """Further numbers that the solver takes."""
    distil: str = ""
    """How a student is taught by a trained model, a name of DISTILS; empty: it is not."""
    distil_params: Mapping[str, Any] = field(default_factory=dict)

    augment: Mapping[str, Any] = field(default_factory=dict)
    """Levels of the noise on a coarse image that an earlier stage made, see `method_file.AUGMENT`; empty: none."""

    def training_path(self) -> Path:
        """The whole path, whose every index the network learns."""
        return SCHEDULES[self.schedule](**self.params)

    def path(self, steps: int | None = None) -> Path:
        """The path on the indices that sampling uses: ``steps`` of them, or the method's own number.

        Raises
        ------
        UsageError : more steps than the path has.
        """
        whole = self.training_path()
        steps = self.steps if steps is None else steps
        return whole if steps in (None, whole.T) else subset(whole, steps, self.grid)  # type: ignore[arg-type]

    def weigh(self, prior: Tensor, scale: Tensor, up: Tensor) -> Tensor:
        """w of the prior's mean, its scale and the interpolated frame, all (..., Y, X)."""
        return WEIGHTS[self.weight](prior, scale, up, **self.weight_params)

    def staged(
        self, scale: Tensor, up: Tensor, alpha: Any = None, shift: Any = 0.0, stretch: Any = 1.0
    ) -> Staged | None:
        """The w that changes on the way, for `sample` and `train_pair`; None where the method's does not.

        Parameters
        ----------
        scale, up : (..., Y, X), the prior's scale in the state's units, the interpolated frame in the image's.
        alpha : share of the edges, 0..1, perhaps a learned tensor; None: the method's number.
        shift, stretch : an image is shift + stretch x, with x a state without its decay.
        """
        if self.weight not in DYNAMIC:
            return None
        numbers = dict(self.weight_params) | ({} if alpha is None else {"alpha": alpha})
        return staged(scale, up, **numbers, shift=shift, stretch=stretch)

    def anchored(self, prior: Tensor, up: Tensor) -> Tensor:
        """mu of the prior's mean and the interpolated frame, both (..., Y, X)."""
        return {"zero": 0 * prior, "up": up, "prior": prior}[self.anchor]

    @property
    def has_knob(self) -> bool:
        """Whether a student was taught the way between fidelity and realism."""
        return bool(self.distil_params.get("knob"))

    def network(self, asked: str = "", usual: str = "resnet") -> str:
        """The backbone's name: the one asked for, else the method's, else the usual one.

        Raises
        ------
        UsageError : there is no such network.
        """
        from sciresdiff.nets import BACKBONES

        name = asked or self.backbone or usual
        method_file.one_of("--backbone" if asked else f"--method {self.name}", "backbone", name, BACKBONES)
        return name

    def to_dict(self) -> dict[str, Any]:
        """Nested like the file; JSON-able."""
        return method_file.record_of(self)

    @staticmethod
    def from_dict(record: Mapping[str, Any], source: str = "method") -> Method:
        """A method from a nested record, checked.

        Parameters
        ----------
        source : the file, for messages.

        Raises
        ------
        UsageError : an unknown key or value, or values that do not go together; it names the file, the key and what is
            allowed.
        """
        method = Method(**method_file.read(record, source))
        check_together(method, source)
        return method


def _folder() -> Any:
    """Where the method files of the package are."""
    return resources.files("sciresdiff") / "diffusion" / "methods"


def names() -> list[str]:
    """Names of the methods that the package carries, the default first."""
    found = sorted(entry.name.removesuffix(".toml") for entry in _folder().iterdir() if entry.name.endswith(".toml"))
    return sorted(found, key=lambda name: name != "sciresdiff")


def load(name_or_path: str | File) -> Method:
    """A method by its name or from a TOML file.

    Raises
    ------
    UsageError : no such name or file, not TOML, or a value that is not allowed.
    """
    text = str(name_or_path)
    inside = text in names()
    file = _folder() / f"{text}.toml" if inside else File(text)
    if not file.is_file():
        some = f"methods are {', '.join(names())}, or a .toml file{method_file.nearest(text, names())}"
        raise UsageError(f"--method: no method or file {text!r}; {some}")
    try:
        record = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--method: {text} is not a TOML file: {error}") from None
    method = Method.from_dict({"name": file.name.removesuffix(".toml"), **record}, f"{text}.toml" if inside else text)
    return method if inside else replace(method, name=record.get("name", File(text).stem))


def sample(
    method: Method,
    denoise: Denoise,
    mu: Tensor,
    w: Scale,
    noise: Noise,
    steps: int | None = None,
    hooks: Sequence[Hook] = (),
    prior: Tensor | None = None,
) -> Tensor:
    """One draw: start, solver and hooks of a method put together.

    Parameters
    ----------
    denoise : (x_t, t) -> estimate of x_0, with t an index of ``method.path(steps)`` (a fraction between two in pndm,
        and in heun with churn).
    mu : (B, C, Y, X), the anchor.
    w : the scale of the noise: a tensor of that shape, `weight.Staged`, or (t, x_t) -> the scale after index t.
    noise : (t) -> unit noise of that shape which enters the state at index t; a pure function of t.
    hooks : what the method's hooks stand for, unless ``denoise`` applies them itself.
    prior : what the start ``sdedit`` noises, of that shape; None: the anchor.

    Returns
    -------
    (B, C, Y, X), the last estimate of x_0.

    Raises
    ------
    UsageError : more steps than the path has; a start at the anchor without any noise to come.
    """
    path = method.path(steps)
    first = path.T if method.start != "sdedit" else max(1, round(float(method.start_params["t0"]) * path.T))
    p = path.at(first)
    x = (p.a + p.b) * mu if method.start != "sdedit" or prior is None else p.a * prior + p.b * mu
    weigh = w.following(path) if isinstance(w, Staged) else w if callable(w) else None
    scale = w.w if isinstance(w, Staged) else w(first, x) if callable(w) else w
    if method.start == "anchor" and path.s.any() and not bool((scale != 0).any()):
        raise UsageError(
            f"--method {method.name}: w = 0 everywhere, and the start is the anchor without noise, so that every draw "
            "would be the same; give another weight"
        )
    if method.start != "anchor" and p.s > 0:
        x = x + p.s * (scale * noise(first))
    task = Task(path, denoise, mu, scale, noise, range(first, -1, -1), hooks, weigh)
    return SOLVERS[method.solver](task, x, eta=method.eta, **method.solver_params)


def train_pair(
    method: Method, x0: Tensor, mu: Tensor, w: Scale, t: int | Tensor, eps: Tensor
) -> tuple[Tensor, Tensor, Any]:
    """What a network sees in training, what it should answer, and the weight of its squared error.

    Parameters
    ----------
    x0, mu, eps : (B, C, Y, X) truth, anchor, unit noise.
    w : scale of the noise, as for `sample`; one that changes is taken at t, of a state with its first map.
    t : index of ``method.training_path()``, 1 to T; one, or (B,).

    Returns
    -------
    x_t, target : (B, C, Y, X). weight : a number, or (B, 1, 1, 1).
    """
    path = method.training_path()
    p = path.at(t) if isinstance(t, int) else path.at(t, x0)
    if isinstance(w, Staged):
        w = w.at(path, t, marginal(path, t, x0, mu, w.w.detach(), eps)).w
    elif callable(w):
        w = w(t, (p.a + p.b) * mu)  # type: ignore[arg-type]
    asked = PREDICTIONS[method.prediction]
    return marginal(path, t, x0, mu, w, eps), asked.target(p, x0, eps, mu, w), asked.weight(p)

"""A method: one value for each of the concepts that a diffusion is made of, read from a TOML file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path as File
from typing import TYPE_CHECKING, Any

import numpy as np

from sciresdiff import plugins
from sciresdiff.diffusion import method_file
from sciresdiff.diffusion.path import Path, subset
from sciresdiff.diffusion.schedule import SCHEDULES
from sciresdiff.diffusion.solvers import NEEDS_DISTIL
from sciresdiff.diffusion.weight import DYNAMIC, WEIGHTS, DynamicScale
from sciresdiff.errors import UsageError
from sciresdiff.nets import BACKBONES
from sciresdiff.parse import read_toml

if TYPE_CHECKING:
    from torch import Tensor


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

    def noise_scale(self, prior: Tensor, scale: Tensor, up: Tensor) -> Tensor:
        """w, the scale of the noise, before the first step.

        Parameters
        ----------
        prior, scale, up : (..., Y, X), the prior's mean, its scale, and the interpolated frame, in one unit.

        Returns
        -------
        (..., Y, X)
        """
        return WEIGHTS[self.weight](prior, scale, up, **self.weight_params)

    def dynamic_scale(
        self, scale: Tensor, up: Tensor, alpha: Any = None, shift: Any = 0.0, stretch: Any = 1.0
    ) -> DynamicScale | None:
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
        made: DynamicScale = plugins.load("sciresdiff.lab.weights:start_staged")(
            scale, up, **numbers, shift=shift, stretch=stretch
        )
        return made

    def anchor_image(self, prior: Tensor, up: Tensor) -> Tensor:
        """mu, the image that the noise is about: 0, the interpolated frame, or the prior's mean.

        Parameters
        ----------
        prior, up : (..., Y, X), the prior's mean and the interpolated frame.
        """
        return {"zero": 0 * prior, "up": up, "prior": prior}[self.anchor]

    @property
    def has_realism(self) -> bool:
        """Whether a student was taught the way between fidelity and realism."""
        return bool(self.distil_params.get("knob"))

    def network(self, asked: str = "", usual: str = "resnet") -> str:
        """The backbone's name: the one asked for, else the method's, else the usual one.

        Raises
        ------
        UsageError : there is no such network.
        """
        name = asked or self.backbone or usual
        method_file.check_choice("--backbone" if asked else f"--method {self.name}", "backbone", name, BACKBONES)
        return name

    def to_dict(self) -> dict[str, Any]:
        """The record that `from_dict` reads, nested like the file; JSON-able."""
        return method_file.record_of(vars(self))

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


def check_together(m: Method, source: str) -> None:
    """What only the whole can tell: the path is usable, and everything goes with it.

    Raises
    ------
    UsageError : it names the file, the value, and what it needs.
    """
    path = _checked_path(m, source)
    if m.steps is not None and m.steps > path.T:
        raise UsageError(f"{source}: [solver] steps = {m.steps}; the path allows 1 to {path.T}")
    noisy = path.s[1:] > 0
    if m.grid != "time" and not noisy.any():
        raise UsageError(f"{source}: [solver] grid = {m.grid!r}; a path without noise allows only time")
    if m.grid != "time" and path.a[-1] == 0:
        raise UsageError(
            f"{source}: [solver] grid = {m.grid!r}; the path ends with nothing of the image left (a = 0), where the "
            "log-SNR is minus infinity; it allows only time"
        )
    for key, value, possible, needs in _requirements(m, path):
        if not possible:
            raise UsageError(f"{source}: {key} = {value!r} needs {needs}")


def _checked_path(m: Method, source: str) -> Path:
    """The path, or what is wrong with its numbers."""
    try:
        with np.errstate(all="ignore"):
            return m.training_path()
    except (ValueError, ArithmeticError) as error:
        raise UsageError(f"{source}: [path] {dict(m.params)} gives no {m.schedule} path: {error}") from None


def _requirements(m: Method, path: Path) -> list[tuple[str, Any, bool, str]]:
    """(key, its value, whether it is possible, what it needs) of what depends on other values."""
    kept = f"a path whose last index keeps some of the image; schedule {m.schedule} allows x0"
    preserved = bool(np.allclose(path.a**2 + path.s**2, 1, atol=1e-9))
    straight = bool(np.allclose(path.a + path.s, 1, atol=1e-9))
    predictions = {
        "eps": (path.a[-1] > 0, kept),
        "eps_scale": (path.a[-1] > 0, kept),
        "v": (preserved, "a variance-preserving path, a^2 + s^2 = 1"),
        "flow": (straight, "a straight path, a + s = 1"),
        "bridge": (m.schedule == "bridge", "schedule bridge"),
        "edm": (not path.b.any(), "a path without an anchor, b = 0"),
    }
    possible, needs = predictions.get(m.prediction, (True, ""))
    wanted = NEEDS_DISTIL.get(m.solver)
    noisy = bool(path.s[-1] > 0)
    t0 = m.start_params.get("t0", 1.0)
    return [
        ("prediction", m.prediction, bool(possible), needs),
        ("start", m.start, m.start != "anchor" or not noisy, "a path that ends without noise; take noise"),
        ("start", m.start, m.start != "sdedit" or noisy, "a path with noise at its end; take anchor"),
        ("[start] t0", t0, 0 < t0 <= 1, "a share of the path, above 0 up to 1"),
        (
            "[solver] name",
            m.solver,
            wanted in (None, m.distil),
            f'a distilled model; add [distil] kind = "{wanted}", or take ddim',
        ),
        (
            "conditions",
            "augmentation",
            "augmentation" not in m.conditions or bool(m.augment),
            "the levels to tell; add [augment] sigma = [0.1, 1.0]",
        ),
        (
            "[weight] name",
            m.weight,
            m.weight not in DYNAMIC or m.prediction in ("x0", "residual"),
            "prediction x0 or residual, because the weight changes on the way",
        ),
    ]


def _folder() -> Any:
    """Where the method files of the package are."""
    return resources.files("sciresdiff") / "diffusion" / "methods"


def names() -> list[str]:
    """Names of the methods that the package carries, the default (``sciresdiff``) first, then by alphabet."""
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
        record = read_toml(file)
    except ValueError as error:
        raise UsageError(f"--method: {text} is not a TOML file: {error}") from None
    method = Method.from_dict({"name": file.name.removesuffix(".toml"), **record}, f"{text}.toml" if inside else text)
    return method if inside else replace(method, name=record.get("name", File(text).stem))

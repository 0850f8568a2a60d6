"""Which models restore a file: named or shipped, one or two in a row, by their own method or another."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from sciresdiff import io
from sciresdiff.errors import UsageError
from sciresdiff.frame import Frame
from sciresdiff.jobs.upscale.options import UpscaleOptions
from sciresdiff.notes import Notes
from sciresdiff.observation.depth import is_deep
from sciresdiff.physics.psf.field import PSF
from sciresdiff.physics.psf.split import split_kernel

if TYPE_CHECKING:
    from sciresdiff.restoration.model import Model

Chosen = tuple["Model | None", "Model | None"]
"""The model, None for the physics alone; the one that goes on where it ends."""


def load_cached(name: str) -> Model:
    """A model by name or path, read once for all files of a batch; **it is shared: nobody may change it**."""
    from sciresdiff.restoration import model as models

    path = models.locate(name)
    facts = path.stat()
    return _load(name, path, facts.st_size, facts.st_mtime_ns)


@lru_cache(4)
def _load(name: str, path: Path, size: int, time: int) -> Model:
    from sciresdiff.restoration import model as models

    return models.load(name)


def scale_of(path: str | Path, options: UpscaleOptions) -> int:
    """The scale that a file is restored at, settled without its pixels.

    Raises
    ------
    UsageError, InputError : as `models_of`, or a file that cannot be read.
    """
    if options.whole_scale:
        return options.whole_scale
    with io.open_source(path, axes=options.axes, outside=options.allow_outside) as source:
        return models_of(source.frame, options)[0]


def models_of(frame: Frame, options: UpscaleOptions) -> tuple[int, str, Chosen, Notes]:
    """The scale, the model's name, the models as the options want them run, and where the scale comes from.

    Parameters
    ----------
    frame : what the file says; its kind and its scale choose where the options do not.

    Raises
    ------
    UsageError, InputError : a scale or file that is not there, or a method that the model cannot be run by.
    """
    scale, name, (first, second), notes = (choose_two if options.then else choose_one)(frame, options)
    for model in (first, second):
        if model and not model.is_checked:
            line = f"model: {model.card.get('name')} holds no checksum; whether its weights are whole is not known"
            notes += Notes(line)
    first, more = run_by_method(first, options)
    notes += more
    if second:
        second, more = run_by_method(second, options)
        notes += more
    return scale, name, (first, second), notes


def choose_one(frame: Frame, options: UpscaleOptions) -> tuple[int, str, Chosen, Notes]:
    """The scale and one model: named, or the shipped one for the kind and scale."""
    from sciresdiff.restoration import model as models

    scale = options.whole_scale or frame.kernel_scale
    notes = Notes(scale="--scale" if options.whole_scale else "file" if scale else "default")
    if options.model is None and is_deep(frame, options):
        line = "model: physics; networks see planes, and a stack in depth is restored without (--depth plane for them)"
        return scale or 2, "physics", (None, None), notes + Notes(line)
    if options.model not in (None, "physics") and is_deep(frame, options):
        raise UsageError(f"--model {options.model}: sees planes; give --model physics, or --depth plane")
    if options.model == "physics":
        return scale or 2, "physics", (None, None), notes
    if options.model is None:
        scale = scale or 2
        name = models.default_for(frame.kind, scale)
        if name is None:
            has = (
                ", ".join(f"{c['name']} (x{c['prior']['scale']}, {c['kind']})" for c in models.shipped_cards())
                or "none"
            )
            raise UsageError(
                f"--scale {scale}: no shipped model for {frame.kind} at x{scale} ({has}); try --model physics"
            )
        line = f"model: {name}, the shipped model for {frame.kind} at x{scale}"
        return scale, name, (load_cached(name), None), notes + Notes(line)
    named = load_cached(options.model)
    if scale and named.scale != scale:
        raise UsageError(f"--scale {scale}: model {options.model} has scale {named.scale}; give --scale {named.scale}")
    return named.scale, str(named.card.get("name", options.model)), (named, None), notes


def choose_two(frame: Frame, options: UpscaleOptions) -> tuple[int, str, Chosen, Notes]:
    """Two models in a row, whose scale is the product of theirs.

    Raises
    ------
    UsageError : no first model, another scale, or a model that does not draw.
    """
    if options.model in (None, "physics"):
        raise UsageError(f"--then {options.then}: needs a model to go first; name it with --model")
    one, two = (load_cached(str(name)) for name in (options.model, options.then))
    scale, asked = one.scale * two.scale, options.whole_scale or frame.kernel_scale
    if asked and asked != scale:
        raise UsageError(f"--scale {asked}: models of x{one.scale} and x{two.scale} in a row give x{scale}")
    if not (options.refine and one.refiner and two.refiner):
        raise UsageError(
            "--then: a cascade passes draws on; both models need a refiner, and --no-refine is not allowed"
        )
    first, second = (str(m.card.get("name", n)) for m, n in ((one, options.model), (two, options.then)))
    line = f"model: {first}, then {second}, draw by draw; ERR is the draws' scatter, which nobody calibrated"
    origin = "--scale" if options.whole_scale else "file" if asked else "--then"
    return scale, first, (one, two), Notes(line, scale=origin)


def run_by_method(model: Model | None, options: UpscaleOptions) -> tuple[Model | None, Notes]:
    """The model, run by the method of ``--method``.

    Raises
    ------
    UsageError : no draws to be made, or a refiner that has not learned what the method asks of it.
    """
    if options.method is None:
        return model, Notes()
    from sciresdiff.diffusion import method as methods

    if model is None or not options.refine:
        way = "--no-refine" if model else "--model physics"
        raise UsageError(f"--method {options.method}: says how a refiner draws, and {way} draws with none")
    other = model.run_by(methods.load(options.method))
    assert other.method is not None and model.method is not None
    if other.method == model.method:
        return other, Notes()
    line = (
        f"method: {other.method.name} on what was trained with {model.method.name}; ERR is the draws' scatter, "
        "whose calibration was the other's"
    )
    return other, Notes(line)


def stages(chosen: Chosen, psf: PSF | None) -> Iterator[tuple[Model, PSF | None]]:
    """The models in use, and the PSF that each is to undo."""
    first, second = chosen
    if first and second:
        kernels = split_kernel(None if psf is None else psf.mean, second.scale)
        yield from zip((first, second), (None if k is None else PSF.constant(k) for k in kernels), strict=True)
    elif first:
        yield first, psf

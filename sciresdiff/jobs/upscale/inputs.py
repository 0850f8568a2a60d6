"""What ``upscale`` needs of one file: its observation, and the models that restore it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff import io
from sciresdiff.errors import UsageError
from sciresdiff.frame import Frame, Quantity
from sciresdiff.io.source import Source
from sciresdiff.jobs.upscale.models import Chosen, models_of, stages
from sciresdiff.jobs.upscale.options import UpscaleOptions
from sciresdiff.jobs.upscale.sampling import check_steps, warn_codec
from sciresdiff.notes import Notes
from sciresdiff.observation.observation import Observation
from sciresdiff.observation.resolve import observe, refuse_unusable
from sciresdiff.observation.sample import Sample, Samples, samples_of_source
from sciresdiff.observation.screening import reading_options, screen
from sciresdiff.physics.psf.field import PSF
from sciresdiff.physics.sky import estimate_sky
from sciresdiff.restoration.kernel_width import correct_width
from sciresdiff.restoration.model import Model


@dataclass(frozen=True)
class Inputs:
    """Everything that a restoration of one file needs, and where it came from."""

    observation: Observation
    model: Model | None
    name: str
    """Of the model, or ``physics``."""
    then: Model | None = None
    """The second-stage model of a cascade; the scale is the product of both."""
    notes: Notes = field(default_factory=Notes)
    """What was read, measured and assumed; where scale, quantity, noise and PSF came from."""

    @property
    def frame(self) -> Frame:
        """What the file says, without its values."""
        return self.observation.exposure.image.frame

    @property
    def scale(self) -> int:
        """Output pixels per input pixel and axis."""
        return self.observation.scale

    @property
    def quantity(self) -> Quantity:
        """``sum`` or ``mean``."""
        return self.observation.quantity

    def without_arrays(self) -> Inputs:
        """The same without models, header and arrays, to be sent to where the work is done."""
        exposure = self.observation.exposure
        nothing = np.empty((self.frame.planes, 0, 0), np.float32)
        frame = self.frame.with_(
            pixels=nothing, mask=nothing.astype(bool), variance=None, saturated=None, dq=None, header=None
        )
        light = replace(exposure, image=replace(exposure.image, frame=frame))
        return replace(self, observation=replace(self.observation, exposures=[light]), model=None, then=None)


def resolve_inputs(path: str | Path, options: UpscaleOptions) -> Inputs:
    """Resolve scale, quantity, noise, PSF and models of a file; see `resolve_source`."""
    with io.open_source(path, **reading_options(options)) as source:
        return resolve_source(path, source, options)


def resolve_source(
    path: str | Path | None,
    source: Source,
    options: UpscaleOptions,
    psf: NDArray[np.float64] | None = None,
    kernel: PSF | NDArray[np.float64] | None = None,
) -> Inputs:
    """Missing settings are read from the header or measured, and noted.

    Parameters
    ----------
    path : of the file; None for an image in memory.
    source : the same image, open.
    options : what the user states.
    psf, kernel : arrays that win over what is stated, as for `observation.psf.resolve_psf`.

    Raises
    ------
    UsageError, InputError : what cannot be settled, and what to give.
    """
    frame, found = source.frame, screen(source, options)
    refuse_unusable(path or "the image", frame, found.samples, options)
    chosen = models_of(frame, options)
    observation = observe(path, found, options, chosen[0], psf, kernel)
    samples = samples_of_source(observation.exposure.image)
    observation = correct_width(observation, samples, observation.target_fwhm)
    return resolve_models(observation, chosen, samples, options)


def resolve_observation(observation: Observation, options: UpscaleOptions) -> Inputs:
    """Resolve the models of an observation, which states everything else itself.

    Parameters
    ----------
    observation : of planes in memory or of a file.
    options : of the restoration, with the observation's scale.

    Raises
    ------
    UsageError, InputError : an observation without a valid pixel, or models that do not fit it.
    """
    source = observation.exposure.image
    samples = samples_of_source(source)
    refuse_unusable("the observation", source.frame, samples, options)
    return resolve_models(observation, models_of(source.frame, options), samples, options)


def resolve_models(
    observation: Observation, found: tuple[int, str, Chosen, Notes], samples: Samples, options: UpscaleOptions
) -> Inputs:
    """Check models against an observation, and warn of what they were not trained on.

    Parameters
    ----------
    found : scale, name and models, as `models_of` gives them.
    samples : of the planes.
    options : of the restoration.

    Raises
    ------
    UsageError : steps or a realism that a model does not have.
    """
    _, name, chosen, notes = found
    frame = observation.exposure.image.frame
    notes = frame.notes + notes + samples(0).notes + observation.notes + io.describe_output(frame, observation.scale)
    model, then = chosen
    for psf in observation.exposure.distinct_psfs:
        for stage, blur in stages(chosen, psf):
            check_steps(stage, options)
            notes += warn_psf(stage, blur, stage.scale) + warn_networks(stage) + warn_codec(stage, options)
        if model and psf and psf.varies:
            told = "the mean PSF" if then is not None else "the PSF of every place"
            notes += Notes(
                f"model: {name} was trained with one PSF a frame; it is told {told}, and the physics know all"
            )
    notes = notes.unique()
    notes += warn_noise(model, observation, samples) + check_realism(options.realism, model, name)
    if model is None and not options.refine:
        notes += Notes("ERR: without draws it is the scale that the physics assumes, before the data narrow it")
    return Inputs(observation, model, name, then, notes)


def warn_psf(model: Model, psf: PSF | None, scale: int) -> Notes:
    """Warn of a PSF outside what the model was trained on.

    Parameters
    ----------
    psf : on the model's output grid; None for none.
    scale : the model's.
    """
    if psf is None:
        return Notes()
    least, largest = (width / scale for width in psf.widths)
    low, high = model.card.get("range", {}).get("sigma_low_px", (0.0, np.inf))
    if 0.9 * low <= least and largest <= 1.1 * high:
        return Notes()
    width = f"{least:.2f} to {largest:.2f}" if psf.varies else f"{least:.2f}"
    return Notes(
        f"WARNING kernel: width {width} input px (sigma) is outside the {low:g}-{high:g} that the "
        "model was trained on; compare with --model physics"
    )


def warn_noise(model: Model | None, observation: Observation, samples: Samples) -> Notes:
    """Warn of noise that grows with the light in another way than any that the model was trained on."""
    low, high = (model.card if model else {}).get("range", {}).get("photon", (0.0, np.inf))
    if (low, high) == (0.0, np.inf):
        return Notes()
    exposure = observation.exposure
    noise = exposure.noise.limited(0)  # an error of the PSF grows with the light, and is no noise
    planes = range(exposure.image.frame.planes)
    slopes = [photon_slope(samples(i), noise.variance_of_sample(samples(i), i)) for i in planes]
    found = [slope for slope in slopes if slope is not None]
    if not found or low / 2 <= float(np.median(found)) <= 2 * high:
        return Notes()
    slope, end = float(np.median(found)), "; compare with --model physics"
    if slope < low / 2:
        return Notes(f"WARNING noise: it does not grow with the light as photon noise would (--gain){end}")
    return Notes(
        f"WARNING noise: its variance grows by {slope:.2g} with the light (in units of the sky noise), outside the "
        f"{low:g}-{high:g} that the model was trained on{end}"
    )


def warn_networks(model: Model) -> Notes:
    """Warn of a network whose answer depends on the tiling."""
    refiner = model.refiner
    nets = [(model.prior.config.backbone, net) for net in model.prior.stages]
    nets += [(refiner.config.backbone, refiner.net)] if refiner else []
    unlike = sorted({name for name, net in nets if not getattr(net, "tile_exact", True)})
    if not unlike:
        return Notes()
    return Notes(
        f"WARNING tiles: {', '.join(unlike)} sees beyond a tile, so that another --tile gives another image; "
        "--tile 0 takes the frame, or a block of a large one, at once"
    )


def check_realism(realism: float | None, model: Model | None, name: str) -> Notes:
    """Check ``--realism``, and note what another than the model's own means.

    Raises
    ------
    UsageError : outside 0..1, or a model without that knob.
    """
    if realism is None:
        return Notes()
    if not 0 <= realism <= 1:
        raise UsageError(f"--realism: {realism:g} is given, but 0 (a mean) to 1 (a likely image) is needed")
    if model is None or model.method is None or not model.method.has_realism:
        raise UsageError(f"--realism: the model {name} has no such knob; only a student that was taught with one has")
    if realism == 1:
        return Notes()
    return Notes(f"realism: {realism:g}; ERR was calibrated at 1 and is too small or too large here")


def photon_slope(sample: Sample, variance: NDArray[np.floating[Any]]) -> float | None:
    """d(variance) / d(pixel value) in units of the sky noise, from pixels 30 sigma above the sky; None without such.

    Parameters
    ----------
    variance : (h, w), of the sample's pixels.
    """
    pixels, mask = sample.pixels, sample.mask
    sky, _ = estimate_sky(pixels, mask)
    sigma = float(np.sqrt(np.median(variance[~mask]))) if (~mask).any() else 0.0
    if not sigma > 0:
        return None
    light, noise = (pixels - sky) / sigma, variance / sigma**2
    bright = ~mask & np.isfinite(light) & (light > 30)
    return float(np.median((noise[bright] - 1) / light[bright])) if bright.sum() > 20 else None

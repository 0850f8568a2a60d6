"""``make quality DATA=...``: the figures of docs/reference/benchmarks.md, measured through the public commands.

    python docs/benchmarks/quality.py DATA [--only frames,pairs,noise,calibration,flux,tiles] [--frames LIST.toml]
                                     [--seeds N] [--print] [--out FOLDER]

DATA is a folder with real frames; the simulated parts need none.

frames   ``make bench-quality``: every frame and method of quality.toml, or of the list that is given; where DATA
         has none of its frames and no list is given, every FITS and TIFF file in DATA. FOLDER gets a JSON line for
         every frame, noise and method, and the table, which for the fixed list also goes into
         docs/reference/benchmarks.md (--print: only onto the screen).
pairs    real pairs of two instruments: ratio of zero points, PSFs, shift.

The other parts print one line a figure, `name = value`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import quality_frames

from sciresdiff import io
from sciresdiff.errors import SciresdiffError

PAGE = Path(__file__).parents[1] / "reference" / "benchmarks.md"

GALAXIES = ("G265911", "G265940", "G266033", "G266035", "G266662")


def say(name: str, **figures: Any) -> None:
    """One line of figures."""
    shown = "  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in figures.items())
    print(f"{name}: {shown}", flush=True)


def frames(data: Path, out: Path, given: argparse.Namespace) -> None:
    """The benchmark over frames and methods."""
    chosen = quality_frames.plan(data, given.frames)
    seeds = given.seeds or chosen.seeds
    text = quality_frames.benchmark(data, chosen, seeds, out)
    if chosen.fixed and not given.print:
        quality_frames.put(text, PAGE)
        print(f"table written into {PAGE}")
    else:
        print(text)


def pairs(data: Path, out: Path, given: argparse.Namespace) -> None:
    """Frames of one sky by two instruments."""
    from sciresdiff.jobs.evaluate.register import register, summary

    hubble = data / "astro/scarlet_pair"
    for plane, band in enumerate("grizy"):
        files = hubble / "Cut_HST.fits", hubble / "Cut_HSC.fits"
        found = register(*files, plane_low=plane, psf_high=hubble / "PSF_HST.fits", psf_low=hubble / "PSF_HSC.fits")
        say(f"Hubble F814W and Subaru {band}", summary=summary(found), distance=found.distance, fit=found.fitted_ratio)
    for name in GALAXIES:
        fine, coarse = ({w: data / f"astro/sdss_kids/{s}/{name}{w}.fits" for w in ("fitim", "psfim")}
                        for s in ("KiDS", "SDSS"))  # fmt: skip
        found = register(
            fine["fitim"], coarse["fitim"], psf_high=fine["psfim"], psf_low=coarse["psfim"], pixel_high=0.2,
            pixel_low=0.339, radius=8.0,
        )  # fmt: skip
        say(f"KiDS and SDSS, {name}", summary=summary(found), fit=found.fitted_ratio)


def noise(data: Path, out: Path, given: argparse.Namespace) -> None:
    """Sources found in 100 frames of nothing but noise, and in their bicubic images, by the same detector.

    Threshold 5 sigma: of the noisier of the two images, of each image's own scatter, and of the ERR plane.
    """
    from sciresdiff.checks.background import background_noise
    from sciresdiff.checks.baselines import bicubic
    from sciresdiff.checks.detection import detect
    from sciresdiff.observation.observation import Observation
    from sciresdiff.physics import psf
    from sciresdiff.physics.operators import Operator
    from sciresdiff.restoration import model as models
    from sciresdiff.restoration.restore import restore
    from sciresdiff.restoration.settings import Settings

    for name in ("astro-x2", "astro-x4"):
        model = models.load(name)
        kernel = psf.render(psf.parse(f"gaussian:sigma={0.6 * model.scale}px"), None, integrate=False)
        found = dict.fromkeys(("ours", "bicubic", "ours_own_scatter", "ours_over_err"), 0)
        for seed in range(100):
            y = np.random.default_rng(seed).normal(size=(64, 64)).astype("f4")
            settings = Settings(samples=8, seed=seed)
            done = restore(Observation.of_arrays(y, np.ones_like(y), model.scale, kernel), model, settings)
            plain = bicubic(y, Operator(y.shape, model.scale))
            level = max(background_noise(done.mean), background_noise(plain))
            found["ours"] += len(detect(done.mean, level))
            found["bicubic"] += len(detect(plain, level))
            found["ours_own_scatter"] += len(detect(done.mean))
            found["ours_over_err"] += len(detect(done.mean / done.err, 1.0))
        say(
            f"100 noise-only frames {name}",
            **found,
            allowed=found["bicubic"] + 2 * float(np.sqrt(found["bicubic"] + 1)),
        )


def calibration(data: Path, out: Path, given: argparse.Namespace) -> None:
    """Coverage, chi2 of single draws, and the mean of 8 draws against the prior, on simulated frames without grain."""
    from dataclasses import replace

    from sciresdiff.restoration import model as models
    from sciresdiff.restoration.restore import restore
    from sciresdiff.restoration.settings import Settings
    from sciresdiff.training.calibrate import pulls
    from sciresdiff.training.recipe import DataRecipe
    from sciresdiff.training.simulated_frame import SimulatedFrame, simulate_frames

    def decibel(known: SimulatedFrame, x: Any) -> float:
        return float(10 * np.log10(max(np.ptp(known.truth), 1e-3) ** 2 / ((x - known.truth) ** 2).mean()))

    for name in ("astro-x4", "astro-x2", "micro-x2"):
        model = models.load(name)
        trained = model.card["trained"]["prior"]["data"]
        recipe = replace(
            DataRecipe(**{k: tuple(v) if isinstance(v, list) else v for k, v in trained.items()}), grain_share=0.0
        )
        pull, snr, lost, chi2 = [], [], [], []
        for known in simulate_frames(recipe, 424_242, 40):
            p, s, done = pulls(model, known, Settings(samples=8, keep_draws=True))
            alone = restore(known.observation, model, Settings(refine=False))
            pull.append(p.ravel()), snr.append(s.ravel())
            lost.append(decibel(known, alone.mean) - decibel(known, done.mean))
            chi2.append(known.chi2(done.draws))
        inside, bright = np.concatenate(pull) < 1, np.concatenate(snr) > 1.5
        say(
            f"calibration {name}",
            coverage_sky=float(inside[~bright].mean()),
            coverage_sources=float(inside[bright].mean()),
            chi2_draw_median=float(np.median(chi2)),
            chi2_draw_mean=float(np.mean(chi2)),
            chi2_draw_within=float(np.mean((np.array(chi2) > 0.9) & (np.array(chi2) < 1.1))),
            prior_minus_mean_db=float(np.mean(lost)),
            worst_db=float(np.max(lost)),
        )


def flux(data: Path, out: Path, given: argparse.Namespace) -> None:
    """Block flux in exact mode without a kernel, and the total flux in both modes."""
    from sciresdiff.observation.observation import Observation
    from sciresdiff.restoration import model as models
    from sciresdiff.restoration.restore import restore
    from sciresdiff.restoration.settings import Settings

    y = np.asarray(io.read_image("sample_data/47tuc.fits[SCI]"), dtype="f4")
    variance = (25 + np.clip(y, 0, None)).astype("f4")
    for name in ("astro-x2", "astro-x4"):
        model = models.load(name)
        observation = Observation.of_arrays(y, variance, model.scale)
        done = restore(observation, model, Settings(samples=2, consistency="exact"))
        s, h, w = model.scale, *y.shape
        blocks = done.mean.astype("f8").reshape(h, s, w, s)
        error = np.abs(blocks.sum((1, 3)) - y) / (np.abs(y) + np.abs(blocks).sum((1, 3)))
        say(f"exact flux {name}", worst_block=float(error.max()), total=float(blocks.sum() / y.astype("f8").sum() - 1))


def tiles(data: Path, out: Path, given: argparse.Namespace) -> None:
    """Largest difference between tilings, in units of the low pixel's sigma, and of the limit; bytes of two runs."""
    from sciresdiff.observation.observation import Observation
    from sciresdiff.physics import psf
    from sciresdiff.restoration import model as models
    from sciresdiff.restoration.restore import restore
    from sciresdiff.restoration.settings import Settings

    y = np.asarray(io.read_image("sample_data/47tuc.fits[SCI]"), dtype="f4")
    variance = (25 + np.clip(y, 0, None)).astype("f4")
    kernel = psf.render(psf.parse("gaussian:sigma=2.4px"), None, integrate=False)
    model = models.load("astro-x4")

    def run(tile: int) -> Any:
        observation = Observation.of_arrays(y, variance, 4, kernel)
        return restore(observation, model, Settings(samples=1, tile=tile)).mean

    whole = run(0)
    sigma = np.sqrt(variance).repeat(4, 0).repeat(4, 1)
    limit = 1e-4 * sigma + 8 * np.spacing(np.abs(whole))
    for tile in (64, 100, 160):
        off = np.abs(run(tile) - whole)
        say(f"tile {tile}", sigmas=float((off / sigma).max()), of_limit=float((off / limit).max()))
    say("twice", identical=bool(np.array_equal(whole, run(0))))


PARTS: dict[str, Callable[[Path, Path, argparse.Namespace], None]] = {
    "frames": frames,
    "pairs": pairs,
    "noise": noise,
    "calibration": calibration,
    "flux": flux,
    "tiles": tiles,
}


def main(words: list[str] | None = None) -> int:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of real frames")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas between them")
    parser.add_argument("--frames", type=Path, help="list of frames, degradations and methods, like quality.toml")
    parser.add_argument("--seeds", type=int, help="realisations of the noise; the list's by default")
    parser.add_argument("--print", action="store_true", help="leave docs/reference/benchmarks.md as it is")
    parser.add_argument("--out", type=Path, default=Path("scratch/quality"), help="folder for JSON lines and table")
    given = parser.parse_args(words)
    if unknown := [part for part in given.only.split(",") if part not in PARTS]:
        parser.error(f"--only: {', '.join(unknown)} not known; choose from {', '.join(PARTS)}")
    if given.seeds is not None and given.seeds < 1:
        parser.error(f"--seeds: {given.seeds} is no number of realisations; give 1 or more")
    try:
        for part in given.only.split(","):
            PARTS[part](given.data, given.out, given)
    except SciresdiffError as problem:
        print(problem, file=sys.stderr)
        return problem.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())

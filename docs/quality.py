"""``make quality DATA=...``: the figures of docs/benchmarks.md, measured through the public commands.

    python docs/quality.py DATA [--only 47tuc,micro,noise,calibration,flux,tiles] [--out FOLDER]

DATA is a folder with the real frames named below; the simulated parts need none.  One line a figure, `name = value`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sciresdiff import io
from sciresdiff.jobs import degrade, evaluate, upscale

TUC = "astro/hst_47tuc/j8bt06nyq_flt.fits"
MICRO = (
    "micro/bioimage_notebooks/BPAE_actin.tif",
    "micro/sdeconv_wheel/celegans.tif",
    "micro/zerocost_fa/FA_-_0488_Evolve.tif",
)


def say(name: str, **figures: Any) -> None:
    """One line of figures."""
    shown = "  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in figures.items())
    print(f"{name}: {shown}", flush=True)


def by_name(results: list[dict[str, Any]]) -> dict[str, float]:
    """Results of the region ``all`` (or the only one) by name."""
    found: dict[str, float] = {}
    for r in results:
        if r["value"] is not None and (r["region"] == "all" or r["name"] not in found):
            found[r["name"]] = float(r["value"])
    return found


def cropped(path: Path, out: Path, rows: slice, columns: slice) -> Path:
    """A crop of the science plane of a FITS file, as a FITS file without masks."""
    pixels = np.asarray(io.read_image(f"{path}[SCI]"), dtype="f4")[rows, columns]
    from astropy.io import fits

    target = out / "47tuc_truth.fits"
    fits.PrimaryHDU(pixels).writeto(target, overwrite=True)
    return target


def restored(truth: Path, out: Path, scale: int, model: str | None, end: str, **noise: float) -> dict[str, Any]:
    """Degrade with a Gaussian of 0.6 coarse pixels, restore, evaluate."""
    low, high = out / f"low_x{scale}{end}", out / f"high_{model or 'default'}_x{scale}{end}"
    kernel = f"gaussian:sigma={0.6 * scale}px"
    degrade.run(
        truth, low, degrade.DegradeOptions(scale=scale, kernel=kernel, quantity="sum", seed=1, overwrite=True, **noise)
    )
    options = upscale.UpscaleOptions(scale=scale, model=model, kernel=kernel, quantity="sum", overwrite=True)
    upscale.run(low, high, options)
    return evaluate.run(high, low=low, truth=truth, kernel=kernel, quantity="sum")


NAMES = (
    "psnr",
    "ssim",
    "total_flux_ratio",
    "chi2",
    "chi2_sky",
    "completeness",
    "purity",
    "source_flux_bias_mag",
    "astrometric_offset_px",
    "hallucination_fraction",
    "coverage_68",
)


def table(name: str, record: dict[str, Any]) -> None:
    """The record of an evaluation, beside the baselines."""
    for method, results in {"sciresdiff": record["results"], **record["baselines"]}.items():
        found = by_name(results)
        say(f"{name} {method}", **{k: found[k] for k in NAMES if k in found})


def tuc(data: Path, out: Path) -> None:
    """The crop of 47 Tuc at x2 and x4."""
    truth = cropped(data / TUC, out, slice(256, 768), slice(256, 768))
    for scale in (2, 4):
        for model in (None, "physics"):
            record = restored(truth, out, scale, model, ".fits", gain=10.0, read_noise=80.0 * scale)
            table(f"47tuc x{scale} {model or 'model'}", record)


def micro(data: Path, out: Path) -> None:
    """Real microscope images at x2."""
    for name in MICRO:
        for model in (None, "physics"):
            record = restored(data / name, out, 2, model, ".tif", gain=1.0, read_noise=8.0)
            table(f"{Path(name).name} x2 {model or 'model'}", record)


def noise(data: Path, out: Path) -> None:
    """Sources found in 100 frames of nothing but noise, and in their bicubic images, by the same detector.

    Threshold 5 sigma: of the noisier of the two images, of each image's own scatter, and of the ERR plane.
    """
    from sciresdiff import model as models
    from sciresdiff.checks import baselines, sources
    from sciresdiff.physics import psf
    from sciresdiff.restore import Settings, restore

    for name in ("astro-x2", "astro-x4"):
        model = models.load(name)
        kernel = psf.render(psf.parse(f"gaussian:sigma={0.6 * model.scale}px"), None, integrate=False)
        found = dict.fromkeys(("ours", "bicubic", "ours_own_scatter", "ours_over_err"), 0)
        for seed in range(100):
            y = np.random.default_rng(seed).normal(size=(64, 64)).astype("f4")
            settings = Settings(samples=8, seed=seed)
            done = restore(y, np.ones_like(y), np.zeros(y.shape, bool), kernel, model.scale, "sum", model, settings)
            plain = baselines.bicubic(y, model.scale, "sum")
            level = max(sources.noise_of(done.mean), sources.noise_of(plain))
            found["ours"] += len(sources.detect(done.mean, level))
            found["bicubic"] += len(sources.detect(plain, level))
            found["ours_own_scatter"] += len(sources.detect(done.mean))
            found["ours_over_err"] += len(sources.detect(done.mean / done.err, 1.0))
        say(
            f"100 noise-only frames {name}",
            **found,
            allowed=found["bicubic"] + 2 * float(np.sqrt(found["bicubic"] + 1)),
        )


def calibration(data: Path, out: Path) -> None:
    """Coverage, chi2 of single draws, and the mean of 8 draws against the prior, on simulated frames without grain."""
    from dataclasses import replace

    from sciresdiff import model as models
    from sciresdiff.restore import Settings, restore
    from sciresdiff.training.calibrate import Known, frames, pulls
    from sciresdiff.training.data import DataRecipe

    def decibel(known: Known, x: Any) -> float:
        return float(10 * np.log10(max(np.ptp(known.truth), 1e-3) ** 2 / ((x - known.truth) ** 2).mean()))

    for name in ("astro-x4", "astro-x2", "micro-x2"):
        model = models.load(name)
        trained = model.card["trained"]["prior"]["data"]
        recipe = replace(
            DataRecipe(**{k: tuple(v) if isinstance(v, list) else v for k, v in trained.items()}), grain_share=0.0
        )
        pull, snr, lost, chi2 = [], [], [], []
        for known in frames(recipe, 424_242, 40):
            p, s, done = pulls(model, known, Settings(samples=8, keep_draws=True))
            nothing = np.zeros(known.y.shape, bool)
            alone = restore(
                known.y, known.variance, nothing, known.kernel, model.scale, "sum", model, Settings(refine=False)
            )
            pull.append(p.ravel()), snr.append(s.ravel())
            lost.append(decibel(known, alone.mean) - decibel(known, done.mean))
            chi2.append(known.chi2(done.draws, model.scale))
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


def flux(data: Path, out: Path) -> None:
    """Block flux in exact mode without a kernel, and the total flux in both modes."""
    from sciresdiff import model as models
    from sciresdiff.restore import Settings, restore

    y = np.asarray(io.read_image("sample_data/47tuc.fits[SCI]"), dtype="f4")
    variance = (25 + np.clip(y, 0, None)).astype("f4")
    for name in ("astro-x2", "astro-x4"):
        model = models.load(name)
        done = restore(
            y,
            variance,
            np.zeros(y.shape, bool),
            None,
            model.scale,
            "sum",
            model,
            Settings(samples=2, consistency="exact"),
        )
        s, h, w = model.scale, *y.shape
        blocks = done.mean.astype("f8").reshape(h, s, w, s)
        error = np.abs(blocks.sum((1, 3)) - y) / (np.abs(y) + np.abs(blocks).sum((1, 3)))
        say(f"exact flux {name}", worst_block=float(error.max()), total=float(blocks.sum() / y.astype("f8").sum() - 1))


def tiles(data: Path, out: Path) -> None:
    """Largest difference between tilings, in units of the low pixel's sigma, and of the limit; bytes of two runs."""
    from sciresdiff import model as models
    from sciresdiff.physics import psf
    from sciresdiff.restore import Settings, restore

    y = np.asarray(io.read_image("sample_data/47tuc.fits[SCI]"), dtype="f4")
    variance = (25 + np.clip(y, 0, None)).astype("f4")
    kernel = psf.render(psf.parse("gaussian:sigma=2.4px"), None, integrate=False)
    model = models.load("astro-x4")

    def run(tile: int) -> Any:
        return restore(
            y, variance, np.zeros(y.shape, bool), kernel, 4, "sum", model, Settings(samples=1, tile=tile)
        ).mean

    whole = run(0)
    sigma = np.sqrt(variance).repeat(4, 0).repeat(4, 1)
    limit = 1e-4 * sigma + 8 * np.spacing(np.abs(whole))
    for tile in (64, 100, 160):
        off = np.abs(run(tile) - whole)
        say(f"tile {tile}", sigmas=float((off / sigma).max()), of_limit=float((off / limit).max()))
    say("twice", identical=bool(np.array_equal(whole, run(0))))


PARTS: dict[str, Callable[[Path, Path], None]] = {
    "47tuc": tuc,
    "micro": micro,
    "noise": noise,
    "calibration": calibration,
    "flux": flux,
    "tiles": tiles,
}


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--out", type=Path, default=Path("scratch/quality"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for part in given.only.split(","):
        PARTS[part](given.data, given.out)


if __name__ == "__main__":
    main()

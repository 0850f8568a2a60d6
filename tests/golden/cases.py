"""What is run on which frames: one folder a case, its commands one after the other."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """Frames, and the commands that are run on them in a folder of their own."""

    frames: str
    """Names of `frames.FRAMES`, with blanks between them."""
    commands: tuple[str, ...]
    """Without the program's name."""


def case(frames: str, *commands: str) -> Case:
    """A case, and with it what `info` says of its first frame."""
    first = frames.split()[0]
    return Case(frames, (f"info {first} --json", *commands) if "." in first and "toml" not in first else commands)


TWO = "--samples 2"
PSF = "--psf gaussian:fwhm=3px"
MEAN = f"--model physics --scale 2 {PSF} --no-refine"
LOW = "degrade fine.fits -o low.fits --scale 2 --kernel gaussian:sigma=1.2px --gain 4 --read-noise 6 --json"
LOW4 = "degrade fine.fits -o low.fits --scale 4 --kernel gaussian:sigma=2.4px --gain 4 --read-noise 6 --json"
TRAIN = "--recipe tiny.toml --preset tiny --seed 3"
REFINE = f"train-refiner --prior prior.safetensors --images 12 --no-calibrate {TRAIN}"
METHODS = ("cdm", "ddim", "diffir", "edm", "flow-matching", "i2sb", "ir-sde", "resshift", "score-sde-vp", "sr3",
           "u-vit")  # fmt: skip
"""Methods that differ in space, path, prediction, solver, network or loss."""

CASES: dict[str, Case] = {
    # Frames of every kind
    "fits-var": case("var.fits", f"upscale var.fits -o x2.fits --scale 2 {TWO} --save-samples --json",
                     "upscale var.fits -o plan.fits --scale 2 --gain 3 --dry-run --json"),
    "fits-flags": case("flags.fits", f"upscale flags.fits -o x2.fits --scale 2 {TWO} --psf gaussian:fwhm=2.5px --json"),
    "fits-camera": case("camera.fits", f"upscale camera.fits -o x2.fits --scale 2 {TWO} {PSF} --manifest list.jsonl",
                        f"upscale camera.fits -o u2.fits {MEAN} --dtype uint16"),
    "fits-wcs": case("wcs.fits", "upscale wcs.fits -o x2.fits --scale 2 --samples 8"),
    "fits-cube": case("cube.fits", f"upscale cube.fits -o x2.fits --scale 2 {TWO} {PSF} --save-samples"),
    "fits-packed": case("packed.fits.fz", f"upscale packed.fits.fz -o x2.fits --scale 2 {TWO}",
                        "upscale packed.fits.fz -o x2.fits.fz --scale 2 --no-refine --no-checks"),
    "fits-damaged": case("damaged.fits", f"upscale damaged.fits -o x2.fits --scale 2 {TWO} {PSF}"),
    "tiff-camera": case("camera.tif", f"upscale camera.tif -o x2.tif --scale 2 {TWO} {PSF} --save-samples --json",
                        f"upscale camera.tif -o f4.tif --scale 2 {TWO} {PSF} --dtype float32 --pixel-size 0.1um"),
    "tiff-ome": case("cells.ome.tif", f"upscale cells.ome.tif -o x2.ome.tif --scale 2 {TWO} --assume-2d",
                     "upscale cells.ome.tif -o refused.ome.tif --scale 2 --samples 2 --json"),
    "tiff-pyramid": case("cells.ome.tif", "upscale cells.ome.tif -o x2.ome.tif --model physics --scale 2 --no-refine "
                         "--assume-2d --pyramid"),
    "tiff-imagej": case("imagej.tif", f"upscale imagej.tif -o x2.tif --scale 2 {PSF} --no-refine"),
    "tiff-colour": case("colour.tif", f"upscale colour.tif -o x2.tif --model physics --scale 2 {PSF} --samples 2"),
    "tiff-float": case("float.tif", f"upscale float.tif -o x2.tif --scale 2 {TWO} {PSF} --quantity sum"),
    "hdf5": case("stack.h5", f"upscale stack.h5 -o x2.h5 --scale 2 {TWO} {PSF} --save-samples"),
    "ome-zarr": case("cells.ome.zarr", f"upscale cells.ome.zarr -o x2.ome.zarr --scale 2 {PSF} --no-refine",
                     f"upscale cells.ome.zarr -o x2.ome.tif {MEAN}"),
    # Ways to restore
    "physics": case("var.fits", f"upscale var.fits -o draws.fits --model physics --scale 2 {TWO} --save-samples",
                    "upscale var.fits -o mean.fits --model physics --scale 4 --no-refine --target-fwhm 2.5"),
    "prior-alone": case("var.fits", "upscale var.fits -o x2.fits --scale 2 --no-refine"),
    "consistency": case("var.fits", f"upscale var.fits -o exact.fits --scale 2 {TWO} --psf none --consistency exact",
                        f"upscale var.fits -o off.fits --scale 2 {TWO} --consistency off"),
    "noise-given": case("camera.fits flags.fits", f"upscale camera.fits -o x2.fits --scale 2 --samples 2 --gain 1.5 "
                        f"{PSF} --read-noise 9 --offset 100 --saturation 5000 --mask flags.fits[DQ] --seed 7",
                        f"upscale flags.fits -o mean.fits --scale 2 {PSF} --no-refine --variance rms:ERR "
                        "--quantity mean"),
    "steps-tiles": case("var.fits", "upscale var.fits -o x2.fits --scale 2 --samples 2 --steps 2 --tile 24"),
    "psf-file": case("var.fits psf.fits", f"upscale var.fits -o x2.fits --scale 2 {TWO} --psf psf.fits"),
    "psf-measured": case("var.fits", f"upscale var.fits -o x2.fits --scale 2 {TWO} --psf measure"),
    "blur-given": case("var.fits camera.tif",
                       f"upscale var.fits -o x2.fits --scale 2 {TWO} --kernel gaussian:sigma=1.3px",
                       "upscale camera.tif -o x2.tif --scale 2 --no-refine --psf airy:na=1.2,wavelength=525nm "
                       "--pixel-size 0.1um"),
    "cascade": case("flags.fits", f"upscale flags.fits -o x4.fits --model astro-x2 --then astro-x2 {PSF} --samples 2"),
    "blocks": case("strip.fits", f"upscale strip.fits -o x2.fits {MEAN} --no-checks"),
    "blocks-drawn": case("strip.fits",
                         f"upscale strip.fits -o x2.fits --scale 2 {PSF} --samples 2 --tile 512 --no-checks"),
    "shards": case("strip.fits", *(f"upscale strip.fits -o x2.fits {MEAN} --no-checks "
                                   f"--shard {i}/2 --json" for i in (1, 2))),
    "many": case("var.fits flags.fits", *2 * (f"upscale var.fits flags.fits -o out {MEAN} "
                                              "--json",)),
    # Coarser frames
    "degrade": case("fine.fits", LOW4, LOW.replace("low", "plan") + " --dry-run",
                    "degrade fine.fits -o detector.fits --scale 2 --gain 2 --read-noise 4 --sky 20 --dark 3 "
                    "--full-well 900 --bits 12 --quantity mean --seed 5 --json"),
    **{f"degrade-{name}": case("fine.fits", f"degrade fine.fits -o low.fits --scale 2 --recipe {name} --json")
       for name in ("astro", "first-order", "second-order", "star", "bicubic", "real-esrgan")},
    "degrade-detector": case("fine.fits",
                             "degrade fine.fits -o low.fits --scale 4 --recipe astro --gain 5 --read-noise 3"),
    "degrade-micro": case("fine.tif", "degrade fine.tif -o low.tif --scale 2 --recipe micro --gain 2 --read-noise 2 "
                          "--json"),
    "degrade-pairs": case("fine.fits", "degrade fine.fits -o low.fits --scale 4 --recipe astro --pairs set.h5 "
                          "--patch 32 --json"),
    "degrade-blocks": case("long.fits", "degrade long.fits -o low.fits --scale 4 --kernel gaussian:sigma=2px --gain 3 "
                           "--read-noise 4 --json"),
    # Measured images
    "evaluate-x2": case("fine.fits", LOW, f"upscale low.fits -o high.fits --scale 2 {TWO} --save-samples",
                        "evaluate high.fits --low low.fits --truth fine.fits --csv row.csv --csv-long rows.csv "
                        "--report page.html --json",
                        "evaluate high.fits --low low.fits --baselines none --json"),
    "evaluate-x4": case("fine.fits", LOW4, "upscale low.fits -o high.fits --scale 4 --samples 8 --json",
                        "evaluate high.fits --low low.fits --truth fine.fits --strict --json",
                        "evaluate high.fits --low low.fits --baselines bicubic,wiener,richardson-lucy-10 --json"),
    "evaluate-micro": case("fine.tif", "degrade fine.tif -o low.tif --scale 2 --kernel gaussian:sigma=1.2px --gain 1 "
                           "--read-noise 6", f"upscale low.tif -o high.tif --scale 2 {TWO}",
                           "evaluate high.tif --low low.tif --truth fine.tif --kernel gaussian:sigma=1.2px "
                           "--csv row.csv --json"),
    "evaluate-probe": case("fine.fits", LOW, "upscale low.fits -o high.fits --model physics --scale 2 --no-refine",
                           "evaluate high.fits --low low.fits --probe --baselines none --json"),
    # Trained models
    "train": case("tiny.toml", f"train-prior -o prior.safetensors --scale 2 --kind astro --images 12 {TRAIN} --json",
                  f"{REFINE} -o model.safetensors"),
    "train-methods": case("tiny.toml var.fits", f"train-prior -o prior.safetensors --scale 2 --images 8 {TRAIN}",
                          *(f"{REFINE} --method {name} -o {name}.safetensors" for name in METHODS),
                          f"upscale var.fits -o ddim.fits --model ddim.safetensors {TWO} --steps 3",
                          f"upscale var.fits -o flow.fits --model flow-matching.safetensors {TWO} --steps 3"),
    "train-distil": case("tiny.toml var.fits",
                         f"train-refiner --distil micro-x2 --images 8 --no-calibrate {TRAIN} -o sinsr.safetensors",
                         "upscale var.fits -o x2.fits --model sinsr.safetensors --scale 2 --samples 2"),
    "train-pairs": case("fine.tif tiny.toml var.fits", "degrade fine.tif -o low.tif --scale 2 --recipe micro --gain 2 "
                        "--read-noise 2 --pairs set.h5 --patch 24",
                        f"train-prior set.h5 -o prior.safetensors --scale 2 --kind micro --backbone unet "
                        f"--images 8 {TRAIN}",
                        "upscale var.fits -o x2.fits --model prior.safetensors --scale 2"),
    # What there is, and what is refused
    "lists": Case("", ("models --json", "methods --json", "methods", "models", "models astro-x2 astro-x4 micro-x2")),
    "refused": Case("var.fits cube.fits", (
        "upscale nothing.fits -o a.fits --scale 2 --json",
        "upscale var.fits -o a.fits --scale 3",
        "degrade var.fits -o a.fits --scale 2 --bogus 1",
        "degrade var.fits -o a.fits --scale 2 --recipe bogus",
        "evaluate cube.fits --low var.fits --json",
    )),
}  # fmt: skip

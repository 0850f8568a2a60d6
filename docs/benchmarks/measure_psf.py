"""The PSF that is measured on real frames, beside the one that comes with them: `python measure_psf.py FOLDER`.

FOLDER holds astro/ and micro/. One line a frame: FWHM measured on point sources and estimated blindly, each with its
error, and that of a PSF file where there is one, all in px of the frame with the pixel included.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path

import numpy as np

from sciresdiff import io
from sciresdiff.errors import SciresdiffError
from sciresdiff.observation.measured_psf import measure_plane
from sciresdiff.observation.sample import first_with_data, samples_of_source
from sciresdiff.physics import psf
from sciresdiff.physics.psf.blind import estimate_width

FRAMES = (
    ("astro/hst_47tuc/j8bt06nyq_flt.fits", "astro/psf_formats/acs_hrc_f606w.fits"),
    ("astro/jwst_pair/jw01324001001_sci.fits", "astro/jwst_pair/jw01324001001_webbpsf.fits"),
    ("astro/jwst_pair/jw02561001002_sci.fits", "astro/jwst_pair/jw02561001002_webbpsf.fits"),
    ("astro/euclid_group/group.fits[VIS_FLUX]", "astro/euclid_group/group.fits[VIS_PSF]"),
    ("astro/euclid_group/group.fits[NIR_Y_FLUX]", "astro/euclid_group/group.fits[NIR_Y_PSF]"),
    ("astro/euclid_group/group.fits[NIR_J_FLUX]", "astro/euclid_group/group.fits[NIR_J_PSF]"),
    ("astro/euclid_group/group.fits[NIR_H_FLUX]", "astro/euclid_group/group.fits[NIR_H_PSF]"),
    *((f"astro/hsc_cutouts/test1/cutout-HSC-{b}-9813-pdr3_dud_rev.fits",
       f"astro/hsc_cutouts/test1/psf-calexp-pdr3_dud_rev-HSC-{b}-9813.fits") for b in "GRI"),
    *((f"astro/sdss_kids/{s}/{g}fitim.fits", f"astro/sdss_kids/{s}/{g}psfim.fits")
      for s in ("SDSS", "KiDS") for g in ("G265911", "G265940", "G266033", "G266035", "G266662")),
    ("astro/kids_viking/r.fits", None), ("astro/kids_viking/i.fits", None), ("astro/kids_viking/Z.fits", None),
    ("astro/decam_coadd_epochs/DEC-OBS04a.mini.fits", None), ("astro/decam_coadd_epochs/DEC-OBS04c.mini.fits", None),
    ("astro/compressed/m13.fits", None), ("astro/wcs_samples/tpv.fits", None), ("astro/m51_kpno/M51.fits", None),
    ("astro/sdss_reprojected/reprojected_sdss_r.fits", None), ("astro/ir/s250_im.fits", "astro/ir/s250_psf.fits"),
    ("astro/ir/p100_im.fits", "astro/ir/p100_psf.fits"), ("astro/msx_galactic_plane/MSX_E.fits", None),
    ("astro/sdo_aia/aia_171_cutout.fits", None),
    ("astro/hst_slacs/slacs0946+1006_data.fits", "astro/hst_slacs/slacs0946+1006_psf.fits"),
    *((f"astro/jwst_primer/COSJ100028+021928_{b}_data.fits", f"astro/jwst_primer/psf_{b}.fits")
      for b in ("F606W", "F115W", "F200W", "F444W")),
)  # fmt: skip
"""Frame and the file of its PSF, below FOLDER."""


def find_more(folder: Path) -> list[tuple[str, str | None]]:
    """DECam exposures, and all two-dimensional frames of microscopes."""
    more: list[tuple[str, str | None]] = []
    for frame in sorted((folder / "astro" / "decam_exposures").glob("*ooi*ls9.N*.fits")):
        more.append((str(frame.relative_to(folder)), None))
    for frame in sorted((folder / "micro").rglob("*.tif*")):
        more.append((str(frame.relative_to(folder)), None))
    return more


def width_of_file(path: str) -> str:
    """FWHM of the image of a PSF, px."""
    try:
        image = np.asarray(io.read_image(path), np.float64).squeeze()
        return f"{psf.fwhm(image / image.sum()):.2f}"
    except (SciresdiffError, ValueError) as problem:
        return f"({str(problem)[:40]})"


def measure(path: str) -> tuple[str, str, float]:
    """What is measured and what is estimated blindly, in words; seconds."""
    began = time.perf_counter()
    with io.open_source(path) as source:
        samples = samples_of_source(source)
        sample = samples(first_with_data(samples, source.frame.planes))
        try:
            found = measure_plane(sample.frame)
            kept = "" if found.table is None else ", with a table"
            width = psf.fwhm(found.render())
            one = f"{width:.2f} +- {found.fwhm_error * width:.2f}, {found.used} of {found.found}{kept}"
        except SciresdiffError as problem:
            one = "none: " + str(problem).removeprefix("psf: no source to measure a PSF from")[:70]
        try:
            blind = estimate_width(sample.pixels, sample.mask)
            width = psf.fwhm(psf.render(blind.spec, None, integrate=True))
            two = f"{width:.2f} +- {blind.fwhm_error * width:.2f}"
        except SciresdiffError as problem:
            two = str(problem)[5:45]
    return one, two, time.perf_counter() - began


def main() -> None:
    """Print the table."""
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    print("| frame | measured | blind | PSF file | s |\n|---|---|---|---|---|")
    for frame, file in [*FRAMES, *find_more(folder)]:
        try:
            one, two, seconds = measure(str(folder / frame))
        except SciresdiffError as problem:
            one, two, seconds = f"not read: {str(problem)[-80:]}", "", 0.0
        stated = width_of_file(str(folder / file)) if file else ""
        print(f"| {frame} | {one} | {two} | {stated} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()

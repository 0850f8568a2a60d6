"""What units say of pixels, in the spellings of real headers."""

import numpy as np
import pytest
from astropy.io import fits

from sciresdiff import io
from sciresdiff.errors import InputError
from sciresdiff.frame import Frame
from sciresdiff.observation.options import Stated
from sciresdiff.observation.resolve import resolve_quantity
from sciresdiff.units import find_nonlinear, is_count, is_electron, is_rate, quantity_of_unit

MEAN = """MJy/sr|MJY/SR|MJy sr-1|MJy.sr-1|Jy/beam|JY/BEAM|mJy beam-1|Jy per beam|Jy/beam.km/s|Jy/arcsec2|Jy/arcsec^2
W/m2/sr|W/m^2-sr|W m-2 Hz-1 sr-1|W/m2/Hz/sr|nW m-2 sr-1|erg cm-2 s-1 sr-1|K|mK|uK|µK|K (Tmb)|K (Ta*)|K Tmb|uK_CMB
mK_RJ|K.km/s|K km/s|K km s-1|K*km/s|Kelvin|Gauss|G|mG|nT|erg/s/cm2/arcsec2|10^-20 erg/s/cm2/A/arcsec2
1e-17 erg s-1 cm-2 arcsec-2|counts/s/arcsec2|count / (s arcsec2)|ph/cm2/s/sr|nmgy/arcsec^2|km/s|m/s|R"""
SUM = """adu|ADU|DN|DN/S|dn s-1|count|COUNTS|counts/sec|COUNTS/S|cts/s|ct|electrons|ELECTRONS/S|electron/s|e-|e-/s
e- s-1|e-/pix/s|photons|photons/cm^2/s|Jy|mJy|uJy|nJy|µJy|JY|Jy/pixel|JY/PIXEL|Jy pix-1|nJy/pix|nanomaggies|nanomaggy
NANOMAGGIES|nmgy|maggies|erg/s/cm2/A|erg/s/cm^2|ergs/cm^2/s|erg s-1 cm-2 Angstrom-1|10^-20 erg/s/cm2/A
10**(-20)*erg/s/cm**2/Angstrom|1E-17 erg/s/cm^2/Ang|erg / (s cm2)|W/m2|W/m^2|W m-2 um-1|W/m2/Hz|counts/pixel
count / (s pix)|Electrons per second|photo-electrons"""
NEITHER = "|deg|arcsec|1/s|pix|%|foo|Angstrom"
NOT_LINEAR = """mag|MAG|mag/arcsec2|mag arcsec-2|mag/arcsec^2|ABmag|mag(AB)|magnitude|dex|dex(Jy)|log(Jy/beam)
log10(counts)|ln(K)|dB|asinh|asinh(nJy)|luptitudes"""


def split(text):
    return [unit for line in text.splitlines() for unit in line.split("|")]


@pytest.mark.parametrize(("wanted", "units"), [("mean", MEAN), ("sum", SUM), (None, NEITHER)])
def test_blocks_of_a_unit_add_up_or_average(wanted, units):
    assert [unit for unit in split(units) if quantity_of_unit(unit) != wanted] == []


def test_units_that_are_not_linear_in_light():
    assert [unit for unit in split(NOT_LINEAR) if not find_nonlinear(unit)] == []
    assert [unit for unit in split(f"{MEAN}|{SUM}|{NEITHER}") if find_nonlinear(unit)] == []


def test_counts_and_rates():
    assert [is_rate(unit) for unit in ("DN/S", "counts/sec", "e- s-1", "ADU", "erg/s/cm2", "MJy/sr", "K.km/s")] == [
        True, True, True, False, False, False, False,
    ]  # fmt: skip
    assert [is_electron(unit) for unit in ("ELECTRONS/S", "e-", "photons/cm^2/s", "adu", "erg")] == [
        True, True, False, False, False,
    ]  # fmt: skip
    assert [is_count(unit) for unit in ("adu", "DN/s", "MJy/sr", "Jy", "counts/s/arcsec2")] == [
        True, True, False, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize("unit", ["mag/arcsec2", "dex", "log(Jy/beam)"])
def test_what_is_not_linear_is_refused(unit):
    frame = Frame(np.ones((1, 2, 2), "f4"), np.zeros((1, 2, 2), bool), "astro", unit=unit)
    with pytest.raises(InputError, match="not linear in light"):
        frame.quantity_or_usual()
    with pytest.raises(InputError, match="not linear in light"):  # stating a quantity makes no light of magnitudes
        resolve_quantity(frame, Stated(quantity="mean"))


def test_an_asinh_scale_is_refused(tmp_path):
    fits.writeto(tmp_path / "a.fits", np.ones((9, 9), "f4"), fits.Header({"BSOFTEN": 12.5, "BOFFSET": 0.1}))
    with pytest.raises(InputError, match=r"BSOFTEN=12.5.*asinh"):
        io.read(tmp_path / "a.fits").quantity_or_usual()


@pytest.mark.parametrize(
    ("unit", "wanted"),
    [("JY/BEAM", "Jy / beam"), ("K (Tmb)", "K"), ("uK_CMB", "uK"), ("DN/S", "DN / s"), ("ergs/cm2/s", "erg / (s cm2)")],
)
def test_units_for_astropy(unit, wanted):
    frame = Frame(np.ones((1, 2, 2), "f4"), np.zeros((1, 2, 2), bool), "astro", unit=unit)
    assert str(frame.astropy_unit) == wanted

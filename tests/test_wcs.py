"""The sky stays where it is when the pixels change."""

import warnings

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from sciresdiff.io import wcs

SCALES = [2, 4, 0.5]
LIMIT_MAS = 1.0  # the project's bound; rounding itself is below 1e-3 mas


def celestial(**cards):
    header = fits.Header(
        {"NAXIS": 2, "NAXIS1": 200, "NAXIS2": 160, "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRPIX1": 80.3,
         "CRPIX2": 71.9, "CRVAL1": 150.1, "CRVAL2": 2.2}
    )  # fmt: skip
    header.update(cards)
    return header


CD = {"CD1_1": -7.4e-6, "CD1_2": 1.8e-6, "CD2_1": 2.9e-6, "CD2_2": 6.6e-6}
SIP = {"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "A_ORDER": 3, "B_ORDER": 2, "A_2_0": 1e-5, "A_1_1": -2e-5,
       "A_0_3": 3e-8, "B_0_2": 4e-5, "B_1_1": 1e-5}  # fmt: skip
HEADERS = {
    "cd": celestial(**CD),
    "pc_cdelt": celestial(CDELT1=-1e-4, CDELT2=1e-4, PC1_1=0.8, PC1_2=-0.6, PC2_1=0.6, PC2_2=0.8),
    "pc_without_cdelt": celestial(PC1_1=-1e-4, PC2_2=1e-4),
    "cdelt_crota": celestial(CDELT1=-1e-4, CDELT2=1e-4, CROTA2=30.0),
    "sip": celestial(**CD, **SIP),
    "tpv": celestial(**CD, CTYPE1="RA---TPV", CTYPE2="DEC--TPV", PV1_0=1e-5, PV1_1=1.01, PV1_2=0.002, PV1_4=0.3,
                     PV2_0=-2e-5, PV2_1=0.99, PV2_2=0.001, PV2_5=0.2),
    "alternate": celestial(**CD, CTYPE1A="GLON-TAN", CTYPE2A="GLAT-TAN", CRPIX1A=10.0, CRPIX2A=20.0, CRVAL1A=30.0,
                           CRVAL2A=5.0, CDELT1A=-2e-4, CDELT2A=2e-4),
    "no_crpix": fits.Header({"NAXIS": 2, "NAXIS1": 50, "NAXIS2": 50, "CTYPE1": "GLON-CAR", "CTYPE2": "GLAT-CAR",
                             "CRVAL1": 3.0, "CRVAL2": 0.0, "CDELT1": -0.002, "CDELT2": 0.002}),
}  # fmt: skip


def worst_mas(header, f, key=" ", shape=(160, 200)):
    """Largest distance on the sky between old pixel positions and the same places on the new grid."""
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0.5, shape[1] + 0.5, 300), rng.uniform(0.5, shape[0] + 0.5, 300)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        old, new = (WCS(h, key=key).celestial for h in (header, wcs.rescale_header(header, f)))
        a, b = old.all_pix2world(x, y, 1), new.all_pix2world(f * (x - 0.5) + 0.5, f * (y - 0.5) + 0.5, 1)
    east = (a[0] - b[0]) * np.cos(np.radians(a[1]))
    return 3.6e6 * float(np.max(np.hypot(east, a[1] - b[1])))


@pytest.mark.parametrize("f", SCALES)
@pytest.mark.parametrize("kind", HEADERS)
def test_sky_positions_stay(kind, f):
    assert worst_mas(HEADERS[kind], f) < LIMIT_MAS


@pytest.mark.parametrize("f", SCALES)
def test_alternates_follow(f):
    assert worst_mas(HEADERS["alternate"], f, key="A") < LIMIT_MAS


REAL = [("wcs_samples/sipsample.fits", 0), ("wcs_samples/tpv.fits", 0), ("hst_47tuc/j8bt06nyq_flt.fits", 1),
        ("legacypipe/testcase4/c4d_170316_062107_ooi_z_ls9.N2.fits", 1), ("scarlet_pair/Cut_HST.fits", 0),
        ("ir/gc_bolocam_gps.fits", 0), ("compressed/m13.fits", 0),
        ("hsc_cutouts/test1/cutout-HSC-G-9813-pdr3_dud_rev.fits", 1)]  # fmt: skip


@pytest.mark.parametrize("f", SCALES)
@pytest.mark.parametrize(("name", "ext"), REAL)
def test_real_headers(shared_data, name, ext, f):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header = fits.getheader(shared_data / "astro" / name, ext)
    assert worst_mas(header, f, shape=(header["NAXIS2"], header["NAXIS1"])) < LIMIT_MAS


@pytest.mark.parametrize("f", SCALES)
def test_there_and_back(f):
    for header in HEADERS.values():
        back = wcs.rescale_header(wcs.rescale_header(header, f), 1 / f)
        for key in header:
            if isinstance(header[key], float):
                assert back[key] == pytest.approx(header[key], rel=1e-12)  # a few roundings of float64


def test_cube_keeps_its_third_axis():
    header = celestial(CDELT1=-1e-4, CDELT2=1e-4, CDELT3=5.0, CTYPE3="FREQ", CRPIX3=3.0, CRVAL3=1e9)
    new = wcs.rescale_header(header, 4)
    assert (new["CDELT3"], new["CRPIX3"]) == (5.0, 3.0)
    assert new["CDELT1"] == -2.5e-5


def test_axes_that_share_a_world_axis():
    """A PC matrix that mixes sky and spectrum: CDELT would rescale the spectrum too."""
    header = celestial(CDELT1=-1e-4, CDELT2=1e-4, CDELT3=5.0, PC1_1=1.0, PC2_2=1.0, PC3_1=0.1, PC3_3=1.0)
    new = wcs.rescale_header(header, 2)
    old_matrix, new_matrix = wcs._jacobian(header, ""), wcs._jacobian(new, "")
    np.testing.assert_allclose(new_matrix[:, :2], old_matrix[:, :2] / 2, rtol=1e-15)  # one division
    np.testing.assert_array_equal(new_matrix[:, 2], old_matrix[:, 2])


def test_physical_coordinates():
    """image = LTM physical + LTV holds on the new grid, for edges as for centres."""
    header = celestial(**CD, LTV1=-100.0, LTV2=3.0)
    new = wcs.rescale_header(header, 4)
    for i in (1, 2):
        physical = 117.25 - header[f"LTV{i}"]
        assert new[f"LTM{i}_{i}"] * physical + new[f"LTV{i}"] == pytest.approx(4 * (117.25 - 0.5) + 0.5, abs=1e-9)


def test_lookup_distortion_follows():
    """Distortion in pixels at the same place on the sky grows with the number of pixels."""
    values = np.linspace(0, 1, 12, dtype="f4").reshape(3, 4)
    table = fits.ImageHDU(values, name="WCSDVARR")
    table.header.update({"CRPIX1": 1.0, "CRPIX2": 1.0, "CRVAL1": 1.0, "CRVAL2": 1.0, "CDELT1": 66.0, "CDELT2": 79.0})
    header = celestial(**CD, CPDIS1="LOOKUP", CPDIS2="LOOKUP")
    header["DP1"] = "EXTVER: 1"
    header["DP2"] = "EXTVER: 1"

    def sky(head, lookup, x, y):
        head = head.copy()
        for i in (1, 2):
            head.append(fits.Card.fromstring(f"DP{i}     = 'EXTVER: 1'"), end=True)
            head.append(fits.Card.fromstring(f"DP{i}     = 'NAXES: 2'"), end=True)
            head.append(fits.Card.fromstring(f"DP{i}     = 'AXIS.1: 1'"), end=True)
            head.append(fits.Card.fromstring(f"DP{i}     = 'AXIS.2: 2'"), end=True)
        files = fits.HDUList([fits.PrimaryHDU(), lookup])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return np.array(WCS(head, files).all_pix2world(x, y, 1))

    del header["DP1"], header["DP2"]
    x, y = np.array([20.0, 110.5]), np.array([33.3, 120.0])
    old = sky(header, table, x, y)
    new = sky(wcs.rescale_header(header, 4), wcs.rescale_lookup(table, 4), 4 * (x - 0.5) + 0.5, 4 * (y - 0.5) + 0.5)
    plain = np.array(WCS(celestial(**CD)).all_pix2world(x, y, 1))
    assert np.abs(old - plain).max() * 3.6e6 > 1  # the table does something
    assert np.abs(old - new).max() * 3.6e6 < LIMIT_MAS


def test_pixel_cards():
    header = celestial(**CD, PIXSCALE=0.25, PIXAR_SR=1e-12, SATURATE=60000.0, EXPTIME=30.0, PHOTFLAM=1e-19, GAIN=2.0,
                       DATASEC="[1:10,1:10]", SEEING=1.1, CHECKSUM="abc")  # fmt: skip
    new = wcs.rescale_header(header, 4)
    assert (new["PIXSCALE"], new["PIXAR_SR"], new["SATURATE"]) == (0.0625, 1e-12 / 16, 3750.0)
    assert (new["EXPTIME"], new["PHOTFLAM"], new["GAIN"]) == (30.0, 1e-19, 2.0)
    assert not {"DATASEC", "SEEING", "CHECKSUM"} & set(new)
    assert "SEEING=1.1" in str(new["HISTORY"]).replace("\n", "")
    assert wcs.rescale_header(header, 4, quantity="mean")["SATURATE"] == 60000.0


def test_pixel_size():
    size = wcs.pixel_size(HEADERS["pc_cdelt"])
    assert (size.x, size.y) == pytest.approx((0.36, 0.36), rel=1e-12)  # 1e-4 degrees, rotated
    assert wcs.pixel_size(fits.Header({"SECPIX": 0.4})).x == 0.4
    assert wcs.pixel_size(fits.Header()) is None


def test_bad_cards_do_not_crash():
    header = celestial(**CD)
    header.append(fits.Card.fromstring("CD1_3   = 1.2.3.4 / broken"))
    header.append(fits.Card.fromstring("PIXSCALE= ???"))
    new = wcs.rescale_header(header, 2)
    assert new["CD1_1"] == CD["CD1_1"] / 2
    assert len(wcs.sanitised(header)) <= len(header)

"""The sky stays where it is when the pixels change."""

import re
import warnings

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sciresdiff import io
from sciresdiff.io.fits import wcs
from sciresdiff.io.fits.header import valid_header

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
    "scamp": celestial(**CD, PV1_0=1e-5, PV1_1=1.01, PV1_4=0.3, PV2_1=0.99, PV2_5=0.2),
    "physical": celestial(**CD, WCSNAMEP="PHYSICAL", CTYPE1P="X", CTYPE2P="Y", CRPIX1P=0.5, CRPIX2P=0.5, CRVAL1P=2048.5,
                          CRVAL2P=512.5, CD1_1P=2.0, CD2_2P=2.0, LTV1=-1023.75, LTV2=-255.75, LTM1_1=0.5, LTM2_2=0.5),
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


def test_world_side_distortions_stay_to_the_letter(tmp_path):
    """TNX, ZPX: pieces of text in WAT cards, whose blanks at the end count."""
    pieces = ['wtype=tnx axtype=ra lngcor = "3. 3. 3. 2. -0.002 0.002 -0.002 0.002 ', '1.E-6 2.E-3 3. 1.E-3 -4. 2. "']
    raw = [f"WAT1_{i:03d}= '{piece:<68}'".ljust(80) for i, piece in enumerate(pieces, 1)]
    header = celestial(**CD, CTYPE1="RA---TNX", CTYPE2="DEC--TNX")
    header = fits.Header([*header.cards, *(fits.Card.fromstring(card) for card in raw)])
    fits.PrimaryHDU(np.ones((160, 200), "f4"), header).writeto(tmp_path / "a.fits")
    io.write(tmp_path / "b.fits", io.read(tmp_path / "a.fits"), planes={"ERR": np.ones((1, 160, 200))}, scale=2)
    text = (tmp_path / "b.fits").read_bytes().decode("latin1")
    assert all(text.count(card) == 2 for card in raw), "once in SCI, once in ERR"


def with_tables(tmp_path):
    """A file with both kinds of lookup tables, as HST's have them, and its coordinates."""
    hdu = fits.ImageHDU(np.ones((160, 200), "f4"), celestial(**CD, **SIP), name="SCI")
    tables = []
    for i, (name, card) in enumerate((("WCSDVARR", "DP"), ("D2IMARR", "D2IM")), 1):
        for axis in (1, 2):
            hdu.header[f"{'CPDIS' if i == 1 else 'D2IMDIS'}{axis}"] = "LOOKUP"
            for record in ("EXTVER: 1", "NAXES: 2", "AXIS.1: 1", "AXIS.2: 2"):
                hdu.header.append(fits.Card.fromstring(f"{f'{card}{axis}':<8}= '{record}'"), end=True)
        values = np.random.default_rng(i).uniform(0, 1, (5, 6)).astype("f4")
        table = fits.ImageHDU(values, name=name)
        table.header.update(
            {"CRPIX1": 1.0, "CRPIX2": 1.0, "CRVAL1": 1.0, "CRVAL2": 1.0, "CDELT1": 40.0, "CDELT2": 40.0}
        )
        tables.append(table)
    fits.HDUList([fits.PrimaryHDU(), hdu, *tables]).writeto(tmp_path / "a.fits")
    return tmp_path / "a.fits"


def sky_of(path, name, x, y):
    with warnings.catch_warnings(), fits.open(path) as hdus:
        warnings.simplefilter("ignore")
        return np.array(WCS(hdus[name].header, hdus).all_pix2world(x, y, 1))


@pytest.mark.parametrize("f", SCALES)
def test_all_distortions_of_a_file_at_once(tmp_path, f):
    """SIP, CPDIS and D2IM: what is read back has the same sky, in the image and in its planes."""
    path = with_tables(tmp_path)
    frame = io.read(path)
    fine = np.ones((1, int(160 * f), int(200 * f)), "f4")
    high = frame.with_(pixels=fine, mask=fine == 0)
    io.write(tmp_path / "b.fits", high, planes={"ERR": fine}, scale=f)
    x, y = np.random.default_rng(0).uniform(5, 155, (2, 50))
    old = sky_of(path, "SCI", x, y)
    bare = np.array(WCS(celestial(**CD, **SIP)).all_pix2world(x, y, 1))
    assert np.abs(old - bare).max() * 3.6e6 > 1, "the tables do something"
    for name in ("SCI", "ERR"):
        new = sky_of(tmp_path / "b.fits", name, f * (x - 0.5) + 0.5, f * (y - 0.5) + 0.5)
        assert np.abs(old - new).max() * 3.6e6 < LIMIT_MAS


def test_groups_of_a_waivered_file(tmp_path):
    """A cube whose planes' coordinates stand in a table: reference pixels and matrices follow."""
    columns = [
        fits.Column(name, "D25.17", array=np.array(values), ascii=True)
        for name, values in {
            "CRVAL1": [10.0, 11.0, 12.0],
            "CRPIX1": [20.0, 30.0, 40.0],
            "CD1_1": [1e-5, 2e-5, 3e-5],
        }.items()
    ]
    table = fits.TableHDU.from_columns(columns, name="u2c0.tab")
    fits.HDUList([fits.PrimaryHDU(np.ones((3, 8, 10), "f4")), table]).writeto(tmp_path / "a.fits")
    frame = io.read(tmp_path / "a.fits")
    fine = np.ones((3, 16, 20), "f4")
    io.write(tmp_path / "b.fits", frame.with_(pixels=fine, mask=fine == 0), scale=2)
    with fits.open(tmp_path / "b.fits") as hdus:
        data = hdus[2].data
        np.testing.assert_allclose(data["CRPIX1"], [39.5, 59.5, 79.5], rtol=1e-15)
        np.testing.assert_allclose(data["CD1_1"], [5e-6, 1e-5, 1.5e-5], rtol=1e-15)
        np.testing.assert_array_equal(data["CRVAL1"], [10, 11, 12])
        hdus.verify("exception")


SECTIONS = {
    "DATASEC": ("[1:10,3:12]", {4: "[1:40,9:48]", 0.5: "[1:5,2:6]", 1: "[1:10,3:12]"}),
    "TRIMSEC": ("[ 10:1 , 1:8 ]", {4: "[40:1,1:32]", 0.5: "[5:1,1:4]", 1: "[10:1,1:8]"}),
    "BIASSEC": ("[2:11,1:8]", {4: "[5:44,1:32]", 0.5: None, 1: "[2:11,1:8]"}),
    "DATASECA": ("none", {4: None, 0.5: None, 1: None}),
    "CCDSEC": ("[101:110,3:12]", {4: None, 0.5: "[101:110,3:12]", 1: "[101:110,3:12]"}),
    "CCDSUM": ("1 1", {4: None, 0.5: "2 2", 1: "1 1"}),
}


@pytest.mark.parametrize("f", [4, 0.5, 1])
@pytest.mark.parametrize("key", SECTIONS)
def test_sections(key, f):
    """The same area in new pixels; what has no whole numbers there is dropped, and said."""
    header = fits.Header({name: text for name, (text, _) in SECTIONS.items()})
    new = wcs.rescale_header(header, f)
    wanted = SECTIONS[key][1][f]
    assert new.get(key) == wanted
    assert (wanted is None) == (f"{key}={SECTIONS[key][0]}" in "".join(new.get("HISTORY", [])).replace("\n", ""))


def test_pixel_cards():
    header = celestial(**CD, PIXSCALE=0.25, PIXAR_SR=1e-12, SATURATE=60000.0, EXPTIME=30.0, PHOTFLAM=1e-19, GAIN=2.0,
                       DATASEC="[1:10,1:10]", SEEING=1.1, CHECKSUM="abc")  # fmt: skip
    new = wcs.rescale_header(header, 4)
    assert (new["PIXSCALE"], new["PIXAR_SR"], new["SATURATE"]) == (0.0625, 1e-12 / 16, 3750.0)
    assert (new["EXPTIME"], new["PHOTFLAM"], new["GAIN"]) == (30.0, 1e-19, 2.0)
    assert not {"SEEING", "CHECKSUM"} & set(new)
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
    assert len(valid_header(header)) <= len(header)


# -- any header -------------------------------------------------------------------------------------------------------

NUMBERS = st.floats(-1e6, 1e6).map(lambda x: float(f"{x:.10g}"))
STEPS = st.floats(1e-7, 1e-3).flatmap(lambda x: st.sampled_from([x, -x]))


@st.composite
def headers(draw):
    """Coordinates in any of the forms, with distortions, alternates and physical coordinates."""
    form = draw(st.sampled_from(["cd", "cdelt", "pc", "crota"]))
    angle, step = draw(st.floats(-3.1, 3.1)), (draw(STEPS), draw(STEPS))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    header = celestial(CRPIX1=draw(st.floats(-500, 500)), CRPIX2=draw(st.floats(-500, 500)),
                       CRVAL1=draw(st.floats(0, 359)), CRVAL2=draw(st.floats(-80, 80)))  # fmt: skip
    places = [(i, j) for i in (0, 1) for j in (0, 1)]
    if form == "cd":
        header.update({f"CD{i + 1}_{j + 1}": float(turn[i, j] * step[i]) for i, j in places})
    else:
        header.update({"CDELT1": step[0], "CDELT2": step[1]})
    if form == "pc":
        header.update({f"PC{i + 1}_{j + 1}": float(turn[i, j]) for i, j in places})
    if form == "crota":
        header["CROTA2"] = float(np.degrees(angle))
    if draw(st.booleans()):
        order = draw(st.integers(2, 5))
        header.update({"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "A_ORDER": order, "B_ORDER": order})
        for axis in "AB":
            for p in range(order + 1):
                header[f"{axis}_{p}_{order - p}"] = draw(st.floats(-1, 1)) * 300.0 ** (1 - order) / 100
    if draw(st.booleans()):
        header.update({"LTV1": draw(NUMBERS), "LTV2": draw(NUMBERS), "LTM1_1": draw(st.floats(0.1, 10))})
    return header


@settings(max_examples=40, deadline=None)
@given(headers(), st.sampled_from([2, 3, 4, 0.5, 0.25]))
def test_any_coordinates_stay(header, f):
    """Positions on the sky, and physical ones to rounding."""
    assert worst_mas(header, f) < LIMIT_MAS
    new = wcs.rescale_header(header, f)
    if "LTV1" in header:
        physical = (117.25 - header["LTV1"]) / header["LTM1_1"]
        assert new["LTM1_1"] * physical + new["LTV1"] == pytest.approx(f * (117.25 - 0.5) + 0.5, abs=1e-6)  # of 1e6


TEXT = st.text(st.characters(codec="ascii", min_codepoint=32, max_codepoint=126), max_size=60)
KEYS = st.from_regex(r"[A-Z][A-Z0-9_-]{0,7}", fullmatch=True)
VALUES = st.one_of(TEXT, NUMBERS, st.booleans(), st.integers(-(10**9), 10**9))


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(KEYS, VALUES, max_size=20), st.sampled_from([2, 0.5]))
def test_any_cards_go_through_a_file(tmp_path_factory, cards, f):
    """Read, written and read by astropy: nothing crashes, and what is not about pixels or structure is as it was."""
    folder = tmp_path_factory.mktemp("any")
    about = re.compile(r"(NAXIS|SRD|XTEN|SIMPLE|BITPIX|EXT|END|BSCALE|BZERO|BLANK|[PG]COUNT|GROUPS|INHERIT|HISTORY"
                       r"|COMMENT|CONTINUE|HIERARCH|T[A-Z]+\d|Z|CHECKSUM|DATASUM).*")  # fmt: skip
    cards = {key: value for key, value in cards.items() if not about.fullmatch(key)}
    data = np.ones((8, 8), "f4")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(data, fits.Header(cards))]).writeto(folder / "a.fits")
        io.write(folder / "b.fits", io.read(folder / "a.fits"), scale=f)
    with fits.open(folder / "b.fits") as hdus:
        found = hdus["SCI"].header
        for key, value in cards.items():
            if not (wcs.STALE.fullmatch(key) or wcs._WCS.fullmatch(key) or key in MOVED or wcs.SECTIONS.fullmatch(key)):
                assert found[key] == (value.rstrip() if isinstance(value, str) else value)


MOVED = {*wcs.LENGTH_CARDS, *wcs.AREA_CARDS, *wcs.SATURATION_CARDS, "CNPIX1", "CNPIX2", "CCDSUM"}


# ------------------------------------------------------------------ cards that stand more than once

PC = {"CDELT1": -1e-4, "CDELT2": 1e-4, "PC1_1": 0.8, "PC1_2": -0.6, "PC2_1": 0.6, "PC2_2": 0.8}
REPEATED = {
    "crpix": (CD, {"CRPIX1": 60.0, "CRPIX2": 44.0}),
    "solution": (CD, {"CRPIX1": 60.0, "CRVAL1": 150.2, "CD1_1": -8e-6, "CD1_2": 1e-6, "CD2_1": 1e-6, "CD2_2": 8e-6}),
    "cdelt": ({"CDELT1": -1e-4, "CDELT2": 1e-4, "CROTA2": 10.0}, {"CDELT1": -2e-4, "CDELT2": 2e-4, "CROTA2": 20.0}),
    "pc_then_cd": (PC, CD),
    "cd_then_pc": (CD, PC),
    "sip": ({**CD, **SIP}, {"A_2_0": 3e-5, "B_0_2": -4e-5, "A_0_3": 5e-8}),
    "alternate": ({**CD, "CTYPE1A": "GLON-TAN", "CTYPE2A": "GLAT-TAN", "CRPIX1A": 10.0, "CDELT1A": -2e-4,
                   "CDELT2A": 2e-4}, {"CRPIX1A": 12.0}),
}  # fmt: skip


def twice(name):
    first, second = REPEATED[name]
    header = celestial(**first)
    for key, value in second.items():
        header.append((key, value), end=True)
    return header


@pytest.mark.parametrize("f", SCALES)
@pytest.mark.parametrize("name", REPEATED)
def test_repeated_cards_keep_the_sky_and_are_warned_of(name, f):
    header = twice(name)
    assert worst_mas(header, f) < LIMIT_MAS
    if name == "alternate":
        assert worst_mas(header, f, key="A") < LIMIT_MAS
    (line,) = wcs.warn_repeated(header).warnings
    assert line.startswith("WARNING wcs:") and any(key in line for key in (*REPEATED[name][1], "CD1_1"))


@pytest.mark.parametrize("name", REPEATED)
def test_every_one_of_repeated_cards_is_rescaled(name):
    """Programs that take the first card find the sky where it was, as those do that take the last."""
    header = twice(name)
    new = wcs.rescale_header(header, 2)
    for key in {k for k in header if header.count(k) > 1 and k in REPEATED[name][1] and "CROTA" not in k}:
        if key.startswith("CRVAL"):
            continue
        assert len({header[key, i] / new[key, i] for i in range(2)}) == 1 or key.startswith("CRPIX")
        assert all(new[key, i] != header[key, i] for i in range(2))


def test_cards_that_say_the_same_twice_are_no_reason_to_warn():
    header = celestial(**CD)
    header.append(("CRPIX1", header["CRPIX1"]), end=True)
    agreeing = celestial(**CD, CDELT1=1.0, CDELT2=1.0, **{key.replace("CD", "PC"): x for key, x in CD.items()})
    for sound in (header, agreeing, *HEADERS.values()):
        assert not wcs.warn_repeated(sound)


def test_a_repeated_card_that_is_read_is_warned_of():
    header = celestial(**CD, GAIN=2.0)
    header.append(("GAIN", 4.0), end=True)
    assert "GAIN" in wcs.warn_repeated(header, ("GAIN",)).lines[0] and not wcs.warn_repeated(header)


def test_the_pixel_size_of_the_sun(tmp_path):
    cards = {"CTYPE1": "HPLN-TAN", "CTYPE2": "HPLT-TAN", "CUNIT1": "arcsec", "CUNIT2": "arcsec", "CDELT1": 0.6,
             "CDELT2": 0.5, "CRVAL1": 0.0, "CRVAL2": 0.0}  # fmt: skip
    size = wcs.pixel_size(celestial(**cards))
    assert size is not None and (size.x, size.y) == pytest.approx((0.6, 0.5))

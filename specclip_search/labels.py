"""Stellar labels: spellings used by surveys, our names, units and descriptions."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Label:
    """A quantity that is recognised by name."""

    name: str
    unit: str
    description: str
    ucd: str
    spellings: tuple[str, ...] = ()


KEYS = (
    Label(
        "source_id",
        "",
        "Gaia source_id of the star",
        "meta.id;meta.main",
        (
            "gaia_source_id",
            "gaiaedr3_source_id",
            "gaiadr3_source_id",
            "gaia_dr3_source_id",
            "gaia_edr3_source_id",
            "dr3_source_id",
            "edr3_source_id",
            "gaia_dr3",
            "gaiadr3",
            "gaia_id",
            "dr3name",
            "edr3name",
            "gaia_dr3_id",
            "gaia_edr3_id",
            "gaia_dr3_source",
            "gaia_source",
            "sourceid",
            "gaiadr3id",
            "gaiadr4_source_id",
            "gaia_dr4_source_id",
            "dr4_source_id",
            "gaia_dr4",
            "gaiadr4",
            "dr4name",
            "gaia_dr4_id",
            "gaia_dr4_source",
            "gaiadr4id",
        ),
    ),
    Label("obsid", "", "LAMOST obsid of the spectrum", "meta.id", ("obs_id", "lamost_obsid")),
)

POSITION = (
    Label(
        "ra",
        "deg",
        "right ascension",
        "pos.eq.ra;meta.main",
        ("raj2000", "ra_icrs", "ra_deg", "ra_j2000", "radeg", "raicrs", "gaia_ra", "right_ascension", "alpha_j2000"),
    ),
    Label(
        "dec",
        "deg",
        "declination",
        "pos.eq.dec;meta.main",
        ("dej2000", "de_icrs", "dec_deg", "dec_j2000", "decj2000", "dedeg", "decdeg", "deicrs", "dec_icrs", "gaia_dec",
         "declination", "delta_j2000", "de"),
    ),
)

# alpha_m is [alpha/M], not [alpha/Fe]: the two differ where [M/H] and [Fe/H] do, so it keeps its own name
LABELS = (
    Label("teff", "K", "effective temperature", "phys.temperature.effective", ("t_eff", "teff_k")),
    Label("logg", "dex", "log10 of surface gravity in cm s-2", "phys.gravity", ("log_g", "logg_cgs")),
    Label("feh", "dex", "[Fe/H], iron abundance against the Sun's", "phys.abund.Fe",
          ("fe_h", "fe_h_ratio", "fe_h_dex")),
    Label("alpha_m", "dex", "[alpha/M], alpha elements against all metals", "phys.abund", ()),
    Label("alpha_fe", "dex", "[alpha/Fe], alpha elements against iron", "phys.abund", ("afe", "alphafe", "a_fe")),
    Label("c_fe", "dex", "[C/Fe], carbon against iron", "phys.abund", ("cfe", "c_fe_dex")),
    Label("n_fe", "dex", "[N/Fe], nitrogen against iron", "phys.abund", ("nfe",)),
    Label("mg_fe", "dex", "[Mg/Fe], magnesium against iron", "phys.abund", ("mgfe",)),
    Label(
        "rv",
        "km s-1",
        "heliocentric radial velocity",
        "spect.dopplerVeloc.opt",
        ("radial_velocity", "vhelio_avg", "vrad"),
    ),
    Label("ebv", "mag", "colour excess E(B-V)", "phot.color.excess", ("e_bv", "e_b_v")),
    Label(
        "phot_g_mean_mag",
        "mag",
        "Gaia G magnitude",
        "phot.mag;em.opt",
        ("gaiaedr3_phot_g_mean_mag", "gaia_g_mean_mag", "gmag", "gaia_g"),
    ),
    Label(
        "phot_bp_mean_mag",
        "mag",
        "Gaia BP magnitude",
        "phot.mag;em.opt.B",
        ("gaiaedr3_phot_bp_mean_mag", "gaia_bp_mean_mag", "bpmag"),
    ),
    Label(
        "phot_rp_mean_mag",
        "mag",
        "Gaia RP magnitude",
        "phot.mag;em.opt.R",
        ("gaiaedr3_phot_rp_mean_mag", "gaia_rp_mean_mag", "rpmag"),
    ),
    Label("parallax", "mas", "parallax", "pos.parallax.trig", ("plx", "gaia_parallax")),
    Label("pmra", "mas yr-1", "proper motion in right ascension, times cos(dec)", "pos.pm;pos.eq.ra", ("gaia_pmra",)),
    Label("pmdec", "mas yr-1", "proper motion in declination", "pos.pm;pos.eq.dec", ("gaia_pmdec", "pmde")),
)

_ERROR_FORMS = ("{0}_err", "{0}_error", "e_{0}", "{0}err", "{0}_e", "err_{0}")


def error_label(label: Label) -> Label:
    """The 1 sigma error of `label`, named `<name>_err`."""
    forms = tuple(form.format(name) for name in (label.name, *label.spellings) for form in _ERROR_FORMS)
    return Label(
        f"{label.name}_err",
        label.unit,
        f"1 sigma error of {label.name}",
        f"stat.error;{label.ucd}",
        tuple(form for form in forms if form != f"{label.name}_err"),
    )


ERRORS = tuple(error_label(label) for label in LABELS)
KNOWN: dict[str, Label] = {label.name: label for label in (*KEYS, *POSITION, *LABELS, *ERRORS)}
STANDARD_NAME: dict[str, str] = {form: label.name for label in KNOWN.values() for form in label.spellings}
KEY_NAMES = tuple(label.name for label in KEYS)
#: ids of one star in several releases, as cross-walk tables have them; none of them is `source_id` then
WALK_NAMES = ("dr2_source_id", "dr3_source_id", "dr4_source_id")
LABEL_NAMES = tuple(label.name for label in (*LABELS, *ERRORS))
ERROR_NAMES = frozenset(label.name for label in ERRORS)
# least and largest value that a star can have, in the label's unit; wide on purpose: beyond lies a code or an error
RANGES: dict[str, tuple[float, float]] = {
    "ra": (-180.0, 360.0), "dec": (-90.0, 90.0), "teff": (500.0, 400_000.0), "logg": (-2.0, 10.0),
    "feh": (-9.0, 3.0), "alpha_m": (-3.0, 3.0), "alpha_fe": (-3.0, 3.0), "c_fe": (-4.0, 6.0), "n_fe": (-4.0, 6.0),
    "mg_fe": (-4.0, 4.0), "rv": (-3000.0, 3000.0), "ebv": (-2.0, 60.0), "phot_g_mean_mag": (-3.0, 35.0),
    "phot_bp_mean_mag": (-3.0, 35.0), "phot_rp_mean_mag": (-3.0, 35.0), "parallax": (-90.0, 900.0),
    "pmra": (-15_000.0, 15_000.0), "pmdec": (-15_000.0, 15_000.0),
}

# names that mean an id in some catalogues and words in others: taken as ids only where the values are ids
MAYBE_SOURCE_ID = ("source", "gaia", "designation", "gaia_designation", "gaia_name", "id_gaia")


def plain_name(name: str) -> str:
    """`name` in lower case, with underscores for all that is neither letter nor digit.

    >>> plain_name("[Fe/H] (dex)"), plain_name("RA_ICRS")
    ('fe_h_dex', 'ra_icrs')
    """
    return re.sub(r"[^0-9a-z]+", "_", name.strip().lower()).strip("_")


def split_unit(name: str) -> tuple[str, str]:
    """A column's name, and the unit that stands in brackets behind it.

    >>> split_unit("Teff (K)"), split_unit("[Fe/H] (dex)"), split_unit("[Fe/H]"), split_unit("ra [deg]")
    (('Teff', 'K'), ('[Fe/H]', 'dex'), ('[Fe/H]', ''), ('ra', 'deg'))
    """
    found = re.fullmatch(r"\s*(.*\S)\s*(?:\(([^()]*)\)|(?<=\s)\[([^\[\]]*)\])\s*", name)
    if found is None:
        return name.strip(), ""
    return found[1], (found[2] or found[3] or "").strip()


def standard_name(name: str) -> str:
    """Our name of a column in any survey's spelling, or its plain name where we know none."""
    for candidate in (name, split_unit(name)[0]):
        plain = plain_name(candidate)
        if plain in KNOWN or plain in STANDARD_NAME:
            return STANDARD_NAME.get(plain, plain)
    return plain_name(name)

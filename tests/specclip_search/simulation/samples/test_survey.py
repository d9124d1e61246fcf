"""A simulated survey: same seed same bytes, honest accounts, true truth."""

import numpy as np
import pyarrow as pa
import pytest

from specclip_search import GAIA_XP, Atlas
from specclip_search.atlas.arrays import column_to_matrix, table_from_columns
from specclip_search.atlas.schemas import spectra_schema
from specclip_search.catalogs.ingest import ingest_catalog_table
from specclip_search.cli.main import run
from specclip_search.errors import AtlasError, QueryError
from specclip_search.keys import split_of
from specclip_search.simulation.samples import spectra as survey_spectra
from specclip_search.simulation.samples import survey as module
from specclip_search.simulation.samples.metal_poor import FIRST_SIMULATED_ID
from specclip_search.simulation.samples.oddities import ODDITIES, changed_light, spoil
from specclip_search.simulation.samples.pairs import read_labels
from specclip_search.simulation.samples.population import draw_population
from specclip_search.simulation.samples.rates import Rates, rates_from_words
from specclip_search.simulation.samples.spectra import XpNoise
from specclip_search.simulation.samples.survey import _bases, simulate_survey
from specclip_search.simulation.spectra.emulator import Emulator
from specclip_search.simulation.spectra.gaia_xp import model_xp
from specclip_search.simulation.spectra.labels import SimulationError
from specclip_search.simulation.spectra.spectrograph import WAVELENGTH, observe_lrs
from specclip_search.surveys import get_modality

COUNT = 60
IDS = np.arange(COUNT, dtype=np.int64) * 640 + 2**60 + 128 * (np.arange(COUNT) % 10)
G_MAG = np.linspace(11.0, 15.0, COUNT)
CLEAN = Rates(emp=0.1, odd={})
MIXED = Rates(emp=0.1, odd=dict.fromkeys(ODDITIES, 0.05))


@pytest.fixture
def atlas(tmp_path) -> Atlas:
    """Sixty real-looking stars whose relative error doubles every magnitude."""
    return make_atlas(tmp_path / "atlas")


def make_atlas(path) -> Atlas:
    labels = np.column_stack(
        [np.linspace(4700, 6400, COUNT), np.full(COUNT, 4.4), np.linspace(-2.2, 0.2, COUNT)[::-1],
         np.full(COUNT, 0.2), np.zeros(COUNT)]
    )  # fmt: skip
    flux = model_xp(Emulator.load(), labels)
    flux = flux / flux[:, 107:108]
    columns = {name: [None] * COUNT for name in spectra_schema(get_modality("gaia_xp").columns, 343).names}
    columns |= {
        "spec_id": IDS, "source_id": IDS, "release": ["dr3"] * COUNT, "simulated": [False] * COUNT,
        "flux": flux, "error": flux * 0.002 * 2.0 ** (G_MAG - 11.0)[:, None],
    }  # fmt: skip
    atlas = Atlas.create(path)
    table = table_from_columns(columns, spectra_schema(get_modality("gaia_xp").columns, 343))
    with atlas.spectra("gaia_xp").lock():
        atlas.spectra("gaia_xp").write(0, table, schema=table.schema, inputs="real")
    names = ("teff", "logg", "feh", "alpha_fe", "c_fe")
    catalogue = {"source_id": IDS, "phot_g_mean_mag": G_MAG} | dict(zip(names, labels.T, strict=True))
    ingest_catalog_table(atlas, "apogee", pa.table({k: pa.array(v) for k, v in catalogue.items()}))
    return atlas


def digests(atlas: Atlas) -> list[str]:
    stages = [atlas.spectra("gaia_xp"), atlas.spectra("lamost_lrs"), atlas.catalog("truth"), atlas.catalog("truth_lrs")]
    return [stage.digest for stage in stages]


def test_same_seed_same_bytes_also_when_cut_short(atlas, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SHARD_STARS", 16)
    first = simulate_survey(atlas, 40, seed=3, rates=MIXED)
    assert first.shards_written == 6
    whole = digests(atlas)
    again = make_atlas(tmp_path / "again")
    with monkeypatch.context() as patch:
        calls = []

        def stop(done, total, note):
            calls.append(done)
            raise KeyboardInterrupt

        patch.setattr(module, "SHARD_STARS", 16)
        with pytest.raises(KeyboardInterrupt):
            simulate_survey(again, 40, seed=3, rates=MIXED, progress=stop)
    report = simulate_survey(again, 40, seed=3, rates=MIXED)
    assert (report.shards_written, report.shards_current) == (5, 1)
    assert digests(again) == whole
    simulate_survey(again, 40, seed=4, rates=MIXED)
    assert digests(again)[:2] != whole[:2]


def test_a_smaller_survey_leaves_nothing_of_a_larger_one(atlas, monkeypatch):
    monkeypatch.setattr(module, "SHARD_STARS", 16)
    simulate_survey(atlas, 40, seed=3, rates=CLEAN)
    simulate_survey(atlas, 20, seed=3, rates=CLEAN)
    assert atlas.spectra("gaia_xp").rows == COUNT + 20
    assert atlas.catalog("truth").rows == 20


def test_ids_splits_visits_and_accounts(atlas):
    report = simulate_survey(atlas, 50, seed=1, rates=MIXED)
    truth, visits = atlas.catalog("truth").read(), atlas.catalog("truth_lrs").read()
    star = truth["source_id"].to_numpy()
    assert report.read == report.kept + sum(report.rejected.values()) == 50 + visits.num_rows
    assert star.dtype == np.int64
    assert star.min() >= FIRST_SIMULATED_ID
    np.testing.assert_array_equal(split_of(star), split_of(truth["base_source_id"].to_numpy()))
    assert len(np.unique(visits["obsid"].to_numpy())) == visits.num_rows == truth["visits"].to_numpy().sum()
    lrs = atlas.spectra("lamost_lrs").read(["spec_id", "source_id", "simulated", "release", "snr", "z"])
    assert lrs["simulated"].to_numpy(zero_copy_only=False).all()
    assert set(lrs["release"].to_pylist()) == {"simulated"}
    assert set(lrs["spec_id"].to_pylist()) <= set(visits["obsid"].to_pylist())
    wanted = dict(zip(visits["obsid"].to_pylist(), visits["true_snrg"].to_pylist(), strict=True))
    odd = dict(zip(visits["obsid"].to_pylist(), visits["oddity_seen"].to_pylist(), strict=True))
    ratio = [s / wanted[i] for i, s in zip(lrs["spec_id"].to_pylist(), lrs["snr"].to_pylist(), strict=True)
             if not odd[i]]  # fmt: skip
    assert np.median(ratio) == pytest.approx(1.0, abs=0.05)


def test_no_search_takes_the_truth_for_a_label(atlas):
    simulate_survey(atlas, 20, seed=1, rates=CLEAN)
    assert atlas.sql(f"SELECT count(feh) FROM stars WHERE source_id >= {FIRST_SIMULATED_ID}").fetchall() == [(0,)]


def test_a_star_is_the_same_in_any_company(atlas):
    emulator = Emulator.load()
    bases, _ = _bases(atlas, emulator, read_labels(atlas.catalog("apogee")))
    many = draw_population(emulator, bases, np.arange(200), 5, MIXED)
    one = draw_population(emulator, bases, np.array([137]), 5, MIXED)
    for name in many.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(many, name)[137:138], getattr(one, name))
    assert emulator.covers(many.labels).all()
    assert (np.diff(bases.labels[:, 2]) >= 0).all()


def test_rates_are_kept(atlas):
    emulator = Emulator.load()
    bases, _ = _bases(atlas, emulator, read_labels(atlas.catalog("apogee")))
    stars = draw_population(emulator, bases, np.arange(4000), 2, Rates(emp=0.05, odd={"emission": 0.1}))
    assert np.mean(stars.kind == 3) == pytest.approx(0.05, abs=0.012)
    assert np.mean(stars.oddity == "emission") == pytest.approx(0.1, abs=0.016)
    assert set(stars.oddity) == {"", "emission"}
    assert stars.labels[stars.kind != 3, 2].min() > -3.0


def test_noise_grows_with_magnitude_as_in_the_real_errors(atlas):
    bases, _ = _bases(atlas, Emulator.load(), read_labels(atlas.catalog("apogee")))
    np.testing.assert_allclose(XpNoise.measure(bases).slope, np.log(2.0), atol=0.02)
    simulate_survey(atlas, 50, seed=1, rates=CLEAN)
    truth = atlas.catalog("truth").read()
    xp = atlas.spectra("gaia_xp").read(["source_id", "simulated", "flux", "error"])
    xp = xp.filter(xp["simulated"])
    np.testing.assert_array_equal(xp["source_id"].to_numpy(), truth["source_id"].to_numpy())
    relative = np.median(column_to_matrix(xp["error"]).astype(float) / column_to_matrix(xp["flux"]), axis=1)
    expected = 0.002 * 2.0 ** (truth["phot_g_mean_mag"].to_numpy() - 11.0)
    np.testing.assert_allclose(relative, expected, rtol=0.15)


@pytest.mark.parametrize("name", [n for n, kind in ODDITIES.items() if kind == "astrophysical"])
def test_light_changes_where_it_should(name):
    emulator = Emulator.load()
    wavelength = emulator.wavelength
    flux = emulator.lrs(np.array([[5500.0, 4.4, -0.5, 0.2, 0.0]]))[0]
    changed = changed_light(name, wavelength, flux, np.full(4, 0.5), 0.0)
    assert np.isfinite(changed).all()
    assert (changed > 0).all()
    if name == "carbon_enhanced":  # its labels are what is odd
        assert changed is flux
        return
    ratio = changed / flux

    def at(place):
        return float(ratio[np.argmin(np.abs(wavelength - place))])

    if name == "emission":
        assert at(6564.6) > 1.5 > 1.05 > at(5500.0) > 0.99
        width = np.trapezoid(ratio - 1.0, wavelength)
        binned = changed_light(name, emulator.sed_wavelength, np.ones(710), np.full(4, 0.5), 10.0)
        assert np.trapezoid(binned - 1.0, emulator.sed_wavelength) == pytest.approx(width, rel=0.02)
    elif name == "s_process":
        assert at(4555.3) < 0.8 < 0.99 < at(4700.0)
    elif name == "strong_alpha":
        assert at(5174.1) < 0.8 < 0.99 < at(5400.0)
    elif name == "carbon_star":
        assert at(5160.0) < 0.6
    else:
        assert np.std(ratio) > 0.01


@pytest.mark.parametrize("name", [n for n, kind in ODDITIES.items() if kind == "instrumental"])
def test_faults_spoil_flux_and_leave_its_stated_noise(name):
    flux = Emulator.load().lrs(np.array([[5500.0, 4.4, -0.5, 0.2, 0.0]]))
    raw = observe_lrs(flux, np.array([60.0]), np.zeros(1), np.array([7]), seed=1)
    before, ivar = raw.flux.copy(), raw.ivar.copy()
    spoil(name, raw, 0, np.random.default_rng(3))
    np.testing.assert_array_equal(raw.ivar, ivar)
    assert np.isfinite(raw.flux).all()
    changed = raw.flux != before
    assert changed.any()
    if name == "bad_join":
        assert not changed[0, WAVELENGTH < 5900.0].any()


def test_a_wrong_match_is_another_stars_spectrum(atlas, tmp_path):
    simulate_survey(atlas, 30, seed=1, rates=CLEAN)
    other = make_atlas(tmp_path / "other")
    simulate_survey(other, 30, seed=1, rates=Rates(emp=0.1, odd={"wrong_match": 1.0}))
    right, wrong = ([a.spectra(m).read(["spec_id", "flux"]) for m in ("gaia_xp", "lamost_lrs")] for a in (atlas, other))
    assert right[0].equals(wrong[0])
    np.testing.assert_array_equal(right[1]["spec_id"].to_numpy(), wrong[1]["spec_id"].to_numpy())
    apart = np.abs(column_to_matrix(right[1]["flux"]) - column_to_matrix(wrong[1]["flux"])).mean(axis=1)
    visit = right[1]["spec_id"].to_numpy() % 128
    assert (apart[visit > 0] == 0).all()
    assert (apart[visit == 0] > 0).all()


def test_a_star_of_another_kind_has_no_labels(atlas):
    simulate_survey(atlas, 40, seed=1, rates=Rates(emp=0.1, odd={"hot_subdwarf": 0.5}))
    truth = atlas.catalog("truth").read()
    odd = np.array([word == "hot_subdwarf" for word in truth["oddity"].to_pylist()])
    assert 5 < odd.sum() < 35
    for name in ("true_teff", "true_feh"):
        np.testing.assert_array_equal(~truth[name].is_valid().to_numpy(), odd)


def test_bad_requests(atlas):
    with pytest.raises(SimulationError, match="at least one star; found 0"):
        simulate_survey(atlas, 0)
    with pytest.raises(SimulationError, match="found ufo"):
        simulate_survey(atlas, 5, rates=Rates(odd={"ufo": 0.1}))
    with pytest.raises(SimulationError, match="between 0 and 1"):
        simulate_survey(atlas, 5, rates=Rates(odd={"emission": 1.5}))
    ingest_catalog_table(atlas, "truth", pa.table({"source_id": pa.array(IDS), "feh": pa.array(np.zeros(COUNT))}))
    with pytest.raises(AtlasError, match="'truth' must be a simulated survey's"):
        simulate_survey(atlas, 5)


def test_rates_from_words():
    rates = rates_from_words(["emission=0.01", "wrong-match=0"], emp=0.05, every=0.003)
    assert rates.emp == 0.05
    assert (rates.odd["emission"], rates.odd["wrong_match"], rates.odd["carbon_star"]) == (0.01, 0.0, 0.003)
    assert set(rates.odd) == set(ODDITIES)
    for words, match in ((["ufo=0.1"], "Classes are carbon_enhanced, .* found ufo"),
                         (["emission"], "CLASS=FRACTION .* found 'emission'"),
                         (["emission=nan"], "found 'emission=nan'"),
                         (["emission=0.1", "emission=0.2"], "found emission twice"),
                         (["emission=0.6", "saturated=0.6"], "at most 1 in total")):  # fmt: skip
        with pytest.raises(SimulationError, match=match):
            rates_from_words(words)


def test_spectra_set_aside_are_listed(atlas, monkeypatch):
    monkeypatch.setattr(module, "SHARD_STARS", 16)
    make = survey_spectra.xp_spectra

    def broken(*words):
        spectra = make(*words)
        spectra[3].flux[:] = np.nan
        return spectra

    monkeypatch.setattr(module, "xp_spectra", broken)
    report = simulate_survey(atlas, 40, seed=3, rates=CLEAN)
    listed = atlas.rejected("gaia_xp").read()
    assert report.rejected.total() == listed.num_rows == 3
    assert set(listed["reason"].to_pylist()) == set(report.rejected)
    stars = atlas.catalog("truth").read()["source_id"].to_numpy()
    assert listed["spec_id"].to_pylist() == stars[[3, 19, 35]].tolist()
    monkeypatch.setattr(module, "xp_spectra", make)
    simulate_survey(atlas, 30, seed=3, rates=CLEAN)
    assert atlas.rejected("gaia_xp").rows == 0


def test_too_few_real_stars(tmp_path):
    atlas = make_atlas(tmp_path / "few")
    ids = pa.array(IDS[:5])
    few = pa.table({"source_id": ids} | {n: pa.array(np.full(5, v)) for n, v in
                                         (("teff", 5500.0), ("logg", 4.4), ("feh", -0.5))})  # fmt: skip
    ingest_catalog_table(atlas, "few", few)
    with pytest.raises(SimulationError, match="this atlas has 5"):
        simulate_survey(atlas, 5, catalogue="few")


def test_from_simulation_to_evaluation_on_the_command_line(atlas, capsys):
    where = ["--atlas", str(atlas.path)]
    assert GAIA_XP.name in atlas.modalities()
    from specclip_search.queries.evaluation.evaluate import evaluate

    with pytest.raises(QueryError, match="'truth' of a simulated survey"):
        evaluate(atlas)
    for words in (
        ["simulate", "--stars", "300", "--seed", "2", "--emp-rate", "0.05", "--odd-rate", "0.02",
         "--rate", "emission=0.05"],
        ["embed"], ["estimate"], ["translate"], ["index", "build", "--recipe", "flat"],
        ["evaluate", "--format", "json"],
    ):  # fmt: skip
        with pytest.raises(SystemExit) as stop:
            run([*words, *where])
        answer = capsys.readouterr()
        # a model need not have estimators
        assert stop.value.code in ((0, 2) if words == ["estimate"] else (0,)), answer.err
    import json

    rows = json.loads(answer.out)
    rows = rows["rows"] if isinstance(rows, dict) else rows
    found = {(row["metric"], row["class"]): row for row in rows}
    chance = 10 / 300
    assert found["retrieval LRS to XP, R@10", "all"]["low"] > 2 * chance
    if atlas.estimates("gaia_xp").exists:  # where the model that ships has estimators
        assert found["XP estimate of teff off by [K]", "all"]["value"] < 500
        assert found["LRS rv within stated error", "all"]["n"] > 200
    for row in rows:
        if row["value"] is not None and row["low"] is not None and row["n"]:
            assert row["low"] <= row["value"] + 1e-9 or "precision" in row["metric"]

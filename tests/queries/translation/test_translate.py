"""Translation errors against their formulas; accounts, resuming and staleness."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from specclip_search.errors import AtlasError, QueryError
from specclip_search.queries.space.windows import WindowSet, window_means
from specclip_search.queries.translation import translate as translate_module
from specclip_search.queries.translation.learned_errors import load_errors
from specclip_search.queries.translation.model_error import learn_model_error, measure
from specclip_search.queries.translation.translate import translate
from specclip_search.surveys import GAIA_XP, LAMOST_LRS

LRS, XP = "lamost_lrs", "gaia_xp"


def test_errors_equal_their_formulas(searched: Any) -> None:
    table = searched.atlas.translations("toy").read().to_pandas()
    learned = load_errors(searched.atlas.translations("toy").folder)
    flux = {m: np.stack(searched.atlas.spectra(m).read(["flux"])["flux"].to_numpy()).astype(float) for m in (LRS, XP)}
    noise = np.stack(searched.atlas.spectra(LRS).read(["error"])["error"].to_numpy()).astype(float)
    for i in (0, 5, 700):
        # shards are written in order, and the toy's rows are paired one to one
        residual = flux[LRS][i] - searched.model.translate(XP, flux[XP][[i]])[0]
        cell = learned.to_lrs.cells(table.xp_color.to_numpy()[[i]], table.xp_snr.to_numpy()[[i]])[0]
        variance = noise[i] ** 2 + learned.to_lrs.sigma[cell].astype(float) ** 2
        assert table.lrs_l1[i] == pytest.approx(np.abs(residual).mean(), rel=1e-4)
        assert table.lrs_mse[i] == pytest.approx((residual**2).mean(), rel=1e-4)
        assert table.lrs_chi2[i] == pytest.approx(
            ((residual - learned.to_lrs.bias[cell]) ** 2 / variance).mean(), rel=1e-4
        )


def test_clean_pairs_have_chi2_of_one_and_windows_of_one_sigma(searched: Any) -> None:
    table = searched.atlas.translations("toy").read().to_pandas()
    odd = np.concatenate(list(searched.planted.values()))
    clean = ~np.isin(table.lrs_spec_id, searched.obsid[odd])
    for side in ("lrs", "xp"):
        assert np.median(table[f"{side}_chi2"][clean]) == pytest.approx(1.0, abs=0.15)
        windows = np.stack(table[f"{side}_window_sigma"][clean])
        assert np.isfinite(windows).all()
        spread = 1.4826 * np.median(np.abs(windows - np.median(windows, axis=0)), axis=0)
        assert (spread > 0.75).all()
        assert (spread < 1.35).all()
        assert np.abs(np.median(windows, axis=0)).max() < 0.3


def test_sign_and_window_of_planted_emission(searched: Any) -> None:
    table = searched.atlas.translations("toy").read()
    names = table.schema.field("lrs_window_sigma").metadata[b"windows"].decode().split(", ")
    hbeta = np.stack(table["lrs_window_sigma"].to_numpy())[:, names.index("Hbeta")]
    emission = np.isin(table["lrs_spec_id"], searched.obsid[searched.planted["emission"]])
    assert hbeta[emission].min() > 8
    assert np.median(np.abs(hbeta[~emission])) < 1


def test_columns_tell_unit_and_windows(searched: Any) -> None:
    schema = searched.atlas.translations("toy").read().schema
    assert schema.field("lrs_l1").metadata[b"unit"] == b"continuum-normalised flux"
    assert schema.field("xp_l1").metadata[b"unit"] == b"flux over flux at 550 nm"
    for side, modality in (("lrs", LAMOST_LRS), ("xp", GAIA_XP)):
        field = schema.field(f"{side}_window_sigma")
        assert field.type.list_size == len(modality.windows)
        assert field.metadata[b"windows"].decode().split(", ") == [window.name for window in modality.windows]


def test_accounts_add_up_and_a_second_run_does_nothing(
    survey_maker: Callable[..., Any], add_spectra: Callable[..., None]
) -> None:
    survey = survey_maker(stars=400)
    size = LAMOST_LRS.size
    unknown, lonely = np.array([-1, -1]), np.array([42, 43, 44])
    for number, source in ((3, unknown), (4, lonely)):
        ids = 900_000 + 10 * number + np.arange(len(source))
        add_spectra(
            survey.atlas,
            LRS,
            ids,
            source,
            np.ones((len(source), size)),
            np.full((len(source), size), 0.02),
            np.full(len(source), 50.0),
            first=number,
        )
    first = translate(survey.atlas, survey.model)
    assert (first.read, first.paired, first.without_star, first.without_partner, first.rejected) == (405, 400, 2, 3, 0)
    assert first.read == first.paired + first.without_star + first.without_partner + first.rejected
    assert survey.atlas.translations("toy").rows == 400
    survey.model.calls.clear()
    second = translate(survey.atlas, survey.model)
    assert (second.shards_written, second.shards_current) == (0, 5)
    assert survey.model.calls == []


def test_only_what_changed_is_done_again(survey_maker: Callable[..., Any], add_spectra: Callable[..., None]) -> None:
    survey = survey_maker(stars=240)
    translate(survey.atlas, survey.model)
    table = survey.atlas.spectra(LRS).read(["flux"])
    flux = np.stack(table["flux"].to_numpy())[:80] * 1.01
    add_spectra(
        survey.atlas,
        LRS,
        survey.obsid[:80],
        survey.source_id[:80],
        flux,
        np.full_like(flux, 0.02),
        np.full(80, 50.0),
    )
    report = translate(survey.atlas, survey.model)
    assert (report.shards_written, report.shards_current) == (1, 2)
    survey.atlas.spectra(LRS).remove(2)
    report = translate(survey.atlas, survey.model)
    assert (report.shards_removed, report.shards_written) == (1, 0)
    survey.model.digest = "sha256:other"
    assert translate(survey.atlas, survey.model).shards_written == 2


def test_windows_without_information_and_masked_pixels_do_not_count() -> None:
    windows = WindowSet.of(LAMOST_LRS)
    rng = np.random.default_rng(0)
    noise = np.full((500, LAMOST_LRS.size), 0.02)
    residual = noise * rng.normal(size=noise.shape)
    hbeta = windows.names.index("Hbeta")
    noise[0, windows.members[hbeta]] = np.inf
    residual[0, windows.members[hbeta]] = 99.0
    mean, variance = window_means(residual, noise, np.zeros(LAMOST_LRS.size), windows.members)
    assert np.isnan(mean[0, hbeta])
    assert np.isinf(variance[0, hbeta])
    error = learn_model_error(residual, noise, np.zeros(500), np.full(500, 30.0), windows)
    result = measure(residual, noise, np.zeros_like(residual), error, np.zeros(500, int), windows)
    assert result.window_sigma[0, hbeta] == 0
    assert result.pixels[0] == LAMOST_LRS.size - windows.members[hbeta].sum()
    assert result.chi2[0] == pytest.approx(1.0, abs=0.2)


def test_model_error_is_found_beside_the_noise() -> None:
    windows = WindowSet.of(GAIA_XP)
    rng = np.random.default_rng(1)
    n, size = 4000, GAIA_XP.size
    noise = np.full((n, size), 0.02)
    truth = np.linspace(0.005, 0.05, size)
    # errors of neighbouring pixels move together: one number a star and window
    shared = rng.normal(size=(n, 1)) * truth
    residual = 0.01 + shared + noise * rng.normal(size=(n, size))
    residual[:200] += 1.0
    error = learn_model_error(residual, noise, np.zeros(n), np.zeros(n), windows)
    np.testing.assert_allclose(error.sigma[0, 30:], truth[30:], rtol=0.45)
    np.testing.assert_allclose(error.bias[0], 0.01, atol=0.01)
    result = measure(residual, noise, np.zeros_like(residual), error, np.zeros(n, int), windows)
    spread = 1.4826 * np.median(np.abs(result.window_sigma[200:]), axis=0)
    np.testing.assert_allclose(spread, 1.0, atol=0.15)


def test_no_common_star_is_said(survey_maker: Callable[..., Any], add_spectra: Callable[..., None]) -> None:
    survey = survey_maker(stars=30, shards=1)
    size = LAMOST_LRS.size
    add_spectra(survey.atlas, LRS, np.arange(5), np.arange(5) + 7, np.ones((5, size)), np.ones((5, size)), np.ones(5))
    with pytest.raises(QueryError, match="no source_id is common"):
        translate(survey.atlas, survey.model)


def test_another_writer_is_refused(searched: Any) -> None:
    with searched.atlas.translations("toy").lock(), pytest.raises(AtlasError, match="one writer"):
        translate(searched.atlas, searched.model)


_KILLED = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("toy", sys.argv[2])
toy = sys.modules['toy'] = importlib.util.module_from_spec(spec); spec.loader.exec_module(toy)
from specclip_search.atlas import Atlas
from specclip_search.queries.translation.translate import translate
atlas = Atlas(sys.argv[1])
def stop(done, total, note):
    if atlas.translations("toy").exists:  # the first shard is committed
        print(done, flush=True)
        input()
translate(atlas, toy.LinearModel(), progress=stop)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is a POSIX signal")
def test_killed_and_started_again_ends_with_the_same_bytes(survey_maker: Callable[..., Any]) -> None:
    whole, broken = survey_maker(stars=240), survey_maker(stars=240)
    translate(whole.atlas, whole.model)
    toy = Path(__file__).parents[1] / "toy_survey.py"
    process = subprocess.Popen(
        [sys.executable, "-c", _KILLED, str(broken.atlas.path), str(toy)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    stage = broken.atlas.translations("toy")
    assert len(stage.parts()) == 1
    report = translate(broken.atlas, broken.model)
    assert (report.shards_written, report.shards_current) == (2, 1)
    assert [p.digest for p in stage.parts()] == [p.digest for p in whole.atlas.translations("toy").parts()]
    assert not list(stage.folder.glob(".writing-*"))


def test_a_damaged_error_table_is_named(survey_maker: Callable[..., Any]) -> None:
    survey = survey_maker(stars=60, shards=1)
    translate(survey.atlas, survey.model)
    (survey.atlas.translations("toy").folder / "model_error.npz").write_bytes(b"not a table")
    with pytest.raises(AtlasError, match="translate"):
        translate_module.translate(survey.atlas, survey.model)

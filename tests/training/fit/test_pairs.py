"""Pairs, augmentation, recipes and retrieval."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from specclip_search.atlas import Atlas
from specclip_search.atlas.arrays import table_from_columns
from specclip_search.atlas.schemas import spectra_schema
from specclip_search.errors import AtlasError, CheckpointError
from specclip_search.surveys import get_modality
from specclip_search.training.fit.atlas_pairs import atlas_source
from specclip_search.training.fit.augment import Augmentation, augment, bridge_pixels, shift_velocity
from specclip_search.training.fit.pairs import ArrayPairs
from specclip_search.training.fit.recipe import load_recipe, shipped_recipes
from specclip_search.training.fit.validation import pair_retrieval


def test_batches_depend_on_seed_and_epoch_alone(pairs: ArrayPairs) -> None:
    settings = Augmentation(1.0, noise=1.0, rv_kms=30.0, xp_tilt=0.1, mask_pixels=20)
    first, again = (list(pairs.batches("train", 64, 7, 2, settings)) for _ in range(2))
    assert len(first) == pairs.stars("train") // 64
    for one, two in zip(first, again, strict=True):
        for name in pairs.modalities:
            assert np.array_equal(one.inputs[name], two.inputs[name])
            assert np.array_equal(one.targets[name], two.targets[name])
    other = next(pairs.batches("train", 64, 7, 3, settings))
    assert not np.array_equal(first[0].source_id, other.source_id)


def test_a_star_occurs_once_an_epoch_and_every_visit_gets_its_turn() -> None:
    star = np.repeat(np.arange(40, dtype=np.int64) << 7, 3)
    flux = {"gaia_xp": np.random.default_rng(0).random((40, 343), np.float32),
            "lamost_lrs": np.tile(np.arange(120, dtype=np.float32)[:, None], (1, 1462))}
    source = ArrayPairs(flux, star, rows={"gaia_xp": np.repeat(np.arange(40), 3), "lamost_lrs": np.arange(120)})
    visits = set()
    for epoch in range(20):
        batches = list(source.batches("train", 8, 0, epoch))
        ids = np.concatenate([b.source_id for b in batches])
        assert len(np.unique(ids)) == len(ids) == 32 == source.stars("train")
        for batch in batches:
            row = batch.inputs["lamost_lrs"][:, 0].astype(int)
            assert np.array_equal(star[row], batch.source_id)
            assert np.array_equal(batch.inputs["gaia_xp"], flux["gaia_xp"][row // 3])
            visits |= set(row)
    assert len(visits) == 96


def test_arrays_that_do_not_fit_are_refused(pairs: ArrayPairs) -> None:
    with pytest.raises(CheckpointError, match="source_id must be int64; found float64"):
        ArrayPairs(pairs.flux, pairs.source_id.astype(float))
    with pytest.raises(CheckpointError, match="480 pairs do not fit 10 gaia_xp"):
        ArrayPairs({"gaia_xp": pairs.flux["gaia_xp"][:10]}, pairs.source_id)


def test_velocity_shift_moves_a_line_where_the_doppler_formula_says() -> None:
    wavelength = 10 ** np.linspace(3.602, 3.7481, 1462)
    line = 4861.3 * (1 + np.array([0.0, 150.0, -300.0]) / 299792.458)
    still = 1 - 0.5 * np.exp(-0.5 * ((wavelength - line[0]) / 4) ** 2)
    moved = shift_velocity(np.tile(still, (3, 1)), np.array([0.0, 150.0, -300.0]))
    found = ((1 - moved) * wavelength).sum(1) / (1 - moved).sum(1)
    assert np.allclose(found, line, atol=0.02)
    assert np.array_equal(moved[0], still)


def test_augmentation_spoils_the_input_and_bends_both() -> None:
    rng = np.random.default_rng(0)
    flux = rng.random((200, 1462), np.float32)
    error = np.full(flux.shape, 0.05, np.float32)
    error[:, 100] = np.inf
    seen, target = augment("lamost_lrs", flux, error, Augmentation(1.0, noise=2.0), rng)
    assert np.array_equal(target, flux)
    assert np.array_equal(seen[:, 100], flux[:, 100])
    sigma = (seen - flux).std(axis=1) / 0.05
    assert 0 < sigma.min() < 0.3 < 1.5 < sigma.max() < 2.2  # uniform in 0 to 2
    seen, target = augment("gaia_xp", flux[:, :343], None, Augmentation(1.0, noise=2.0, xp_tilt=0.1), rng)
    assert np.array_equal(seen, target)
    assert np.array_equal(seen[:, 107], flux[:, 107])
    bridged = bridge_pixels(flux, Augmentation(1.0, mask_pixels=12), rng)
    changed = (bridged != flux).sum(axis=1)
    assert 1 <= changed.min() < changed.max() == 12
    assert np.array_equal(bridge_pixels(flux, Augmentation(0.0, mask_pixels=12), rng), flux)


def test_pairs_of_an_atlas(pairs: ArrayPairs, tmp_path: Path) -> None:
    atlas = Atlas.create(tmp_path / "atlas")
    with pytest.raises(AtlasError, match="holds no lamost_lrs spectra yet"):
        atlas_source(atlas, tmp_path / "cache", "mini")
    # XP of every star; LRS of every other star twice, some without a known star, in two shards
    write_spectra(atlas, "gaia_xp", 0, pairs, np.arange(480), pairs.source_id, pairs.source_id)
    rows = np.repeat(np.arange(0, 480, 2), 2)
    star = np.ma.masked_array(pairs.source_id[rows], mask=rows % 20 == 0)
    ids = np.arange(len(rows), dtype=np.int64) + 2**60 + 1
    write_spectra(atlas, "lamost_lrs", 0, pairs, rows[:301], ids[:301], star[:301])
    write_spectra(atlas, "lamost_lrs", 1, pairs, rows[301:], ids[301:], star[301:])
    source = atlas_source(atlas, tmp_path / "cache", "mini")
    assert (len(source.source_id), len(np.unique(source.source_id))) == (432, 216)
    for batch in source.batches("train", 50, 0, 0):
        row = batch.source_id >> 7
        for name in pairs.modalities:
            assert np.array_equal(batch.inputs[name], pairs.flux[name][row])
            assert np.allclose(batch.errors[name], pairs.error[name][row])
    stamp = (tmp_path / "cache/lamost_lrs.flux.npy").stat().st_mtime_ns
    assert atlas_source(atlas, tmp_path / "cache", "mini").digest == source.digest
    assert (tmp_path / "cache/lamost_lrs.flux.npy").stat().st_mtime_ns == stamp
    alone = atlas_source(atlas, tmp_path / "lrs", "lrs_mt")
    assert alone.modalities == ("lamost_lrs",)
    assert len(alone.source_id) == 480
    write_spectra(atlas, "lamost_lrs", 1, pairs, rows[301:400], ids[301:400], star[301:400])
    assert len(atlas_source(atlas, tmp_path / "cache", "mini").source_id) < 432


def write_spectra(atlas: Atlas, modality: str, number: int, pairs: ArrayPairs, rows: np.ndarray, spec_id: np.ndarray,
                  source_id: np.ndarray) -> None:
    schema = spectra_schema(get_modality(modality).columns, pairs.flux[modality].shape[1])
    columns = {f.name: [None] * len(rows) for f in schema}
    columns |= {"spec_id": spec_id, "source_id": source_id, "release": ["dr1"] * len(rows),
                "simulated": [True] * len(rows), "flux": pairs.flux[modality][rows],
                "error": pairs.error[modality][rows]}
    atlas.spectra(modality).write(number, table_from_columns(columns, schema), schema=schema, inputs="made up")


def test_recipes(tmp_path: Path) -> None:
    for name in shipped_recipes():
        assert load_recipe(name).name == name
    assert "mini" in shipped_recipes()
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\nkind = "mini"\n[optimiser]\nepohcs = 3\n')
    with pytest.raises(CheckpointError, match=r"mine\.toml optimiser has no setting 'epohcs'") as caught:
        load_recipe(path)
    assert "Did you mean 'epochs'?" in str(caught.value)
    for text, message in (
        ('kind = "mini"', "lacks 'name'"),
        ('name = "a"\nkind = "miny"', "there is no model kind 'miny'"),
        ('name = "a"\nkind = "mini"\n[optimiser]\nrate = "fast"', "optimiser rate must be float; found 'fast'"),
        ('name = "a"\nkind = "mini"\n[data]\nbatch_size = true', "batch_size must be int; found True"),
        ('name = "a"\nkind = "mini"\n[data]\nbatch_size = 1', "batch_size is 1"),
        ('name = "a"\nkind = "mini"\nmodel = 3', "model must be a table"),
        ('name = "a"\nkind = "mini"\n[model]\ndecoder_hidden = 3', "decoder_hidden must be a list"),
        ('name = "a"\nkind = "mini"\n[optimiser]\nprecision = "fp8"', "precision must be 'bf16' or 'float32'"),
        ("name = ", "is not valid TOML"),
    ):
        path.write_text(text)
        with pytest.raises(CheckpointError, match=message):
            load_recipe(path)
    with pytest.raises(CheckpointError, match="No recipe file nimi"):
        load_recipe("nimi")


def test_retrieval_counts_what_it_says() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(600, 16))
    perfect = pair_retrieval(a, a + 5.0)
    assert (perfect["r1_a"], perfect["r10_b"], perfect["candidates"]) == (1.0, 1.0, 600)
    assert pair_retrieval(np.ones((20, 4)), np.ones((20, 4)), centre=False)["r10_a"] == 0.0  # ties do not count
    chance = pair_retrieval(a, rng.normal(size=(600, 16)))
    assert chance["r10_a"] < 0.05
    b = a + 0.8 * rng.normal(size=a.shape)
    near = (b / np.linalg.norm(b, axis=1, keepdims=True)) @ (a / np.linalg.norm(a, axis=1, keepdims=True)).T
    slow = np.mean([np.argmax(near[i]) == i for i in range(600)])
    assert pair_retrieval(a, b, centre=False)["r1_b"] == pytest.approx(slow)

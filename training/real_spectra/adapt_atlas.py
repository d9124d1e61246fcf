"""Adapting a model to the labelled spectra of an atlas: selection of the stars, comparison, and the folder written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq

from specclip_search.atlas.arrays import column_to_matrix
from specclip_search.errors import CheckpointError, QueryError
from specclip_search.keys import ACCEPTANCE_SPLIT, VALIDATION_SPLIT, split_of
from specclip_search.surveys import LRS, PAIR

from ..checkpoints.folder import ModelCard, load_metrics, save_model, whole_folder
from .low_rank import Adapter, AdaptSettings, Bank, LabelledSpectra, adapt, compare, few_shot, merge, save_adapter, unit

if TYPE_CHECKING:
    from specclip_search.atlas import Atlas

    from ..model import Model

LABELS = ("teff", "logg", "feh")
MAX_STARS = 20_000
BANK_STARS = 4000
FEWEST_HELD = 10


@dataclass(frozen=True)
class Adapted:
    """Result of `adapt_to_catalogue`.

    Attributes
    ----------
    card
        Card of the written model.
    training, held
        Number of stars of the splits 0 to 7 and 8.
    comparison
        Rows of `specclip_search.training.real_spectra.low_rank.compare`.
    curve
        Rows of `specclip_search.training.real_spectra.low_rank.few_shot`.
    """

    card: ModelCard
    training: int
    held: int
    comparison: list[dict[str, Any]]
    curve: list[dict[str, Any]]


def adapt_to_catalogue(
    atlas: Atlas, model: Model, catalogue: str, output: Path, settings: AdaptSettings, modality: str = LRS
) -> Adapted:
    """Train an adapter on the spectra with labels in a catalogue, and write the adapted model.

    Stars of the splits 0 to 7 train, those of split 8 are compared before and after; split 9 is never used. Labelled
    spectra of the other instrument, if there are any, are what the adapted vectors are contrasted with. The folder
    holds the model with the adapter merged into its weights, and the adapter itself in `adapter/`.

    Raises
    ------
    QueryError
        If the atlas has no such catalogue or spectra, the catalogue has no labels or ids, or too few stars are held
        out.
    CheckpointError
        If fewer than 20 stars train, or the adapter exceeds its budget.
    """
    if modality not in model.modalities:
        raise QueryError(f"'{model.name}' takes {' and '.join(model.modalities)}; found '{modality}'.", "Name one.")
    labels = read_labels(atlas, catalogue)
    spectra, split = _labelled(atlas, modality, labels, settings.seed)
    train = spectra.take(np.flatnonzero(split < VALIDATION_SPLIT))
    held = spectra.take(np.flatnonzero(split == VALIDATION_SPLIT))
    if len(held) < FEWEST_HELD:
        raise QueryError(
            f"{len(held)} of the {len(spectra)} {modality} spectra with labels in '{catalogue}' belong to split 8; "
            f"{FEWEST_HELD} are needed to compare the model before and after.",
            "Ingest more spectra with labels.",
        )
    bank = _bank(atlas, model, modality, labels, settings.seed)
    name = output.name
    adapter = adapt(model, modality, train, settings, name=name, bank=bank)
    comparison = compare(model, adapter, train, held, bank)
    curve = few_shot(model, modality, train, held, settings, bank=bank)
    card = _write(model, adapter, output, {"catalogue": catalogue, "comparison": comparison, "few_shot": curve})
    return Adapted(card, len(train), len(held), comparison, curve)


def read_labels(atlas: Atlas, catalogue: str) -> dict[str, dict[int, tuple[float, ...]]]:
    """(teff, logg, feh) by `source_id` and by `obsid`, of rows with at least one of them."""
    if catalogue not in atlas.catalogs():
        raise QueryError(
            f"The atlas has no catalogue '{catalogue}'; it has {', '.join(atlas.catalogs()) or 'none'}.",
            "Ingest it: specclip-search ingest catalog NAME FILE --atlas DIR",
        )
    stage = atlas.catalog(catalogue)
    names = set(pq.read_schema(stage.paths()[0]).names)
    keys, have = [key for key in ("source_id", "obsid") if key in names], [name for name in LABELS if name in names]
    if not keys or not have:
        raise QueryError(
            f"Catalogue '{catalogue}' has the columns {', '.join(sorted(names)[:12])}; source_id or obsid, and one of "
            "teff, logg and feh were expected.",
            "Ingest a catalogue with these columns.",
        )
    table = stage.read([*keys, *have])
    values = np.full((table.num_rows, len(LABELS)), np.nan)
    for name in have:
        values[:, LABELS.index(name)] = table[name].to_numpy(zero_copy_only=False).astype(np.float64)
    known = np.flatnonzero(np.isfinite(values).any(axis=1))
    found: dict[str, dict[int, tuple[float, ...]]] = {}
    for key in keys:
        ids = table[key].to_pylist()
        found[key] = {ids[row]: tuple(values[row]) for row in known[::-1].tolist() if ids[row] is not None}
    return found


def _labelled(
    atlas: Atlas, modality: str, labels: dict[str, dict[int, tuple[float, ...]]], seed: int, most: int = MAX_STARS
) -> tuple[LabelledSpectra, np.ndarray]:
    """Spectra of an instrument with labels, at most `most` drawn at random, and the split of each star."""
    stage = atlas.spectra(modality)
    if not stage.exists:
        raise stage.missing()
    chosen: list[tuple[int, int, tuple[float, ...], int]] = []
    for shard, part in enumerate(stage.parts()):
        keys = pq.read_table(part.path, columns=["spec_id", "source_id"])
        spec_ids, source_ids = keys["spec_id"].to_pylist(), keys["source_id"].to_pylist()
        for row, (spec_id, source_id) in enumerate(zip(spec_ids, source_ids, strict=True)):
            own = labels.get("source_id", {}).get(source_id)
            if own is None and modality == LRS:
                own = labels.get("obsid", {}).get(spec_id)
            star = source_id if source_id is not None and source_id >= 0 else spec_id
            if own is not None:
                chosen.append((shard, row, own, star))
    split = split_of(np.array([star for *_, star in chosen], dtype=np.int64))
    usable = np.flatnonzero(split != ACCEPTANCE_SPLIT)
    if len(usable) > most:
        usable = np.sort(np.random.default_rng([seed, 7]).choice(usable, most, replace=False))
    flux, error = [], []
    for shard, part in enumerate(stage.parts()):
        rows = [chosen[i][1] for i in usable if chosen[i][0] == shard]
        if rows:
            table = pq.ParquetFile(part.path).read(columns=["flux", "error"]).take(rows)
            flux.append(column_to_matrix(table["flux"]).astype(np.float32))
            error.append(column_to_matrix(table["error"]).astype(np.float32))
    if not flux:
        raise QueryError(
            f"No {modality} spectrum of the atlas has a label in the catalogue (outside split 9).",
            "Check that its source_id or obsid are those of the spectra.",
        )
    values = np.array([chosen[i][2] for i in usable])
    return LabelledSpectra(np.concatenate(flux), np.concatenate(error), values, LABELS), split[usable]


def _bank(
    atlas: Atlas, model: Model, modality: str, labels: dict[str, dict[int, tuple[float, ...]]], seed: int
) -> Bank | None:
    """Labelled training stars of the other instrument; None if there are none with all labels."""
    other = next(one.name for one in PAIR if one.name != modality)
    if other not in model.modalities or not atlas.spectra(other).exists:
        return None
    try:
        spectra, split = _labelled(atlas, other, labels, seed, BANK_STARS)
    except QueryError:
        return None
    rows = np.flatnonzero((split < VALIDATION_SPLIT) & np.isfinite(spectra.labels).all(axis=1))
    if len(rows) == 0:
        return None
    return Bank(unit(model.module, other, spectra.inputs[rows]), spectra.labels[rows])


def _write(model: Model, adapter: Adapter, output: Path, metrics: dict[str, Any]) -> ModelCard:
    """The model folder with the adapter merged into the weights, and the adapter in `adapter/`."""
    import copy

    if output.exists() and not (output / "model.toml").is_file() and any(output.iterdir()):
        raise CheckpointError(f"{output} exists and is not a model folder.", "Give another --output.")
    module = copy.deepcopy(model.module)
    merge(module, adapter)
    origin = f"adapter of rank {adapter.settings.rank} on '{model.name}' ({model.digest[7:19]})"
    card = replace(model.card, name=adapter.name, origin=origin)
    before = load_metrics(model.folder) if model.folder is not None else {}
    with whole_folder(output) as beside:
        written = save_model(beside, card, dict(module.state_dict()), {**before, "adapter": metrics})
        save_adapter(beside / "adapter", adapter, {"catalogue": metrics["catalogue"]})
    return written

"""Training pairs of an atlas: spectra copied once into memory-mapped arrays, joined by source_id.

Labels of the spectra are read as well, for training with label heads.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from specclip_search.atlas.arrays import column_to_matrix
from specclip_search.atlas.files import text_digest
from specclip_search.atlas.links import NO_SOURCE, StarLinks, linked_ids, star_links
from specclip_search.errors import CheckpointError
from specclip_search.surveys import LRS, XP, get_modality

from ..checkpoints.folder import PIXELS, kind_modalities, whole_folder
from ..estimators.data import known_labels, read_label_catalogue
from .pairs import ArrayPairs
from .recipe import DataSettings

if TYPE_CHECKING:
    from specclip_search.atlas import Atlas, Stage

def spectra_labels(atlas: Atlas, modality: str, links: StarLinks, catalogues: tuple[str, ...]) -> np.ndarray:
    """Labels of every spectrum of an instrument, from the first catalogue with its star.

    Returns
    -------
    ndarray
        (N, 6) float32 in the order and units of `LABELS`, NaN where unknown. Radial velocities are
        those of the spectra themselves, for LAMOST only.
    """
    known = [read_label_catalogue(atlas, name) for name in catalogues]
    columns = ["spec_id", "source_id", *(["z"] if modality == LRS else [])]
    parts = []
    for _, batch in atlas.spectra(modality).iter_batches(columns, batch_rows=65536):
        ids = linked_ids(batch, links)
        redshift = batch.column("z").to_numpy(zero_copy_only=False) if "z" in columns else None
        parts.append(known_labels(known, ids, redshift)[0].astype(np.float32))
    return np.concatenate(parts)


_DIGEST = "digest.txt"


def atlas_source(atlas: Atlas, cache: Path, kind: str, data: DataSettings | None = None) -> ArrayPairs:
    """Pairs of an atlas (or, for an encoder of one instrument, its spectra) as a `PairSource`.

    Flux and error are copied into uncompressed arrays under `cache` and memory-mapped,
    so that random access needs no decompression and little memory. An existing copy
    of the same shards is reused.

    Parameters
    ----------
    atlas
        Atlas with spectra of the instruments of `kind`.
    cache
        Folder for the copy: 6 bytes per pixel.
    kind
        Kind of model.
    data
        Settings: catalogues of labels, and the fraction of stars without a pair.

    Raises
    ------
    CheckpointError
        If the atlas has no pair of spectra with the same source_id.
    AtlasError
        If it has no spectra of an instrument, or lacks a catalogue of labels.
    """
    modalities, data = kind_modalities(kind), data or DataSettings()
    stages = {name: atlas.spectra(name) for name in modalities}
    for stage in stages.values():
        if not stage.exists:
            raise stage.missing()
    links = {name: star_links(atlas, get_modality(name).link_column) for name in stages}
    labels = {name: atlas.catalog(name) for name in data.labels}
    for stage in labels.values():
        if not stage.exists:
            raise stage.missing()
    digest = text_digest(*(f"{name} {stage.digest} {links[name].digest}" for name, stage in stages.items()),
                         *(f"labels {name} {stage.digest}" for name, stage in labels.items()))
    stamp = cache / _DIGEST
    if not (stamp.is_file() and stamp.read_text(encoding="utf-8") == digest):
        shutil.rmtree(cache, ignore_errors=True)
        with whole_folder(cache) as folder:
            _copy(stages, links, folder)
            for name in stages if labels else ():
                np.save(folder / f"{name}.labels.npy", spectra_labels(atlas, name, links[name], data.labels))
            (folder / _DIGEST).write_text(digest, encoding="utf-8")
    return _open(cache, modalities, digest, data)


def _open(folder: Path, modalities: tuple[str, ...], digest: str, data: DataSettings) -> ArrayPairs:
    def load(name: str) -> np.ndarray:
        return np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)

    return ArrayPairs({m: load(f"{m}.flux") for m in modalities}, np.array(load("source_id")),
                      rows={m: np.array(load(f"{m}.rows")) for m in modalities},
                      error={m: load(f"{m}.error") for m in modalities},
                      labels={m: load(f"{m}.labels") for m in modalities} if data.labels else None,
                      alone={m: (np.array(load(f"{m}.alone")), np.array(load(f"{m}.alone_id"))) for m in modalities},
                      alone_share=data.alone, digest=digest)


def _copy(stages: dict[str, Stage], links: dict[str, StarLinks], folder: Path) -> None:
    stars = {name: _star_ids(stage, links[name], keep_unknown=len(stages) == 1) for name, stage in stages.items()}
    rows, source_id = _join(stars)
    if not len(source_id):
        raise CheckpointError("The atlas has no star with spectra of both instruments.",
                              "Ingest spectra whose source_id agree; LAMOST spectra get theirs by a catalogue match.")
    np.save(folder / "source_id.npy", source_id)
    for name, stage in stages.items():
        # every spectrum is copied: those without a pair may be used alone
        np.save(folder / f"{name}.rows.npy", rows[name].astype(np.int64))
        alone = np.setdiff1d(np.flatnonzero(stars[name] != NO_SOURCE), np.flatnonzero(np.isin(stars[name], source_id)))
        np.save(folder / f"{name}.alone.npy", alone)
        np.save(folder / f"{name}.alone_id.npy", stars[name][alone])
        _copy_rows(stage, folder, name)


def _star_ids(stage: Stage, links: StarLinks, keep_unknown: bool) -> np.ndarray:
    """(N,) int64 source_id of every row; -1, or a placeholder in the training split, if unknown."""
    parts = []
    for _, batch in stage.iter_batches(["spec_id", "source_id"], batch_rows=65536):
        spec_id = batch.column("spec_id").to_numpy()
        known = linked_ids(batch, links)
        # a separate star in one of the splits 0-7; see specclip_search.keys.split_of
        alone = (spec_id // 8 * 10 + spec_id % 8) << 7
        parts.append(np.where(known == NO_SOURCE, alone, known) if keep_unknown else known)
    return np.concatenate(parts).astype(np.int64, copy=False)


def _join(stars: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Row numbers of pairs by modality, and their source_id: every LRS visit with the star's XP spectrum."""
    if len(stars) == 1:
        ((name, ids),) = stars.items()
        return {name: np.arange(len(ids))}, ids
    xp_ids, xp_rows = np.unique(stars[XP], return_index=True)
    place = np.searchsorted(xp_ids, stars[LRS]).clip(max=len(xp_ids) - 1)
    lrs_rows = np.flatnonzero((xp_ids[place] == stars[LRS]) & (stars[LRS] != NO_SOURCE))
    return {XP: xp_rows[place[lrs_rows]], LRS: lrs_rows}, stars[LRS][lrs_rows]


def _copy_rows(stage: Stage, folder: Path, name: str) -> None:
    """Write flux (float32) and error (float16) of all rows, in order."""
    shape = (stage.rows, PIXELS[name])
    flux = np.lib.format.open_memmap(folder / f"{name}.flux.npy", mode="w+", dtype=np.float32, shape=shape)
    error = np.lib.format.open_memmap(folder / f"{name}.error.npy", mode="w+", dtype=np.float16, shape=shape)
    done = 0
    for _, batch in stage.iter_batches(["flux", "error"]):
        flux[done : done + batch.num_rows] = column_to_matrix(batch.column("flux"))
        error[done : done + batch.num_rows] = column_to_matrix(batch.column("error"))
        done += batch.num_rows
    flux.flush()
    error.flush()

"""A folder of published label heads: which labels it gives from which instrument's vectors.

    DIR/lrs/mg_fe.pt      DIR/stats/lrs/mg_fe_mean_std.json
    DIR/xp/fe_h/          DIR/stats/xp/fe_h_mean_std.json

A head is a published `.pt` file or the model folder that `model import` made of it. The statistics of the
vectors that it was trained on are required: without them its numbers are wrong and look right.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch

from specclip_search.atlas.files import file_digest, text_digest
from specclip_search.errors import CheckpointError
from specclip_search.surveys import PAIR

from ..networks.label_head import LabelHead
from .folder import LABEL_HEAD, TOML, fill_module, load_card, load_label_head
from .importing import read_published

SUFFIX, STATISTICS = ".pt", "stats"
PICKLES = (".pkl", ".pickle", ".joblib")
FOLDERS = {modality.short: modality.name for modality in PAIR}
"""Folder of each instrument's heads -> its name."""
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,39}\Z")
_KEYS = frozenset({"spec_id", "source_id", "release"})


@dataclass(frozen=True)
class PublishedHead:
    """One label head with its statistics.

    Attributes
    ----------
    name
        Of the label, from the file's name, lower case.
    modality
        Instrument of the vectors that it takes.
    path
        Where it was read from.
    digest
        Of its weights and statistics together.
    head
        The network, ready for `LabelHead.predict`.
    """

    name: str
    modality: str
    path: Path
    digest: str
    head: LabelHead


def read_heads(folder: Path) -> list[PublishedHead]:
    """All heads of a folder, ordered by instrument and name.

    Raises
    ------
    CheckpointError
        If there is none, one is no label head, has no statistics or a name that no column can have, or the
        folder holds pickles of another kind (SBI posteriors).
    """
    found: list[PublishedHead] = []
    for short, modality in FOLDERS.items():
        here = folder / short
        for path in sorted(here.iterdir()) if here.is_dir() else ():
            _refuse_pickle(path)
            if path.suffix == SUFFIX or (path / TOML).is_file():
                found.append(_read(path, folder / STATISTICS / short, modality))
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        _refuse_pickle(path)
    if not found:
        raise CheckpointError(
            f"Label heads were expected in {' or '.join(str(folder / short) for short in FOLDERS)}, as .pt files or "
            "folders of `model import`; there are none.",
            f"Put them there, their statistics in {folder / STATISTICS}/{next(iter(FOLDERS))}/NAME_mean_std.json",
        )
    names = [(head.modality, head.name) for head in found]
    twice = next((one for one in names if names.count(one) > 1), None)
    if twice is not None:
        raise CheckpointError(
            f"One head a label was expected; {folder} has two of '{twice[1]}' for {twice[0]}.", "Remove one of them."
        )
    return found


def _refuse_pickle(path: Path) -> None:
    if path.suffix in PICKLES:
        raise CheckpointError(
            f"{path} is a pickle, as those of SBI posteriors are: to read it is to run it. Label heads (.pt) were "
            "expected.",
            "Move it away. To use it, sample it in its own environment, save obsid or source_id, value and error as "
            "CSV, and run: specclip-search ingest catalog sbi_labels FILE.csv",
        )


def _read(path: Path, statistics: Path, modality: str) -> PublishedHead:
    name = path.name.removesuffix(SUFFIX)
    if not _NAME.match(name) or name.lower() in _KEYS:
        raise CheckpointError(
            f"A head is named after its label, letters, digits and underscores; found {path.name!r}.",
            "Rename it, for example mg_fe.pt",
        )
    table = statistics / f"{name}_mean_std.json"
    if not table.is_file():
        raise CheckpointError(
            f"The statistics of the vectors that '{name}' was trained on were expected at {table}; there is no file.",
            "Copy it from the published downloads, folder stats/.",
        )
    if path.is_dir():
        card = load_card(path)
        if card.kind != LABEL_HEAD:
            raise CheckpointError(f"{path} holds a '{card.kind}' model; a label head was expected.", "Move it away.")
        head, digest = load_label_head(path, table), card.digest
    else:
        published = read_published(path)
        if published.kind != LABEL_HEAD:
            raise CheckpointError(
                f"{path} holds a '{published.kind}' model; a label head was expected.",
                f"Import it: specclip-search model import {path} --output models/{name}",
            )
        head, digest = LabelHead(), published.digest
        fill_module(head, {key: value.to(torch.float32) if value.is_floating_point() else value
                           for key, value in published.state.items()}, str(path))
        head.use_statistics(table)
        head.eval().requires_grad_(False)
    return PublishedHead(name.lower(), modality, path, text_digest(digest, file_digest(table)), head)

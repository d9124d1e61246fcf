"""All pairs of an atlas as arrays: translation errors, vector rows and neighbours that are pairs themselves."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from specclip_search.atlas.arrays import column_to_matrix
from specclip_search.errors import QueryError
from specclip_search.surveys import LRS, XP

if TYPE_CHECKING:
    from specclip_search.atlas.stage import Part
    from specclip_search.indexing.vectors.keys import KeyTable

    from ..space.space import Space

_SCALARS = ("lrs_chi2", "xp_chi2", "lrs_l1", "xp_l1", "lrs_mse", "xp_mse", "lrs_snr", "xp_snr", "xp_color")
_RESIDUAL_KINDS = tuple(f"{side}_{kind}" for side in ("lrs", "xp") for kind in ("free", "own"))
_RESIDUAL_SCALARS = (*(f"{kind}_{name}" for kind in _RESIDUAL_KINDS for name in ("chi2", "peak", "peak_at")),
                     "rv", "reddening", "double_lined")  # fmt: skip
_ID_COLUMNS = ("lrs_spec_id", "lrs_release", "xp_spec_id", "xp_release", "source_id")
_MATRICES = ("lrs_window_sigma", "xp_window_sigma", *(f"{kind}_patterns" for kind in _RESIDUAL_KINDS),
             "lrs_sed", "xp_sed")  # fmt: skip
_KEYS = (*_ID_COLUMNS, "lrs_row", "xp_row")
# velocities below this are consistent with zero
RV_STEP_KM_S = 20.0


@dataclass(frozen=True)
class PairTable:
    """Pairs whose two spectra both have vectors, in the order of the translation shards.

    Attributes
    ----------
    lrs_spec_id, xp_spec_id, source_id
        (N,) int64.
    lrs_row, xp_row
        (N,) int64 rows of the vectors.
    values
        Scalar columns of the translations by name, (N,) float32.
    lrs_windows, xp_windows
        (N, w) float32 residuals of windows in sigma.
    patterns
        (N, m) float32 matched filters in sigma by kind of residual (`lrs_free`, `lrs_own`, `xp_free`, `xp_own`).
    lrs_sed, xp_sed
        (N, 15) float32 broad-band shapes, NaN where unknown.
    part
        (N,) index of the translation shard of each pair.
    unembedded
        Number of pairs left out because a spectrum has no vector yet.
    """

    lrs_spec_id: np.ndarray
    lrs_release: np.ndarray
    xp_spec_id: np.ndarray
    xp_release: np.ndarray
    source_id: np.ndarray
    lrs_row: np.ndarray
    xp_row: np.ndarray
    values: dict[str, np.ndarray]
    lrs_windows: np.ndarray
    xp_windows: np.ndarray
    window_names: dict[str, tuple[str, ...]]
    patterns: dict[str, np.ndarray]
    pattern_names: dict[str, tuple[str, ...]]
    lrs_sed: np.ndarray
    xp_sed: np.ndarray
    part: np.ndarray
    unembedded: int

    def __len__(self) -> int:
        return len(self.source_id)

    @classmethod
    def read(cls, space: Space) -> PairTable:
        """Read the translations of the space's model and find the pairs' vectors.

        Raises
        ------
        QueryError
            If there are no translations, or no pair has both vectors.
        """
        stage = space.atlas.translations(space.model)
        parts = stage.parts()
        if parts and "lrs_sed" not in pq.read_schema(parts[0].path).names:
            raise QueryError(
                f"The translation errors of model '{space.model}' were made by an earlier version of the program.",
                "Run `specclip-search translate` again; it recomputes them.",
            )
        if not parts:
            raise QueryError(
                f"The atlas holds no translation errors of model '{space.model}' yet.",
                "Run `specclip-search translate` first.",
            )
        names = {side: _listed(parts[0], f"{side}_window_sigma", b"windows") for side in ("lrs", "xp")}
        patterns = {side: _listed(parts[0], f"{side}_free_patterns", b"patterns") for side in ("lrs", "xp")}
        # one shard at a time: strings and lists of all pairs would take several times the memory of what is kept
        pieces = [_piece(space, part) for part in parts]
        total = sum(part.rows for part in parts)
        joined: dict[str, np.ndarray] = {}
        for name in list(pieces[0]):
            joined[name] = np.concatenate([piece.pop(name) for piece in pieces])
        size = len(joined["source_id"])
        if size == 0:
            raise QueryError(
                "No pair has vectors of both its spectra.", "Run `specclip-search embed`, then `index build`."
            )
        return cls(
            **{name: joined[name] for name in _KEYS},
            values={name: joined[name] for name in (*_SCALARS, *_RESIDUAL_SCALARS)},
            lrs_windows=joined["lrs_window_sigma"],
            xp_windows=joined["xp_window_sigma"],
            window_names=names,
            patterns={kind: joined[f"{kind}_patterns"] for kind in _RESIDUAL_KINDS},
            pattern_names=patterns,
            lrs_sed=joined["lrs_sed"],
            xp_sed=joined["xp_sed"],
            part=joined["part"],
            unembedded=total - size,
        )

    @cached_property
    def covariates(self) -> np.ndarray:
        """(N, 5) covariates to correct for: log10 S/N of both spectra, colour, log |velocity|, reddening."""
        with np.errstate(divide="ignore", invalid="ignore"):
            snr = [np.log10(np.maximum(self.values[name], 0.1)) for name in ("lrs_snr", "xp_snr")]
        speed = np.log(np.abs(self.values["rv"]) + RV_STEP_KM_S)
        return np.column_stack([*snr, self.values["xp_color"], speed, self.values["reddening"]])

    def pair_of_row(self, modality: str, rows: int) -> np.ndarray:
        """(rows,) int32 pair of each vector row, -1 if none; the best of several visits."""
        own = self.lrs_row if modality == LRS else self.xp_row
        order = np.argsort(np.nan_to_num(self.values["lrs_snr"]), kind="stable")
        result = np.full(rows, -1, dtype=np.int32)
        result[own[order]] = order
        return result


def _piece(space: Space, part: Part) -> dict[str, np.ndarray]:
    """Columns of a shard's pairs whose spectra both have vectors, by column name."""
    table = pq.ParquetFile(part.path).read([*_ID_COLUMNS, *_SCALARS, *_RESIDUAL_SCALARS, *_MATRICES])
    rows = {
        side: vector_rows(space.keys(modality), table[f"{side}_spec_id"], table[f"{side}_release"])
        for side, modality in (("lrs", LRS), ("xp", XP))
    }
    both = (rows["lrs"] >= 0) & (rows["xp"] >= 0)
    kept = table if both.all() else table.filter(pa.array(both))
    return {
        **{name: kept[name].to_numpy() for name in ("lrs_spec_id", "xp_spec_id", "source_id")},
        **{name: _shared_texts(kept[name]) for name in ("lrs_release", "xp_release")},
        **{f"{side}_row": rows[side][both] for side in rows},
        **{name: kept[name].to_numpy().astype(np.float32) for name in (*_SCALARS, *_RESIDUAL_SCALARS)},
        **{name: column_to_matrix(kept[name]) for name in _MATRICES},
        "part": np.full(int(both.sum()), part.number, dtype=np.int32),
    }


def _listed(part: Part, column: str, key: bytes) -> tuple[str, ...]:
    return tuple((pq.read_schema(part.path).field(column).metadata or {})[key].decode().split(", "))


def _dictionary(texts: pa.ChunkedArray) -> tuple[list[str | None], np.ndarray]:
    """Distinct texts, None last, and the (N,) index of each row's text among them."""
    encoded = texts.combine_chunks().dictionary_encode()
    distinct = encoded.dictionary.to_pylist()
    return [*distinct, None], encoded.indices.fill_null(len(distinct)).to_numpy(zero_copy_only=False)


def _shared_texts(texts: pa.ChunkedArray) -> np.ndarray:
    """(N,) object; equal rows share one string object to save memory."""
    distinct, codes = _dictionary(texts)
    return np.array(distinct, dtype=object)[codes]


def vector_rows(keys: KeyTable, spec_id: pa.ChunkedArray, release: pa.ChunkedArray) -> np.ndarray:
    """(N,) vector row of each (spec_id, release), -1 if there is none."""
    ids = spec_id.to_numpy()
    rows, queries = keys.all_rows_of(ids)
    number: dict[str | None, int] = {name: code for code, name in enumerate(keys.releases)}
    texts, codes = _dictionary(release)
    wanted = np.array([number.get(text, -1) for text in texts], dtype=np.int64)[codes]
    same = keys.release[rows] == wanted[queries]
    result = np.full(len(ids), -1, dtype=np.int64)
    result[queries[same]] = rows[same]
    return result

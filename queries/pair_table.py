"""All pairs of an atlas as arrays: translation errors, vector rows and neighbours that are pairs themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from specclip_search.atlas.columns import column_to_matrix
from specclip_search.errors import QueryError

from .pairs import LRS, XP

if TYPE_CHECKING:
    from indexing.keytable import KeyTable

    from .space import Space

_SCALARS = ("lrs_chi2", "xp_chi2", "lrs_l1", "xp_l1", "lrs_mse", "xp_mse", "lrs_snr", "xp_snr", "xp_color")
_LAWS = tuple(f"{side}_{kind}" for side in ("lrs", "xp") for kind in ("free", "own"))
_LAW_SCALARS = (*(f"{law}_{name}" for law in _LAWS for name in ("chi2", "peak", "peak_at")), "rv", "reddening",
                "double_lined")  # fmt: skip
# a velocity below this is hardly told from none
RV_STEP_KM_S = 20.0


@dataclass(frozen=True)
class PairTable:
    """Pairs in the order of the translation shards, those whose two spectra have vectors.

    Attributes
    ----------
    lrs_spec_id, xp_spec_id, source_id
        (N,) int64.
    lrs_row, xp_row
        (N,) int64 rows of the vectors.
    values
        Scalar columns of the translations by name, (N,) float64.
    lrs_windows, xp_windows
        (N, w) float32 residuals of windows in sigma.
    patterns
        (N, m) float32 matched filters in sigma by law (`lrs_free`, `lrs_own`, `xp_free`, `xp_own`).
    lrs_sed, xp_sed
        (N, 15) float32 broad-band shapes, NaN where unknown.
    part
        (N,) number of the translation shard each pair stands in.
    unembedded
        How many pairs were left out because a spectrum has no vector yet.
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
                "Run `specclip-search translate` again; it makes those anew.",
            )
        if not parts:
            raise QueryError(
                f"The atlas holds no translation errors of model '{space.model}' yet.",
                "Run `specclip-search translate` first.",
            )
        table = stage.read()
        number = np.repeat([part.number for part in parts], [part.rows for part in parts])
        lrs_row = vector_rows(space.keys(LRS), table["lrs_spec_id"], table["lrs_release"])
        xp_row = vector_rows(space.keys(XP), table["xp_spec_id"], table["xp_release"])
        both = (lrs_row >= 0) & (xp_row >= 0)
        if not both.any():
            raise QueryError(
                "No pair has vectors of both its spectra.", "Run `specclip-search embed`, then `index build`."
            )
        kept = table if both.all() else table.filter(pa.array(both))
        del table
        names = {side: _listed(kept.schema, f"{side}_window_sigma", b"windows") for side in ("lrs", "xp")}
        patterns = {side: _listed(kept.schema, f"{side}_free_patterns", b"patterns") for side in ("lrs", "xp")}
        return cls(
            kept["lrs_spec_id"].to_numpy(),
            _shared_texts(kept["lrs_release"]),
            kept["xp_spec_id"].to_numpy(),
            _shared_texts(kept["xp_release"]),
            kept["source_id"].to_numpy(),
            lrs_row[both],
            xp_row[both],
            {name: kept[name].to_numpy().astype(np.float64) for name in (*_SCALARS, *_LAW_SCALARS)},
            column_to_matrix(kept["lrs_window_sigma"]),
            column_to_matrix(kept["xp_window_sigma"]),
            names,
            {law: column_to_matrix(kept[f"{law}_patterns"]) for law in _LAWS},
            patterns,
            column_to_matrix(kept["lrs_sed"]),
            column_to_matrix(kept["xp_sed"]),
            number[both],
            int((~both).sum()),
        )

    def covariates(self) -> np.ndarray:
        """(N, 5) what a score must not follow: log10 S/N of both spectra, colour, log |velocity|, reddening."""
        with np.errstate(divide="ignore", invalid="ignore"):
            snr = [np.log10(np.maximum(self.values[name], 0.1)) for name in ("lrs_snr", "xp_snr")]
        speed = np.log(np.abs(self.values["rv"]) + RV_STEP_KM_S)
        return np.column_stack([*snr, self.values["xp_color"], speed, self.values["reddening"]])

    def pair_of_row(self, modality: str, rows: int) -> np.ndarray:
        """(rows,) int32 pair that a vector row belongs to, -1 where none; of several visits the best."""
        own = self.lrs_row if modality == LRS else self.xp_row
        order = np.argsort(np.nan_to_num(self.values["lrs_snr"]), kind="stable")
        result = np.full(rows, -1, dtype=np.int32)
        result[own[order]] = order
        return result


def _listed(schema: pa.Schema, column: str, key: bytes) -> tuple[str, ...]:
    return tuple((schema.field(column).metadata or {})[key].decode().split(", "))


def _dictionary(texts: pa.ChunkedArray) -> tuple[list[str | None], np.ndarray]:
    """Distinct texts, None last, and the (N,) place of each row's text among them."""
    encoded = texts.combine_chunks().dictionary_encode()
    distinct = encoded.dictionary.to_pylist()
    return [*distinct, None], encoded.indices.fill_null(len(distinct)).to_numpy(zero_copy_only=False)


def _shared_texts(texts: pa.ChunkedArray) -> np.ndarray:
    """(N,) object; rows of one text share one string, where a plain list holds a string a row."""
    distinct, codes = _dictionary(texts)
    return np.array(distinct, dtype=object)[codes]


def vector_rows(keys: KeyTable, spec_id: pa.ChunkedArray, release: pa.ChunkedArray) -> np.ndarray:
    """(N,) vector row of each (spec_id, release), -1 where it has none."""
    ids = spec_id.to_numpy()
    rows, queries = keys.all_rows_of(ids)
    number: dict[str | None, int] = {name: code for code, name in enumerate(keys.releases)}
    texts, codes = _dictionary(release)
    wanted = np.array([number.get(text, -1) for text in texts], dtype=np.int64)[codes]
    same = keys.release[rows] == wanted[queries]
    result = np.full(len(ids), -1, dtype=np.int64)
    result[queries[same]] = rows[same]
    return result

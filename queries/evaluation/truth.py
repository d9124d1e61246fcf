"""Truth tables of a simulated survey, mapped to spectra and pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from specclip_search.errors import QueryError

if TYPE_CHECKING:
    from specclip_search.atlas import Atlas

TRUTH, TRUTH_LRS = "truth", "truth_lrs"
_NUMBERS = ("true_teff", "true_logg", "true_feh", "true_alpha_fe", "true_c_fe", "true_rv", "ebv")


@dataclass(frozen=True)
class Truth:
    """Stars in order of source_id, LAMOST spectra in order of obsid.

    Attributes
    ----------
    source_id
        (N,) int64.
    numbers
        true_teff [K], true_logg, true_feh, true_alpha_fe, true_c_fe, true_rv [km/s], ebv [mag], (N,) float64.
    kind
        (N,) object, kind of anomaly or empty, per star.
    obsid
        (M,) int64.
    seen
        (M,) object, anomaly class shown by this spectrum, empty if none.
    snr
        (M,) float64 requested S/N in g.
    star
        (M,) int64 source_id.
    """

    source_id: np.ndarray
    numbers: dict[str, np.ndarray]
    kind: np.ndarray
    obsid: np.ndarray
    seen: np.ndarray
    snr: np.ndarray
    star: np.ndarray

    @classmethod
    def read(cls, atlas: Atlas) -> Truth:
        """Read both catalogues.

        Raises
        ------
        QueryError
            If the atlas has no simulated survey.
        """
        tables = {}
        for name, wanted in ((TRUTH, ("source_id", "oddity_kind", *_NUMBERS)),
                             (TRUTH_LRS, ("obsid", "source_id", "oddity_seen", "true_snrg"))):  # fmt: skip
            stage = atlas.catalog(name) if name in atlas.catalogs() else None
            table = None if stage is None else stage.read()
            if table is None or not set(wanted) <= set(table.column_names):
                raise QueryError(
                    f"evaluate needs the catalogue '{name}' of a simulated survey; this atlas has none.",
                    "Make one with `specclip-search simulate --stars N`.",
                )
            tables[name] = table.sort_by(wanted[0])
        stars, spectra = tables[TRUTH], tables[TRUTH_LRS]
        return cls(
            stars["source_id"].to_numpy(),
            {name: stars[name].to_numpy().astype(np.float64) for name in _NUMBERS},
            _words(stars["oddity_kind"]),
            spectra["obsid"].to_numpy(),
            _words(spectra["oddity_seen"]),
            spectra["true_snrg"].to_numpy().astype(np.float64),
            spectra["source_id"].to_numpy(),
        )

    def covariates(self) -> dict[str, np.ndarray]:
        """(N,) nuisance quantities that no score should depend on, per star."""
        return {"|RV|": np.abs(self.numbers["true_rv"]), "E(B-V)": self.numbers["ebv"]}

    def best_snr(self) -> np.ndarray:
        """(N,) S/N of each star's best LAMOST spectrum, 0 if it has none."""
        best = np.zeros(len(self.source_id))
        row = self.stars(self.star)
        np.maximum.at(best, row[row >= 0], self.snr[row >= 0])
        return best

    def stars(self, source_id: np.ndarray) -> np.ndarray:
        """Row of each star, -1 if it is not in the survey."""
        return _find(self.source_id, source_id)

    def spectra(self, obsid: np.ndarray) -> np.ndarray:
        """Row of each LAMOST spectrum, -1 if it is not in the survey."""
        return _find(self.obsid, obsid)


def _find(known: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    place = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    return np.where(known[place] == wanted, place, -1)


def _words(column: pa.ChunkedArray) -> np.ndarray:
    return np.array([word or "" for word in column.to_pylist()], dtype=object)

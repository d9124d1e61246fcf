"""An atlas held open for many questions: one DuckDB connection, open indexes, a model loaded once.

>>> with atlas.session() as session:                                      # doctest: +SKIP
...     near = session.similar("gaia:5853418002145112704", k=20)
...     rows = session.sql("SELECT count(*) FROM stars").fetchall()
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .anomalies.anomalies import anomalies
from .emp.candidates import emp_candidates
from .similar.similar import TargetLike, similar
from .space.observed import observed_spectrum
from .sql.ask import connect, run
from .views.connection import Parameters, hold, release

if TYPE_CHECKING:
    import pandas as pd

    from specclip_search.atlas import Atlas
    from specclip_search.spectrum import Spectrum

    from .views.rows import Rows


class Session:
    """What `Atlas.session` returns. A `with` block closes it.

    New spectra, vectors, catalogues and results are seen by the next question: the connection is renewed when the
    atlas has changed. Not for several threads at once; open one session a thread.

    Attributes
    ----------
    atlas
        The atlas asked.
    """

    def __init__(self, atlas: Atlas) -> None:
        self.atlas = atlas
        hold(atlas, connect)

    def similar(self, target: TargetLike | Sequence[TargetLike], k: int = 20, **options: Any) -> pd.DataFrame:
        """Spectra most similar to a target; see `specclip_search.similar`."""
        return similar(self.atlas, target, k, **options)

    def anomalies(self, top: int = 100, **options: Any) -> pd.DataFrame:
        """The highest-scoring stars; see `specclip_search.anomalies`."""
        return anomalies(self.atlas, top, **options)

    def emp_candidates(self, below: float = -3.0, **options: Any) -> pd.DataFrame:
        """Candidates for extremely metal-poor stars; see `specclip_search.emp_candidates`."""
        return emp_candidates(self.atlas, below, **options)

    def spectrum(self, key: str, *, epoch: int | None = None) -> Spectrum:
        """The spectrum of a key as observed; see `specclip_search.observed_spectrum`."""
        return observed_spectrum(self.atlas, key, epoch=epoch)

    def sql(self, statement: str, parameters: Parameters = None) -> Rows | None:
        """Run SQL; see `specclip_search.queries.sql.ask.run`."""
        return run(self.atlas, statement, parameters)

    def close(self) -> None:
        """Close the connection. The session cannot be asked any more; the atlas can."""
        release(self.atlas)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

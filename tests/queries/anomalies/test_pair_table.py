"""Texts of a table's rows, kept once each."""

import numpy as np
import pyarrow as pa

from specclip_search.queries.anomalies.pair_table import _shared_texts


def test_rows_of_one_text_share_one_string_over_chunks_and_nulls() -> None:
    plain = [["dr8", "dr10"], ["dr10", None], [], ["dr8"]]
    found = _shared_texts(pa.chunked_array(plain, pa.string()))
    assert found.dtype == object
    assert found.tolist() == ["dr8", "dr10", "dr10", None, "dr8"]
    assert found[0] is found[4]
    assert np.array_equal(_shared_texts(pa.chunked_array([], pa.string())), np.empty(0, object))

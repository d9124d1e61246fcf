"""Ids are 64-bit integers from end to end."""

import numpy as np
import pytest

from specclip_search.errors import QueryError
from specclip_search.keys import SpectrumKey, parse_int64, parse_key, split_of

ABOVE_FLOAT = 2**53 + 1


def test_keys_survive_the_way_through_text_above_2_to_53():
    key = parse_key(f"gaia:{ABOVE_FLOAT}")
    assert key == SpectrumKey("gaia_xp", ABOVE_FLOAT)
    assert parse_key(str(key)) == key
    assert parse_key("LAMOST:101001") == SpectrumKey("lamost_lrs", 101001)


@pytest.mark.parametrize(
    "text", ["101001", "jwst:5", "gaia:", "gaia:1e18", "gaia:5.0", "gaia:-4", f"gaia:{2**63}", "gaia:٣"]
)
def test_what_is_no_key_is_refused_with_the_forms_there_are(text):
    with pytest.raises(QueryError, match=r"gaia|whole number|between"):
        parse_key(text)


@pytest.mark.parametrize("value", [5.0, np.float64(2**60), True, None, [1]])
def test_floats_are_never_ids(value):
    with pytest.raises(QueryError, match="64-bit integer"):
        parse_int64(value)


def test_numpy_integers_are_ids():
    assert parse_int64(np.int64(ABOVE_FLOAT)) == ABOVE_FLOAT
    assert parse_int64(b" 42 ") == 42


def test_split_goes_by_the_bits_of_the_star():
    ids = np.array([5853418002145112704, 7 << 7, 8 << 7, 9 << 7, 10 << 7], dtype=np.int64)
    assert split_of(ids).tolist() == [(5853418002145112704 >> 7) % 10, 7, 8, 9, 0]


def test_unsigned_ids_are_the_same_bits_as_int64() -> None:
    """SDSS's ids are unsigned; those of plates from 8192 on are negative as int64."""
    number = 9_243_000_000_000_000_123
    key = parse_key(f"sdss:{number}")
    assert key.spec_id == number - 2**64 < 0
    assert parse_key(str(key)) == key
    with pytest.raises(QueryError, match="between 0 and"):
        parse_key(f"sdss:{2**64}")
    with pytest.raises(QueryError, match="whole number"):
        parse_key("desi:-1")

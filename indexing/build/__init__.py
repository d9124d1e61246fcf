"""Building an index from vectors, with its measured recall."""

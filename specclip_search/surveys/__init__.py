"""One file an instrument: grid, windows, key prefix, columns, how it is prepared."""

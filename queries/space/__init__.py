"""Basis of all queries: the open space, targets, spectra, pairs, neighbours."""

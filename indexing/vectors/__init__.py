"""Embedding spectra and estimating labels; vector tables, keys and means."""

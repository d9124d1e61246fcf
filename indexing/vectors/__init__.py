"""Spectra to vectors and labels; rows, keys, means."""

"""Similarity search for spectra."""

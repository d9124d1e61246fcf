"""Simulated spectra of a star with given labels."""

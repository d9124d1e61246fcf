"""Samples of simulated stars, written to an atlas."""

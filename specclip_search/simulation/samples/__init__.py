"""Samples of such stars, written into an atlas."""

"""Robust trends, p-values, tail models, and the choice of calibration stars."""

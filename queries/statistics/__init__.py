"""Robust trends, p-values, tails, which stars may teach."""

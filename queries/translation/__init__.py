"""Pairs to translation errors, and what their residuals say."""

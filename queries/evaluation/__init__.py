"""Scored against known truth, and the weights that are learned from it."""

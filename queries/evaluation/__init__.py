"""Evaluation against known truth, and the weights learned from it."""

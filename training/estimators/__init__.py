"""Estimation of labels from vectors."""

"""Anomaly search: which stars are unusual, and why."""

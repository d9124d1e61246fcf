"""Queries by position: matching, linking, cross-matching, HATS."""

"""Torch modules and losses."""

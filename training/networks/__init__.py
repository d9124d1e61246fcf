"""Torch modules, published sizes, losses."""

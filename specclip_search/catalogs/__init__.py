"""Ingest of star catalogues into the atlas."""

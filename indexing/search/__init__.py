"""Searching an index: candidates, re-ranking, engines."""

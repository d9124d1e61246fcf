"""Readers of surveys: one file each."""

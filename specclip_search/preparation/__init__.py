"""Arithmetic from raw flux to model input, for any instrument."""

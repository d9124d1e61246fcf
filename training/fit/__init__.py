"""Training of models from a recipe and pairs of spectra."""

"""Two-dimensional maps of the space."""

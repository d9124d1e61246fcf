"""The space as a picture."""

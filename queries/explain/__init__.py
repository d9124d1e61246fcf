"""Why spectra are alike, and what the members of a list have in common."""

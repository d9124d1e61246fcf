"""HTML report of an atlas."""

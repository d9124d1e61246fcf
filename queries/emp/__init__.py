"""Search for extremely metal-poor stars, with the evidence."""

"""[Fe/H] from the XP flux: networks and trees, and their training."""

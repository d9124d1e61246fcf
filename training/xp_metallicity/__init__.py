"""[Fe/H] from the XP flux: networks and trees, and how they were taught."""

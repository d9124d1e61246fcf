"""Model folders, and safe import of foreign checkpoints."""

"""Model folders, and foreign checkpoints made safe."""

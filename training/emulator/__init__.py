"""Training of the emulator and its corrections, and comparison with real stars."""

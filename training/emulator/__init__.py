"""How the emulator and its corrections were learned, and how like real stars it is."""

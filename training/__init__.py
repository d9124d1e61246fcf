"""The model: encoders, decoders, losses, training, checkpoints."""

import os

# Threads that wait for each other in a busy loop make a step up to five times slower where other
# programs want the cores too; a short wait costs nothing where they do not. Read when torch is loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

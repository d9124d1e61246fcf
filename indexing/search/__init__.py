"""One question to an index: candidates, re-ranking, engines."""

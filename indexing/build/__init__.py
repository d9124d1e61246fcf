"""From vectors to an index, with its measured recall."""

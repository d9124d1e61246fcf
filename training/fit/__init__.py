"""A recipe and pairs in, a model folder out."""

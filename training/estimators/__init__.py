"""Labels from vectors."""

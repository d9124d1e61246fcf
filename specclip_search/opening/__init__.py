"""Files from outside, opened safely: regular, bounded before a library sees them, told by their content."""

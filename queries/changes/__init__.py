"""What differs between the visits of a star: radial velocities, lines, a second set of lines."""

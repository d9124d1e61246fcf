"""The spectrum that a star of given labels would show."""

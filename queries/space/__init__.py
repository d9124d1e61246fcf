"""What every query starts from: the open space, targets, spectra, pairs, neighbours."""

"""What spectra come in: FITS blocks, tables of any format, members of archives."""

"""Which spectra are like this one."""

"""Real LAMOST spectra in training: selection, correction of simulated spectra, fine-tuning of `mini`, estimators."""

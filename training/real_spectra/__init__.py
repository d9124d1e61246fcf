"""Real LAMOST spectra in training: which stars, what simulated spectra lack, the fine-tuning of `mini`, its estimators."""

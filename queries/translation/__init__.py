"""Translation errors of pairs, and measures of their residuals."""

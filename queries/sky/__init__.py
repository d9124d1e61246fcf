"""By position: match, link, cross-match, HATS."""

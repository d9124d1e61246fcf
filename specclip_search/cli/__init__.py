"""The command line: the only place that formats and prints."""

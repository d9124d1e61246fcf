"""SQL over an atlas: searches as functions, a sandbox for untrusted SQL, and export."""

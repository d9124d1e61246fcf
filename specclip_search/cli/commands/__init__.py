"""One module a command, imported when it runs; each has a typer `app`."""

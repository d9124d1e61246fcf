"""Which stars are strange, and why."""

"""Which stars are extremely metal-poor, with the evidence."""

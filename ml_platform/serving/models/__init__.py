"""Which models this worker serves, and how they are replaced while it serves."""

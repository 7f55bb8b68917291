"""SQL over HTTP, from a process that may be another user's: what a caller is not granted never leaves it."""

"""Making a registered version again from what was recorded of it, and comparing the two."""

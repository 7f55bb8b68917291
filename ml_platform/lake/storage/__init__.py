"""Delta tables: written by many processes at once, versioned, merged and kept small."""

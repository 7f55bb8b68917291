"""Collects the catalogue: from what the project declares, and from what lake and release store hold."""

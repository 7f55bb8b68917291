"""Portable expressions: one definition of a feature for single rows, many rows and tables."""

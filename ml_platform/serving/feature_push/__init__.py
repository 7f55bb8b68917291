"""Rows pushed into feature views between their computations."""

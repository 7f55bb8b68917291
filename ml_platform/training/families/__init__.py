"""Families of estimators: one class each, one module per library, found by name in `registry`."""

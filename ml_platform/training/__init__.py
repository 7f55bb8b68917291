"""Training: split, search, fit, export and evaluation."""

"""Drift: the rows scored by now, compared with those of the training."""

"""Probabilities and intervals that follow the labels as they come, without training."""

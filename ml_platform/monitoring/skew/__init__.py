"""Skew: what serving computed, compared with what the lake says of the same instants."""

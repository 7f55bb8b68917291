"""The rows of a training set and their split by time."""

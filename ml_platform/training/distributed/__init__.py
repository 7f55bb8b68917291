"""Training over several workers: each reads its own part of a training set from the lake, none the whole."""

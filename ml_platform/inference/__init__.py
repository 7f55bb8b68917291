"""Inference: scoring single rows and whole time spans, and the log of predictions."""

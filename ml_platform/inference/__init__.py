"""Inference: scoring rows, one at a time or by the window, and the log of what was answered."""

"""Evaluation: metrics with intervals, the comparison with the champion, and the gate."""

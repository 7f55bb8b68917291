"""Drives canary walks: judges each step by what the canary and the champion answered over the same time."""

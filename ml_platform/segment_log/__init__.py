"""Logs of segment files: written before an answer is sent, ingested exactly once."""

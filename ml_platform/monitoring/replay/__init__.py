"""Logged requests answered again by another version, beside the champion's answers."""

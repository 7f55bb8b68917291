"""Alerts: conditions that begin and end, and their delivery."""

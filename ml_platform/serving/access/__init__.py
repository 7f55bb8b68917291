"""Checks on every request before it is answered: caller, host and rate; and its line in the audit log."""

"""The door: who calls, from which host, how often, and the line in the audit log about it."""

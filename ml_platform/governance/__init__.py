"""Governance: API keys with roles and scopes, and the audit log of who did what."""

"""Endpoints: shown and changed over HTTP."""

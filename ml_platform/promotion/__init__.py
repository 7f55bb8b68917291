"""Promotion: registered versions, the release of one, traffic, rollback, and the registry kept in step."""

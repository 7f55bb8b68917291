"""Rolling aggregates: trailing windows over the events of a table."""

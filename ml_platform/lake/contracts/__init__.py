"""Table contracts: which values a table takes, and how its columns may change."""

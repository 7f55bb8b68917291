"""Who may see and do what: principals and groups, grants on catalogue objects, tags, row filters and column masks."""

"""A project with one of everything."""

"""The online store: the newest values of every entity, and rows pushed between computations."""

"""Drafts a model's folder from a table: what is predicted, from which inputs, in which order of time."""

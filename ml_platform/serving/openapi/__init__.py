"""The OpenAPI document: every route of the app, described for the models that serve now."""

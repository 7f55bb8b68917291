"""The OpenAPI document: every route of the app, written from what serves."""

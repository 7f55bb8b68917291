"""Features of views and services, for applications and for models elsewhere."""

"""The FastAPI app that serves predictions; it needs only the release store and the online store of the platform."""

"""The FastAPI app that answers predictions: of the platform it needs the releases and the online store only."""

"""Forecasts: one direct model over all steps of a horizon, judged on rolling origins beside the seasonal naive."""

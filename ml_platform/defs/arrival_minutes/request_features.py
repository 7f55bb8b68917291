"""The same request features as `flight_delay`: both models answer about the same flight at the same instant."""

from ml_platform.defs.flight_delay.request_features import REQUEST_FEATURES

__all__ = ["REQUEST_FEATURES"]

"""The search over families and parameters: one Optuna study, of which each trial is kept, tracked and shown."""

from ml_platform.training.search.run_search import search

__all__ = ["search"]

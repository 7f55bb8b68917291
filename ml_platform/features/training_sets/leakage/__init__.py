"""Leakage: finds features that give the label away, alone or together, before a model learns them."""

from ml_platform.features.training_sets.leakage.search import Leak, LeakageReport, find_leakage, single_strength

__all__ = ["Leak", "LeakageReport", "find_leakage", "single_strength"]

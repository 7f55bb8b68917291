"""Checks of a project's own definitions, to be called from its tests: a handful of lines of pytest.

Every check is a plain function that raises AssertionError, saying what was wanted, what was found and what to do. Parts
are named by strings, so that a test is parametrised by `tables()`, `views()` or `models()`, and a project without any
has nothing to check. `ml-platform docs testing` shows a whole test file.

Nothing is read or written outside of the folder that `sample_home` is given, except for the sources themselves; nothing
asks the network but the project's own sources.

Examples
--------
>>> import pytest
>>> @pytest.mark.parametrize("view", views())
... def test_view_is_point_in_time(view, home):
...     check_view_is_point_in_time(view, home)
"""

from ml_platform.testing.arrival import Arrives
from ml_platform.testing.contracts import check_contract_holds
from ml_platform.testing.definitions import check_definitions_load
from ml_platform.testing.families import FamilyCase, check_family, family_cases
from ml_platform.testing.graph import check_graph_snapshot
from ml_platform.testing.home import SampleHome, sample_home
from ml_platform.testing.point_in_time import check_view_is_point_in_time
from ml_platform.testing.project_parts import models, tables, views
from ml_platform.testing.served_scores import check_model_serves_what_it_trained

__all__ = [
    "Arrives",
    "FamilyCase",
    "SampleHome",
    "check_contract_holds",
    "check_definitions_load",
    "check_family",
    "check_graph_snapshot",
    "check_model_serves_what_it_trained",
    "check_view_is_point_in_time",
    "family_cases",
    "models",
    "sample_home",
    "tables",
    "views",
]

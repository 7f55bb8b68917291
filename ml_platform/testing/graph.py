"""The project's graph as a snapshot in a file: a change of it is meant, or a mistake."""

import difflib
import json
import os
from pathlib import Path

from ml_platform.testing.definitions import current_graph

VARIABLE = "UPDATE_SNAPSHOTS"
_MOST_LINES = 80


def check_graph_snapshot(path: Path) -> None:
    """Check that assets, checks, jobs, schedules and sensors are those in a snapshot.

    With `UPDATE_SNAPSHOTS=1` in the environment the snapshot is written anew: read the difference before it is
    committed. An upgrade of the engine may change its own assets, too.

    Parameters
    ----------
    path
        JSON file beside the tests, committed with them.

    Raises
    ------
    AssertionError
        If there is no snapshot, or it differs, with the lines that do; and if the definitions do not load.
    """
    graph = json.dumps(current_graph(), indent=2) + "\n"
    if os.environ.get(VARIABLE, "") not in ("", "0"):
        path.write_text(graph, encoding="utf-8")
        return
    remedy = f"If that is meant, write the snapshot anew by {VARIABLE}=1, read the difference, and commit it"
    if not path.is_file():
        raise AssertionError(f"wanted a snapshot of the graph, found no file {path}. {remedy}")
    snapshot = path.read_text(encoding="utf-8")
    if graph == snapshot:
        return
    lines = list(difflib.unified_diff(snapshot.splitlines(), graph.splitlines(), str(path), "the project now", n=4))
    more = f"\n… and {len(lines) - _MOST_LINES} more lines" if len(lines) > _MOST_LINES else ""
    shown = "\n".join(line.rstrip("\n") for line in lines[:_MOST_LINES])
    raise AssertionError(
        f"wanted the graph as in {path}, found another (- as it was, + as it is):\n{shown}{more}\n{remedy}"
    )

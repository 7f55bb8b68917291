"""Where runs are kept: `<home>/automl/<name>/<start>/`, with the leaderboard, notebooks and plots of each."""

from datetime import datetime
from pathlib import Path

from ml_platform.automl.documents import Leaderboard

LEADERBOARD = "leaderboard.json"
EXPLORATION = "exploration.ipynb"


def runs_folder(home: Path) -> Path:
    """Folder of all runs."""
    return home / "automl"


def new_run_folder(home: Path, name: str, started: datetime) -> Path:
    """Make the folder of a run that begins; an earlier one keeps its own, with what was edited in it."""
    folder = runs_folder(home) / name / started.strftime("%Y%m%dT%H%M%S")
    number, free = 1, folder
    while free.exists():
        number += 1
        free = folder.with_name(f"{folder.name}-{number}")
    free.mkdir(parents=True)
    return free


def write_leaderboard(folder: Path, board: Leaderboard) -> None:
    """Write the leaderboard, last of all files of a run: with it the run is whole."""
    (folder / LEADERBOARD).write_text(board.model_dump_json(indent=2) + "\n", encoding="utf-8")


def latest_run(home: Path, name: str) -> tuple[Path, Leaderboard]:
    """Read the newest whole run (raises LookupError, naming the runs that there are)."""
    runs = sorted((runs_folder(home) / name).glob(f"*/{LEADERBOARD}"))
    if not runs:
        names = sorted({path.parent.parent.name for path in runs_folder(home).glob(f"*/*/{LEADERBOARD}")})
        raise LookupError(
            f"there is no run of AutoML called '{name}'; there are: {', '.join(names) or 'none'}. Start one: "
            "ml-platform automl --data <file> --target <column>"
        )
    return runs[-1].parent, Leaderboard.model_validate_json(runs[-1].read_text(encoding="utf-8"))

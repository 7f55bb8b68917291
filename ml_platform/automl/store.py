"""Where runs are kept: `<home>/automl/<name>/<start>/`, with the leaderboard, notebooks and plots of each."""

import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from ml_platform.atomic_files import locked
from ml_platform.automl.documents import Leaderboard

LEADERBOARD = "leaderboard.json"
EXPLORATION = "exploration.ipynb"


def runs_folder(home: Path) -> Path:
    """Folder of all runs."""
    return home / "automl"


def store_run(home: Path, name: str, started: datetime, write: Callable[[Path], None]) -> Path:
    """Write the files of a run that is done, and give their folder.

    They are written beside the runs and moved there when they are whole. An earlier run keeps its own folder, with what
    was edited in it. What a killed run of this name left unfinished is removed.

    Parameters
    ----------
    home
        The project's data folder.
    name, started
        Of the run.
    write
        Writes the files into an empty folder.
    """
    place = runs_folder(home) / ".unfinished" / name
    unfinished = place / "run"
    folder = runs_folder(home) / name / started.strftime("%Y%m%dT%H%M%S")
    with locked(place / "lock"):  # another run of this name waits for the second that this takes
        if unfinished.exists():
            shutil.rmtree(unfinished)
        unfinished.mkdir()
        write(unfinished)
        number, free = 1, folder
        while free.exists():
            number += 1
            free = folder.with_name(f"{folder.name}-{number}")
        free.parent.mkdir(parents=True, exist_ok=True)
        unfinished.rename(free)
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

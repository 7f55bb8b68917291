"""What names a version by its number, beside endpoints: definitions of the project, and scorings that were begun."""

import re
from pathlib import Path

from ml_platform.project import ProjectNotFound, current_project
from ml_platform.scoring.begun import begun_scorings
from ml_platform.settings import Settings

_KINDS = {".sql", ".yaml", ".yml", ".py"}
_REFERENCE = r"(?<![\w-]){model}@(?:v|version-?)?(?P<version>\d+)(?!\w)"


class Pins:
    """What names versions of models, read once.

    Parameters
    ----------
    settings
        Where scorings are.
    defs
        The project's definitions; those of the current project when None, and none without a project.
    """

    def __init__(self, settings: Settings, defs: Path | None = None) -> None:
        self._scorings = begun_scorings(settings.scoring_dir)
        self._texts: dict[str, str] = {}
        if defs is None:
            try:
                defs = current_project().defs
            except ProjectNotFound:
                return
        for path in sorted(defs.rglob("*")):
            if path.suffix in _KINDS and path.is_file():
                text = path.read_text(encoding="utf-8", errors="replace")
                if "@" in text:
                    self._texts[str(path.relative_to(defs.parent))] = text

    def of(self, model: str, version: int | None = None) -> list[str]:
        """Say what names a version, or any version of a model; nothing where nothing does."""
        reference = re.compile(_REFERENCE.format(model=re.escape(model)))
        named = [
            f"{name}, line {text.count(chr(10), 0, match.start()) + 1}, names {match[0]}"
            for name, text in self._texts.items()
            for match in reference.finditer(text)
            if version in (None, int(match["version"]))
        ]
        return named + [
            f"a scoring of {one.source} by version {one.version} was begun at {one.scored_at:%Y-%m-%d %H:%M} UTC and "
            "has not ended"
            for one in self._scorings
            if one.model == model and version in (None, one.version)
        ]

"""Rows that name somebody by another name: a model's rows, by their ids in the spine."""

from collections.abc import Iterator

import duckdb
import polars as pl

from ml_platform.features.training_sets.spine import read_spine
from ml_platform.governance.erasure.entities import Declaration, Project
from ml_platform.governance.erasure.subjects import Subjects
from ml_platform.lake.storage.tables import Lake
from ml_platform.settings import Settings

SCHEMAS = {"training_sets": None, "predictions": None, "inference_log": "id"}


def linked_subjects(lake: Lake, settings: Settings, project: Project, subjects: Subjects) -> Iterator[Subjects | str]:
    """Find the ids of the rows of each model that are of the entities, while its tables still say so.

    Yields
    ------
    Subjects or str
        The ids, as they stand in the model's training set, predictions and log; or why they are not known.
    """
    for spec in project.models.values():
        if spec.id is None or spec.id in subjects.declaration.names:
            continue
        names = _names_in_spine(subjects, project, spec.name)
        if not names:
            continue
        try:
            rows = read_spine(lake, spec, project.folders[spec.name], [spec.id, *names])
            mask = pl.Series("mask", [False]).new_from_index(0, rows.height)
            for name in names:
                mask = mask | subjects.matches("", rows[name])
        except (LookupError, ValueError, duckdb.Error, pl.exceptions.PolarsError) as error:
            yield f"{spec.name}: ids of their rows are not known: {error}"
            continue
        ids = [str(one) for one in rows.filter(mask)[spec.id].drop_nulls().unique().sort()]
        if ids:
            columns: dict[str, tuple[str, ...]] = {
                f"{schema}/{spec.name}": (column or spec.id,) for schema, column in SCHEMAS.items()
            }
            columns[f"predictions/{spec.name}"] = (spec.id, "id")
            declaration = Declaration(spec.id, columns, (), (f"ids of {spec.name}'s rows, by its spine",))
            yield Subjects.of(declaration, ids, settings.keys_dir)


def _names_in_spine(subjects: Subjects, project: Project, model: str) -> list[str]:
    spec = project.models[model]
    keys = {
        lookup.keys.get(name, name)
        for lookup in spec.lookups
        if lookup.view in project.views
        for name in project.views[lookup.view].entity
    }
    given = {field.name for field in spec.inputs}
    return sorted({*subjects.declaration.names} & (keys | given))

"""The rows that a version was trained on: built again from the pinned tables, and compared with those stored."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from ml_platform.features.training_sets.build import labelled_features
from ml_platform.features.training_sets.feature_definitions import FeatureDefinitions
from ml_platform.features.training_sets.frame_digest import frame_digest
from ml_platform.features.views.recorded_definitions import ViewChanged
from ml_platform.lake.storage.tables import Lake
from ml_platform.promotion.declared import DeclaredModel
from ml_platform.registry.manifest import Manifest
from ml_platform.registry.reproductions import Check
from ml_platform.spec.model import ModelSpec
from ml_platform.training.recipe import Recipe

_COLUMNS = 10  # that are told of what differs


class RowsGone(LookupError):
    """Neither the tables that the rows were made from nor the stored rows can be read any more."""


@dataclass(frozen=True)
class Rows:
    """The rows of a training set.

    Attributes
    ----------
    frame
        By instant and id.
    told
        Where they are from, in words.
    rebuilt
        False: the stored ones stand in, as the tables they were made from are gone.
    check
        How they compare with what was recorded.
    """

    frame: pl.DataFrame
    told: str
    rebuilt: bool
    check: Check


def training_rows(lake: Lake, spec: ModelSpec, recipe: Recipe, manifest: Manifest, now: DeclaredModel | None) -> Rows:
    """Build the rows of a version's training set again; nothing is written.

    Parameters
    ----------
    lake
        Holds the tables.
    spec, recipe, manifest
        As they were recorded.
    now
        The model as the project declares it; its request features are used if their text is the recorded one. Else
        those that the manifest keeps are.

    Raises
    ------
    RowsGone
        When neither the tables nor the stored rows can be read, with the reason of each.
    """
    ref = recipe.training_set
    stored, why_no_stored = _stored(lake, spec, recipe)
    try:
        frame, told = _built(lake, spec, recipe, manifest, now)
    except (LookupError, ViewChanged) as error:  # vacuumed, dropped, or computed by another definition
        if stored is None:
            raise RowsGone(f"{error} The stored rows are gone, too: {why_no_stored}") from error
        return Rows(
            stored,
            f"read from {ref.table} version {ref.version}, not built again: {error}",
            rebuilt=False,
            check=_compared(ref.digest, stored, None),
        )
    return Rows(frame, told, rebuilt=True, check=_compared(ref.digest, frame, stored))


def _stored(lake: Lake, spec: ModelSpec, recipe: Recipe) -> tuple[pl.DataFrame | None, str]:
    ref = recipe.training_set
    try:
        rows = lake.read(ref.table, version=ref.version).sort(spec.timestamp, spec.id).collect()
    except LookupError as error:
        return None, str(error)
    return rows, ""


def _built(
    lake: Lake, spec: ModelSpec, recipe: Recipe, manifest: Manifest, now: DeclaredModel | None
) -> tuple[pl.DataFrame, str]:
    ref, views = recipe.training_set, recipe.feature_views()
    tables = ", ".join(f"{name} version {version}" for name, version in sorted(ref.tables.items()))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / spec.spine).parent.mkdir(parents=True, exist_ok=True)
        (folder / spec.spine).write_text(recipe.spine, encoding="utf-8")
        if recipe.request_features is None:
            definitions, how = FeatureDefinitions.of_spec(spec, folder), ""
        elif now is not None and _has_text(now.folder / (spec.request_features or ""), recipe.request_features):
            definitions, how = FeatureDefinitions.of_spec(spec, now.folder), ""
        else:  # never the recorded Python itself: the manifest has the same features as data
            definitions = FeatureDefinitions.of_version(manifest, spec, views)
            how = "; request features as the bundle keeps them, since their file changed"
        frame = labelled_features(lake, spec, folder, views, definitions, ref.tables, ref.features, as_of=ref.as_of)
    return frame, f"built again from {tables}, labels as of {ref.as_of:%Y-%m-%d %H:%M} UTC{how}"


def _has_text(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


def _compared(recorded: str, frame: pl.DataFrame, stored: pl.DataFrame | None) -> Check:
    found = frame_digest(frame)
    wanted = recorded or (frame_digest(stored) if stored is not None else "")
    equal = found == wanted
    detail = ""
    if not equal:
        detail = differences(frame, stored) if stored is not None else "the stored rows are gone: nothing says which"
    return Check(what="rows", recorded=wanted[:16] or "–", found=found[:16], equal=equal, detail=detail)


def differences(frame: pl.DataFrame, stored: pl.DataFrame) -> str:
    """Say in which columns and rows two frames of the same order differ.

    Examples
    --------
    >>> differences(pl.DataFrame({"id": ["a", "b"], "x": [1, 2]}), pl.DataFrame({"id": ["a", "b"], "x": [1, 3]}))
    'x: 1 of 2 rows, the first at position 1 (was 3, is 2)'
    """
    if frame.height != stored.height:
        return f"{stored.height:,} rows were stored, {frame.height:,} were built"
    missing, surplus = set(stored.columns) - set(frame.columns), set(frame.columns) - set(stored.columns)
    said = [f"{name}: missing now" for name in sorted(missing)] + [f"{name}: new" for name in sorted(surplus)]
    for name in [name for name in stored.columns if name in frame.columns]:
        one, other = stored.get_column(name), frame.get_column(name)
        if one.dtype != other.dtype:
            said.append(f"{name}: was {one.dtype}, is {other.dtype}")
        elif apart := one.ne_missing(other).arg_true().to_list():
            place = apart[0]
            said.append(
                f"{name}: {len(apart):,} of {frame.height:,} rows, the first at position {place} "
                f"(was {one[place]}, is {other[place]})"
            )
    more = [f"{len(said) - _COLUMNS} more columns"] if len(said) > _COLUMNS else []
    return "; ".join([*said[:_COLUMNS], *more]) or "the order or the sign of zeros"

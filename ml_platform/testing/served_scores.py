"""Asks the serving app for scores, and holds them against those of the trained model and of batch scoring."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ml_platform.features.online.open import open_online_store
from ml_platform.features.online.publish import publish_view
from ml_platform.features.training_sets.build import feature_rows
from ml_platform.features.training_sets.feature_definitions import FeatureDefinitions
from ml_platform.features.training_sets.spine import read_spine, spine_text, where
from ml_platform.features.training_sets.spine_values import typed_inputs
from ml_platform.inference.batch import score_window
from ml_platform.lake.query.sql import referenced_tables
from ml_platform.lake.storage.tables import Lake
from ml_platform.registry.manifest import Manifest, Target
from ml_platform.registry.releases import ReleaseStore
from ml_platform.spec.model import ModelSpec
from ml_platform.testing.home import SampleHome, settings_in
from ml_platform.testing.model_slice import TrainedSlice, train_slice
from ml_platform.testing.project_parts import part, project_models
from ml_platform.testing.server import running_server

_MICROSECOND = timedelta(microseconds=1)
_ONE_BY_ONE = 5  # rows that are also asked for in a request each, which the server answers by other code


def check_model_serves_what_it_trained(model: str, home: SampleHome, *, rows: int = 200) -> None:
    """Check that a model trains, and that its server answers with the scores of the model that was trained.

    The model is trained on a slice of the sample by the engine's own steps: training set, search (one trial of each
    family), fit, export to ONNX, bundle. The bundle is released in a home of its own, with an online store that holds
    the views' rows as they were before the newest rows of the holdout. The project's serving app, hooks included, runs
    on a free port of this machine and is asked for these rows. Its scores must be those

    - of the trained model itself, before export, on features made as training makes them; and
    - of batch scoring, on features made as the bundle says,

    within the tolerance of the engine's own check of every export. A model whose requests name no instant is asked
    about now: then the features of its views are taken from the answer. It shows nothing of how good the model is.

    Parameters
    ----------
    model
        Name of the model.
    home
        The sample; it needs rows over so many days that training, validation and holdout have some.
    rows
        The newest labelled rows to ask for.

    Raises
    ------
    AssertionError
        If it cannot be trained, or serves other scores, with the first row that differs and the features by which it
        does; or if there are no rows to compare.
    """
    spec, folder = part("model", model, project_models())
    served = settings_in(home.settings.home / "served" / model)
    store = ReleaseStore(served.releases_dir)
    slice_ = train_slice(spec, folder, home, store)
    digest = slice_.trained.digest
    store.publish(model, [Target(version=1, digest=digest)], reason="trained on a slice", by="ml_platform.testing")
    manifest = store.load_manifest(digest)
    newest = slice_.parts.holdout.tail(rows)
    since, until = newest.get_column(spec.timestamp)[0], newest.get_column(spec.timestamp)[-1] + _MICROSECOND
    lake = _earlier_lake(Lake(served.lake_uri), spec, folder, home, since)
    with open_online_store(served.online_uri) as online:
        for lookup in spec.lookups:
            publish_view(lake, home.views[lookup.view], online)
    # Written into the lake of its own: what the sample has stays as it is.
    score_window(lake, spec, folder, home.views, store, since, until)
    batch = lake.read(f"predictions/{model}").select("id", batch_score="score").collect()
    definitions = FeatureDefinitions.of_spec(spec, folder)
    features = feature_rows(lake, spec, folder, home.views, definitions, since, until)
    ids = newest.select(pl.col(spec.id).cast(pl.String).alias("__id"))
    scored = features.with_columns(pl.col(spec.id).cast(pl.String).alias("__id")).join(ids, on="__id", how="semi")
    scored = scored.join(batch, left_on="__id", right_on="id", how="inner", maintain_order="left")
    if scored.is_empty():
        raise AssertionError(
            f"model '{model}': wanted rows to ask its server for, found that batch scoring scores none of the newest "
            f"{newest.height} labelled rows; nothing was compared. Their inputs break the model's own contract"
        )
    requests = _requests(lake, spec, folder, scored.get_column("__id"))
    with running_server(served) as server:
        answers = server.predict(model, requests)
        alone = server.predict(model, requests[:_ONE_BY_ONE], one=True)
    _compare(manifest, slice_, scored, answers)
    _compare(manifest, slice_, scored.head(_ONE_BY_ONE), alone)


def _earlier_lake(lake: Lake, spec: ModelSpec, folder: Path, home: SampleHome, instant: datetime) -> Lake:
    """Fill a lake with the spine's tables, and with the views' rows up to an instant: all that is known then."""
    for table in sorted(referenced_tables(spine_text(spec, folder))):
        lake.replace(table, home.rows(table))
    for view in {lookup.view: home.views[lookup.view] for lookup in spec.lookups}.values():
        known_at = pl.max_horizontal(view.event_time, view.created) if view.created else pl.col(view.event_time)
        lake.replace(view.table, home.rows(view.table).filter(known_at <= instant))
    return lake


def _requests(lake: Lake, spec: ModelSpec, folder: Path, ids: pl.Series) -> list[dict[str, Any]]:
    """Make requests of rows of the spine, by their ids and in their order: what a caller would send as JSON."""
    names = [field.name for field in spec.inputs]
    rows = read_spine(lake, spec, folder, list(dict.fromkeys([spec.id, *names])))
    typed = typed_inputs(rows, spec.inputs, {}, id_column=spec.id, where=where(spec))
    ordered = (
        ids.alias("__id")
        .to_frame()
        .join(
            typed.with_columns(pl.col(spec.id).cast(pl.String).alias("__id")),
            on="__id",
            how="left",
            maintain_order="left",
        )
    )
    return [{name: _json(value) for name, value in row.items()} for row in ordered.select(names).to_dicts()]


def _json(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return None if isinstance(value, float) and isnan(value) else value


def _compare(
    manifest: Manifest, slice_: TrainedSlice, scored: pl.DataFrame, answers: Sequence[Mapping[str, Any]]
) -> None:
    """Hold the answers to some rows against the trained model's scores and those of batch scoring."""
    is_now = manifest.as_of is None and bool(manifest.lookups)
    if is_now:
        scored = scored.with_columns(
            pl.Series(name, [answer["features"][name] for answer in answers], dtype=scored.schema[name])
            for lookup in manifest.lookups
            for name in lookup.features
        )
    native = slice_.native.predict(scored)
    served = np.array([_score(manifest, answer) for answer in answers])
    _hold(manifest, slice_, "the trained model", served, native, scored, answers)
    if not is_now:
        batch = scored.get_column("batch_score").to_numpy()
        _hold(
            manifest, slice_, "batch scoring", served.max(axis=1) if served.ndim > 1 else served, batch, scored, answers
        )


def _score(manifest: Manifest, answer: Mapping[str, Any]) -> float | list[float]:
    if manifest.task == "multiclass":
        return [answer["probabilities"][str(name)] for name in manifest.classes]
    score: float = answer["probability" if manifest.task == "binary" else "prediction"]
    return score


def _hold(  # noqa: PLR0917 - private
    manifest: Manifest,
    slice_: TrainedSlice,
    whose: str,
    served: np.ndarray,
    wanted: np.ndarray,
    scored: pl.DataFrame,
    answers: Sequence[Mapping[str, Any]],
) -> None:
    """Hold served scores against others (both rows, or rows × classes)."""
    tolerance = slice_.trained.parity.tolerance
    scale = np.maximum(1.0, np.abs(wanted)) if manifest.task == "regression" else 1.0
    differences = np.nan_to_num(np.abs(served - wanted) / scale, nan=np.inf).reshape(len(served), -1).max(axis=1)
    if not (wrong := int((differences > tolerance).sum())):
        return
    worst = int(differences.argmax())
    row, features = scored.row(worst, named=True), answers[worst].get("features", {})
    unlike = [
        f"{feature.name}: offline {row[feature.name]!r}, served {features.get(feature.name)!r}"
        for feature in manifest.features
        if not _alike(row[feature.name], features.get(feature.name))
    ]
    why = "\n  ".join(unlike) or "none: the scores differ on equal features"
    raise AssertionError(
        f"model '{manifest.model}': wanted its server to answer with the scores of {whose} (tolerance {tolerance:g}); "
        f"found {wrong} of {len(served)} that differ, most that of row {row['__id']}: wanted {wanted[worst]}, served "
        f"{served[worst]}. Features of this row that differ:\n  {why}\n"
        "Make them the same in both: a request feature must depend on the request alone, and a hook of serving/app.py "
        "changes rows and scores that training knows nothing of"
    )


def _alike(one: Any, other: Any) -> bool:
    if one is None or other is None:
        return all(value is None or (isinstance(value, float) and isnan(value)) for value in (one, other))
    if isinstance(one, float) or isinstance(other, float):
        return bool(np.isclose(one, other, rtol=1e-12, atol=0, equal_nan=True))
    return bool(one == other)

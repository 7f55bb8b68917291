"""Where a run's rows come from: a table of the lake, a file that becomes one, or a model's training set."""

from dataclasses import dataclass
from pathlib import Path

from ml_platform.automl.documents import Decision, Plan, PlanColumn, SplitPlan
from ml_platform.automl.options import AutomlOptions
from ml_platform.automl.plan import PlannedTable, TableSource, check_metric, plan_table
from ml_platform.automl.split_plan import fit_split
from ml_platform.features.training_sets.build import build_training_set, feature_infos
from ml_platform.features.training_sets.feature_definitions import request_features
from ml_platform.features.views.load import load_views
from ml_platform.inference.matrix import label_classes
from ml_platform.lake.sources.registry import declared_sources
from ml_platform.lake.storage.tables import Lake
from ml_platform.new_model.create import read_file
from ml_platform.new_model.draft import check_name
from ml_platform.new_model.table_columns import check_known
from ml_platform.project import Project
from ml_platform.spec.model import ModelSpec
from ml_platform.spec.types import duration
from ml_platform.spec_yaml import COMPONENT, load_spec
from ml_platform.yaml_documents import documents, nearest


@dataclass(frozen=True)
class ModelSource:
    """A model of the project and its folder."""

    spec: ModelSpec
    folder: Path


def find_model(project: Project, name: str) -> ModelSource:
    """Find a model of the project by its name (raises LookupError)."""
    names: list[str] = []
    for path in sorted(project.defs.rglob("defs.yaml")):
        if any(document.component == COMPONENT for document in documents(path)):
            spec = load_spec(path)
            if spec.name == name:
                return ModelSource(spec, path.parent)
            names.append(spec.name)
    raise LookupError(
        f"the project has no model '{name}'{nearest(name, names)} It has: {', '.join(names) or 'none'}. For a table "
        "say --from or --data, and --target"
    )


def plan_model(project: Project, lake: Lake, name: str, options: AutomlOptions) -> Plan:
    """Plan trials on a model's training set, which is made when there is none; split, task and metric are its own."""
    source = find_model(project, name)
    _check_objective(source.spec)
    spec, views = source.spec, load_views(project.defs / "features")
    table = f"training_sets/{name}"
    if not lake.exists(table):
        build_training_set(lake, spec, source.folder, views)
    infos = feature_infos(spec, request_features(spec, source.folder), views)
    for column in (*options.drop, *options.allow):
        check_known(column, [info.name for info in infos], f"the training set of {name}")
    version = lake.version(table)
    rows = lake.read(table, version=version).collect()
    if options.metric is not None:
        check_metric(spec.task, options.metric)
    metric = options.metric or spec.metric
    dropped = dict.fromkeys(options.drop, "left out by --drop")
    labels = rows.get_column(spec.target)
    positive = labels.drop_nulls().max() if spec.task == "binary" else None
    why = f"as {name} declares it"
    decisions = [
        Decision(what="task", value=spec.task, why=why),
        Decision(
            what="metric", value=metric, why=why if options.metric is None else "as the option says", option="--metric"
        ),
        Decision(
            what="split",
            value="time",
            why=f"{why}: {duration(spec.split.validation)} of validation, {duration(spec.split.holdout)} of holdout",
        ),
    ]
    last = rows.get_column(spec.timestamp).max()
    assert last is not None  # a training set has rows
    holdout_from = last - spec.split.holdout  # type: ignore[operator]
    validation_until = holdout_from - spec.split.gap
    validation_from = validation_until - spec.split.validation
    plan = Plan(
        name=name,
        model=name,
        source=f"the model {name}",
        table=table,
        uri=lake.location(table),
        version=version,
        rows=rows.height,
        task=spec.task,
        metric=metric,
        target=spec.target,
        positive=positive,
        classes=label_classes(labels) if spec.task == "multiclass" else (),
        log_target=metric == "rmsle",
        columns=tuple(
            PlanColumn(name=info.name, kind="category" if info.kind == "categorical" else "number")
            for info in infos
            if info.name not in dropped
        ),
        sort_by=(spec.timestamp, spec.id),
        time=spec.timestamp,
        known=spec.label_available_at,
        split=SplitPlan(
            kind="time",
            train_until=validation_from - spec.split.gap,
            validation_from=validation_from,
            validation_until=validation_until,
            holdout_from=holdout_from,
        ),
        seed=options.seed,
        dropped=dropped,
        decisions=tuple(decisions),
    )
    return fit_split(plan, rows, options)


def _check_objective(spec: ModelSpec) -> None:
    """Refuse a model that is trained in a way that trials and notebooks do not know (raises ValueError)."""
    plain = {field: info.get_default(call_default_factory=True) for field, info in type(spec).model_fields.items()}
    keys = [name for name in ("weight", "class_weights", "quantile", "monotone") if getattr(spec, name) != plain[name]]
    keys += ["split.history"] if spec.split.history is not None else []
    if keys:
        raise ValueError(
            f"{spec.name} has {', '.join(keys)} in its defs.yaml, which trials of AutoML do not know; leave them out, "
            f"or search with its own families: dg launch --job {spec.name}_retrain"
        )


def plan_data(
    lake: Lake, options: AutomlOptions, *, name: str | None, table: str | None, data: Path | None
) -> PlannedTable:
    """Plan trials on a table, or on a file, which is stored as a table first so that its rows have a version."""
    return plan_table(table_source(lake, name=name, table=table, data=data), options)


def table_source(lake: Lake, *, name: str | None, table: str | None, data: Path | None) -> TableSource:
    """Read a table, or a file, which is stored as a table first (raises LookupError, ValueError, OSError)."""
    if data is not None:
        read = read_file(data)
        short = name or read.table.partition("/")[2]
        check_name(short)
        stored = f"automl/{short}"
        version = lake.replace(stored, read.rows)
        return TableSource(short, str(data), stored, lake.location(stored), version, read.rows)
    if table is None:
        raise ValueError("say what to learn from: a model's name, --from raw/<table>, or --data <file>")
    if not lake.exists(table):
        known = lake.tables()
        raise LookupError(f"there is no table '{table}'{nearest(table, known)} There are: {', '.join(known) or 'none'}")
    short = name or table.rpartition("/")[2]
    check_name(short)
    version = lake.version(table)
    declared = declared_sources().get(table)
    key = [column for column, spec in (declared.columns or {}).items() if spec.key] if declared else []
    rows = lake.read(table, version=version).collect()
    return TableSource(short, table, table, lake.location(table), version, rows, key)

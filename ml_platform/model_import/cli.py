"""`ml-platform models import`: a model that was trained elsewhere becomes a version of a model of the project."""

import tempfile
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ml_platform.environments import EnvironmentUnknown
from ml_platform.project import Project, ProjectNotFound, current_project
from ml_platform.promotion.models_cli import app
from ml_platform.promotion.promoters import MayNotPromote, promoter
from ml_platform.settings import Settings
from ml_platform.terminal import say, stop
from ml_platform.yaml_documents import SpecError

if TYPE_CHECKING:
    import polars as pl

    from ml_platform.model_import.claims import Folder
    from ml_platform.model_import.judge import ImportResult

__all__ = ["app"]


class Flavor(StrEnum):
    """Library that made a model."""

    AUTO = "auto"
    ONNX = "onnx"
    XGBOOST = "xgboost"
    LIGHTGBM = "lightgbm"
    CATBOOST = "catboost"
    KERAS = "keras"
    PYTORCH = "pytorch"
    SKLEARN = "sklearn"


class LinkChoice(StrEnum):
    """What turns outputs into scores."""

    NONE = "none"
    SIGMOID = "sigmoid"
    SOFTMAX = "softmax"
    EXP = "exp"


@app.command("import")
def import_(  # noqa: PLR0917 - typer takes options as arguments
    model: Annotated[str, typer.Argument(help="Model of the project that it becomes a version of.")],
    source: Annotated[
        str,
        typer.Argument(help="A file, the folder of an MLflow model, or models:/… and runs:/… of the project's MLflow."),
    ],
    flavor: Annotated[
        Flavor, typer.Option(help="Library that made it; told by its bytes, and refused where they say otherwise.")
    ] = Flavor.AUTO,
    trust: Annotated[
        bool, typer.Option("--trust", help="Load a pickle, joblib or skops file, which runs the code that it brings.")
    ] = False,
    signature: Annotated[
        Path | None,
        typer.Option(help="YAML file with what the model's file does not say: inputs, rename, categories, …"),
    ] = None,
    inputs: Annotated[str, typer.Option(help="Names of the model's inputs in its order: a,b,c.")] = "",
    classes: Annotated[str, typer.Option(help="Labels in the order of the model's probabilities: a,b,c.")] = "",
    positive: Annotated[str, typer.Option(help="Binary: label of the model that means true.")] = "",
    output: Annotated[str, typer.Option(help="ONNX: name of the output with the scores.")] = "",
    link: Annotated[
        LinkChoice | None, typer.Option(help="ONNX and networks: what turns the outputs into scores.")
    ] = None,
    rows: Annotated[
        str | None,
        typer.Option(
            help="CSV or Parquet file or table with rows to compare graph and library on, beside the training set."
        ),
    ] = None,
    trained_until: Annotated[
        str | None,
        typer.Option(
            help="ISO 8601 (UTC): newest row it was trained on. Later ones judge it; without, a person promotes it."
        ),
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option(min=0.0, help="Largest difference between graph and library; by library otherwise.")
    ] = None,
) -> None:
    """Register a model that was trained elsewhere as a version, judge it by the gate, and release it if it passes.

    Example: ml-platform models import my_model model.onnx --trained-until 2024-05-31
    """
    from ml_platform.lake.storage.tables import Lake
    from ml_platform.model_import.claims import Claims
    from ml_platform.model_import.declaration import read_declaration
    from ml_platform.model_import.judge import import_model
    from ml_platform.model_import.readers import read_model
    from ml_platform.model_import.refused import ImportRefused
    from ml_platform.model_import.source import open_source
    from ml_platform.promotion.promote import RegistryBehind
    from ml_platform.registry.digests import BundleRefused
    from ml_platform.registry.releases import ReleaseConflict
    from ml_platform.registry.tracking import Tracker

    try:
        settings, project = Settings(), current_project()
        by, folder = promoter(settings, model, "register"), find_folder(project, model)
        declared = read_declaration(signature).merged(
            {
                "inputs": split_names(inputs),
                "classes": split_names(classes),
                "positive": positive,
                "output": output,
                "link": link.value if link else None,
            }
        )
        until = read_until(trained_until)
        given = read_rows(rows, Lake(settings.lake_uri))
        with tempfile.TemporaryDirectory() as downloads:
            opened = open_source(
                source, flavor=flavor.value, trust=trust, tracker=Tracker(settings), folder=Path(downloads)
            )
            read, notes = read_model(opened, declared)
            say(f"read {read.summary} by {read.library}")
            for note in notes:
                say(f"- {note}")
            result = import_model(settings, folder, opened, read, Claims(by, until, declared, given, tolerance))
    except (ImportRefused, SpecError, ProjectNotFound, MayNotPromote, EnvironmentUnknown) as error:
        stop(f"nothing was imported: {error}")
    except ReleaseConflict as error:
        stop(f"the version was registered and not promoted, because something else was meanwhile: {error}")
    except (LookupError, ValueError, OSError, BundleRefused) as error:
        stop(f"nothing was imported: {error}")
    except RegistryBehind as error:
        stop(str(error))
    _tell(result)


def find_folder(project: Project, name: str) -> "Folder":
    """Find the folder of a model (raises ImportRefused, which says how to make one)."""
    from ml_platform.features.views.load import load_views
    from ml_platform.model_import.claims import Folder
    from ml_platform.model_import.refused import ImportRefused
    from ml_platform.spec_yaml import check_project

    views = load_views(project.defs / "features")
    specs = check_project(project.defs, {view: one.columns.keys() for view, one in views.items()})
    for path, spec in specs.items():
        if spec.name == name:
            return Folder(spec, path.parent, views)
    raise ImportRefused(
        f"no model is called '{name}'; there are {', '.join(sorted(spec.name for spec in specs.values())) or 'none'}. "
        "An imported "
        "model becomes a version of a model that says what its inputs and labels are. To write its folder from a "
        "table: "
        f"ml-platform new model {name} --from raw/<table> --target <column>"
    )


def split_names(text: str) -> tuple[str, ...]:
    """Names of an option, parted by commas."""
    return tuple(one.strip() for one in text.split(",") if one.strip())


def read_until(text: str | None) -> datetime | None:
    """Read the instant of --trained-until; one without an offset is UTC (raises ImportRefused)."""
    from ml_platform.model_import.refused import ImportRefused

    if text is None:
        return None
    try:
        instant = datetime.fromisoformat(text)
    except ValueError as error:
        raise ImportRefused(f"--trained-until: wanted an instant such as 2024-05-31T18:00, found '{text}'") from error
    if len(text) == len("2024-05-31"):  # a day is known to its end
        instant = instant.replace(hour=23, minute=59, second=59, microsecond=999_999)
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def read_rows(name: str | None, lake: object) -> "pl.DataFrame | None":
    """Read the rows of --rows from a file or a table (raises ImportRefused)."""
    import polars as pl

    from ml_platform.lake.storage.tables import Lake
    from ml_platform.model_import.refused import ImportRefused

    if name is None:
        return None
    path = Path(name).expanduser()
    try:
        if path.is_file():
            return pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_csv(path, infer_schema_length=None)
        assert isinstance(lake, Lake)
        return lake.read(name).collect()
    except (LookupError, ValueError, OSError, pl.exceptions.PolarsError) as error:
        raise ImportRefused(f"--rows {name} is neither a readable CSV or Parquet file nor a table: {error}") from error


def _tell(result: "ImportResult") -> None:
    from ml_platform.registry.approved_release import way_into_service
    from ml_platform.registry.releases import ReleaseStore
    from ml_platform.training.evaluation.guardrails.table import evaluation_lines

    trained, decision = result.trained, result.decision
    parity = trained.parity
    say(
        f"graph and library agree on {parity.rows:,} rows: largest difference {parity.max_difference:.2g}, allowed "
        f"{parity.tolerance:g}"
    )
    if result.with_blanks:
        renamed = ", ".join(f"'{own}' is the feature '{feature}'" for own, feature in result.with_blanks.items())
        say(f"- LightGBM writes _ for each blank in a name: {renamed}")
    if result.unexplained:
        say(f"- its scores are not explained: {result.unexplained}")
    say(f"{trained.model} version {decision.version} is registered: {result.version.url}")
    for line in (*decision.reasons, *evaluation_lines(result.evaluation)):
        say(f"  {line}")
    if decision.promoted:
        say(f"It serves (revision {decision.revision}).")
    elif not result.evaluation.promote:
        say("It does not serve. To serve it all the same:")
        store = ReleaseStore(Settings().releases_dir)
        say(f"  {way_into_service(store, trained.model, decision.version)}")

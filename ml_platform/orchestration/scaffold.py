"""`dg scaffold defs ml_platform.orchestration.TabularModel <name>`: a model's folder from a table, or to be filled in.

With `--from` it is what `ml-platform new model` writes.
"""

from pathlib import Path
from string import Template

import click
import dagster as dg
from pydantic import BaseModel, ConfigDict, Field

from ml_platform.orchestration.scaffolding import whole_or_nothing
from ml_platform.printable import plain
from ml_platform.project import current_project
from ml_platform.settings import Settings
from ml_platform.spec.types import Task

DEFS_YAML = Template("""\
type: $type_name
attributes:
  name: $name
  description: What $name predicts, for whom, and how long before it happens.
  owner: $owner
  task: $task
  target: $target
  spine: spine.sql
  id: row_id
  timestamp: event_time            # the instant of prediction: features are taken as of it
  label_available_at: label_available_at
  inputs:                          # the fields of a request; the same columns of the spine
    - {name: row_id, type: string, feature: false, required: false, description: Your own id of the row.}
    - {name: event_time, type: timestamp, feature: false, description: When the prediction is made.}
    - {name: amount, type: number, description: Replace me.}
  lookups: []                      # - view: <name of a feature view in ../features>
  families: [$families]
  scoring: {start: $start}
""")

SPINE_SQL = Template("""\
-- One row per thing to predict. Columns: the id, the inputs, the label and the instant from which the label is known.
-- Replace this example by a query over your own tables (raw.…).
SELECT
    'row-' || i AS row_id,
    TIMESTAMPTZ '$start 00:00:00+00' + to_hours(i) AS event_time,
    TIMESTAMPTZ '$start 00:00:00+00' + to_hours(i + 24) AS label_available_at,
    (i % 17)::DOUBLE AS amount,
    $label AS $target
FROM range(3000) AS t(i) -- 125 days: the default split wants 28 of holdout, 14 of validation, and rows before them
""")

# Each depends on `amount` and on chance, so that there is something to learn and no leak.
LABELS = {
    "binary": "(i % 17) + hash(i) % 17 > 16",
    "multiclass": "'class-' || (((i % 17) + hash(i) % 11) // 9)",
    "regression": "(i % 17) * 2.0 + hash(i) % 17",
}


class TabularModelParams(BaseModel):
    """Options of the scaffold command."""

    model_config = ConfigDict(populate_by_name=True)

    table: str = Field(
        "", alias="from", description="Table raw/… from whose rows all is guessed; an example to fill in when left out."
    )
    data: str = Field("", description="CSV or Parquet file that is declared as the table first.")
    target: str = Field("label", description="Name of the label column.")
    task: Task | None = Field(None, description="What is predicted; guessed from the table, binary in the example.")
    id: str = Field("", description="Column that identifies a row; guessed, or made, when left out.")
    time: str = Field("", description="Column with the instant of prediction; guessed, or made, when left out.")
    owner: str = Field("team@example.com", description="Who answers for the model.")
    start: str = Field("2024-01-01", description="First day that can be scored (YYYY-MM-DD), in the example.")


class TabularModelScaffolder(dg.Scaffolder[TabularModelParams]):
    """Writes `defs.yaml` and `spine.sql`."""

    @classmethod
    def get_scaffold_params(cls) -> type[TabularModelParams]:
        """Give the command's options."""
        return TabularModelParams

    def scaffold(self, request: dg.ScaffoldRequest[TabularModelParams]) -> None:
        """Write the folder's files.

        Raises
        ------
        ScaffoldError
            When Python was asked for: a model is declared in YAML; or no model can be made of the table.
        """
        with whole_or_nothing(request):
            params = request.params or TabularModelParams.model_validate({})
            folder = Path(request.target_path)
            if params.table or params.data:
                _from_table(folder, params)
            else:
                _example(folder, params, request.type_name)


def _from_table(folder: Path, params: TabularModelParams) -> None:
    from ml_platform.new_model.create import create_model, table_name
    from ml_platform.new_model.draft import Wanted

    data = Path(params.data) if params.data else None
    wanted = Wanted(
        name=folder.name,
        table=params.table or f"raw/{table_name(Path(params.data))}",
        target=params.target,
        id=params.id or None,
        time=params.time or None,
        task=params.task,
        owner=params.owner,
    )
    for note in create_model(current_project(), Settings(), wanted, data=data, folder=folder).notes:
        click.echo(f"{folder.name}: {plain(note)}")


def _example(folder: Path, params: TabularModelParams, type_name: str) -> None:
    task = params.task or "binary"
    linear = "ridge" if task == "regression" else "logistic_regression"
    values = {
        **params.model_dump(include={"target", "owner", "start"}),
        "task": task,
        "type_name": type_name,
        "name": folder.name,
        "families": f"{linear}, lightgbm",
        "label": LABELS[task],
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "defs.yaml").write_text(DEFS_YAML.substitute(values), encoding="utf-8")
    (folder / "spine.sql").write_text(SPINE_SQL.substitute(values), encoding="utf-8")

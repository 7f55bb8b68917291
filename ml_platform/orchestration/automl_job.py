"""The job `automl`: trials of all families on a table, a file or a model's training set, started from Dagster."""

import dagster as dg
from pydantic import Field

from ml_platform.orchestration.execution import in_process_executor
from ml_platform.orchestration.resources import Platform


class AutomlConfig(dg.Config):
    """Run configuration: what `ml-platform automl` takes as options."""

    model: str = Field(default="", description="A model of the project, whose training set is taken.")
    table: str = Field(default="", description="Table of the lake with the rows, where no model is named.")
    data: str = Field(default="", description="CSV or Parquet file with the rows, where no model or table is named.")
    target: str = Field(default="", description="Column to predict, of a table or a file.")
    name: str = Field(default="", description="What the run is called; the table or the file names it when empty.")
    id: str = Field(default="", description="Column that identifies a row; guessed when empty.")
    time: str = Field(default="", description="Column with the instant of each row; guessed when empty.")
    group: str = Field(default="", description="Column of the entity whose rows stay together; guessed when empty.")
    task: str = Field(default="", description="binary, multiclass or regression; guessed when empty.")
    positive: str = Field(default="", description="Binary: the value that stands for true; guessed when empty.")
    metric: str = Field(default="", description="What trials are compared by; the task's usual one when empty.")
    split: str = Field(default="", description="time, group, stratified or random; guessed when empty.")
    holdout: str = Field(default="", description="Share of the rows that is held out, or the first day of it.")
    drop: list[str] = Field(default=[], description="Columns that are no inputs.")
    allow: list[str] = Field(default=[], description="Inputs that are sound although they give the label.")
    families: list[str] = Field(default=[], description="Families to try; all that are installed when empty.")
    minutes: float = Field(default=10.0, description="Budget of the run.")
    top: int = Field(default=10, description="Trials on the leaderboard, of each family one at least.")
    seed: int = Field(default=0, description="Of the split and of all trials.")
    horizon: int | None = Field(default=None, description="Forecast so many periods of series; null for other rows.")
    season: int | None = Field(default=None, description="Forecast: periods of a season; the usual one when null.")
    known_ahead: list[str] = Field(default=[], description="Forecast: columns that are known in advance.")


@dg.op(name="try_all_families", description="Plan, search, leaderboard and notebooks, as `ml-platform automl` does.")
def _try_all_families(context: dg.OpExecutionContext, config: AutomlConfig, platform: Platform) -> None:
    from pathlib import Path

    from ml_platform.automl.options import checked_options
    from ml_platform.automl.run import run_automl
    from ml_platform.automl.show import leaderboard_markdown
    from ml_platform.project import current_project

    given = {name: value for name, value in config.model_dump().items() if value not in ("", [], None)}
    source = {name: given.pop(name, None) for name in ("model", "table", "data", "name")}
    source["data"] = Path(source["data"]) if source["data"] else None
    done = run_automl(
        current_project(), platform.settings, checked_options(**given), **source, tell=context.log.info
    )  # fmt: skip
    best = done.board.best
    context.log_event(
        dg.AssetMaterialization(
            asset_key=dg.AssetKey(["automl", done.board.plan.name]),
            description=f"{best.trial}: {done.board.plan.metric} {best.holdout:.5f} on the holdout rows",
            metadata={
                "leaderboard": dg.MetadataValue.md(leaderboard_markdown(done.board)),
                "best": best.trial,
                "metric": best.holdout,
                "folder": dg.MetadataValue.path(str(done.folder)),
                "MLflow": dg.MetadataValue.url(done.board.run_url),
            },
        )
    )


@dg.job(
    name="automl",
    executor_def=in_process_executor,
    description="Tries all families on a table, a file or a model's training set; writes a leaderboard and notebooks.",
)
def automl_job() -> None:
    """Run the only step."""
    _try_all_families()

"""A notebook as an asset: run with parameters, on a schedule or by hand, kept with its outputs and as a page."""

from pathlib import Path
from typing import Self

import dagster as dg
from pydantic import BaseModel

from ml_platform.orchestration.execution import scheduled
from ml_platform.orchestration.notebook_scaffold import NotebookScaffolder
from ml_platform.orchestration.resources import Platform
from ml_platform.project import current_project
from ml_platform.spec.notebook import NotebookSpec
from ml_platform.spec_yaml import load_notebook

GROUP = "notebooks"


@dg.scaffold_with(NotebookScaffolder)
class Notebook(dg.Component):
    """A notebook that runs as an asset, and whose page is kept.

    The attributes are those of `ml_platform.spec.notebook.NotebookSpec`.
    """

    def __init__(self, spec: NotebookSpec) -> None:
        self.spec = spec

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        """Give the schema of `attributes`."""
        return NotebookSpec

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> Self:  # noqa: ARG003
        """Read the file once more, with its lines: the notebook and its parameters are checked."""
        return cls(load_notebook(context.path / "defs.yaml"))

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Build the asset, and its schedule if it has one."""
        return notebook_defs(self.spec, context.path)


def notebook_defs(spec: NotebookSpec, folder: Path) -> dg.Definitions:
    """Build the asset of a notebook in a folder, and its schedule if it has one."""
    key = dg.AssetKey([GROUP, spec.name])

    @dg.asset(
        key=key,
        description=spec.description,
        group_name=GROUP,
        kinds={"jupyter"},
        owners=[spec.owner],
        deps=[dg.AssetKey(name.split("/")) for name in spec.after],
        metadata={"source": dg.MetadataValue.path(str(folder / spec.notebook)), "parameters": dict(spec.parameters)},
    )
    def notebook(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult:
        from ml_platform.notebook_files.runs import NOTEBOOK, run_notebook

        run = run_notebook(
            folder / spec.notebook,
            platform.settings.notebooks_dir,
            name=spec.name,
            parameters=spec.parameters,
            folder=current_project().root,
            seconds=spec.time_limit.total_seconds(),
            code=spec.show_code,
            kept=spec.keep,
            on_cell=lambda done, cells: context.log.info(f"cell {done} of {cells}"),
        )
        if run.error is not None:
            raise dg.Failure(
                f"{spec.notebook}: {run.error}",
                metadata={"page": dg.MetadataValue.path(run.page), "seconds": run.seconds},
                allow_retries=False,
            )
        return dg.MaterializeResult(
            metadata={
                "page": dg.MetadataValue.path(run.page),
                "notebook": dg.MetadataValue.notebook(run.page.with_name(NOTEBOOK)),
                "seconds": run.seconds,
                "cells": run.cells,
            }
        )

    if spec.schedule is None:
        return dg.Definitions(assets=[notebook])
    about = f"Run the notebook {spec.name}."
    return scheduled(notebook, job_name=f"{spec.name}_notebook", cron=spec.schedule, description=about)

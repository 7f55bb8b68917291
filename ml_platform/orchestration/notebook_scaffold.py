"""`dg scaffold defs ml_platform.orchestration.Notebook <name> --model <model>`: a report about a model, as an asset."""

from pathlib import Path

import dagster as dg
from pydantic import BaseModel, Field

from ml_platform.orchestration.scaffolding import whole_or_nothing

_FILE = "notebook.md"
_DOCUMENT = """type: {type}
attributes:
  name: {name}
  description: How {model} does, as a page.
  owner: {owner}
  notebook: {file}
  after: [{model}/performance, {model}/drift_report]
  # schedule: "0 7 * * 1" # Mondays at 7:00 UTC; needs the extra notebooks where Dagster runs
  parameters:
    DAYS: 60
"""


class NotebookParams(BaseModel):
    """Options of the scaffold command."""

    model: str = Field(description="The model that the notebook is about.")


class NotebookScaffolder(dg.Scaffolder[NotebookParams]):
    """Writes a `defs.yaml`, and beside it the example `monitor` for the model, as text that reviews can read."""

    @classmethod
    def get_scaffold_params(cls) -> type[NotebookParams]:
        """Give the command's options."""
        return NotebookParams

    def scaffold(self, request: dg.ScaffoldRequest[NotebookParams]) -> None:
        """Write the folder's files (raises ScaffoldError, and leaves nothing behind then)."""
        from ml_platform.notebook_files.text import FORMATS, notebook_of, write_notebook
        from ml_platform.notebooks.examples import example_text
        from ml_platform.project import current_project
        from ml_platform.promotion.declared import declared_model

        with whole_or_nothing(request):
            if request.params is None:
                raise ValueError("say which model it is about: --model <name>")
            folder = Path(request.target_path)
            spec = declared_model(current_project().defs, request.params.model).spec
            notebook = notebook_of(example_text("monitor", spec, ()), FORMATS[".py"])
            text = _DOCUMENT.format(
                type=request.type_name, name=folder.name, model=spec.name, owner=spec.owner, file=_FILE
            )
            folder.mkdir(parents=True, exist_ok=True)
            write_notebook(notebook, folder / _FILE)
            (folder / "defs.yaml").write_text(text, encoding="utf-8")

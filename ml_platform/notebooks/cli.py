"""`ml-platform notebook`: JupyterLab, examples for a model, runs without a browser, outputs out of version control."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from ml_platform.distribution import ExtraMissing
from ml_platform.notebook_files.execute import CellFailed
from ml_platform.notebook_files.runs import KEPT, list_runs, run_notebook
from ml_platform.notebook_files.text import FORMATS, NotebookUnreadable, Value, notebook_of, strip_outputs
from ml_platform.notebook_files.text import write_notebook as write
from ml_platform.notebooks.examples import EXAMPLES, example_text
from ml_platform.project import ProjectNotFound, current_project
from ml_platform.settings import Settings
from ml_platform.terminal import say, stop
from ml_platform.yaml_documents import SpecError

FOLDER = "notebooks"
app = typer.Typer(no_args_is_help=True, help="Notebooks over the project's tables, features and models.")


@app.command()
def lab(
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1; the next free one where it is taken.")] = 8888,
    idle_minutes: Annotated[
        float, typer.Option(min=0, help="End kernels, and then the server, that nobody used for so long; 0 for never.")
    ] = 120,
    browser: Annotated[bool, typer.Option(help="Open a browser.")] = True,
) -> None:
    """Open JupyterLab on the project, with its environment; `make notebook` installs it first."""
    from ml_platform.notebook_files.execute import kernel_environment
    from ml_platform.notebooks.lab import lab_command, prepare_lab, run_lab

    settings = Settings()
    try:
        root = current_project().root
        command = lab_command(root, settings, port=port, idle_minutes=idle_minutes, browser=browser)
    except (ProjectNotFound, ExtraMissing) as error:
        stop(str(error))
    (root / FOLDER).mkdir(exist_ok=True)
    prepare_lab(settings)
    run_lab(command, kernel_environment() | {"ML_PLATFORM_PROJECT": str(root)})


@app.command()
def new(
    example: Annotated[str, typer.Argument(help=f"Which: {', '.join(EXAMPLES)}; `all` for all of them.")],
    model: Annotated[str, typer.Argument(help="The model it is about, as in its defs.yaml.")],
    to: Annotated[Path | None, typer.Option(help="File to write; notebooks/<model>_<example>.py by default.")] = None,
) -> None:
    """Write an example notebook for a model of the project: text that runs as it is."""
    from ml_platform.lake.query.sql import referenced_tables
    from ml_platform.promotion.declared import declared_model

    wanted = list(EXAMPLES) if example == "all" else [example]
    if to is not None and len(wanted) > 1:
        stop("--to: wanted one example, found all")
    try:
        project = current_project()
        declared = declared_model(project.defs, model)
        spine = (declared.folder / declared.spec.spine).read_text(encoding="utf-8")
        tables = sorted(referenced_tables(spine))
        texts = {one: example_text(one, declared.spec, tables, spine) for one in wanted}
    except (LookupError, SpecError, ProjectNotFound, ValueError, OSError) as error:
        stop(str(error))
    paths = {one: to or project.root / FOLDER / f"{model}_{one}.py" for one in wanted}
    for path in paths.values():
        if path.suffix != ".py":
            stop(f"{path}: wanted a file that ends in .py, as which examples are written")
        if path.exists():
            stop(f"{path} exists: delete it first, or name another by --to")
    for one, path in paths.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(texts[one], encoding="utf-8")
        say(f"{path}: {EXAMPLES[one]}")
    say("Run one: ml-platform notebook run <file>; open them: make notebook")


@app.command()
def run(
    notebook: Annotated[Path, typer.Argument(help="The notebook, .py, .md or .ipynb; it is not changed.")],
    parameter: Annotated[
        list[str] | None, typer.Option("--parameter", "-p", help="NAME=VALUE, a JSON value or a text; may be repeated.")
    ] = None,
    minutes: Annotated[float | None, typer.Option(min=0.001, help="What all cells together may take.")] = None,
    code: Annotated[bool, typer.Option(help="Show the code in the page.")] = True,
    name: Annotated[str | None, typer.Option(help="What the runs are kept under; the file's name by default.")] = None,
    keep: Annotated[int, typer.Option(min=1, help="Runs that are kept; older ones are deleted.")] = KEPT,
) -> None:
    """Run a notebook without a browser, and keep it with its outputs and as a page."""
    terminal = sys.stderr.isatty()

    def progress(done: int, cells: int) -> None:
        if terminal:
            typer.echo(f"\rcell {done} of {cells}", nl=done == cells, err=True)

    try:
        values = _values(parameter or [])
        project = current_project()
        done = run_notebook(
            notebook,
            Settings().notebooks_dir,
            name=name,
            parameters=values,
            folder=project.root,
            seconds=None if minutes is None else minutes * 60,
            code=code,
            kept=keep,
            on_cell=progress,
        )
    except (OSError, NotebookUnreadable, CellFailed, ProjectNotFound, ExtraMissing, ValueError) as error:
        stop(str(error))
    say(f"{done.name}: {done.cells} cells in {done.seconds:.1f} s")
    say(f"page: {done.page}")
    if done.error is not None:
        stop(f"{notebook}: {done.error}")


@app.command("list")
def list_command(name: Annotated[str | None, typer.Argument(help="Only this one; all when left out.")] = None) -> None:
    """List the runs that are kept, and their pages, the newest first."""
    home = Settings().notebooks_dir
    names = sorted(path.name for path in home.iterdir() if path.is_dir()) if home.is_dir() else []
    if name is not None and name not in names:
        stop(f"no run of '{name}' is kept. There are: {', '.join(names) or 'none'}")
    for one in [name] if name is not None else names:
        for run in list_runs(home, one):
            state = "failed: " + run.error if run.error else f"{run.cells} cells"
            say(f"{one}  {run.started_at:%Y-%m-%d %H:%M:%S}  {run.seconds:.1f} s  {state}  {run.page}")
    if not names:
        say("No notebook was run yet: ml-platform notebook run <file>")


@app.command()
def strip(
    notebooks: Annotated[list[Path], typer.Argument(help="Notebooks, .ipynb.")],
    check: Annotated[bool, typer.Option("--check", help="Change nothing; fail where there are outputs.")] = False,
) -> None:
    """Take outputs out of notebooks, so that neither data nor noise is committed; a hook of pre-commit calls this."""
    with_outputs = []
    for path in notebooks:
        if path.suffix != ".ipynb":
            stop(f"{path}: wanted a notebook that ends in .ipynb; {' and '.join(list(FORMATS)[:2])} have no outputs")
        try:
            notebook = notebook_of(path.read_text(encoding="utf-8"), FORMATS[path.suffix], path)
        except (OSError, UnicodeDecodeError, NotebookUnreadable, ExtraMissing) as error:
            stop(str(error))
        if strip_outputs(notebook):
            with_outputs.append(path)
            if not check:
                write(notebook, path)
    for path in with_outputs:
        say(f"{path}: {'has outputs' if check else 'outputs taken out'}")
    if with_outputs and check:
        stop("take them out: ml-platform notebook strip " + " ".join(map(str, with_outputs)))


def _values(given: list[str]) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for one in given:
        name, separator, text = one.partition("=")
        if not separator or not name.isidentifier():
            raise ValueError(f"--parameter: wanted NAME=VALUE, found {one!r}")
        try:
            values[name] = json.loads(text)
        except json.JSONDecodeError:
            values[name] = text
        except RecursionError as error:
            raise ValueError(f"--parameter {name}: nested too deeply") from error
    return values

"""Notebooks as text: what is kept of one in version control, its parameters, and a file of it with outputs.

A notebook is a `.py` file with cells between `# %%` lines (`py:percent`), a `.md` file, or an `.ipynb` file. The first
two hold no outputs, and a review shows their lines; JupyterLab opens all three.
"""

import ast
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_platform.atomic_files import replace_file
from ml_platform.distribution import extra
from ml_platform.yaml_documents import nearest

if TYPE_CHECKING:
    from nbformat import NotebookNode

EXTRA = "notebooks"
FORMATS = {".py": "py:percent", ".md": "md", ".ipynb": "ipynb"}
PARAMETERS = "parameters"  # tag of the cell that a run may replace the values of, as in papermill
INJECTED = "injected-parameters"
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}

Value = str | int | float | bool | None | list[Any] | dict[str, Any]


class NotebookUnreadable(ValueError):
    """A file is no notebook, or lacks what a run of it wants."""


def read_notebook(path: Path) -> "NotebookNode":
    """Read a notebook, whichever of the three forms it has.

    Raises
    ------
    FileNotFoundError
        When there is no such file, with the notebooks beside it.
    NotebookUnreadable
        When it is of another form, or damaged.
    ExtraMissing
        When the extra `notebooks` is not installed.
    """
    if path.suffix not in FORMATS:
        raise NotebookUnreadable(f"{path}: wanted a notebook, a file that ends in {', '.join(FORMATS)}")
    if not path.is_file():
        there = sorted(one.name for one in path.parent.glob("*") if one.suffix in FORMATS)
        raise FileNotFoundError(
            f"{path}: there is no such notebook{nearest(path.name, there)} There are: {', '.join(there) or 'none'}"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise NotebookUnreadable(f"{path}: not a text in UTF-8, at byte {error.start}") from error
    notebook = notebook_of(text, FORMATS[path.suffix], path)
    notebook.metadata.setdefault("kernelspec", KERNEL)
    if not any(cell.cell_type == "code" for cell in notebook.cells):
        raise NotebookUnreadable(f"{path}: wanted a notebook with cells of code, found none")
    return notebook


def notebook_of(text: str, form: str, path: Path | str = "the notebook") -> "NotebookNode":
    """Make a notebook of text; `form` is one of the values of `FORMATS` (raises NotebookUnreadable, ExtraMissing)."""
    with extra(EXTRA):
        import jupytext
        import nbformat
        import yaml
    try:
        notebook: NotebookNode = jupytext.reads(text, fmt=form)
        nbformat.validate(notebook)
    except (ValueError, LookupError, TypeError, AttributeError, yaml.YAMLError, nbformat.ValidationError) as error:
        raise NotebookUnreadable(f"{path}: not a notebook: {str(error).splitlines()[0]}") from error
    return notebook


def write_notebook(notebook: "NotebookNode", path: Path) -> None:
    """Write a notebook in the form that the name says; the file is replaced whole (raises ExtraMissing)."""
    with extra(EXTRA):
        import jupytext
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, jupytext.writes(notebook, fmt=FORMATS[path.suffix]).encode())


def strip_outputs(notebook: "NotebookNode") -> bool:
    """Take outputs, counts and what editors remember out of a notebook; says whether there was any.

    Examples
    --------
    >>> notebook = notebook_of("# %%\\n1 + 1", "py:percent")
    >>> notebook.cells[0].execution_count = 3
    >>> strip_outputs(notebook), strip_outputs(notebook)
    (True, False)
    """
    changed = False
    for cell in notebook.cells:
        for name in ("collapsed", "scrolled", "execution", "ExecuteTime"):
            changed |= cell.metadata.pop(name, None) is not None
        if cell.cell_type == "code" and (cell.outputs or cell.execution_count is not None):
            cell.outputs, cell.execution_count = [], None
            changed = True
    changed |= notebook.metadata.pop("widgets", None) is not None
    return changed


def set_parameters(notebook: "NotebookNode", values: Mapping[str, Value], path: Path | str = "the notebook") -> None:
    """Put a cell with values after the cell tagged `parameters`, whose values are the defaults.

    Raises
    ------
    NotebookUnreadable
        When there is no such cell, or it does not assign a name that is given.
    """
    with extra(EXTRA):
        import nbformat
    if not values:
        return
    place = next((i for i, cell in enumerate(notebook.cells) if PARAMETERS in cell.metadata.get("tags", [])), None)
    if place is None:
        raise NotebookUnreadable(
            f"{path}: it takes no parameters ({', '.join(values)} given): mark the cell that assigns the defaults, "
            f'`# %% tags=["{PARAMETERS}"]`'
        )
    known = parameter_names(notebook.cells[place].source, path)
    for name in values:
        if name not in known:
            raise NotebookUnreadable(
                f"{path}: no parameter '{name}'{nearest(name, known)} It has: {', '.join(known) or 'none'}"
            )
    lines = "\n".join(f"{name} = {_literal(name, value, path)}" for name, value in values.items())
    cell = nbformat.v4.new_code_cell(f"# Parameters of this run\n{lines}", metadata={"tags": [INJECTED]})
    notebook.cells.insert(place + 1, cell)


def _literal(name: str, value: Value, path: Path | str) -> str:
    """A value as Python reads it back, infinite numbers too (raises NotebookUnreadable)."""
    text = repr(value)
    try:
        json.dumps(value, ensure_ascii=False).encode()
        if ast.literal_eval(text) == value:
            return text
    except (ValueError, SyntaxError, UnicodeEncodeError, RecursionError, MemoryError):
        pass
    if isinstance(value, float):
        return f"float({str(value)!r})"
    raise NotebookUnreadable(f"{path}: parameter '{name}': wanted a JSON value that a cell of Python can hold")


def parameter_names(source: str, path: Path | str = "the notebook") -> list[str]:
    """Names that a cell assigns (raises NotebookUnreadable when it is not Python).

    Examples
    --------
    >>> parameter_names("model = 'flight_delay'\\ndays: int = 28")
    ['model', 'days']
    """
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        message = f"{path}: its cell of parameters is not Python: line {error.lineno}, {error.msg}"
        raise NotebookUnreadable(message) from error
    targets: list[ast.expr] = []
    for node in tree.body:
        if isinstance(node, ast.Assign):
            targets += node.targets
        elif isinstance(node, ast.AnnAssign):
            targets.append(node.target)
    inner = [
        one for target in targets for one in (target.elts if isinstance(target, ast.Tuple | ast.List) else [target])
    ]
    return [target.id for target in inner if isinstance(target, ast.Name)]

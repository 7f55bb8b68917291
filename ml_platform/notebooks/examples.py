"""Example notebooks, written for a model of the project: explore its data, build a feature, train, explain, monitor."""

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ml_platform.spec.model import ModelSpec

TEMPLATES = Path(__file__).parent / "templates"
EXAMPLES = {
    "explore": "the rows of a training set, its label and features over time; SQL; earlier versions of a table",
    "feature": "a new feature: from SQL to a feature view, joined point in time, and what it adds to the model",
    "train": "a model of one's own on the same rows and split, logged in MLflow beside the platform's",
    "explain": "what moves the scores: importance, contributions of single rows, intervals",
    "monitor": "how the model has done since: metrics by day, drift, latest answers; a report for a schedule",
}


def example_text(name: str, spec: ModelSpec, tables: Sequence[str], spine: str = "") -> str:
    """Write an example for a model, as `py:percent` text.

    Parameters
    ----------
    name
        One of `EXAMPLES`.
    spec
        The model.
    tables
        Tables of the lake that its spine reads.
    spine
        Its SQL.

    Raises
    ------
    LookupError
        When there is no such example.
    """
    if name not in EXAMPLES:
        raise LookupError(f"there is no example '{name}'; there are {', '.join(EXAMPLES)}")
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(f"{name}.py.jinja").render(spec=spec, tables=list(tables), spine=spine.strip().removesuffix(";"))

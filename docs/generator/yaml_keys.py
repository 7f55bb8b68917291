"""The keys that a project writes in YAML, from the descriptions of their fields."""

from collections.abc import Iterator
from typing import get_args

from pydantic import BaseModel

from docs.generator.markdown import code, page, table
from docs.generator.pydantic_fields import bounds, default_words, models_in, type_words
from ml_platform.catalogue.terms import Terms
from ml_platform.cost.config import CostConfig
from ml_platform.features.views.view import FeatureView
from ml_platform.lake.sources.source_spec import SourceSpec
from ml_platform.spec.composition import ComposedEndpointSpec
from ml_platform.spec.feature_service import FeatureServiceSpec
from ml_platform.spec.model import ModelSpec
from ml_platform.spec.notebook import NotebookSpec

# Fields of a feature view that are no keys of its YAML: from the file's name, its query or its Python.
NO_KEYS: dict[type[BaseModel], set[str]] = {FeatureView: {"name", "sql", "code", "sources"}}


def sections(spec: type[BaseModel], path: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield a model of keys and, after it, those nested in it, each with its path and once.

    Examples
    --------
    >>> [path for path, _ in sections(ModelSpec)][:4]
    ['', 'inputs', 'lookups', 'split']
    """
    waiting, seen = [(path, spec)], set()
    while waiting:
        path, model = waiting.pop(0)
        if model in seen:
            continue
        seen.add(model)
        yield path, model
        nested = [(f"{path}.{name}".lstrip("."), inner) for name, inner in nested_models(model)]
        waiting = nested + waiting


def nested_models(model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield the models of the keys, with the key; of several that a key can hold also the `type`, as `key.type`."""
    for name, field in keys(model).items():
        inner = list(models_in(field.rebuild_annotation()))
        for one in inner:
            several = len(inner) > 1 and "type" in one.model_fields
            yield (f"{name}.{get_args(one.model_fields['type'].annotation)[0]}" if several else name), one


def keys(model: type[BaseModel]) -> dict:
    """Return the fields of a model that are keys in YAML, by name."""
    left_out = NO_KEYS.get(model, set())
    return {name: field for name, field in model.model_fields.items() if name not in left_out}


def _rows(model: type[BaseModel], path: str) -> Iterator[list[str]]:
    for name, field in keys(model).items():
        annotation = field.rebuild_annotation()
        kind = type_words(annotation)
        nested = [key for key, _ in nested_models(model) if key.split(".")[0] == name]
        if len(nested) > 1 and nested[0] != name:
            kind = ", ".join(f"[{key.partition('.')[2]}](#{anchor(f'{path}.{key}')})" for key in nested)
        elif nested:
            kind = kind.replace("keys", f"[keys](#{anchor(f'{path}.{name}')})")
        limits = bounds(field)
        default = "**required**" if field.is_required() else code(default_words(field))
        yield [f"`{name}`", f"{kind}, {limits}" if limits else kind, default, field.description or ""]


def anchor(path: str) -> str:
    """Return the anchor of a section's heading.

    Examples
    --------
    >>> anchor(".threshold.cost")
    'threshold-cost'
    """
    return path.lstrip(".").replace(".", "-")


def keys_page(title: str, introduction: str, spec: type[BaseModel]) -> str:
    """Return the page of all keys below a spec."""
    parts = [introduction]
    for path, model in sections(spec):
        if path:
            about = (model.__doc__ or "").strip().split("\n\n")[0]
            parts += [f"## {path} {{: #{anchor(path)} }}", about]
        parts.append(table(["key", "value", "default", "meaning"], _rows(model, path)))
    return page(title, *parts)


def model_keys() -> str:
    """Return the page of the keys of a model."""
    return keys_page(
        "Keys of a model",
        """The `attributes` of a `defs.yaml` of type `ml_platform.orchestration.TabularModel`. [Add a
model](../how-to/models/add-a-model.md) shows them in use. A key that is not listed here is refused, with its line and
the nearest spelling.

A *span of time* is a number and a unit, such as `6 hours`, `30 days` or `90 minutes`, or ISO 8601 (`PT6H`). All times
are UTC.""",
        ModelSpec,
    )


def source_keys() -> str:
    """Return the page of the keys of a raw table."""
    return keys_page(
        "Keys of a source table",
        """The `attributes` of a `defs.yaml` of type `ml_platform.orchestration.SourceTable`. [Load your own
data](../how-to/lake/sources.md) shows them in use.""",
        SourceSpec,
    )


def composed_endpoint_keys() -> str:
    """Return the page of the keys of a composed endpoint."""
    return keys_page(
        "Keys of a composed endpoint",
        """The `attributes` of a `defs.yaml` of type `ml_platform.orchestration.ComposedEndpoint`. [Several models at
one endpoint](../how-to/serving/compose.md) shows them in use.""",
        ComposedEndpointSpec,
    )


def feature_service_keys() -> str:
    """Return the page of the keys of a feature service."""
    return keys_page(
        "Keys of a feature service",
        """The `attributes` of a `defs.yaml` of type `ml_platform.orchestration.FeatureService`. [Features as a
service](../how-to/features/features-as-a-service.md) shows them in use.""",
        FeatureServiceSpec,
    )


def notebook_keys() -> str:
    """Return the page of the keys of a notebook that runs as an asset."""
    return keys_page(
        "Keys of a notebook",
        """The `attributes` of a `defs.yaml` of type `ml_platform.orchestration.Notebook`.
[Notebooks](../how-to/notebooks.md) shows them in use.""",
        NotebookSpec,
    )


def term_keys() -> str:
    """Return the page of the keys of a file of terms."""
    return keys_page(
        "Keys of a glossary",
        """What a `terms.yaml` below `defs/` holds: each term under its name. [Find data and
models](../how-to/governance/catalogue.md) shows it in use.""",
        Terms,
    )


def cost_keys() -> str:
    """Return the page of the keys of `cost.yaml`."""
    return keys_page(
        "Keys of cost.yaml",
        """What `cost.yaml`, beside `pyproject.toml`, may hold. [Cost](../how-to/governance/cost.md) and
[budgets](../how-to/governance/budgets.md) show them in use; a model's own are in its [`budget`](model-keys.md).""",
        CostConfig,
    )


def feature_view_keys() -> str:
    """Return the page of the keys of a feature view."""
    return keys_page(
        "Keys of a feature view",
        """What the comment in front of a view's SQL declares, or a `.yaml` file, or the arguments of
`polars_view`. The view's name is that of its file. With `rolling`, a `.yaml` file declares no `columns` and no
`incremental` of its own: both follow. [Define a feature view](../how-to/features/views.md) and [rolling
aggregates](../how-to/features/rolling.md) show them in use.

A *span of time* is a number and a unit, such as `6 hours` or `30 days`, or ISO 8601 (`PT6H`).""",
        FeatureView,
    )

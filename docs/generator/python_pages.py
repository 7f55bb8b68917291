"""The Python API: a page for each public object, whose text is its docstring.

Public is what a project's own code may import: all that the guides, the README and the example use, and what it needs
to do by hand what the assets do. A test holds that nothing else is shown there.
"""

from importlib import import_module

from docs.generator.markdown import page, table

PUBLIC = {
    "The lake": [
        "ml_platform.lake.storage.tables.Lake",
        "ml_platform.lake.storage.merge.merge",
        "ml_platform.lake.storage.maintenance.maintain",
        "ml_platform.lake.query.sql.query",
        "ml_platform.lake.errors",
    ],
    "Sources and contracts": [
        "ml_platform.lake.ingestion.raw_table.RawTable",
        "ml_platform.lake.ingestion.raw_table.Calendar",
        "ml_platform.lake.ingestion.ingest.DAY",
        "ml_platform.lake.contracts.contract.apply_contract",
        "ml_platform.lake.contracts.contract.one_of",
        "ml_platform.lake.sources.registry.declared_table",
        "ml_platform.lake.ingestion.quarantine",
        "ml_platform.orchestration.raw_assets.raw_table_asset",
    ],
    "Features": [
        "ml_platform.features.views.polars_view.polars_view",
        "ml_platform.features.expressions.request_features.RequestFeature",
        "ml_platform.features.training_sets.notebook_api",
        "ml_platform.features.training_sets.leakage.find_leakage",
        "ml_platform.spec.model.Lookup",
    ],
    "Notebooks": [
        "ml_platform.notebooks.model_handle.open_model",
        "ml_platform.notebooks.model_handle.ModelHandle",
        "ml_platform.notebook_files.runs",
    ],
    "Families of estimators": ["ml_platform.training"],
    "What serves": [
        "ml_platform.registry.releases.ReleaseStore",
        "ml_platform.registry.pins.pinned_versions",
        "ml_platform.registry.traffic.TrafficChange",
        "ml_platform.promotion.promote",
    ],
    "The server": [
        "ml_platform.serving.app.create_app",
        "ml_platform.serving.prediction.hooks.Hooks",
        "ml_platform.serving.prediction.hooks.HookRequest",
        "ml_platform.serving.prediction.hooks.Row",
        "ml_platform.serving.prediction.responses.Prediction",
    ],
    "Tests of a project": ["ml_platform.testing"],
    "The project": [
        "ml_platform.settings.Settings",
        "ml_platform.project.current_project",
        "ml_platform.project.Project",
        "ml_platform.orchestration.project_definitions.project_definitions",
    ],
}

WITH_INHERITED = {"ml_platform.lake.storage.tables.Lake"}  # whose methods to read are those of its base class


def path_of(name: str) -> str:
    """Return the path of an object's page.

    Examples
    --------
    >>> path_of("ml_platform.lake.storage.tables.Lake")
    'reference/python/lake.storage.tables.Lake.md'
    """
    return f"reference/python/{name.removeprefix('ml_platform.')}.md"


def object_page(name: str) -> str:
    """Return the page of one object or module."""
    inherited = "\n    options:\n      inherited_members: true" if name in WITH_INHERITED else ""
    return f"::: {name}{inherited}\n"


def python_pages() -> dict[str, str]:
    """Return the pages of all objects by path."""
    return {path_of(name): object_page(name) for names in PUBLIC.values() for name in names}


def exported_by(name: str) -> str:
    """Return the module that an object is to be imported from: the package that exports it, else its own module.

    Examples
    --------
    >>> exported_by("ml_platform.lake.storage.tables.Lake"), exported_by("ml_platform.settings.Settings")
    ('ml_platform.lake', 'ml_platform.settings')
    """
    module, _, short = name.rpartition(".")
    package = ".".join(module.split(".")[:2])
    return package if short in getattr(import_module(package), "__all__", ()) else module


def python_index() -> str:
    """Return the page that lists them."""
    parts = []
    for group, names in PUBLIC.items():
        rows = (
            [f"[`{name.rsplit('.', 1)[-1]}`]({path_of(name).rsplit('/', 1)[-1]})", f"`{exported_by(name)}`"]
            for name in names
        )
        parts += [f"## {group}", table(["name", "from"], rows)]
    return page(
        "Python API",
        """What a project's own code may import. Everything else in `ml_platform` may change without notice; the
[changelog](../../../CHANGELOG.md) names changes of what is here.""",
        *parts,
    )

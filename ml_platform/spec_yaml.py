"""Reads the `defs.yaml` of models, source tables and feature services; reports missing files, views, features too."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from ml_platform.lake.sources.source_spec import SourceSpec
from ml_platform.spec.composition import ComposedEndpointSpec
from ml_platform.spec.feature_service import FeatureServiceSpec
from ml_platform.spec.model import ModelSpec
from ml_platform.spec.notebook import NotebookSpec
from ml_platform.spec.stream import Stream
from ml_platform.yaml_documents import Document, Location, SpecError, SpecProblem, documents, nearest, unknown

COMPONENT = "TabularModel"
SOURCE_COMPONENT = "SourceTable"
COMPOSED_COMPONENT = "ComposedEndpoint"
NOTEBOOK_COMPONENT = "Notebook"
SERVICE_COMPONENT = "FeatureService"


def load_spec(path: Path, views: Mapping[str, Collection[str]] | None = None) -> ModelSpec:
    """Read the model that `path` declares.

    Parameters
    ----------
    path
        A `defs.yaml` whose `type` ends in `TabularModel`.
    views
        Known feature views and the names of their features; look-ups are checked against them when given.

    Raises
    ------
    SpecError
        With every mistake found: unknown or duplicate keys, wrong values, files, views or features that do not exist.
    """
    return _model(path, documents(path), views)


def _model(path: Path, there: list[Document], views: Mapping[str, Collection[str]] | None) -> ModelSpec:
    documents = [document for document in there if document.component == COMPONENT]
    if len(documents) != 1:
        message = f"one document of type …{COMPONENT} wanted, {len(documents)} found"
        raise SpecError([SpecProblem(path, 1, "type", message)])
    [document] = documents
    spec = document.validate(ModelSpec)
    if problems := list(_dangling(document, spec, views)):
        raise SpecError(problems)
    return spec


def _dangling(document: Document, spec: ModelSpec, views: Mapping[str, Collection[str]] | None) -> list[SpecProblem]:
    """List references to files, views and features that are not there."""
    problems = []
    files = {"spine": spec.spine, "request_features": spec.request_features, "card": spec.card}
    for key, name in files.items():
        if name and not (document.path.parent / name).is_file():
            here = sorted(p.name for p in document.path.parent.iterdir() if p.suffix in {".sql", ".py", ".md"})
            message = f"no file '{name}' beside defs.yaml{nearest(name, here)} Found there: {', '.join(here) or 'none'}"
            problems.append(document.problem(("attributes", key), message))
    problems += list(_hidden_inputs(document, spec))
    for index, lookup in enumerate(spec.lookups if views is not None else ()):
        location: Location = ("attributes", "lookups", index)
        known = (views or {}).get(lookup.view)
        if known is None:
            message = unknown(lookup.view, views or {}, what="feature view")
            problems.append(document.problem((*location, "view"), message))
            continue
        problems += [
            document.problem((*location, "features"), unknown(name, known, what=f"feature of {lookup.view}"))
            for name in lookup.features
            if name not in known
        ]
    return problems


def _hidden_inputs(document: Document, spec: ModelSpec) -> Iterator[SpecProblem]:
    """Say which inputs cannot be kept out of the inference log, and why."""
    inputs = {field.name: field for field in spec.inputs}
    hidden = {"redact": spec.inference_log.redact, "hash": spec.inference_log.hash}
    for key, names in hidden.items():
        for index, name in enumerate(names):
            message = None
            if name not in inputs:
                message = unknown(name, inputs, what="input")
            elif name == spec.id:
                message = f"'{name}' is the id, by which labels find their scores; make the id a pseudonym instead"
            elif name == spec.timestamp:
                message = f"'{name}' is the timestamp, which every logged row has"
            elif spec.task == "multiclass":
                message = "performance over several classes scores logged features again: none can be hidden"
            elif key == "hash" and inputs[name].type not in {"string", "integer"}:
                message = f"only strings and integers can be hashed, '{name}' is a {inputs[name].type}; redact it"
            elif key == "hash" and name in spec.inference_log.redact:
                message = f"'{name}' is redacted as well; keep one of the two"
            if message:
                yield document.problem(("attributes", "inference_log", key, index), message)


def load_composed(path: Path) -> ComposedEndpointSpec:
    """Read the composed endpoint that `path`, a `defs.yaml`, declares (raises SpecError, with every mistake)."""
    declared = [document for document in documents(path) if document.component == COMPOSED_COMPONENT]
    if len(declared) != 1:
        message = f"one document of type …{COMPOSED_COMPONENT} wanted, {len(declared)} found"
        raise SpecError([SpecProblem(path, 1, "type", message)])
    return declared[0].validate(ComposedEndpointSpec)


def composed_endpoints(defs: Path) -> dict[str, ComposedEndpointSpec]:
    """Every composed endpoint below a folder, by name (raises SpecError)."""
    paths = sorted(defs.rglob("defs.yaml"))
    files = [path for path in paths if any(one.component == COMPOSED_COMPONENT for one in documents(path))]
    return {spec.name: spec for spec in map(load_composed, files)}


def declared_streams(defs: Path) -> dict[str, Stream]:
    """The streams that models below a folder declare, by model.

    Raises
    ------
    SpecError
        When the YAML of a model that declares one has mistakes.
    """
    streams = {}
    for path in sorted(defs.rglob("defs.yaml")):
        for document in documents(path):
            attributes = document.data.get("attributes") if isinstance(document.data, dict) else None
            if document.component == COMPONENT and isinstance(attributes, dict) and attributes.get("stream"):
                spec = document.validate(ModelSpec)
                if spec.stream is not None:
                    streams[spec.name] = spec.stream
    return streams


def load_notebook(path: Path) -> NotebookSpec:
    """Read the notebook that `path` declares.

    Raises
    ------
    SpecError
        With every mistake found; a file that does not exist is one.
    """
    specs = _notebooks(path, documents(path))
    if len(specs) != 1:
        message = f"one document of type …{NOTEBOOK_COMPONENT} wanted, {len(specs)} found"
        raise SpecError([SpecProblem(path, 1, "type", message)])
    return specs[0]


def _notebooks(path: Path, there: list[Document]) -> list[NotebookSpec]:
    specs = []
    for document in there:
        if document.component != NOTEBOOK_COMPONENT:
            continue
        spec = document.validate(NotebookSpec)
        if not (path.parent / spec.notebook).is_file():
            here = sorted(one.name for one in path.parent.iterdir() if one.suffix in {".py", ".md", ".ipynb"})
            message = f"no file '{spec.notebook}' beside defs.yaml{nearest(spec.notebook, here)}"
            problem = document.problem(
                ("attributes", "notebook"), f"{message} Found there: {', '.join(here) or 'none'}"
            )
            raise SpecError([problem])
        specs.append(spec)
    return specs


def check_project(defs: Path, views: Mapping[str, Collection[str]]) -> dict[Path, ModelSpec]:
    """Read every model, source table and feature service below a folder: one load reports the mistakes of all files.

    Returns
    -------
    dict
        The models, by their files.

    Raises
    ------
    SpecError
        With the mistakes of all files together.
    """
    specs: dict[Path, ModelSpec] = {}
    problems: list[SpecProblem] = []
    named: dict[tuple[str, str], Path] = {}
    for path in sorted(defs.rglob("defs.yaml")):
        try:
            there = documents(path)
            sources = [document.validate(SourceSpec) for document in there if document.component == SOURCE_COMPONENT]
            tables = [("table", source.name) for source in sources]
            tables += [("notebook", one.name) for one in _notebooks(path, there)]
            if any(document.component == COMPONENT for document in there):
                specs[path] = _model(path, there, views)
                tables.append(("model", specs[path].name))
            composed = [one.validate(ComposedEndpointSpec) for one in there if one.component == COMPOSED_COMPONENT]
            tables += [("model", one.name) for one in composed]  # all are endpoints
            tables += [("feature service", service.name) for service in _services(there, views)]
        except SpecError as error:
            problems += error.problems
            continue
        for kind, name in tables:
            problems += [SpecProblem(path, 1, "name", one) for one in _shared(kind, name, views, named)]
            if (kind, name) in named:
                message = f"'{name}' is already the {kind} of {named[kind, name]}; choose another name"
                problems.append(SpecProblem(path, 1, "name", message))
            named.setdefault((kind, name), path)
    if problems:
        raise SpecError(problems)
    return specs


def check_services(defs: Path, views: Mapping[str, Collection[str]]) -> list[tuple[Path, FeatureServiceSpec]]:
    """Read every feature service below a folder, with its file.

    Raises
    ------
    SpecError
        With the mistakes of all files together.
    """
    services: list[tuple[Path, FeatureServiceSpec]] = []
    problems: list[SpecProblem] = []
    for path in sorted(defs.rglob("defs.yaml")):
        try:
            services += [(path, service) for service in _services(documents(path), views)]
        except SpecError as error:
            problems += error.problems
    if problems:
        raise SpecError(problems)
    return services


def load_service(path: Path, views: Mapping[str, Collection[str]]) -> FeatureServiceSpec:
    """Read the one feature service that a `defs.yaml` declares (raises SpecError)."""
    services = _services(documents(path), views)
    if len(services) != 1:
        message = f"one document of type …{SERVICE_COMPONENT} wanted, {len(services)} found"
        raise SpecError([SpecProblem(path, 1, "type", message)])
    return services[0]


def _services(there: list[Document], views: Mapping[str, Collection[str]]) -> list[FeatureServiceSpec]:
    services = []
    for document in there:
        if document.component != SERVICE_COMPONENT:
            continue
        spec = document.validate(FeatureServiceSpec)
        problems = list(_dangling_of_service(document, spec, views))
        if problems:
            raise SpecError(problems)
        services.append(spec)
    return services


def _dangling_of_service(
    document: Document, spec: FeatureServiceSpec, views: Mapping[str, Collection[str]]
) -> Iterator[SpecProblem]:
    file = spec.request_features
    if file and not (document.path.parent / file).is_file():
        here = sorted(path.name for path in document.path.parent.glob("*.py"))
        message = f"no file '{file}' beside defs.yaml{nearest(file, here)} Found there: {', '.join(here) or 'none'}"
        yield document.problem(("attributes", "request_features"), message)
    for index, one in enumerate(spec.views):
        location: Location = ("attributes", "views", index)
        known = views.get(one.view)
        if known is None:
            yield document.problem(location, unknown(one.view, views, what="feature view"))
            continue
        for name in one.features:
            if name not in known:
                yield document.problem((*location, "features"), unknown(name, known, what=f"feature of {one.view}"))


def _shared(
    kind: str, name: str, views: Mapping[str, Collection[str]], named: Mapping[tuple[str, str], Path]
) -> Iterator[str]:
    """Say what else has a service's name: requests to views, services and models tell them apart by it alone."""
    others = {"feature service": "model", "model": "feature service"}
    if kind == "feature service" and name in views:
        yield f"'{name}' is already the name of a feature view; choose another name"
    if kind in others and (others[kind], name) in named:
        yield f"'{name}' is already the {others[kind]} of {named[others[kind], name]}; choose another name"

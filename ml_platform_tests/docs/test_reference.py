"""What exists is in the reference, and what the pages name exists: settings, commands, keys, metrics, jobs, Python."""

import importlib
import re
import shlex
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from pydantic import BaseModel
from starlette.routing import Route

from docs.generator.commands_page import MODULES, commands, commands_page
from docs.generator.dagster_page import dagster_page
from docs.generator.http_page import http_page, openapi_document, operations, template
from docs.generator.metrics_page import exposed, metrics_page
from docs.generator.python_pages import PUBLIC, exported_by
from docs.generator.settings_page import documented_variables, settings_page
from docs.generator.yaml_keys import (
    composed_endpoint_keys,
    cost_keys,
    feature_service_keys,
    feature_view_keys,
    keys,
    model_keys,
    notebook_keys,
    sections,
    source_keys,
    term_keys,
)
from ml_platform.catalogue.terms import Terms
from ml_platform.cost.config import CostConfig
from ml_platform.doctor.effective_settings import KINDS
from ml_platform.features.views.view import FeatureView
from ml_platform.governance.access.access_yaml import AccessFile
from ml_platform.lake.sources.source_spec import SourceSpec
from ml_platform.model_import.declaration import Declaration
from ml_platform.processes.platform import PORTS
from ml_platform.settings import Settings
from ml_platform.spec.composition import ComposedEndpointSpec
from ml_platform.spec.feature_service import FeatureServiceSpec
from ml_platform.spec.model import ModelSpec
from ml_platform.spec.notebook import NotebookSpec
from ml_platform.sql_server.app import SqlServer
from ml_platform_tests.docs.pages import blocks, code_files, pages, text_of_all
from ml_platform_tests.test_public_api import ROOMS

# Set by the platform for its own processes; nobody else sets them.
INTERNAL = {"ML_PLATFORM_METER", "ML_PLATFORM_PROCESS", "ML_PLATFORM_RUNNER", "ML_PLATFORM_SERVING_LOGGED_REQUESTS"}
OF_THE_EXAMPLE = {"ML_PLATFORM_FLIGHTS_DIR"}
VARIABLE = re.compile(r"\bML_PLATFORM_[A-Z_]*[A-Z]\b(?!_)")
PAGES: dict[type[BaseModel], Callable[[], str]] = {
    ModelSpec: model_keys,
    NotebookSpec: notebook_keys,
    CostConfig: cost_keys,
    SourceSpec: source_keys,
    ComposedEndpointSpec: composed_endpoint_keys,
    FeatureServiceSpec: feature_service_keys,
    FeatureView: feature_view_keys,
    Terms: term_keys,
}


@pytest.fixture(scope="module")
def dagster() -> str:
    return dagster_page()


@pytest.fixture(scope="module")
def openapi() -> dict[str, Any]:
    return openapi_document()


def test_every_variable_that_the_code_reads_is_a_setting_of_the_reference() -> None:
    read = {name for path in code_files() for name in VARIABLE.findall(path.read_text(encoding="utf-8"))}
    assert read - INTERNAL - OF_THE_EXAMPLE <= documented_variables()
    page = settings_page()
    assert [name for name in documented_variables() if f"`{name}`" not in page] == []


def test_every_variable_on_a_page_exists() -> None:
    known = documented_variables() | OF_THE_EXAMPLE
    assert {path: unknown for path, text in pages().items() if (unknown := set(VARIABLE.findall(text)) - known)} == {}


def test_every_command_and_option_is_in_the_reference() -> None:
    page = commands_page()
    for name, command, context in commands():
        section = page.split(f"### {name}\n")[1].split("\n### ")[0]
        for parameter in command.get_params(context):
            for option in {*parameter.opts} - {"--help"}:
                assert option in section or option.upper() in section, (name, option)
    for name, make in MODULES.items():
        section = page.split(f"### {name}\n")[1].split("\n### ")[0]
        options = [option for action in make()._actions for option in action.option_strings]
        assert [option for option in options if option not in ("-h", "--help") and option not in section] == []


def _calls() -> Iterator[tuple[str, list[str]]]:
    """Every call of `ml-platform` in a page's shell code or in code within its text."""
    for path, text in pages().items():
        inline = re.findall(r"`(ml-platform [^`]+)`", text)
        shell = [line for page, block in blocks("sh") if page == path for line in block.splitlines()]
        for line in [*inline, *(line.strip() for line in shell if line.strip().startswith("ml-platform "))]:
            plain = re.sub(r"<[^>]*>|…", "WORD", line.split("  #")[0])
            yield path, shlex.split(plain)


def test_every_command_on_a_page_exists_with_its_options() -> None:
    known = {name: command for name, command, _ in commands()}
    groups = {name.rsplit(" ", 1)[0] for name in known}
    seen = 0
    for path, words in _calls():
        name = " ".join(words[:3]) if " ".join(words[:2]) in groups and len(words) > 2 else " ".join(words[:2])
        if name in groups or name.endswith(","):
            continue
        if name.startswith("ml-platform forget -"):  # the default command of the group
            name = "ml-platform forget entity"
        if name.startswith("ml-platform cost -"):
            name = "ml-platform cost show"
        assert name in known, (path, words)
        options = {option for parameter in known[name].params for option in parameter.opts}
        assert {word.split("=")[0] for word in words if word.startswith("--")} <= options, (path, words)
        seen += 1
    assert seen > 30


@pytest.mark.parametrize("spec", PAGES, ids=lambda spec: spec.__name__)
def test_every_key_is_in_the_reference_with_its_meaning(spec: type[BaseModel]) -> None:
    page = PAGES[spec]()
    for path, model in sections(spec):
        section = page.split(f"## {path} {{")[1].split("\n## ")[0] if path else page.split("\n## ")[0]
        for name, field in keys(model).items():
            assert field.description, f"{model.__name__}.{name}"
            assert f"| `{name}` |" in section, f"{path}.{name}"


def test_every_key_of_the_yaml_on_the_pages_exists() -> None:
    known = {name for spec in PAGES for _, model in sections(spec) for name in keys(model)}
    known |= {"type", "attributes"}  # of the component around them
    known |= set(AccessFile.model_fields)  # of access.yaml
    known |= set(Declaration.model_fields)  # of the file that describes an imported model
    top = {"run_launcher", "concurrency", "run_monitoring", "run_retries"}  # of dagster.yaml
    top |= {"repos"}  # of pre-commit
    seen = 0
    for path, text in blocks("yaml"):
        document = yaml.safe_load(text)
        if isinstance(document, list):  # steps of a CI job
            continue
        if top & set(document):
            continue
        if set(document) <= {"dev", "staging", "prod"}:
            groups = {kind.group(): set(kind.model_fields) for kind in KINDS} | {"ports": set(PORTS)}
            for environment in document.values():
                assert set(environment) <= groups[""] | set(groups), (path, environment)
                assert all(set(environment[group]) <= groups[group] for group in groups if group in environment), path
            continue
        for key in document:
            assert key in known, (path, key)
        for key in document.get("attributes", {}):
            assert key in known, (path, key)
        seen += 1
    assert seen > 8


def test_every_metric_is_in_the_reference_and_pages_name_no_other() -> None:
    page = metrics_page()
    assert [name for name in exposed() if f"| `{name}` |" not in page] == []
    named = set(re.findall(r"`(ml_platform_[a-z_]+)`", text_of_all())) - {"ml_platform_tests"}
    assert named - set(exposed()) == set()
    assert named


ROUTE = re.compile(r"`(GET|PUT|POST|DELETE) (/[^`\s?]*)`")


@pytest.fixture(scope="module")
def sql_routes(tmp_path_factory: pytest.TempPathFactory) -> set[tuple[str, str]]:
    """Routes of the SQL server, as its app has them."""
    app = SqlServer(Settings(home=tmp_path_factory.mktemp("home"))).app()
    routes = [route for route in app.routes if isinstance(route, Route)]
    return {(method, route.path) for route in routes for method in (route.methods or set()) - {"HEAD"}}


def test_every_route_is_in_the_reference_and_pages_name_no_other(
    openapi: dict[str, Any], sql_routes: set[tuple[str, str]]
) -> None:
    page = http_page()
    routes = {(method, path) for method, path, _ in operations(openapi)}
    assert [f"{method} {path}" for method, path in routes if f"### {method} {path}\n" not in page] == []
    shapes = {(method, re.sub(r"\{\w+\}", "{}", path)) for method, path in routes | sql_routes}
    named = ROUTE.findall(text_of_all())
    for method, path in named:
        assert (method, re.sub(r"<\w+>|\{\w+\}", "{}", template(path))) in shapes, (method, path)
    assert named


def test_every_route_of_the_sql_server_is_on_its_page(sql_routes: set[tuple[str, str]]) -> None:
    [page] = [text for path, text in pages().items() if path.endswith("governance/sql-server.md")]
    assert ("POST", "/sql") in sql_routes
    assert sql_routes - set(ROUTE.findall(page)) == set()


def test_jobs_and_sensors_on_the_pages_exist(dagster: str) -> None:
    for path, text in pages().items():
        for name in re.findall(r"`(<model>_[a-z]+)`", text):
            assert f"`{name}`" in dagster, (path, name)
        for name in re.findall(r"(?:job|sensor|schedule) `([a-z_]+)`", text):
            assert f"`{name}`" in dagster, (path, name)
        for name in re.findall(r"--job (\w+)", text):
            ending = name.removeprefix("late_orders").removeprefix("my_model")
            assert f"`<model>{ending}`" in dagster or f"`{name}`" in dagster, (path, name)


def test_every_part_of_the_reference_of_dagster_is_described(dagster: str) -> None:
    assert [line for line in dagster.splitlines() if re.match(r"\| `[^`]+` \|  \|", line)] == []


def _imports() -> Iterator[tuple[str, str]]:
    for path, text in blocks("python"):
        for module, names in re.findall(r"^from (ml_platform[\w.]*) import ([\w, ]+)", text, re.MULTILINE):
            yield from ((path, f"{module}.{name.strip()}") for name in names.split(","))


def exported() -> set[str]:
    """The names that rooms export, as a project imports them."""
    rooms = {room: importlib.import_module(f"ml_platform.{room}") for room in ROOMS}
    return {f"{package.__name__}.{name}" for package in rooms.values() for name in package.__all__}


def test_what_the_rooms_export_is_in_the_reference() -> None:
    public = {name for names in PUBLIC.values() for name in names}
    shown = {f"{exported_by(name)}.{name.rpartition('.')[2]}" for name in public}
    for name in exported() - shown:
        home = importlib.import_module(name.rpartition(".")[0])
        defined_in = getattr(getattr(home, name.rpartition(".")[2]), "__module__", None)
        is_component = home.__name__ == "ml_platform.orchestration"  # described by the keys of its YAML
        assert is_component or home.__name__ in public or defined_in in public, name


def test_what_the_guides_import_is_public_and_what_is_public_exists() -> None:
    public = {name for names in PUBLIC.values() for name in names}
    for name in public:
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute) or importlib.import_module(name)
    importable = {f"{exported_by(name)}.{name.rpartition('.')[2]}" for name in public} | exported()
    for path, name in _imports():
        assert name in importable or name.rpartition(".")[0] in public, (path, name)
    for path, text in pages().items():
        for name in re.findall(r"`(ml_platform\.[\w.]+\w)(?:\([^`]*)?`", text):
            assert _exists(name), (path, name)


def _exists(name: str) -> bool:
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            found = getattr(found, part, None)
        return found is not None
    return False


def test_every_key_that_describes_an_imported_model_is_shown() -> None:
    [text] = [text for path, text in blocks("yaml") if path.endswith("models/import.md") and "rename" in text]
    assert set(yaml.safe_load(text)) == set(Declaration.model_fields)

"""The rows of the engine's rooms: a room imports only from rows below its own, and nothing imports in a circle."""

import pytest

from ml_platform_tests.import_graph import Import, circles_in_words, imports_of, modules_of
from ml_platform_tests.paths import PROJECT_ROOT

# From the top. Imports inside functions and under TYPE_CHECKING count too.
ROWS = (
    ("__main__",),
    ("cli", "demo"),
    ("dev", "definitions", "doctor", "documentation"),
    ("defs",),
    ("testing",),
    ("orchestration",),  # the only one that imports Dagster
    ("stream_scoring", "sql_server"),
    ("serving", "login"),
    ("automl", "notebooks"),
    ("new_model", "model_import", "catalogue"),
    ("cost",),
    ("monitoring",),
    ("promotion",),
    ("training",),
    ("scoring",),
    ("governance",),
    ("lineage",),
    ("inference",),
    ("features",),
    ("registry",),
    ("spec_yaml", "segment_log", "streams"),
    ("lake",),
    ("notebook_files",),
    ("spec", "processes", "compute", "local_ray", "bootstrap"),
    ("code_version", "environments", "project", "settings"),
    (
        "yaml_documents",
        "atomic_files",
        "secret_file",
        "gateway_identity",
        "private_files",
        "python_files",
        "suppression_list",
    ),
    (
        "boolean_texts",
        "distribution",
        "formats",
        "json_keys",
        "lazy_exports",
        "instants",
        "printable",
        "sqlite_uri",
        "terminal",
        "upgrade",
    ),
)
# Serving is installed without what trains and promotes.
NEVER = {"serving": {"training", "promotion", "orchestration"}}
EXAMPLE = {"defs", "demo"}  # what a project may be without
RANK = {room: number for number, row in enumerate(ROWS) for room in row}


def room_of(module: str) -> str:
    """The room of a module: `ml_platform.lake.query.sql` → `lake`."""
    return module.split(".")[1] if "." in module else ""


def part_of(module: str) -> str:
    """The sub-package of a module in a room that has some: `ml_platform.lake.query.sql` → `ml_platform.lake.query`."""
    return ".".join(module.split(".")[:3])


def broken(imports: list[Import]) -> list[str]:
    """Describe the imports that go up, or sideways to another room of the row, or where they never may."""
    found = []
    for one in imports:
        importer, imported = room_of(one.importer), room_of(one.imported)
        if importer == imported or not importer or not imported:
            continue
        same_row_base = RANK[importer] == RANK[imported] >= RANK["spec"]
        if (RANK[importer] >= RANK[imported] and not same_row_base) or imported in NEVER.get(importer, ()):
            found.append(f"{one}: `{importer}` may not import `{imported}`")
    return found


@pytest.fixture(scope="module")
def imports():
    found = imports_of(PROJECT_ROOT, ["ml_platform"])
    assert len(found) > 1000
    return found


def test_every_module_has_its_row():
    rooms = {room_of(module) for module in modules_of(PROJECT_ROOT, ["ml_platform"])} - {""}
    assert rooms <= set(RANK), f"without a row: {sorted(rooms - set(RANK))}"
    assert set(RANK) - rooms <= EXAMPLE, f"rows of no room: {sorted(set(RANK) - rooms - EXAMPLE)}"


def test_rooms_import_only_from_rows_below(imports):
    assert not broken(imports), "\n".join(broken(imports))


def test_no_modules_import_in_a_circle(imports):
    assert not circles_in_words(imports), "\n".join(circles_in_words(imports))


def test_no_parts_of_a_room_import_in_a_circle(imports):
    parts = {module: part_of(module) for one in imports for module in (one.importer, one.imported)}
    found = circles_in_words(imports, parts)
    assert not found, "\n".join(found)


def test_a_circle_is_told_with_the_lines_that_close_it(tmp_path):
    for name, text in {
        "a": "import house.b",
        "b": "def f():\n    from house import c",
        "c": "from house.a import x",
    }.items():
        (tmp_path / "house").mkdir(exist_ok=True)
        (tmp_path / "house" / f"{name}.py").write_text(text + "\n")
    [told] = circles_in_words(imports_of(tmp_path, ["house"]))
    assert told.splitlines()[1:] == [
        "  house/a.py:1: house.a imports house.b",
        "  house/b.py:2: house.b imports house.c",
        "  house/c.py:1: house.c imports house.a",
    ]


def test_an_import_upwards_is_told_even_when_only_for_types(tmp_path):
    folder = tmp_path / "ml_platform"
    (folder / "lake").mkdir(parents=True)
    (folder / "training.py").write_text("")
    (folder / "lake" / "tables.py").write_text("if TYPE_CHECKING:\n    from ml_platform.training import fit\n")
    [told] = broken(imports_of(tmp_path, ["ml_platform"]))
    assert told == (
        "ml_platform/lake/tables.py:2: ml_platform.lake.tables imports ml_platform.training: "
        "`lake` may not import `training`"
    )

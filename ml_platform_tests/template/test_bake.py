"""Projects made from the template: small, complete, in the checked form, with every answer in its place."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from ml_platform.documentation import matching, pages
from ml_platform_tests.paths import PROJECT_ROOT
from ml_platform_tests.template.baking import Bake, git

SHARED = (".gitignore", ".pre-commit-config.yaml", "data/README.md", "deploy/README.md", "deploy/grafana/serving.json",
          "deploy/kubernetes/deployment.yaml", "deploy/ray_serve.yaml", "serving/app.py")  # fmt: skip


@pytest.fixture(scope="module")
def without(bake: Bake, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project without the example."""
    output = tmp_path_factory.mktemp("without")
    done = bake(
        output, "project_name=Churn Lab", 'description=It\'s "ours"', "owner_email=lab@example.org", "example=none"
    )
    assert done.returncode == 0, done.stderr
    assert "Churn Lab is ready" in done.stdout
    return output / "churn-lab"


@pytest.fixture(scope="module")
def flights(bake: Bake, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with the example."""
    output = tmp_path_factory.mktemp("flights")
    done = bake(output, "project_name=Zebra Lab", "owner_email=lab@example.org")
    assert done.returncode == 0, done.stderr
    return output / "zebra-lab"


def tracked(project: Path) -> list[str]:
    return git(project, "ls-files").splitlines()


def owners(project: Path) -> set[str]:
    lines = git(project, "grep", "-h", "owner:", "--", "*/defs/*.sql", "*/defs/*.yaml").splitlines()
    return {yaml.safe_load(line)["owner"] for line in lines}


def test_a_project_is_small_and_committed(without, flights):
    assert len(tracked(without)) <= 45
    assert git(without, "log", "--format=%s") == "Start Churn Lab\n"
    for project in (without, flights):
        assert git(project, "status", "--porcelain", "--ignored") == ""
        for name in ("hooks", "cookiecutter.json", "docs", "benchmarks", "ml_platform", "ml_platform_tests"):
            assert not (project / name).exists()


def test_answers_are_in_their_places(without, flights):
    project = tomllib.loads((without / "pyproject.toml").read_text())["project"]
    assert (project["name"], project["description"]) == ("churn-lab", 'It\'s "ours"')
    assert project["authors"] == [{"name": "Churn Lab", "email": "lab@example.org"}]
    assert (without / "README.md").read_text().startswith('# Churn Lab\n\nIt\'s "ours"\n')
    assert (without / "churn_lab" / "definitions.py").exists()
    assert yaml.safe_load((without / "workspace.yaml").read_text())["load_from"] == [
        {"python_module": {"module_name": "churn_lab.definitions", "location_name": "churn_lab"}}
    ]
    assert owners(flights) == {"lab@example.org"}


def test_answers_are_text_and_never_patterns(bake, tmp_path):
    """Nor the end of a comment, nor YAML or TOML of their own, nor a name to replace."""
    email, description = r"a\1&b*/{c}@example.org", r"What ml_platform.defs calls \1 & C:\new"
    done = bake(tmp_path, "project_name=Odd Lab", f"description={description}", f"owner_email={email}")
    assert done.returncode == 0, done.stderr
    project = tmp_path / "odd-lab"
    written = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    assert (written["description"], written["authors"][0]["email"]) == (description, email)
    assert owners(project) == {email}
    assert not [
        line for line in git(project, "grep", "-h", "owner:", "--", "*/defs/*.sql").splitlines() if "*/" in line
    ]


def test_what_is_shared_is_byte_for_byte_this_repositorys(without):
    for name in SHARED:
        assert (without / name).read_bytes() == (PROJECT_ROOT / name).read_bytes(), name
    bootstrap = PROJECT_ROOT / "ml_platform" / "bootstrap.py"
    assert (without / "bootstrap.py").read_bytes() == bootstrap.read_bytes()


def test_no_jinja_is_left(without, flights):
    for project in (without, flights):
        assert git(project, "grep", "-n", "-I", "-E", r"cookiecutter\.|\{%|\{#") == ""
        for name in git(project, "grep", "-l", "-I", "-E", r"\{\{").splitlines():  # Grafana's and Prometheus's own
            if name.startswith(".github/workflows/"):  # GitHub's own
                assert not re.search(r"(?<!\$)\{\{|\{%", (project / name).read_text()), name
                continue
            assert (project / name).read_bytes() == (PROJECT_ROOT / name).read_bytes(), name


def test_the_engine_keeps_its_name_and_the_example_gets_the_projects(flights):
    assert git(flights, "grep", "-n", "-E", r"ml_platform\.defs|ml_platform/defs", "--", "zebra_lab") == ""
    imports = git(flights, "grep", "-h", "-E", "^from (ml_platform|zebra_lab)", "--", "zebra_lab")
    assert "from ml_platform.lake" in imports
    assert "from zebra_lab.defs.flight_delay" in imports


def test_a_project_is_in_the_checked_form(without, flights, bake, tmp_path):
    done = bake(tmp_path, "project_name=Customer Lifetime Value Forecasts Of The North")
    assert done.returncode == 0, done.stderr
    for project in (without, flights, next(tmp_path.iterdir())):
        for arguments in (["format", "--check"], ["check"]):
            command = [sys.executable, "-m", "ruff", *arguments, "--no-cache", "."]
            done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout


def test_without_the_example_no_flight_is_left(without):
    of_flights = re.compile(r"(?<!in[ _-])flight", re.IGNORECASE)  # requests in flight are everybody's
    names = [
        name
        for name in git(without, "ls-files").splitlines()
        if of_flights.search((without / name).read_text(errors="replace"))
    ]
    assert names == ["requirements.lock"]  # the engine's own, of which all is locked
    folders = [path for path in (without / "churn_lab" / "defs").iterdir() if path.is_dir()]
    assert [(path.name, sorted(file.name for file in path.iterdir())) for path in folders] == [
        ("features", ["__init__.py", "defs.yaml"])  # where the first feature view goes
    ]
    assert "demo" not in (without / "Makefile").read_text()


def test_what_the_pages_of_a_project_name_is_there(without, flights):
    titles = dict.fromkeys(pages(), "")
    for project in (without, flights):
        package = project.name.replace("-", "_")
        readme, targets = (project / "README.md").read_text(), (project / "Makefile").read_text()
        for target in re.findall(r"(?:^|`)(?:\w+=\S+ )?make ([a-z-]+)", readme, re.MULTILINE):
            assert re.search(rf"^{target}: ", targets, re.MULTILINE), target
        of_table = re.findall(r"\| ((?:`[a-z/-]+`(?:, )?)+) \|$", readme, re.MULTILINE)
        assert len(of_table) > 8
        for page in [*re.findall(r"ml-platform docs ([a-z-]+)", readme), *re.findall(r"[a-z/-]+", " ".join(of_table))]:
            assert len(matching(page, titles)) == 1, page
        for path in (project / "README.md", *project.glob("*/README.md")):
            for link in re.findall(r"\]\((?!https:)([^)#]+)[^)]*\)", path.read_text()):
                assert (path.parent / link).exists(), link
        made_later = {"orders", "late_orders", "features/customer_orders.sql"}
        for name in re.findall(rf"{package}/defs/([\w/.]+)", readme):
            assert any(name.startswith(later) for later in made_later) or (project / package / "defs" / name).exists()


@pytest.mark.parametrize("name", ["ci", "promote"])
def test_a_workflow_may_read_only_and_pins_its_actions(without, name):
    workflow = yaml.safe_load((without / ".github" / "workflows" / f"{name}.yml").read_text())
    assert workflow["permissions"] == {"contents": "read"}
    used = [step["uses"] for job in workflow["jobs"].values() for step in job["steps"] if "uses" in step]
    assert used
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action) for action in used)


def test_the_image_starts_the_server_as_the_manifests_want_it(without):
    ours, theirs = ((root / "deploy" / "Dockerfile").read_text() for root in (PROJECT_ROOT, without))
    for instruction in ("USER", "ENV ML_PLATFORM_HOME", "EXPOSE", "STOPSIGNAL", "ENTRYPOINT"):
        [line] = re.findall(rf"^{instruction}.*$", theirs, re.MULTILINE)
        assert line in ours
    sources = re.findall(r"^COPY (?!--)(.*) \S+$", theirs, re.MULTILINE)
    for pattern in " ".join(sources).split():
        assert list(without.glob(pattern)), pattern


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("package_name=Churn-Lab", "'Churn-Lab' is not a valid package name"),
        ("package_name=../../lab", "'../../lab' is not a valid package name"),
        ("package_name=2fast", "'2fast' is not a valid package name"),
        ("package_name=class", "'class' is a word or module of Python itself"),
        ("package_name=json", "'json' is a word or module of Python itself"),
        ("package_name=ml_platform", "'ml_platform' is a package that the project depends on"),
        ("package_name=dagster", "'dagster' is a package that the project depends on"),
        ("package_name=serving", "'serving' is a folder of the project"),
        ("project_slug=Churn Lab", "'Churn Lab' is not a valid name"),
        ("project_slug=dagster-ml-platform", "'dagster-ml-platform' is a package that the project depends on"),
        ("project_slug=mlflow", "'mlflow' is a package that the project depends on"),
        ("owner_email=nobody", "'nobody' is not an e-mail address"),
    ],
)
def test_bad_answers_are_refused(bake, tmp_path, answer, said):
    done = bake(tmp_path, answer)
    assert done.returncode != 0
    assert said in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_relative_path_is_the_users(bake, template, tmp_path):
    for source, cwd, output in (
        (f"./{template.name}", template.parent, tmp_path / "elsewhere"),
        (os.path.relpath(template, tmp_path), tmp_path, Path("here")),
    ):
        done = bake(output, source=source, cwd=cwd)
        assert done.returncode == 0, done.stderr
        assert (cwd / output / "prediction-lab" / "bootstrap.py").exists()

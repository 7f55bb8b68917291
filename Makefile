# Everything is started from here. `make help` lists it; PYTHON names the Python that makes .venv.

PYTHON ?= python3
RUN := .venv/bin/python
# What is installed, by the extras of pyproject.toml.
EXTRAS ?= platform example
SETUP = @$(PYTHON) ml_platform/bootstrap.py $(EXTRAS)
# Three workers share the files of tests between them, on two cores too: tests wait for servers and processes a good part
# of their time. -n 0 shows a test's output as it comes.
PYTEST_ARGS ?= -n 3 --dist loadfile

export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := 1
# Containers often set it. Every process that is started here would then compile its libraries again: half of its time.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev setup-families demo dev notebook test test-slow check docs format lock bench coverage sbom clean clean-data

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## make .venv and install the locked packages (returns at once when nothing changed)
	$(SETUP)

setup-dev: ## the same, with what tests, checks and benchmarks use
	$(SETUP) dev

# uv would bring PyTorch with the libraries of GPUs; pip takes the build that its configuration or a wheel offers.
setup-families: setup-dev ## setup-dev, with PyTorch and TensorFlow for the slow tests of their families
	$(SETUP) dev tensorflow
	$(RUN) -c "import torch" 2>/dev/null || \
		$(RUN) -m pip install --quiet --disable-pip-version-check --constraint requirements.lock torch

demo: setup ## real data to a served prediction, then keep Dagster and serving up (ONESHOT=1: stop after the prediction)
	@$(RUN) -m ml_platform.demo $(if $(filter-out 0,$(ONESHOT)),--oneshot)

dev: setup ## Dagster UI and daemon, serving and MLflow UI until Ctrl-C
	@$(RUN) -m ml_platform.dev

notebook: setup ## JupyterLab on the project: examples, SQL, features, models
	$(SETUP) lab
	@$(RUN) -m ml_platform notebook lab

test: check ## check, then the tests (minutes)
	$(RUN) -m pytest $(PYTEST_ARGS)

coverage: setup-dev ## the tests with the lines that they run, into build/coverage/index.html (COVERED: only these tests)
	$(RUN) -m pytest $(PYTEST_ARGS) --cov --cov-report=html --cov-report=term:skip-covered $(if $(COVERED),--cov-fail-under=0 $(COVERED))

test-slow: setup-dev ## the slow tests: whole loops, a baked copy of the template (tens of minutes)
	$(RUN) -m pytest -m slow --hypothesis-seed=0 $(PYTEST_ARGS)

check: setup-dev ## formatting, lint, types, the documentation
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m mypy
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --quiet

docs: setup-dev ## build the documentation into site/, strictly: a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --quiet
	@echo "docs: site/index.html"

format: setup-dev ## format the code and fix what lint can
	$(RUN) -m ruff format .
	$(RUN) -m ruff check --fix .

.venv/bin/uv:
	$(SETUP)

lock: .venv/bin/uv ## update requirements.lock from pyproject.toml, also where the two disagree
	.venv/bin/uv pip compile pyproject.toml --all-extras --universal --no-emit-index-url --upgrade -o requirements.lock

bench: setup-dev ## run the benchmarks, which write benchmarks/RESULTS.md
	@for file in benchmarks/[a-z]*.py; do echo "== $$file"; $(RUN) $$file || exit 1; done

# Of an environment of its own, so that EXTRAS=serving gives what the image of the server has.
sbom: setup-dev ## bill of materials (CycloneDX) and licences of what EXTRAS install, in build/
	.venv/bin/uv venv --quiet --clear --python $(RUN) build/installed
	.venv/bin/uv pip install --quiet --python build/installed/bin/python --constraint requirements.lock \
		--requirements pyproject.toml $(EXTRAS:%=--extra %)
	.venv/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
		--output-file build/sbom.json build/installed/bin/python
	.venv/bin/pip-licenses --python build/installed/bin/python --with-system --with-urls --format csv \
		--output-file build/licenses.csv

clean: ## remove .venv and caches, keep data/
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

clean-data: ## remove all local state: lake, registry, releases, logs
	find data -mindepth 1 -maxdepth 1 ! -name README.md -exec rm -rf {} +

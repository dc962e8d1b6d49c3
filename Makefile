# make repro   environment, sample data, the whole pipeline     make test   lint, types, tests
# make ui      the runs in MLflow's pages                       make lock   requirements.lock anew from pyproject.toml

PYTHON ?= python3
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
READY := $(VENV)/ready

.PHONY: repro test check ui lock clean-cache

repro: $(READY)
	@echo "== sample data: dvc pull data"
	@test -e data || dvc pull --quiet data
	@echo "== pipeline: dvc repro (edit params.yaml and run it again: only what the edit touches runs)"
	@dvc repro
	@echo "== done: stages/evaluate/report.html is the report, 'make ui' shows the runs"

test: check
	@echo "== tests"
	@OMP_NUM_THREADS=1 pytest --numprocesses auto --maxprocesses 4 --dist loadfile

check: $(READY)
	@echo "== lint and types"
	@ruff check .
	@ruff format --check --quiet .
	@mypy

ui: $(READY)
	@echo "== runs: http://127.0.0.1:5000, 'Model training' at the top left, then the experiment (Ctrl-C ends)"
	mlflow ui

# Rebuilt when the lock changes. The stamp is made last: its presence means that the environment is complete.
$(READY): requirements.lock pyproject.toml
	@echo "== environment: $(VENV) from requirements.lock (some 5 GB the first time, mostly torch)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "headstart needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	@$(PYTHON) -m venv $(VENV)
	@pip install --require-hashes -r requirements.lock
	@pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# Pinned and hashed for Python 3.11+ on every platform, without any index's address.
lock: $(READY)
	@uv --version >/dev/null 2>&1 || pip install --quiet uv
	uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --extra samples --extra dev \
		pyproject.toml -o requirements.lock

# make repro   environment, sample data, the whole pipeline     make test   lint, types, tests
# make repro RECIPE=solar-modules   the same with recipes/solar-modules.yaml as params.yaml
# make env     the environment alone
# make ui      the runs in MLflow's pages                       make lock   requirements.lock anew from pyproject.toml
# make demo-assets   onnxruntime-web, for `headstart demo`: needs npm

PYTHON ?= python3
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
READY := $(VENV)/ready

.PHONY: repro test check env ui lock demo-assets

repro: $(READY)
	@test -e data || { $(TAKE_DATA); }
	@$(if $(RECIPE),$(TAKE_RECIPE))
	@echo "== pipeline: dvc repro (edit params.yaml and run it again: only what the edit touches runs)"
	@dvc repro
	@echo "== done: stages/evaluate/report.html is the report, 'make ui' shows the runs"

# The sample is in git. Data of one's own comes from the DVC remote that it was pushed to.
SAMPLE := samples/solar-cells.csv
TAKE_DATA = if [ ! -e data.dvc ]; then \
		echo "data.dvc: not there, nor data/; take it back (git checkout data.dvc), or make data/ with your pictures"; exit 2; \
	elif grep -q 'md5: de792f09a3b37cf08586fe6df505fcde.dir' data.dvc; then \
		echo "== sample data: $(SAMPLE) becomes data/"; mkdir data && cp $(SAMPLE) data && dvc add data >/dev/null; \
	else \
		echo "== data: dvc pull data"; dvc pull data || { \
			echo "data: not there; it comes from the remote it was pushed to: 'dvc remote list', 'dvc push' there"; exit 2; }; \
	fi

# Edits of one's own are not overwritten: params.yaml must be one of the recipes as it is, or not be there.
TAKE_RECIPE = if [ ! -e recipes/$(RECIPE).yaml ]; then \
		echo "recipes/$(RECIPE).yaml: no such recipe; there are: $$(ls recipes | sed 's/[.]yaml$$//' | tr '\n' ' ')"; exit 2; \
	fi; \
	if [ -e params.yaml ]; then \
		known=; for each in recipes/*.yaml; do cmp -s $$each params.yaml && known=1; done; \
		[ "$$known" ] || { echo "params.yaml: has edits of yours; move it away, and make takes the recipe"; exit 2; }; \
	fi; \
	cp recipes/$(RECIPE).yaml params.yaml && echo "== recipe: params.yaml is now recipes/$(RECIPE).yaml"

test: check
	@echo "== tests"
	@OMP_NUM_THREADS=1 pytest --numprocesses auto --maxprocesses 4 --dist loadscope --no-loadscope-reorder

check: $(READY)
	@echo "== lint and types"
	@ruff check .
	@ruff format --check --quiet .
	@mypy

env: $(READY)

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

# The model's runtime in the browser: never committed, and only these bytes.
ORT_WEB := onnxruntime-web-1.30.0
ORT_WEB_SHA512 := ab4cbe26baedba45d2cec05610c71c55fa97db92d19a8b171c5f8269126683ca590a5cdc57bb2f35ce2b298de32f4d956fb42644c0ecd528a0a91e025c07ca61
demo-assets:
	@mkdir -p .cache/onnxruntime-web
	cd .cache/onnxruntime-web && npm pack --silent $(subst web-,web@,$(ORT_WEB))
	@cd .cache/onnxruntime-web && $(PYTHON) -c 'import hashlib, sys; \
		found = hashlib.sha512(open("$(ORT_WEB).tgz", "rb").read()).hexdigest(); \
		sys.exit(found != "$(ORT_WEB_SHA512)" and "$(ORT_WEB).tgz: not the bytes expected, but sha512 " + found)'
	@cd .cache/onnxruntime-web && tar xzf $(ORT_WEB).tgz --strip-components=2 package/dist/ort.wasm.min.mjs \
		package/dist/ort-wasm-simd-threaded.mjs package/dist/ort-wasm-simd-threaded.wasm && rm $(ORT_WEB).tgz

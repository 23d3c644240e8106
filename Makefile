# Every target sets up what it needs and is safe to repeat. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# torch at its tested version first: an open range would fetch the newest build with all its CUDA packages
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all lint type train bench notebooks docs wheel clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(READY) ## create .venv and install derainzoo with everything that its development needs

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' || \
		{ echo "derainzoo needs Python 3.11 or 3.12, $(PYTHON) is $$($(PYTHON) --version 2>&1); say make PYTHON=python3.11 ..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (some minutes the first time)"
	@$(PIP) torch==$$(sed -n 's/^torch==//p' constraints.txt)
	@$(PIP) -e '.[dev]'
	@touch $@

demo: $(READY) ## train a light network for three minutes on the embedded data, measure it, draw the results
	@$(BIN)/derainzoo experiment=demo

test: $(READY) ## the fast tests
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto -m "not slow and not multiprocess and not gpu"

test-all: $(READY) ## every test, the slow ones and those of several processes too
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto

lint: $(READY) ## ruff: rules and format
	@$(BIN)/ruff check src tests
	@$(BIN)/ruff format --check src tests

type: $(READY) ## mypy, strict
	@$(BIN)/mypy

train: $(READY) ## train the default network on the embedded data (make train ARGS="model=elf data=rain200h")
	@$(BIN)/derainzoo train $(ARGS)

bench: $(READY) ## each fast path against the paper's plain formulation
	@$(BIN)/python -m tests.bench $(ARGS)

notebooks: $(READY) ## execute all notebooks in full and keep their outputs: ten minutes (ARGS=--tiny only tries them: two)
	@$(BIN)/python tools/notebooks.py $(or $(ARGS),--save)

docs: $(READY) ## build the documentation's site into site/, strictly (ARGS=serve shows it while you write)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs $(or $(ARGS),build --strict --quiet) && echo "open site/index.html"

wheel: $(READY) ## build the wheel into dist/
	@rm -rf dist
	@$(BIN)/python -m build --wheel --no-isolation --outdir dist .

clean: ## remove what builds, tests and tools leave behind (runs/ and .venv stay)
	@rm -rf build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

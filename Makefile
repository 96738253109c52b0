# Every target makes .venv first if it has to; a second call installs nothing.
PYTHON ?= python3
# Processes for pytest; torch gets its share of the cores in each of them.
WORKERS ?= 2
# Passed on: make demo ARGS="out=somewhere", make test ARGS="tests/data -k coco".
ARGS ?=

BIN := .venv/bin
INSTALLED := .venv/.installed
SOURCES := $(wildcard src tests bench examples compat)

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast check clean

help:
	@echo "make demo        train, score and report the embedded model on a CPU"
	@echo "make test        the whole test suite"
	@echo "make test-fast   the tests that take less than about a second"
	@echo "make check       ruff, mypy, and every file compiles"
	@echo "make clean       remove caches and builds; .venv and runs/ stay"

# Where wheels come from is pip's own configuration.
$(INSTALLED): pyproject.toml constraints.txt
	@echo "building .venv; the first time takes a few minutes"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(INSTALLED)
	$(BIN)/boxtune demo $(ARGS)

test: $(INSTALLED)
	$(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

test-fast: $(INSTALLED)
	$(BIN)/python -m pytest -n $(WORKERS) -m "not slow" $(ARGS)

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m compileall -q $(SOURCES)

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +

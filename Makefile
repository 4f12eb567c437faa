# From a fresh clone: `make demo` gives a verdict on a published finding, `make test` checks everything.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Two test processes with one thread each: with more, they fight over the cores. A file stays in
# one process, so that what its tests share is built once.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile

BENCHMARKS := startup memory attach toy_training relaxation lexicon simplex weights

.PHONY: demo test test-slow lint bench docs
.DEFAULT_GOAL := test

demo: $(STAMP)
	$(BIN)/probekit run crystallization --preset quick --jobs 2

test: lint
	$(PYTEST)

test-slow: $(STAMP)
	$(PYTEST) -m slow

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright --pythonpath $(BIN)/python

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: $(VENV)/.peers
	set -e; for name in $(BENCHMARKS); do $(BIN)/python benchmarks/$$name.py; done
	$(BIN)/python benchmarks/tables.py

# What the benchmarks compare with.
$(VENV)/.peers: $(STAMP)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	touch $@

# torch by itself first, at the pinned version: a mirror that offers its CPU build is then used,
# where the newest torch would bring several GB of CUDA libraries along.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,docs]'
	$(BIN)/probekit data wordnet || echo 'tests that need WordNet will be skipped'
	touch $@

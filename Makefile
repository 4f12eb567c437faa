# From a fresh clone: `make demo` gives a verdict on a published finding, `make test` checks everything.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Two test processes with one thread each: with more, they fight over the cores. A file stays in
# one process, so that what its tests share is built once.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile

BENCHMARKS := startup memory attach toy_training relaxation lexicon simplex weights

.PHONY: demo test test-slow test-lowest lint bench docs
.DEFAULT_GOAL := test

demo: $(STAMP)
	$(BIN)/probekit run crystallization --preset quick --jobs 2

test: lint
	$(PYTEST)

test-slow: $(STAMP)
	$(PYTEST) -m slow

# What rests on torch, transformers and TransformerLens, with the lowest versions that pyproject.toml
# declares of these, in an environment of its own. Minutes, so not a part of `make test`.
LOWEST := build/lowest
test-lowest:
	test -x $(LOWEST)/bin/python || $(PYTHON) -m venv $(LOWEST)
	awk -F== 'NR == FNR { low[$$1]; print; next } !($$1 in low)' \
		constraints-lowest.txt constraints.txt > $(LOWEST)/constraints.txt
	$(LOWEST)/bin/pip install --quiet --disable-pip-version-check -c $(LOWEST)/constraints.txt torch
	$(LOWEST)/bin/pip install --quiet --disable-pip-version-check -c $(LOWEST)/constraints.txt -e '.[dev]'
	OMP_NUM_THREADS=1 $(LOWEST)/bin/pytest -n 2 --dist loadfile \
		tests/seam tests/attachment tests/hooked tests/interventions tests/probes

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

# The short commands. Each creates .venv and installs the package when that is missing or stale.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SEED ?= 0
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest --numprocesses=$(WORKERS) --dist=worksteal

.PHONY: help install demo test notebooks test-scatter lint bench trials results clean
.DEFAULT_GOAL := help

help:
	@echo "make demo     train and test a small model on generated clips, with pictures"
	@echo "make test     run the tests, in WORKERS=2 processes"
	@echo "make notebooks  run the notebooks from nothing"
	@echo "make test-scatter  compile torch-scatter and test the operators with it"
	@echo "make lint     check style and types"
	@echo "make bench    run the benchmarks"
	@echo "make trials   kill, stop, fill and tear commands, and compare what they make; half an hour"
	@echo "make results  write experiments/RESULTS.md anew from the stored tables"
	@echo "make install  create $(VENV) and install the package"
	@echo "make clean    remove $(VENV) and caches; data/ and runs/ stay"

install: $(READY)

$(READY): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; say which with make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,slowfast]"
	@touch $@

demo: $(READY)
	$(BIN)/taghead demo --seed $(SEED)

test: $(READY)
	$(PYTEST)

notebooks: $(READY)
	$(BIN)/python -m pytest --nbmake --nbmake-timeout=600 notebooks

# PyG uses torch-scatter where it is installed; it comes as source and takes minutes to compile
test-scatter: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade setuptools wheel
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation \
		-c constraints.txt -e ".[scatter]"
	$(PYTEST) tests/operators

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)
	$(BIN)/python benchmarks/operators.py --output benchmarks
	$(BIN)/python benchmarks/head.py --output benchmarks
	$(BIN)/python benchmarks/features.py --output benchmarks
	$(BIN)/python benchmarks/decode.py --output benchmarks

trials: $(READY)
	PYTHONPATH=benchmarks $(BIN)/python -m trials --output=benchmarks/TRIALS.md

results: $(READY)
	$(BIN)/taghead compare experiments/results/*/ --intro experiments/results/intro.md \
		--output experiments/RESULTS.md
	$(BIN)/taghead compare experiments/results/graphs-order --control relations=alone \
		--output experiments/results/graphs-order/against_alone/RESULTS.md

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis src/*.egg-info

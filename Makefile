# The short commands. Each creates .venv and installs the package when that is missing or stale.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
LOCK ?= requirements.lock
SEED ?= 0
WORKERS ?= 2
SECONDS ?= 60
PYTEST := $(BIN)/python -m pytest --numprocesses=$(WORKERS) --dist=worksteal

.PHONY: help install lock demo test safeguards fuzz notebooks test-scatter lint bench trials results clean
.DEFAULT_GOAL := help

help:
	@echo "make demo     train and test a small model on generated clips, with pictures"
	@echo "make test     run the tests, in WORKERS=2 processes"
	@echo "make safeguards  remove each safeguard of the package alone, and see its tests fail"
	@echo "make fuzz     fuzz what is read of others' files, for SECONDS=60"
	@echo "make notebooks  run the notebooks from nothing"
	@echo "make test-scatter  compile torch-scatter and test the operators with it"
	@echo "make lint     check style and types"
	@echo "make bench    run the benchmarks"
	@echo "make trials   kill, stop, fill and tear commands, and compare what they make; half an hour"
	@echo "make results  write experiments/RESULTS.md anew from the stored tables"
	@echo "make install  create $(VENV) and install the package, with the versions and hashes of $(LOCK);"
	@echo "              with LOCK= the newest versions that setup.cfg admits, unchecked"
	@echo "make lock     write requirements.lock anew for setup.cfg; with UPGRADE=--upgrade newer versions"
	@echo "make clean    remove $(VENV) and caches; data/ and runs/ stay"

install: $(READY)

# Nothing is fetched but files whose hashes are in the lock file, those that build source distributions included
$(READY): setup.cfg pyproject.toml $(LOCK)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; say which with make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
ifeq ($(LOCK),)
	$(PIP) install -e ".[dev,slowfast]"
else
	awk '/^[^ ]/ {build = /^(packaging|setuptools|wheel)==/} build' $(LOCK) > $(VENV)/build.lock
	$(PIP) install --require-hashes -r $(VENV)/build.lock
	$(PIP) install --require-hashes --no-build-isolation -r $(LOCK)
	$(PIP) install --no-build-isolation --no-deps -e .
endif
	$(PIP) check
	@touch $@

# One set of versions for every system and Python from 3.11 on; torch-scatter alone, since it comes as source
UV := $(BIN)/uv pip compile --quiet --generate-hashes --no-annotate $(UPGRADE)
lock:
	@test -x $(BIN)/uv || $(MAKE) install
	$(UV) setup.cfg --extra dev --extra slowfast --universal --python-version 3.11 --fork-strategy fewest \
		--custom-compile-command "make lock" --output-file requirements.lock
	echo "torch-scatter" | $(UV) - --no-deps --no-build-isolation \
		--custom-compile-command "make lock" --output-file requirements-scatter.lock

demo: $(READY)
	$(BIN)/taghead demo --seed $(SEED)

test: $(READY)
	$(PYTEST)

safeguards: $(READY)
	$(BIN)/python tests/integration/safety/remove_safeguards.py --workers $(WORKERS)

fuzz: $(READY)
	$(BIN)/python tests/integration/safety/fuzz.py all --seconds $(SECONDS)

notebooks: $(READY)
	$(BIN)/python -m pytest --nbmake --nbmake-timeout=600 notebooks

# PyG uses torch-scatter where it is installed; it comes as source and takes minutes to compile
test-scatter: $(READY)
	$(PIP) install --require-hashes --no-build-isolation --no-deps -r requirements-scatter.lock
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

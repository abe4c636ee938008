# Everything runs in a virtual environment that make makes itself, with python3, and keeps in .venv.
# Others: make test VENV=/path/to/environment PYTHON=python3.12

VENV   ?= .venv
PYTHON ?= python3
ARGS   ?=
CSV    ?= benchmarks/results/torture.csv
BENCHES ?= augment store pipeline duplicates verify
BIN    := $(VENV)/bin
# Tests flush thousands of small files: they lie in memory where there is room for them.
SCRATCH := $(shell df -kP /dev/shm 2> /dev/null | awk 'NR == 2 && $$4 > 8000000 {print "TMPDIR=/dev/shm"}')
PYTEST = $(SCRATCH) $(BIN)/python -m pytest -n auto -o tmp_path_retention_policy=failed

.PHONY: help demo test quick format lint types docs bench torture clean

help:  ## list what make can do
	@sed -n 's/^\([a-z]*\):.*##/  make \1\t/p' Makefile

demo: $(VENV)/.augkit  ## run the whole way on synthetic images, in the folder demo
	$(BIN)/augkit demo demo

test: $(VENV)/.augkit-test  ## run every test; pytest options in ARGS="..."
	$(PYTEST) --slow --dist worksteal --durations 25 $(ARGS)

quick: $(VENV)/.augkit-test  ## run the tests that take seconds
	$(PYTEST) $(ARGS)

format: $(VENV)/.augkit-test  ## bring the code into its form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lint: $(VENV)/.augkit-test  ## check form and style
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.augkit-test  ## check the types
	$(BIN)/mypy

docs: $(VENV)/.augkit-docs  ## build the documents as a site, in the folder site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict -f .ci/mkdocs.yml

bench: $(VENV)/.augkit-bench  ## measure against peer libraries, and renew the table in the README
	@set -e; for name in $(BENCHES); do \
	    echo "== $$name"; \
	    $(BIN)/python -m benchmarks.bench_$$name --csv benchmarks/results/$$name.csv $(ARGS); \
	done
	@$(BIN)/python -m benchmarks.speed_table --write

torture: $(VENV)/.augkit-test  ## kill, starve, crowd and damage stores for an hour or two; what is found goes to CSV=FILE
	PYTHONPATH=tests $(BIN)/python -m torture --csv $(CSV) $(ARGS)

clean:  ## remove what was made, except the environment
	rm -rf build dist site demo *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# A stamp is older than pyproject.toml when the environment has to be brought up to date.
$(VENV)/.augkit: WITH =
$(VENV)/.augkit-test: WITH = [test]
$(VENV)/.augkit-bench: WITH = [bench]
$(VENV)/.augkit-docs: WITH = [docs]
$(VENV)/.augkit $(VENV)/.augkit-test $(VENV)/.augkit-bench $(VENV)/.augkit-docs: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null || { \
	    echo "make: augkit needs Python 3.11 or newer, and $(PYTHON) is" \
	         "$$($(PYTHON) -V 2> /dev/null || echo missing)." \
	         "Name another one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@echo "make: installing augkit$(WITH) in $(VENV); the first time takes minutes, torch is large"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".$(WITH)"
	@touch $(VENV)/.augkit $@

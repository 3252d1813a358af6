# Every target works on a fresh clone with nothing but Python 3.11 or newer and make: `setup` puts all the rest into .venv,
# once, and again when pyproject.toml changes. Plain recipes only: macOS ships GNU make 3.81.

VENV := .venv
BIN := $(VENV)/bin
SET_UP := $(VENV)/set-up
# `make setup PYTHON=/path/to/python` chooses the interpreter; otherwise the first of these that runs and is new enough.
# A second one beside it: `make test VENV=.venv-3.12 PYTHON=python3.12`.
PYTHONS := $(if $(PYTHON),$(PYTHON),python3 python3.14 python3.13 python3.12 python3.11)
# `LOWEST=yes` takes the lowest version that pyproject.toml allows of everything it names, not the newest.
LOWEST :=

.PHONY: setup demo demo-model test test-lowest try lint bench

setup: $(SET_UP)

# An interpreter is tried by running it: a name on the PATH may be a version manager's shim for nothing,
# and Debian's python3 cannot make a virtual environment until python3-venv is there.
$(SET_UP): pyproject.toml
	@if ! $(BIN)/python -c 'import pip' 2>/dev/null; then \
	  for candidate in $(PYTHONS); do \
	    if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	      echo "$$candidate -m venv $(VENV)"; \
	      exec "$$candidate" -m venv --clear $(VENV); \
	    fi; \
	  done; \
	  echo "No Python 3.11 or newer that can make a virtual environment was found (tried: $(PYTHONS))." >&2; \
	  echo "Install one (macOS: brew install python@3.13; Debian: apt install python3 python3-venv), or say where it is: make setup PYTHON=/path/to/python" >&2; \
	  exit 1; \
	fi
	$(if $(LOWEST),$(BIN)/python .ci/floors.py > $(VENV)/floors.txt)
	$(BIN)/python -m pip install --quiet --editable '.[dev]' $(if $(LOWEST),--constraint $(VENV)/floors.txt)
	@touch $@

demo: setup
	$(BIN)/gemma4-mlx demo

# Trains the built-in model anew: under two hours, and the voices' Debian packages (it says which are missing).
demo-model: setup
	$(BIN)/python -m tools.demo_model --output gemma4_mlx/demo

# Two at a time, one thread each: the models in the tests are too small for more threads to help.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

# The same with the lowest versions, in an environment of its own: `make test-lowest PYTHON=python3.11`.
test-lowest:
	$(MAKE) test VENV=.venv-lowest LOWEST=yes

# What somebody gets who does as the README says: `make try PYTHON=python3.12`.
try:
	$(if $(PYTHON),$(PYTHON),python3) .ci/try_fresh.py

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Files in bench/ that can be run are measurements; the others are what they share.
bench: setup
	@set -e; for script in $$(grep -l __main__ bench/[!_]*.py); do echo "$(BIN)/python $$script"; $(BIN)/python "$$script"; done

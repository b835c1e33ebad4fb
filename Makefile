# make train   sets up, then trains on digits that ship with scikit-learn
# make test    sets up, then runs the tests
PYTHON  ?= python3
VENV    ?= .venv
CONFIG  ?= configs/digits_ssa20.py
WORKDIR ?= runs/$(subst _ssa20,,$(notdir $(basename $(CONFIG))))
BIN      = $(VENV)/bin

.PHONY: help setup train test test-slow lint lock clean

help:  ## Show this help.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup: $(VENV)/installed  ## Create the virtual environment and install everything (2.5 GB).

$(VENV)/installed: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "Python 3.11 to 3.13 is needed (TensorFlow, which reads the data, has no newer one); $(PYTHON) is " + sys.version.split()[0] + ". Name another: make PYTHON=python3.12 ...")'
	@echo "Installing into $(VENV), 2.5 GB, a few minutes the first time ..."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --requirement requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

train: setup  ## Train CONFIG in WORKDIR (digits, about two minutes on two cores).
	$(BIN)/python main.py --config=$(CONFIG) --workdir=$(WORKDIR)

test: setup  ## Run the tests.
	$(BIN)/python -m pytest --numprocesses=logical --maxprocesses=4 --dist=worksteal

test-slow: setup  ## Run the tests that take minutes.
	$(BIN)/python -m pytest -m slow

lint: setup  ## Check style and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lock: setup  ## Renew the pins of requirements.txt from pyproject.toml.
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --universal --extra test pyproject.toml --no-annotate \
	  --custom-compile-command 'make lock' --output-file requirements.txt $(if $(UPGRADE),--upgrade)

clean:  ## Remove the environment and caches; runs/ stays.
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache

# make train   sets up, then trains on the digits in scikit-learn
# make test    sets up, then runs the tests
PYTHON  ?= python3
VENV    ?= .venv
CONFIG  ?= configs/digits_ssa20.py
WORKDIR ?= runs/$(subst _ssa20,,$(notdir $(basename $(CONFIG))))
BIN      = $(VENV)/bin
SPHINX   = -c docs -d docs/_build/doctrees -E -W --keep-going -q
LOCK     = pip compile --universal pyproject.toml --no-annotate --generate-hashes \
  --custom-compile-command 'make lock'
RELIABILITY ?= kills corruption signals hosts soak faults

.PHONY: help setup setup-test python-for-tests train test test-slow test-all lint docs docs-links lock audit reliability results clean

help:  ## Show this help.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup: $(VENV)/installed  ## Create the virtual environment and install what training needs (1.2 GB).

$(VENV)/installed: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; $(PYTHON) is " + sys.version.split()[0] + ". Name another: make PYTHON=python3.12 ...")'
	@echo "Installing into $(VENV), 1.2 GB, a few minutes the first time ..."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --requirement requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

setup-test: python-for-tests $(VENV)/installed-test  ## Install what the tests, notebooks, exports, demo and docs also need.

python-for-tests:
	@$(or $(wildcard $(BIN)/python),$(PYTHON)) -c 'import sys; sys.exit(sys.version_info >= (3, 14) and "The tests need TensorFlow, which has no wheel for Python " + sys.version.split()[0] + ". Name 3.11 to 3.13, in an environment of its own: make PYTHON=python3.13 VENV=.venv-test ...")'

$(VENV)/installed-test: requirements-test.txt $(VENV)/installed
	@echo "Installing the test requirements ..."
	$(BIN)/pip install --quiet --disable-pip-version-check --requirement requirements-test.txt
	@$(BIN)/python -m compileall -q -j 0 $(VENV)/lib > /dev/null || true  # tests start many processes
	@sh tests/install_browser.sh
	@touch $@

train: setup  ## Train CONFIG in WORKDIR (digits, about two minutes on two cores).
	$(BIN)/python main.py --config=$(CONFIG) --workdir=$(WORKDIR)

test: setup-test  ## Run the tests.
	$(BIN)/python -m pytest -rs --numprocesses=logical --maxprocesses=4 --dist=worksteal

test-slow: setup-test  ## Run the tests that take minutes.
	$(BIN)/python -m pytest -m slow

test-all: setup-test  ## Run all tests.
	$(BIN)/python -m pytest -m '' --numprocesses=logical --maxprocesses=4 --dist=worksteal

lint: setup-test  ## Check style and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lock: setup  ## Update the pins in requirements.txt and requirements-test.txt from pyproject.toml.
	$(BIN)/pip install --quiet uv
	$(BIN)/uv $(LOCK) --extra test --output-file requirements-test.txt $(if $(UPGRADE),--upgrade)
	$(BIN)/uv $(LOCK) --extra train --constraint requirements-test.txt --output-file requirements.txt

docs: setup-test  ## Build the documentation site, docs/_build/html/index.html.
	$(BIN)/python -m sphinx $(SPHINX) -b html . docs/_build/html

docs-links: setup-test  ## Check the links of the documentation to other sites.
	$(BIN)/python -m sphinx $(SPHINX) -b linkcheck . docs/_build/links

audit: setup  ## Check the versions in requirements-test.txt for known vulnerabilities.
	$(BIN)/pip install --quiet uv
	$(BIN)/uv tool run --python $(BIN)/python pip-audit --strict --disable-pip \
	  --requirement requirements-test.txt

reliability: setup  ## Inject faults into runs and compare their results (80 minutes on two cores).
	@failed=; for part in $(RELIABILITY); do \
	  $(BIN)/python benchmarks/reliability/$$part.py \
	    --out=benchmarks/results/reliability/$$part.json || failed="$$failed $$part"; \
	done; \
	$(BIN)/python benchmarks/reliability/report.py || failed="$$failed report"; \
	test -z "$$failed" || { echo "Failed:$$failed" >&2; exit 1; }

results: setup-test  ## Analyze the raw data in studies/results again and rewrite docs/results.md.
	@for out in studies/results/*/study.json; do \
	  $(BIN)/python -m ssanet_jax.tools.study --out=$$(dirname $$out) --analyze_only || exit 1; \
	done
	$(BIN)/python studies/torch_learning.py --figure_only
	$(BIN)/python benchmarks/study_tables.py

clean:  ## Remove the environment and caches; runs/ stays.
	rm -rf $(VENV) build dist docs/_build *.egg-info .nox .mypy_cache .pytest_cache .ruff_cache

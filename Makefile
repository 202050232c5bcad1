# make help        what there is
# PYTHON=python3.12 make setup     with another Python

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup test hard demo check notebooks browser real

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' Makefile

setup: $(STAMP) ## create .venv and install the pinned dependencies

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) > /dev/null || { \
		echo "$(PYTHON) was not found: install Python 3.11 or newer, or name one: make setup PYTHON=python3.12"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$$($(PYTHON) --version 2>&1 | head -n 1) is too old: circuits needs 3.11 or newer; name one: make setup PYTHON=python3.12"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { \
		rm -rf $(VENV); echo "the virtual environment could not be made: install Python's venv module (python3-venv)"; exit 2; }
	@echo "installing into $(VENV) (a few minutes the first time) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(STAMP)

test: $(STAMP) ## run all tests, on every core
	@OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n auto -m "not browser and not hard"

hard: $(STAMP) ## run the tests at the figures that are promised (10,000 damaged files, 10 hash seeds ...)
	@OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n auto -m hard tests/hard

demo: $(STAMP) ## find the induction circuit of the bundled model; files in out/
	@$(BIN)/circuits induction

notebooks: $(STAMP) ## run the notebooks and store what they show
	@$(BIN)/python notebooks/refresh.py

browser: $(STAMP) ## open pages in the chromium that is installed, and test them there
	@$(BIN)/python -m pytest tests/browser

real: $(STAMP) ## fetch a real pretrained model (92 MB), test and measure on it; files in out/real
	@$(BIN)/python experiments/real_model.py --fetch
	@$(BIN)/python -m pytest tests/real
	@$(BIN)/python experiments/real_model.py

check: $(STAMP) ## ruff and pyright
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright --pythonpath $(BIN)/python

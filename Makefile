# Every target sets up what it needs; a second call finds it there. `make help` lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash

VENV := .venv
FULL_VENV := .venv-full
ARGS ?=
JOBS ?= 2
TORCH := $(shell sed -n 's/^torch==//p' constraints.txt)
# The first of these that runs, is 3.11 or later and can make environments (a launcher may be a stub).
ifndef PYTHON
PYTHON := $(shell for p in python3.11 python3.12 python3.13 python3.14 python3 python; do \
	"$$p" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' \
	>/dev/null 2>&1 && echo "$$p" && break; done)
endif

PIP_INSTALL = bin/python -m pip install --disable-pip-version-check -c constraints.txt
# One thread per process: more of them fight each other in the small tensors of the token loop.
PYTEST = OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
PYTEST_FLAGS = -n $(JOBS) --timeout=300

# Makes the environment $(1), or mends one whose set-up was interrupted.
define make_venv
	@$(1)/bin/python -m pip --version >/dev/null 2>&1 || { test -n "$(PYTHON)" || { \
	echo "Python 3.11 or later with venv is needed and none was found; install one (on Debian and" \
	"Ubuntu: python3 and python3-venv) or name it: make PYTHON=..." >&2; exit 1; }; \
	$(PYTHON) -m venv --clear $(1); }
endef

.PHONY: help setup demo app test notebooks test-full docs lint format types train-mnist evaluate clean distclean

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 14

setup: $(VENV)/.installed ## make .venv with the project in it (about a minute)
	@:

demo: setup ## separate digits: pictures, a table and an HTML report (ARGS="--help" for options)
	$(VENV)/bin/mlass demo $(ARGS)

app: $(VENV)/.installed-app ## separate in the browser (ARGS="--port 7870" for another port)
	$(VENV)/bin/mlass app $(ARGS)

test: $(VENV)/.installed-test ## run the tests (ARGS="-k chain" picks some)
	$(PYTEST) $(VENV)/bin/python -m pytest $(PYTEST_FLAGS) $(ARGS)

notebooks: $(VENV)/.installed-test ## execute every notebook from top to bottom
	$(PYTEST) $(VENV)/bin/python -m pytest -n $(JOBS) --nbmake --nbmake-timeout=600 notebooks $(ARGS)

docs: $(VENV)/.installed-docs ## build the documentation site into site/
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --strict $(ARGS)

test-full: $(FULL_VENV)/.installed ## all tests, with torchvision and torchaudio (a second .venv-full, 5 GB)
	$(PYTEST) $(FULL_VENV)/bin/python -m pytest $(PYTEST_FLAGS) -m "" $(ARGS)

lint: $(VENV)/.installed-dev ## check style and formatting
	$(VENV)/bin/python -m ruff check .
	$(VENV)/bin/python -m ruff format --check .

format: $(VENV)/.installed-dev ## mend style and formatting
	$(VENV)/bin/python -m ruff check --fix .
	$(VENV)/bin/python -m ruff format .

types: $(VENV)/.installed-dev ## check types
	$(VENV)/bin/python -m mypy

train-mnist: setup ## train a bundle like the shipped one, into runs/mnist
	$(VENV)/bin/mlass train mnist --out runs/mnist $(ARGS)

evaluate: setup ## the table of the README: 1,000 mixtures of two and of three test digits
	@mkdir -p runs
	$(VENV)/bin/mlass evaluate mnist --sources 2 3 --infer auto tokens \
	--num 1000 --candidates 64 --pairing-seed 100 --json runs/mnist.json $(ARGS)

clean: ## remove caches and built packages
	rm -rf build dist site .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find mlass_ppl tests benchmarks models -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

distclean: clean ## also remove both environments
	rm -rf $(VENV) $(FULL_VENV)

$(VENV)/.installed: pyproject.toml constraints.txt
	$(call make_venv,$(VENV))
	$(VENV)/$(PIP_INSTALL) -e .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(VENV)/$(PIP_INSTALL) -e ".[test]"
	@touch $@

$(VENV)/.installed-app: $(VENV)/.installed
	$(VENV)/$(PIP_INSTALL) -e ".[app]"
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(VENV)/$(PIP_INSTALL) -e ".[docs]"
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed-test
	$(VENV)/$(PIP_INSTALL) -e ".[test,dev]"
	@touch $@

# `===` refuses the CPU-only build of torch, beside which torchvision and torchaudio fail at import.
$(FULL_VENV)/.installed: pyproject.toml constraints.txt
	$(call make_venv,$(FULL_VENV))
	$(FULL_VENV)/$(PIP_INSTALL) "torch===$(TORCH)" -e ".[full]"
	@touch $@

# One command for each act. Each target makes what it needs in .venv, with pip alone.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip -qq --disable-pip-version-check
STAMPS := $(VENV)/stamps
LOWEST := .venv-lowest
# Two processes, each with the tests of whole files: many tests wait for clusters. In the order of the
# folders, so that the short files of unit tests are last and both processes end together.
TWO := -n 2 --dist loadfile --no-loadscope-reorder

# The oldest s3fs leaves sessions to the garbage collector, which would report them in any later test.
UNCLOSED := -W "ignore:unclosed:ResourceWarning" -W "ignore:coroutine:RuntimeWarning" \
	-W "ignore::pytest.PytestUnraisableExceptionWarning"

.DEFAULT_GOAL := help
.PHONY: help demo test test-lowest check bench docs deep chaos clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

demo: $(STAMPS)/demo ## COCO on a real cluster and an S3 server, killed, resumed, drawn
	@$(PY) -m examples.demo

test: $(STAMPS)/test ## every test except the benchmarks
	@$(PY) -m pytest $(TWO) $(ARGS)

test-lowest: $(LOWEST)/stamp ## every test with the oldest supported versions
	@$(LOWEST)/bin/python -m pytest $(TWO) $(UNCLOSED) $(ARGS)

check: $(STAMPS)/check ## lint, format, types, layers, unused code
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports --no-logo
	@$(VENV)/bin/vulture

bench: $(STAMPS)/test ## the benchmarks; prints their figures
	@$(PY) -m tests.benchmarks $(ARGS)

docs: $(STAMPS)/docs ## build docs/_build/html, warnings as errors
	@$(PY) -m sphinx -q -W --keep-going -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

deep: $(STAMPS)/test ## a long search for counterexamples
	@HYPOTHESIS_PROFILE=deep $(PY) -m pytest -o faulthandler_timeout=7200 tests/property tests/fault $(ARGS)
	@$(PY) -m tests.mutants

chaos: $(STAMPS)/test ## random kills of a running job: SEED=1 BUDGET=20min
	@$(PY) -m tests.chaos $(if $(SEED),--seed $(SEED)) $(if $(BUDGET),--budget $(BUDGET)) $(ARGS)

clean: ## remove what the other targets made
	rm -rf $(VENV) $(LOWEST) docs/_build docs/reference/generated .mypy_cache .ruff_cache .pytest_cache

# An extra is installed once, and again when pyproject.toml has changed.
$(STAMPS)/%: pyproject.toml .ci/newest.txt
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@echo "installing dasklake[$*] into $(VENV)"
	@$(PIP) install -e ".[$*]" -c .ci/newest.txt
	@mkdir -p $(STAMPS) && touch $@

$(LOWEST)/stamp: pyproject.toml .ci/lowest.txt
	@test -x $(LOWEST)/bin/python || $(PYTHON) -m venv $(LOWEST)
	@echo "installing the oldest supported versions into $(LOWEST)"
	@$(LOWEST)/bin/python -m pip -qq --disable-pip-version-check install -e ".[test]" -c .ci/lowest.txt
	@touch $@

.PRECIOUS: $(STAMPS)/%

# What a developer and CI run. One environment, .venv, serves every target; `make` lists them.
PYTHON ?= python3
# Options for pip, such as an index of CPU-only wheels.
PIP_FLAGS ?=
# Keras backend of `make parity`: tensorflow, jax or torch.
BACKEND ?= tensorflow

BIN := .venv/bin
INSTALLED := .venv/.installed
# Processes that share the tests: each takes one core and about 2 GB.
WORKERS ?= 2
# Frameworks thread inside each operation: one thread a process keeps runs repeatable and fast on few cores.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help setup demo check test parity bench clean

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /make \1\t/p' $(MAKEFILE_LIST) | expand -t 14

setup: $(INSTALLED)  ## create .venv with both frameworks and the developer tools

$(INSTALLED): pyproject.toml constraints.txt
	@echo "Installing both frameworks into .venv: some minutes and several GB."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -qq --disable-pip-version-check $(PIP_FLAGS) \
	    -c constraints.txt -e '.[torch,keras,jax,dev]'
	@touch $@

demo: setup  ## show on the bundled data what the toolkit does
	$(BIN)/parity demo

check: setup  ## lint, formatting and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

test: check  ## everything: check, the suite, and its backend subset on jax and on torch
	HYPOTHESIS_PROFILE=ci KERAS_BACKEND=tensorflow $(PYTEST)
	HYPOTHESIS_PROFILE=ci-backend KERAS_BACKEND=jax $(PYTEST) -m backend
	HYPOTHESIS_PROFILE=ci-backend KERAS_BACKEND=torch $(PYTEST) -m backend

parity: setup  ## the proof that the twins are one model: make parity BACKEND=jax
	KERAS_BACKEND=$(BACKEND) $(PYTEST) tests/parity

bench: setup  ## repeat the timings in benchmarks/, and the resumes after a kill
	$(BIN)/python -m benchmarks.train_step --framework torch
	$(BIN)/python -m benchmarks.train_step --framework keras
	KERAS_BACKEND=jax $(BIN)/python -m benchmarks.train_step --framework keras
	$(BIN)/python -m benchmarks.compiled_step --framework torch
	$(BIN)/python -m benchmarks.compiled_step --framework keras
	$(BIN)/python -m benchmarks.kill_and_resume

clean:  ## remove the environment and every cache
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

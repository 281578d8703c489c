# Each target does all its own set-up from a bare checkout.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test e2e parity sources clusters faults nodes mutations fuzz lint type bench demo-checkpoint clean

demo: $(VENV)/.runtime  ## eight small videos through a small model, to a table, MP4s and a picture
	$(BIN)/perceive run examples/reconstruct.yaml

test: $(VENV)/.dev
	$(BIN)/python -m pytest

e2e: $(VENV)/.dev  ## every task through runs of perceive
	$(BIN)/python -m pytest -m e2e

parity: $(VENV)/.dev  ## every model against transformers at its published size, in float64
	$(BIN)/python -m pytest -m published

sources: $(VENV)/.dev  ## every task from files, tables, CSV and tars, and stores that fail
	$(BIN)/python -m pytest -m sources

clusters: $(VENV)/.dev  ## submissions to targets: this machine, and a real Ray head
	$(BIN)/python -m pytest -m clusters

faults: $(VENV)/.dev  ## kills, full disks, stores that fail, zombies: is every row there once?
	$(BIN)/python -m pytest -m faults

nodes: $(VENV)/.dev  ## clusters whose nodes are killed, added and cut off: the same table?
	$(BIN)/python -m pytest -m nodes -rP

mutations: $(VENV)/.dev  ## injects bugs into a copy of perceiver_core: does a test notice each?
	$(BIN)/python -m tests.mutations

fuzz: $(VENV)/.dev  ## thousands of damaged files: does each end as rows or as an error?
	$(BIN)/python -m tests.fuzz

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: $(VENV)/.dev
	$(BIN)/mypy

bench: $(VENV)/.dev  ## ratios against a peer, medians and spread
	$(BIN)/python -m tests.bench

demo-checkpoint: $(VENV)/.runtime  ## train the demo's weights from their seed and print their figures
	$(BIN)/python examples/train_demo.py --out perceiver_core/demo
	$(BIN)/python examples/evaluate_demo.py

clean:
	rm -rf $(VENV) demo-output label-output demo-training.pt

$(VENV)/.python:
	$(PYTHON) -m venv $(VENV)
	touch $@

# torch first and by its pin alone: a range could bring another build.
$(VENV)/.runtime: pyproject.toml constraints.txt | $(VENV)/.python
	$(INSTALL) torch
	$(INSTALL) -e .
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/.python
	$(INSTALL) torch
	$(INSTALL) -e '.[dev]'
	touch $@ $(VENV)/.runtime

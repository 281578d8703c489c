# Each target does all its own set-up from a bare checkout.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test e2e parity sources clusters faults nodes gpus mutations fuzz lint type bench image demo-checkpoint clean

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

gpus: $(VENV)/.dev  ## models and runs on this machine's GPU: the CPU's answers, and its failures for real
	$(BIN)/python -m pytest -m gpus

mutations: $(VENV)/.dev  ## injects bugs into a copy of perceiver_core: does a test notice each?
	$(BIN)/python -m tests.mutations

fuzz: $(VENV)/.dev  ## thousands of damaged files: does each end as rows or as an error?
	$(BIN)/python -m tests.fuzz

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/hadolint cluster/Dockerfile

type: $(VENV)/.dev
	$(BIN)/mypy

bench: $(VENV)/.dev  ## ratios against a peer, medians and spread
	$(BIN)/python -m tests.bench

# Which image, and where it goes: README.md, "An image".
DOCKER ?= docker
IMAGE ?= perceiver-batch
ACCELERATOR ?= cpu
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
TAG ?= $(VERSION)-$(ACCELERATOR)
REVISION = $(or $(shell git describe --always --dirty --abbrev=40 --exclude='*' 2>/dev/null),unknown)
EPOCH = $(or $(shell git log -1 --format=%ct 2>/dev/null),0)
BUILD_ARGS = ACCELERATOR='$(ACCELERATOR)' VERSION='$(VERSION)' REVISION='$(REVISION)' SOURCE_DATE_EPOCH='$(EPOCH)' \
	$(foreach name,BASE EXTRAS TORCH_INDEX PIP_INDEX_URL,$(if $(filter command,$(origin $(name))),$(name)='$($(name))'))
PIP_SECRET = --secret id=pip,src='$(PIP_CONF)'

image:  ## for nodes and laptops; ACCELERATOR=cuda for GPUs; PUSH=1 pushes it and prints its digest
	@$(DOCKER) buildx version >/dev/null 2>&1 || { echo "make image needs Docker with buildx, and '$(DOCKER) buildx" \
		"version' fails. Install Docker Engine 23 or newer and its buildx plugin, or name another client: DOCKER=." >&2; exit 1; }
	@$(DOCKER) info >/dev/null 2>&1 || { echo "make image needs a Docker engine, and '$(DOCKER) info' reaches none." \
		"Start one, or name one in DOCKER_HOST." >&2; exit 1; }
	@set -e; about=$$(mktemp); trap 'rm -f "$$about"' EXIT; \
	$(DOCKER) buildx build --file cluster/Dockerfile --tag '$(IMAGE):$(TAG)' --metadata-file "$$about" \
		$(if $(PUSH),--push,--load) $(BUILD_ARGS:%=--build-arg %) $(if $(PLATFORM),--platform '$(PLATFORM)') \
		$(if $(PIP_CONF),$(PIP_SECRET)) .; \
	digest=$$(sed -n 's/.*"containerimage.digest": *"\([^"]*\)".*/\1/p' "$$about"); \
	if [ -z '$(PUSH)' ]; then \
		echo "Built. Try it: $(DOCKER) run --rm --shm-size 2g $(IMAGE):$(TAG) perceive doctor"; \
	elif [ -n "$$digest" ]; then \
		echo "Pushed. In a job: kubernetes: {image: $(IMAGE)@$$digest}"; \
	else \
		echo "Pushed, but '$(DOCKER) buildx build --metadata-file' told no containerimage.digest: is it buildx?" >&2; exit 1; \
	fi

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

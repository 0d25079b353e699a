# make demo: an empty folder to solved problems. The other targets are for working on Ponder itself.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CLIENTS := build/clients
NODE_FILES := tests/clients/package.json tests/clients/package-lock.json tests/clients/.npmrc
ROOT := $(if $(filter 0,$(shell id -u)),,sudo)
INSTALL := $(BIN)/pip install -qq --disable-pip-version-check -c constraints.txt

.PHONY: help demo test test-all test-cluster test-peers test-openai test-clients web browser test-web pictures lint format tree picture docs bench release clean

help:
	@echo "make demo      set up .venv, then watch the bundled model think (under a minute after set-up)"
	@echo "make test      the fast tests"
	@echo "make test-all  every test this machine can run"
	@echo "make test-cluster  several workers that train one model, and actors that sample for it (five minutes)"
	@echo "make test-peers  exported files in llama.cpp itself, losses against TRL, adapters against PEFT, lm-evaluation-harness against a server; compiles llama-cpp-python first (ten minutes, once)"
	@echo "make test-clients  unmodified clients of others against a server; writes the table of docs/serving.md (2.5 GB of clients in build/clients, once)"
	@echo "make test-openai   those of openai alone"
	@echo "make web       build the application of web/ into src/ponder/serve/web, after its types and tests (needs Node 20.19)"
	@echo "make browser   what the tests of the application need: chromium by apt-get where there is none, and playwright"
	@echo "make test-web  the application in a browser"
	@echo "make pictures  draw the pictures of docs/web.md: the bundled model works, and chromium looks"
	@echo "make lint      ruff (lint and format), mypy, and the words of pages, package and tests"
	@echo "make format    let ruff format the code and sort its imports"
	@echo "make tree      write the annotated tree of docs/architecture.md from the modules' docstrings"
	@echo "make picture   draw the picture of the README from bench/results"
	@echo "make docs      build the documentation site in build/site; a broken link is an error"
	@echo "make bench     the benchmarks against peers: tables here, and as Markdown and JSON in bench/results"
	@echo "make release   build wheel and sdist in dist, check them, and try the wheel in an empty environment"
	@echo "make clean     remove .venv, what was built, and the caches of the tools"

demo: $(VENV)/.demo
	@$(BIN)/ponder demo

# A process for each core, each with whole files, in the order of tests/conftest.py: what a module sets up is set up once.
# Torch is on one thread in each.
PYTEST := $(BIN)/pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

test: $(VENV)/.dev
	$(PYTEST) -m "not slow and not cuda and not browser and not cluster"

test-all: $(VENV)/.dev
	$(PYTEST) -m "not browser"

# Each test starts processes of its own, so one runs at a time.
test-cluster: $(VENV)/.dev
	$(BIN)/pytest -m cluster

test-peers: $(VENV)/.peers
	$(BIN)/pytest tests/export/test_llama_cpp.py tests/sampler/test_llama_cpp.py tests/model/test_smollm2.py tests/serve/test_smollm2.py tests/train/test_trl_losses.py tests/model/test_lora_peft.py tests/serve/test_lm_eval.py

# Node's clients need node and npm; without them their rows are left out, and that is said.
test-openai: $(VENV)/.dev $(CLIENTS)/.openai
	$(BIN)/python tests/clients/run.py openai_python openai_node

test-clients: $(VENV)/.dev $(CLIENTS)/.all
	$(BIN)/python tests/clients/run.py --write

web: web/node_modules/.package-lock.json
	cd web && npm run --silent check && npm test --silent && npm run --silent build

browser: $(VENV)/.web
	@command -v chromium >/dev/null || { $(ROOT) apt-get update -qq && $(ROOT) apt-get install -qq -y --no-install-recommends chromium; }

test-web: browser web/node_modules/.package-lock.json
	$(BIN)/pytest -m browser tests/web

pictures: browser
	$(BIN)/python tools/pictures.py

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python tools/words.py

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

tree:
	$(PYTHON) tools/tree.py

picture:
	$(PYTHON) tools/picture.py

docs: $(VENV)/.docs
	$(PYTHON) tools/pages.py
	$(BIN)/zensical build --clean --strict

# Not scripts of their own: what the others import or start.
BENCHES := $(filter-out bench/common.py bench/peers.py bench/beside.py,$(sort $(wildcard bench/*.py)))

bench: $(VENV)/.dev
	@for script in $(BENCHES); do echo "== $$script"; $(BIN)/python "$$script" || exit 1; done

release: $(VENV)/.release
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/twine check --strict dist/*
	$(PYTHON) tools/try_release.py dist

clean:
	rm -rf build dist $(VENV) .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Stamps: a second run finds them newer than what they were made from and is instant.
$(VENV)/.torch: constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Ponder needs Python 3.11 or newer; this is " + sys.version.split()[0] + ": run make PYTHON=/path/to/python3.11")'
	@echo "setting up $(VENV): torch first, then Ponder (a few minutes, once)"
	@$(PYTHON) -m venv $(VENV)
	@$(INSTALL) torch
	@touch $@

$(VENV)/.demo: $(VENV)/.torch pyproject.toml
	@$(INSTALL) -e '.[verify,serve]'
	@touch $@

$(VENV)/.dev: $(VENV)/.torch pyproject.toml
	@$(INSTALL) -e '.[dev]'
	@touch $@ $(VENV)/.demo

$(VENV)/.web: $(VENV)/.dev
	@$(INSTALL) -e '.[web]'
	@touch $@

web/node_modules/.package-lock.json: web/package.json web/package-lock.json
	@# Not `npm ci`: it fails where a registry lacks one of vite's optional packages for other systems.
	cd web && npm install --no-save --ignore-scripts --no-audit --no-fund
	@touch $@

$(VENV)/.docs: $(VENV)/.torch pyproject.toml
	@$(INSTALL) -e '.[docs]'
	@touch $@

$(VENV)/.release: $(VENV)/.torch pyproject.toml
	@$(INSTALL) -e '.[release]'
	@touch $@

$(VENV)/.peers: $(VENV)/.dev
	@echo "compiling llama-cpp-python (ten minutes, once), and installing TRL, PEFT and lm-eval"
	@$(INSTALL) -e '.[peers]'
	@touch $@

$(CLIENTS)/.openai: $(NODE_FILES)
	@mkdir -p $(CLIENTS)
	@cp $(NODE_FILES) $(CLIENTS)
	@if command -v npm >/dev/null; then cd $(CLIENTS) && npm ci --omit=dev --omit=optional; else echo "there is no npm: the clients for Node are left out"; fi
	@touch $@

$(CLIENTS)/.all: $(NODE_FILES) tests/clients/requirements.txt tests/clients/requirements-instructor.txt
	@mkdir -p $(CLIENTS)
	@cp $(NODE_FILES) $(CLIENTS)
	@if command -v npm >/dev/null; then cd $(CLIENTS) && npm ci; else echo "there is no npm: the clients for Node are left out"; fi
	@$(PYTHON) -m venv $(CLIENTS)/venv
	@$(CLIENTS)/venv/bin/pip install -qq --disable-pip-version-check --no-deps -r tests/clients/requirements.txt
	@$(PYTHON) -m venv $(CLIENTS)/venv-instructor
	@$(CLIENTS)/venv-instructor/bin/pip install -qq --disable-pip-version-check --no-deps -r tests/clients/requirements-instructor.txt
	@touch $(CLIENTS)/.openai $@

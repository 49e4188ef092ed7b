# Each target does all its own set-up; a second call finds it done. ARGS go to the command:
#   make demo ARGS="--report report"      make test ARGS="-k queue -x"
PYTHON ?= $(shell for p in python3.11 python3; do $$p -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin

.PHONY: help setup demo test test-compose up lint format docs manifests audit sbom licences
help:
	@echo "make demo           the whole loop on this machine, with a report at its end"
	@echo "make test           the whole test suite, on real Redis and real vLLM"
	@echo "make up             the whole stack in containers (Docker), and the demo's run in it"
	@echo "make test-compose   builds, runs and hits that stack (root; a Docker Engine, or Debian)"
	@echo "make lint           ruff and mypy"
	@echo "make docs           the documents as a website, in site/"
	@echo "make manifests      what is wrong with deploy/kubernetes"
	@echo "make audit, make sbom, make licences   of what is installed (docs/supply-chain.md)"
	@echo "make setup          the environment alone"

setup:
	@$(or $(PYTHON),python3) scripts/setup.py

demo: setup
	@$(BIN)/preceptor demo $(ARGS)

test: setup
	@$(BIN)/pytest $(ARGS)

test-compose: setup
	@PYTHONPATH=tests:. $(BIN)/python -m compose $(ARGS)

up:
	@python3 scripts/compose_env.py
	@docker compose up --build $(ARGS)

lint: setup
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

format: setup
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

docs:
	@test -x .venv-docs/bin/mkdocs || $(or $(PYTHON),python3) -m venv .venv-docs
	@.venv-docs/bin/pip install -q --disable-pip-version-check --no-deps -r requirements/docs.lock
	@NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build
	@echo "site/index.html"

manifests: setup
	@$(BIN)/python -m scripts.manifests $(ARGS)

audit sbom licences: setup
	@$(BIN)/python scripts/supply_chain.py $@

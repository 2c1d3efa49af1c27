# Every target sets up what it needs, inside this folder: .venv, and .venv-lint for the linter of
# imports. PYTHON=python3.12 chooses the interpreter, ARGS=… is handed to the command behind a target.
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
export PYTHON
# Where it is set, each run would compile every test again: five processes, ten seconds each.
unexport PYTHONDONTWRITEBYTECODE
BIN := .venv/bin
# Two processes for each core, a test file whole in one of them, slow files first: tests/conftest.py.
SPREAD := -n auto --dist loadfile --no-loadscope-reorder

.PHONY: help setup run test lint fix docs bench house faults soak soak-replica nightly systemd conformance check

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install the locked dependencies into .venv (does nothing when they are there)
	@requirements/install .venv dev

run: ## start the gateway in dev mode with two demo servers, in .demo/ (ARGS="--port 3003")
	@requirements/install .venv demo
	@$(BIN)/python examples/run_demo.py $(ARGS)

test: setup ## run the tests, on every core (ARGS="tests/guard -k kill"; ARGS="-n 0" on one; LOOP=asyncio without uvloop)
	@$(if $(filter asyncio,$(LOOP)),PYTHONPATH=$(CURDIR)/tests/no_uvloop )$(BIN)/python -m pytest $(SPREAD) $(ARGS)

lint: setup ## ruff, mypy --strict and the import rules
	@requirements/install .venv-lint lint
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	PYTHONPATH=daemon .venv-lint/bin/lint-imports --no-cache

fix: setup ## let ruff mend and format what it can
	-$(BIN)/ruff check --fix --quiet
	$(BIN)/ruff format

docs: setup ## write the generated pages and config/gateway.toml
	@$(BIN)/python docs/generate.py $(ARGS)

bench: setup ## measure, short by default (ARGS="gateway --long")
	@$(BIN)/python -m benchmarks $(ARGS)

house: setup ## how many files and names a reader meets, with goals (ARGS="--files" shows which)
	@$(BIN)/python -m benchmarks.house $(ARGS)

faults: setup ## kill, starve and cut the power at every step (ARGS="--help")
	@$(BIN)/python -m faults $(ARGS)

soak: setup ## many clients while servers are killed at random (ARGS="--minutes 30")
	@$(BIN)/python -m tests.gateway.soak $(ARGS)

soak-replica: setup ## a database written to while its replica, the network and the disk fail (ARGS="--minutes 10")
	@$(BIN)/python -m tests.service.replica.soak $(ARGS)

nightly: setup ## what takes minutes: made schemas and migrations, real servers, the SDKs own tests
	@$(BIN)/python -m pytest -m nightly $(ARGS)

systemd: setup ## as root: boot to see the service linger; its tests under a newer systemd (SUITE=trixie)
	@$(BIN)/python -m tests.service.booted
	@tests/service/newer_systemd $(ARGS)

conformance: setup ## the official MCP suite, directly and through the gateway (Node.js 22; ARGS="2026-07-28")
	@$(BIN)/python -m tests.conformance $(ARGS)

check: lint ## all that CI runs: lint, tests with branch coverage, generated pages current
	@$(BIN)/python docs/generate.py --check
	@$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(SPREAD) $(ARGS)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

# Everyday commands; each makes the virtual environment if it is not there yet.

VENV ?= .venv
PYTHON := $(abspath $(VENV))/bin/python
TASK ?= tvr
# Where there is no virtual environment, tests on a GPU take the Python that has PyTorch.
TEST_PYTHON := $(if $(wildcard $(PYTHON)),$(PYTHON),python3)
SHELL_SCRIPTS := .ci/run $(shell git ls-files '*.sh')

.PHONY: help venv demo horovod test test-gpu lint clean
.DEFAULT_GOAL := help

help: ## list these commands
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST)

venv: ## make the virtual environment (quick if it is there)
	@bash scripts/setup_venv.sh $(VENV)

demo: venv ## make a small corpus, train on it, evaluate (TASK=tvr)
	$(PYTHON) scripts/demo.py --task $(TASK) --output demo

horovod: venv ## build Horovod, which horovodrun needs (once)
	PYTHON=$(PYTHON) bash scripts/install_horovod.sh

test: horovod ## build Horovod (once) and run all tests
	$(PYTHON) -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

test-gpu: ## run the tests of what computes on a GPU (needs requirements.txt and pytest, no network)
	HERO_TEST_DEVICE=cuda $(TEST_PYTHON) -m pytest -m "(gpu or device) and not launcher and not java" \
	    $(shell grep -rlE --include='test_*.py' 'mark\.(gpu|device)' tests)

lint: venv ## check style and types
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	$(dir $(PYTHON))shellcheck $(SHELL_SCRIPTS)

clean: ## remove the demo and caches
	rm -rf demo build .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

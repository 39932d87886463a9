# The whole workflow. Every target sets up what it needs in a virtual environment of its own; a second run finds it there.

PYTHON ?= python3
VENV   ?= .venv
JOBS   ?= auto
ARGS   ?=

BIN    := $(VENV)/bin
# What lies below tests and benchmarks, run as a module.
WITH   := PYTHONPATH=tests:benchmarks
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test environment means soak fuzz lint format docs tables dist bench images clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1|/p' $(MAKEFILE_LIST) | while IFS='|' read -r target text; do printf '%-14s %s\n' "$$target" "$$text"; done
	@echo
	@echo 'PYTHON=python3.13 VENV=.venv-3.13 uses another interpreter. test, soak, fuzz, bench and images take ARGS="…", test takes JOBS=0 for one process.'

demo: $(VENV)/.build ## pack a small real set of packages and start an app from the archive, cold and warm
	@sh docs/demo/demo.sh $(BIN)/python

test: means $(VENV)/.build,test ## run the tests
	@$(BIN)/python -m compileall -q src # for the thousands of starts, also where PYTHONDONTWRITEBYTECODE is set
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup $(ARGS)

environment: $(VENV)/.build,test

means:
	@$(WITH) $(PYTHON) -m programs.means

soak: $(VENV)/.build,test ## kill 1,000 starts at random moments, and look at the next ones
	@$(BIN)/python -m compileall -q src
	$(WITH) $(BIN)/python -m programs.soak $(ARGS)

fuzz: $(VENV)/.build,fuzz ## feed every parser of archives with inputs that a fuzzer makes up
	$(WITH) $(BIN)/python -m programs.fuzz $(ARGS)

lint: $(VENV)/.build,lint ## ruff, mypy, and the workflow files of forges
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml docs/deploy/ci-github.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.gitlab-ci --data-transform gitlab-ci .gitlab-ci.yml docs/deploy/ci-gitlab.yml

format: $(VENV)/.build,lint ## put right what ruff can by itself
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(VENV)/.build,docs ## build the documents into build/site; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

tables: $(VENV)/.build,test ## write the tables of the documents that follow from the code
	$(BIN)/python docs/tables.py

# The same commit gives the same bytes.
dist: $(VENV)/.build,dist ## build sdist and wheel into dist, and check them
	rm -rf dist
	SOURCE_DATE_EPOCH=$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct)} $(BIN)/python -m build
	$(BIN)/twine check --strict dist/*
	$(BIN)/check-wheel-contents dist/*.whl

bench: $(VENV)/.build,test ## measure beside every alternative
	$(BIN)/python benchmarks/bench.py $(ARGS)

images: $(VENV)/.build,test ## build the renderer's images and measure them in containers; root, dockerd, docker-registry, mmdebstrap
	$(BIN)/python benchmarks/images.py $(ARGS)

clean: ## remove everything that the other targets made here
	rm -rf build dist .venv .venv-* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find benchmarks docs src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp a set of extras; --clear because a venv whose making was interrupted looks finished.
$(VENV)/.created:
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.%: pyproject.toml | $(VENV)/.created
	$(PIP) install --no-compile --editable '.[$*]'
	@touch $@

# make chat     talk to Claude in the terminal; run it again to continue
# make quick    style, types and unit tests; within a minute
# make test     what CI runs first: style, types, and every behaviour once, on real stores
# make test-wide   what CI runs next: coverage, more inputs, wrappers and odd configurations
# make all      format, then `make test`; before you commit
# make stress   long campaigns: kills, races and big data; several minutes
# make test-lowest   the core, the engine and the contract with the lowest versions of the dependencies
# make docs     build the documentation as a site, in site/
# make reference   write the generated pages of the documentation and the list of public names
# make release  build sdist and wheel in dist/ and check them
# make bench    our costs compared with plain clients and other libraries; BENCH=--quick: three minutes

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# runs a command, and prints what it cost: the processor time includes the servers that the tests started
TIMED = @bash -c 'TIMEFORMAT="make $@: %0lR; processor time %0lU, and %0lS of the system"; time "$$@"' make
PYTEST = $(BIN)/pytest -n 2 --dist loadfile

.PHONY: chat quick test test-main test-wide coverage wide test-lowest all format check lint types unit hooks stress docs reference release bench clean

chat: $(VENV)/chat-ready
	@test -n "$$ANTHROPIC_API_KEY" || echo "ANTHROPIC_API_KEY is not set: replies come from a fake without a model. The conversation is really saved."
	@$(BIN)/chathistory chat --conversation hello $$(test -n "$$ANTHROPIC_API_KEY" || echo --fake)

test:
	$(TIMED) $(MAKE) --no-print-directory check test-main

test-main: $(VENV)/test-ready
	$(PYTEST) -m "not stress and not wide"

test-wide:
	$(TIMED) $(MAKE) --no-print-directory coverage wide

coverage: $(VENV)/test-ready
	$(PYTEST) --cov -m "not stress and not wide" --ignore tests/plugins

wide: $(VENV)/test-ready
	$(PYTEST) -m "wide and not stress"

quick: $(VENV)/test-ready
	$(TIMED) $(MAKE) --no-print-directory -j 2 lint types unit

check: lint types

lint: $(VENV)/test-ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/test-ready
	$(BIN)/mypy
	$(BIN)/basedpyright

unit: $(VENV)/test-ready
	$(BIN)/pytest -q -m "not stress and not wide" tests/messages tests/view tests/storage tests/config tests/log

all: format test

format: $(VENV)/test-ready
	$(BIN)/ruff check --fix-only --quiet
	$(BIN)/ruff format --quiet

# each commit then runs `check` on the files that it changes
hooks: $(VENV)/test-ready
	$(BIN)/pre-commit install

stress: $(VENV)/test-ready
	$(BIN)/pytest -m stress --timeout 1800

LOWEST := $(VENV)-lowest
LOWEST_TESTS := tests/messages tests/log tests/storage tests/config tests/cli tests/engine \
	tests/test_conversation.py tests/test_history.py tests/test_aio.py tests/plugins/*/test_*_contract.py

test-lowest: $(LOWEST)/ready
	$(LOWEST)/bin/pytest -m "not stress and not wide" -n 2 --dist loadfile $(LOWEST_TESTS)

docs: $(VENV)/test-ready
	$(BIN)/zensical build --strict

reference: $(VENV)/test-ready
	$(BIN)/python tests/docs/write_reference.py

release: $(VENV)/test-ready
	rm -rf dist
	$(BIN)/python tests/release/release.py dist

bench: $(VENV)-bench/ready
	$(VENV)-bench/bin/python -m tests.benchmarks $(BENCH)

clean:
	rm -rf $(VENV) $(VENV)-bench $(VENV)-lowest .coverage* .mypy_cache .pytest_cache .ruff_cache .hypothesis .cache dist build site

$(VENV)/chat-ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable ".[cli]"
	@touch $@

$(VENV)/test-ready: $(VENV)/chat-ready
	$(BIN)/python -m pip install --quiet --editable ".[all]" --group test --group lint --group docs --group release
	@touch $@

$(VENV)-bench/ready: pyproject.toml tests/benchmarks/requirements-peers.txt
	$(PYTHON) -m venv $(VENV)-bench
	$(VENV)-bench/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	$(VENV)-bench/bin/python -m pip install --quiet --editable ".[all]" --group test -r tests/benchmarks/requirements-peers.txt
	@touch $@

# uv does not read pip's configuration, so it gets the index from there
$(LOWEST)/ready: pyproject.toml
	$(PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --upgrade "pip>=25.1" uv
	@index=$${PIP_INDEX_URL:-$$($(LOWEST)/bin/pip config get global.index-url 2>/dev/null)}; \
	$(LOWEST)/bin/uv pip compile --quiet --python $(LOWEST)/bin/python --extra all --resolution lowest-direct \
		$${index:+--default-index "$$index"} --output-file $(LOWEST)/constraints.txt pyproject.toml
	$(LOWEST)/bin/python -m pip install --quiet --editable ".[all]" --group test --constraint $(LOWEST)/constraints.txt
	@touch $@

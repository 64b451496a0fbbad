# make chat     talk to Claude in the terminal; the same command goes on where you stopped
# make test     everything that CI runs: style, types, and the tests on real stores
# make all      the same, after the code has been formatted: before you commit
# make stress   the long campaigns: kills, races and big data, some minutes
# make docs     the documentation as a site, in site/
# make reference   writes what of the documentation is made from the code, and the list of public names
# make release  builds sdist and wheel in dist/ and checks them
# make bench    our costs beside those of the raw clients and of other libraries; BENCH=--quick: in three minutes

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: chat test all format check hooks stress docs reference release bench clean

chat: $(VENV)/chat-ready
	@test -n "$$ANTHROPIC_API_KEY" || echo "ANTHROPIC_API_KEY is not set, so the replies are a fake without a model; the conversation is really saved."
	@$(BIN)/chathistory chat --conversation hello $$(test -n "$$ANTHROPIC_API_KEY" || echo --fake)

test: check
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -m "not stress and not repeated" -n 2 --dist loadfile
	$(BIN)/pytest -m "repeated and not stress" -n 2 --dist loadfile
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

check: $(VENV)/test-ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/basedpyright

all: format test

format: $(VENV)/test-ready
	$(BIN)/ruff check --fix-only --quiet
	$(BIN)/ruff format --quiet

# from now on each commit runs what `check` does, on what it changes
hooks: $(VENV)/test-ready
	$(BIN)/pre-commit install

stress: $(VENV)/test-ready
	$(BIN)/pytest -m stress --timeout 1800

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
	rm -rf $(VENV) $(VENV)-bench .coverage* .mypy_cache .pytest_cache .ruff_cache .hypothesis .cache dist build site

$(VENV)/chat-ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/test-ready: $(VENV)/chat-ready
	$(BIN)/python -m pip install --quiet --editable ".[all]" --group test --group lint --group docs --group release
	@touch $@

$(VENV)-bench/ready: pyproject.toml tests/benchmarks/requirements-peers.txt
	$(PYTHON) -m venv $(VENV)-bench
	$(VENV)-bench/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	$(VENV)-bench/bin/python -m pip install --quiet --editable ".[all]" --group test -r tests/benchmarks/requirements-peers.txt
	@touch $@

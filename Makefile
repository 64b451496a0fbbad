# make chat     talk to Claude in the terminal; the same command goes on where you stopped
# make test     everything that CI runs: style, types, and the tests on real stores
# make stress   the long campaigns: kills, races and big data, some minutes
# make bench    our costs beside those of the raw clients and of other libraries; BENCH=--quick: in three minutes

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: chat test check stress bench clean

chat: $(VENV)/chat-ready
	@test -n "$$ANTHROPIC_API_KEY" || echo "ANTHROPIC_API_KEY is not set, so this is a chat with a stand-in that is no model; it is really saved."
	@$(BIN)/chathistory chat --conversation hello $$(test -n "$$ANTHROPIC_API_KEY" || echo --stand-in)

test: check
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -m "not stress" -n 2 --dist loadfile
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

check: $(VENV)/test-ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/basedpyright

stress: $(VENV)/test-ready
	$(BIN)/pytest -m stress --timeout 1800

bench: $(VENV)-bench/ready
	$(VENV)-bench/bin/python -m tests.benchmarks $(BENCH)

clean:
	rm -rf $(VENV) $(VENV)-bench .coverage* .mypy_cache .pytest_cache .ruff_cache .hypothesis dist build

$(VENV)/chat-ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/test-ready: $(VENV)/chat-ready
	$(BIN)/python -m pip install --quiet --editable ".[all]" --group test --group lint
	@touch $@

$(VENV)-bench/ready: pyproject.toml tests/benchmarks/requirements-peers.txt
	$(PYTHON) -m venv $(VENV)-bench
	$(VENV)-bench/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	$(VENV)-bench/bin/python -m pip install --quiet --editable ".[all]" --group test -r tests/benchmarks/requirements-peers.txt
	@touch $@

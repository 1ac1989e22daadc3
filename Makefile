# Two commands for a fresh machine with Python >= 3.11: `make demo` and `make test`. Two that take
# minutes more: `make test-min` runs the LangGraph adapter's tests on the lowest versions that are
# supported, `make test-langgraph` LangGraph's own tests with and without the compile hook.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Versions that were tested together; the package's own ranges in pyproject.toml are wider.
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check \
	--constraint .ci/constraints.txt

.PHONY: demo test test-min test-langgraph check clean
demo: $(VENV)/.demo
	$(BIN)/agentbalance demo

# A file of tests stays in one process: its fixtures are made once.
test: check
	$(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadfile

test-min: $(VENV)/lowest/.installed
	$(VENV)/lowest/bin/pytest tests/adapters/langgraph

test-langgraph: $(VENV)/upstream/.installed
	$(VENV)/upstream/bin/python tests/adapters/langgraph/upstream/compare.py

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

# The files' times say whether an installation is current, so a second run installs nothing.
$(VENV)/.demo: pyproject.toml .ci/constraints.txt | $(BIN)/python
	$(PIP_INSTALL) --editable '.[autogen,simulator]'
	touch $@

$(VENV)/.dev: pyproject.toml .ci/constraints.txt | $(BIN)/python
	$(PIP_INSTALL) --editable '.[dev]'
	touch $@ $(VENV)/.demo

# Environments of their own: other versions, and plugins that would change how our tests run.
LANGGRAPH_TESTS = langchain langgraph-checkpoint-sqlite aiosqlite pytest
$(VENV)/lowest/.installed: pyproject.toml .ci/lowest.txt | $(BIN)/python
	$(PYTHON) -m venv $(VENV)/lowest
	$(VENV)/lowest/bin/python -m pip install --quiet --constraint .ci/lowest.txt \
		--editable '.[langgraph,simulator]' $(LANGGRAPH_TESTS) langchain-ollama pytest-asyncio \
		pytest-socket
	touch $@

$(VENV)/upstream/.installed: pyproject.toml .ci/constraints.txt | $(BIN)/python
	$(PYTHON) -m venv $(VENV)/upstream
	$(VENV)/upstream/bin/python -m pip install --quiet --constraint .ci/constraints.txt \
		--editable '.[langgraph]' $(LANGGRAPH_TESTS) langgraph-checkpoint-postgres \
		'psycopg[binary]' psycopg-pool redis syrupy pytest-mock pytest-timeout pycryptodome
	touch $@

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python >= 3.11 is needed, set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV)

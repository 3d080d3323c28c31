PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NODE_DIRS := tests/node tests/opencode clients/messagepack clients
NODE_PEERS := $(NODE_DIRS:%=%/node_modules/.installed)

.PHONY: install serve test lint format bench bench-quick fuzz crash abuse clean

install: $(VENV)/.installed build/.compiled

$(VENV)/.installed: pyproject.toml .ci/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("rpcshare needs Python 3.11 or newer; this is %d.%d. Name another: make PYTHON=python3.12 …" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c .ci/constraints.txt -e '.[server,s3,redis,dev]'
	@touch $@

# Nothing needs it: a machine that cannot compile says so and goes on.
build/.compiled: $(wildcard rpcshare/rpc/*.py) rpcshare/shares/checking.py .packaging/compiling.py $(VENV)/.installed
	@$(BIN)/python .packaging/compiling.py
	@mkdir -p build && touch $@

# The peers of the interoperability tests. Where node is missing, those tests are skipped.
%/node_modules/.installed: %/package.json %/package-lock.json
	@if command -v npm >/dev/null; then \
	  cd $* && npm ci --silent --no-audit --no-fund --loglevel=error && touch node_modules/.installed; \
	fi

serve: install
	@$(BIN)/rpcshare serve

test: install $(NODE_PEERS)
	@$(BIN)/pytest
	@if ls rpcshare/rpc/*.so >/dev/null 2>&1; then PURE_PYTHON=1 $(BIN)/pytest tests/rpc tests/shares/test_syncdata.py; fi

lint: install
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

format: install
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: install $(NODE_PEERS)
	@$(BIN)/python -m tests.bench

# The same in under a minute; the figures vary more.
bench-quick: install $(NODE_PEERS)
	@$(BIN)/python -m tests.bench --quick

# 200,000 hostile messages, in some minutes; SEED=n repeats a run.
fuzz: install
	@$(BIN)/python -m tests.fuzz $(if $(SEED),--seed $(SEED))

# A server killed under load, 200 times; nothing that it acknowledged may be missing.
crash: install
	@$(BIN)/python -m tests.crash

# Callers of each kind at a server with little memory, in some minutes; SEED=n repeats a run, KINDS='rpc-*' some.
abuse: install
	@$(BIN)/python -m tests.abuse $(if $(SEED),--seed $(SEED)) $(KINDS)

clean:
	rm -rf $(VENV) build rpcshare/*/*.so $(NODE_DIRS:%=%/node_modules) clients/*/dist
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

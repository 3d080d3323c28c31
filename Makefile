PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NODE_DIRS := tests/node tests/fork tests/opencode clients/messagepack clients
NODE_PEERS := $(NODE_DIRS:%=%/node_modules/.installed)

PROGRESS = $(PYTHON) .packaging/progress.py

# What a release is made of. None of it is part of `make test`: each takes minutes, and some need programs of the system.
CHECK_TOOLS = @$(BIN)/python -m pip install --quiet --disable-pip-version-check -c .ci/constraints.txt

.PHONY: release-check image-check agents-image-check kubernetes-check chart-check docs install node-peers serve test test-all test-slow test-pure test-rare lint lint-style lint-types lint-test-types lint-imports format bench bench-quick fuzz sanitize crash abuse clean

# Both steps compare what they have made with its sources, and are over in a moment if that fits. Without bytecode, which
# pip makes of packages but not of a checkout, and Python itself not everywhere, a server takes half as long again to start.
install: $(VENV)/.installed
	@$(BIN)/python .packaging/compiling.py
	@$(BIN)/python -m compileall -q rpcshare

$(VENV)/.installed: pyproject.toml .ci/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("rpcshare needs Python 3.11 or newer; this is %d.%d. Name another: make PYTHON=python3.12 …" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	@$(BIN)/python -c 'import pip' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	@$(PROGRESS) "Installing Python packages into $(VENV)" build/pip-$(notdir $(VENV)).log $(BIN)/python -m pip install \
	  --disable-pip-version-check --progress-bar=off -c .ci/constraints.txt -e '.[server,s3,redis,postgres,docker,kubernetes,dev]'
	@touch $@

# The peers of the interoperability tests. Where node is missing, those tests are skipped.
%/node_modules/.installed: %/package.json %/package-lock.json
	@if command -v npm >/dev/null; then \
	  $(PROGRESS) "Installing Node packages into $*" build/npm-$(subst /,-,$*).log \
	    npm ci --prefix $* --no-audit --no-fund --loglevel=error && touch $@; \
	fi

node-peers: $(NODE_PEERS)

serve: install
	@$(BIN)/rpcshare serve

# Files of tests run beside each other, in more processes than there are cores: many of them wait for others.
JOBS ?= 3
PYTEST = $(BIN)/pytest --numprocesses=$(JOBS)

test: install $(NODE_PEERS)
	@$(PYTEST) -m "not slow and not rare"

# Everything: also what takes long, the tests of the core in pure Python where it is compiled, and whole programs
# together: opencode, browsers, kills at every step.
test-all: test test-slow test-pure test-rare

test-slow: install $(NODE_PEERS)
	@$(PYTEST) -m "slow and not rare"

test-pure: install $(NODE_PEERS)
	@if $(BIN)/rpcshare --version | grep -q compiled; then PURE_PYTHON=1 $(PYTEST) -m "not slow" tests/rpc tests/shares/test_syncdata.py; fi

test-rare: install $(NODE_PEERS)
	@$(PYTEST) -m rare

# Nothing of it runs the core, so with `make --jobs` all of it, and compiling the core, goes on at once.
lint: lint-style lint-types lint-test-types lint-imports

lint-style: $(VENV)/.installed
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

lint-types: $(VENV)/.installed
	@$(BIN)/mypy

lint-test-types: $(VENV)/.installed
	@$(BIN)/mypy --config-file tests/mypy.ini

lint-imports: $(VENV)/.installed
	@$(BIN)/lint-imports --no-logo

format: install
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

BENCH_PEERS := tests/bench/runtimes/node_modules/.installed

bench: install $(NODE_PEERS) $(BENCH_PEERS)
	@$(BIN)/python -m tests.bench

# The same in under a minute; the figures vary more.
bench-quick: install $(NODE_PEERS) $(BENCH_PEERS)
	@$(BIN)/python -m tests.bench --quick

# 200,000 hostile messages, in some minutes; SEED=n repeats a run.
fuzz: install
	@$(BIN)/python -m tests.fuzz $(if $(SEED),--seed $(SEED))

# The modules in C with checks of every access and of undefined behaviour, for two minutes on random messages.
IN_C := rpcshare/rpc/argument_text.c rpcshare/rpc/short_messages.c rpcshare/shares/batch_text.c
SANITIZED := build/sanitized
RUN_SANITIZED = LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libubsan.so)" \
  ASAN_OPTIONS=detect_leaks=0 PYTHONMALLOC=malloc $(BIN)/python
sanitize: install
	@mkdir -p $(SANITIZED)
	@set -e; for source in $(IN_C); do \
	  $(CC) -g -O1 -Wall -Wextra -shared -fPIC -fsanitize=address,undefined -fno-sanitize-recover=all \
	    -I$$($(BIN)/python -c "import sysconfig; print(sysconfig.get_path('include'))") \
	    $$source -o $(SANITIZED)/$$(basename $$source .c).so; \
	done
	@$(RUN_SANITIZED) -m tests.fuzz.short_messages --module $(SANITIZED)/short_messages.so $(if $(SEED),--seed $(SEED))
	@$(RUN_SANITIZED) -m tests.fuzz.texts --modules $(SANITIZED) $(if $(SEED),--seed $(SEED))

# A server killed under load, 200 times; nothing that it acknowledged may be missing. Then 20,000 steps of nodes,
# messages, copies, rollbacks and clocks at random; SEED=n repeats those.
crash: install
	@$(BIN)/python -m tests.crash
	@PYTHONHASHSEED=0 $(BIN)/python -m tests.model $(if $(SEED),--seed $(SEED))

# Callers of each kind at a server with little memory, in some minutes; SEED=n repeats a run, KINDS='rpc-*' some.
abuse: install
	@$(BIN)/python -m tests.abuse $(if $(SEED),--seed $(SEED)) $(KINDS)

# Builds all packages, and uses each as a stranger would.
release-check: install $(NODE_PEERS)
	$(CHECK_TOOLS) build==1.6.1 twine==7.0.0
	@$(BIN)/python .packaging/release_check.py

# Builds the container image on a base of its own making, and runs it. Needs root, buildah, podman, mmdebstrap.
image-check:
	@.packaging/image-check.sh

# Builds the image that agents run in, and starts opencode in it.
agents-image-check: $(VENV)/.installed
	@.packaging/agents-image-check.sh

# Tests the driver for pods on a real API server, which it builds if need be.
kubernetes-check: $(VENV)/.installed
	@.packaging/kubernetes-check.sh

# Has helm and kubeconform check the chart.
chart-check: $(VENV)/.installed
	@.packaging/chart-check.sh

# The documentation as a site in build/site; nothing in it asks another host.
docs: install
	$(CHECK_TOOLS) mkdocs-material==9.8.1 'mkdocstrings[python]==1.0.8'
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python .packaging/build_docs.py

clean:
	rm -rf $(VENV) build rpcshare/*/*.so rpcshare/__pycache__ rpcshare/*/__pycache__ rpcshare/compiled.*.json $(NODE_DIRS:%=%/node_modules) clients/*/dist
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

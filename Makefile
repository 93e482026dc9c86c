# Every command of the project. `make` alone lists them; each installs what it needs into .venv.

VENV := .venv
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip --disable-pip-version-check --quiet
ARGS ?=
.DEFAULT_GOAL := help

# The newest Python that really runs: a version manager's command may exist and still fail.
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
	&& { echo "$$python"; break; }; done)

.PHONY: help
help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

.PHONY: run
run: $(VENV)/installed ## install and serve; more arguments in ARGS
	@$(RUN) -m mintoken serve $(ARGS)

.PHONY: demo
demo: $(VENV)/installed ## show the whole path, offline
	@$(RUN) -m mintoken demo $(ARGS)

.PHONY: test
test: $(VENV)/installed-for-tests ## install and run the tests
	$(RUN) -m pytest $(ARGS)

.PHONY: fuzz
fuzz: $(VENV)/installed-for-tests ## try 20,000 odd requests and as many bodies; takes a quarter of an hour
	$(RUN) -m pytest tests/hostile/test_fuzz.py --hypothesis-profile fuzz $(ARGS)

.PHONY: chaos
chaos: $(VENV)/installed-for-tests ## kill, fill, reload and hurry it for up to five minutes; prints a table
	@cd tests && ../$(RUN) -m chaos $(ARGS)

.PHONY: corpus
corpus: $(VENV)/installed-for-tests ## try smart detection on labelled requests; prints where it agrees
	@cd tests && ../$(RUN) -m corpus

.PHONY: screenshots
screenshots: programs $(VENV)/installed-for-tests ## write pictures of the dashboard's pages into docs/
	@cd tests && ../$(RUN) -m screenshots

.PHONY: bench
bench: programs $(VENV)/installed-for-tests ## measure it beside a bare relay; as ARGS, --quick, --only SCENARIO, --rounds N
	@$(RUN) -m benchmarks $(ARGS)

.PHONY: bench-analytics
bench-analytics: $(VENV)/installed-for-tests ## ask what the dashboard asks of 5 million usage rows; as ARGS, --rows N
	@$(RUN) -m benchmarks.analytics $(ARGS)

.PHONY: lint
lint: $(VENV)/installed-for-tests ## look for mistakes and for other formatting than ours
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check

.PHONY: types
types: $(VENV)/installed-for-tests ## check the types
	$(RUN) -m mypy

# The tests of the ledger and the stores. `make check` runs them here, and the others without.
STORAGE_TESTS := $(addprefix tests/test_,stores.py store_faults.py storage_faults.py ledger.py \
	backup.py purge.py samples.py users.py analytics.py feed.py)

.PHONY: coverage
coverage: $(VENV)/installed-for-tests ## run the storage's tests; every branch of it must be taken
	$(RUN) -m pytest $(STORAGE_TESTS) --cov=mintoken.ledger --cov=mintoken.stores $(ARGS)

.PHONY: check
check: programs lint types coverage ## everything that must hold before a change lands
	$(RUN) -m pytest $(STORAGE_TESTS:%=--ignore=%) $(ARGS)

# As program:package. Where systemd runs, apt would start the two servers too, so it is left to you.
PROGRAMS := systemd-analyze:systemd nginx:nginx caddy:caddy mkfs.ext4:e2fsprogs wrk:wrk chromium:chromium
.PHONY: programs
programs: ## get the programs that tests run and pip has not: systemd, nginx, caddy, e2fsprogs, wrk, chromium
	@missing=$$(for program in $(PROGRAMS); do \
		PATH="$$PATH:/usr/sbin" command -v "$${program%:*}" >/dev/null || printf ' %s' "$${program#*:}"; \
	done); \
	install="apt-get install --yes --no-install-recommends$$missing"; \
	if [ -z "$$missing" ]; then exit 0; \
	elif [ "$$(id -u)" = 0 ] && [ ! -d /run/systemd/system ] && command -v apt-get >/dev/null; then \
		echo "Installing$$missing ..."; \
		{ apt-get update && DEBIAN_FRONTEND=noninteractive $$install; } >/dev/null; \
	else \
		echo "Some tests will be skipped. To run them: sudo $$install" >&2; \
	fi

.PHONY: format
format: $(VENV)/installed-for-tests ## put the code into shape
	$(RUN) -m ruff check --fix
	$(RUN) -m ruff format

.PHONY: wheel
wheel: $(VENV)/installed ## build the wheel into dist/
	rm -rf build dist
	$(PIP) wheel --no-deps --wheel-dir dist .
	rm -rf build

.PHONY: clean
clean: ## remove what was built and installed; data stays
	rm -rf $(VENV) build dist mintoken.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/installed: setup.cfg pyproject.toml $(VENV)/made
	@echo "Installing Mintoken into $(VENV) ..."
	@$(PIP) install --editable .
	@touch $@

$(VENV)/installed-for-tests: setup.cfg pyproject.toml $(VENV)/made
	@echo "Installing Mintoken and what its tests need into $(VENV) ..."
	@$(PIP) install --editable '.[test]'
	@touch $(VENV)/installed $@

# Debian and Ubuntu keep a part of venv in a package of its own. Only root can add it unasked.
$(VENV)/made:
	@test -n "$(PYTHON)" || { echo "Mintoken needs Python 3.11 or newer, and there is none." >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV) >/dev/null 2>&1 || { \
		package=$$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'); \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			echo "Installing $$package ..."; \
			{ apt-get update && apt-get install --yes --no-install-recommends "$$package"; } >/dev/null; \
			$(PYTHON) -m venv --clear $(VENV); \
		else \
			echo "$(PYTHON) cannot make a virtual environment. Run this, then make again:" >&2; \
			echo "  sudo apt-get install --yes $$package" >&2; \
			exit 1; \
		fi; }
	@touch $@

# Everything a newcomer or a CI job needs: `make run`, `make check`, `make test`. `make` alone lists the rest.
#
# The environment is .venv beside this file. Each target makes what it needs of it, once: the stamps .venv/.runtime
# and .venv/.dev say what is installed, and only a changed requirements file or pyproject.toml installs again.
# Works with GNU make 3.81 and a POSIX sh; pip may be as old as 23.2.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help run test check bench soak kill-loop crash-points model-faults mutations lock clean

VENV := .venv
BIN := $(VENV)/bin
# Other projects that ours is measured against: never beside the program.
PEERS := .venv-bench
# Further arguments for the program that a target starts: make run ARGS='--config palaver.toml'
ARGS ?=
JOBS ?= 4
CYCLES ?= 200
TURNS ?= 10000
BUILD_REQUIREMENTS := requirements.txt requirements-build.txt
CHECKED := bot adapters sessions config $(wildcard tests/fakes tests/typing)

# Tried in this order. Each is run, not only looked for: a version manager's placeholder is found but does not start.
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for name in python3.13 python3.12 python3.11 python3; do \
	$$name -c '$(NEW_ENOUGH)' >/dev/null 2>&1 && { echo $$name; break; }; done)

# No prompt (there may be nobody to answer), and no --user from a personal pip configuration.
export PIP_NO_INPUT := 1
export PIP_USER := 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1
PIP := $(BIN)/python -m pip
HASHED := --require-hashes --no-deps
# One folder for each package that pip has unpacked.
UNPACKED := $(VENV)/lib/python*/site-packages/*.dist-info

help: ## list the targets
	@echo 'Palaver. Targets:'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)$$/\1|\2/p' Makefile | while IFS='|' read -r name text; do \
		printf '  make %-13s%s\n' "$$name" "$$text"; done
	@echo "ARGS='…' passes further arguments on, e.g. make run ARGS='--config palaver.toml'"

run: $(VENV)/.runtime ## set up what is needed and start Palaver
	@exec $(BIN)/palaver run $(ARGS)

check: $(VENV)/.dev ## lint, format, types, and which package may import which
	$(BIN)/ruff check --quiet --output-format=concise .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --no-error-summary $(CHECKED)
	$(BIN)/lint-imports --no-logo

test: $(VENV)/.dev ## the test suite (JOBS=4 processes: many tests only wait)
	$(BIN)/pytest -n $(JOBS) --dist=worksteal --session-timeout=900 --inline-snapshot=disable $(ARGS)

bench: $(VENV)/.dev $(PEERS)/.installed ## every claim about speed, measured here; ARGS='search' for one
	$(BIN)/python -m benchmarks $(ARGS)

soak: $(VENV)/.dev ## one long run under load and faults
	$(BIN)/python -m tests.process.soak $(ARGS)

kill-loop: $(VENV)/.dev ## kill -9 at random moments, CYCLES=200 per adapter
	$(BIN)/python -m tests.process.kill_loop --cycles $(CYCLES) $(ARGS)
	$(BIN)/python -m tests.process.kill_loop --cycles 40 --database postgresql
	$(BIN)/python -m tests.process.postgres_kill --cycles 30
	$(BIN)/python -m tests.process.fleet_load --sessions 1000 --messages 10
	$(BIN)/python -m tests.process.fleet_load --nodes 2 --sessions 300 --messages 10 --distance-ms 1

crash-points: $(VENV)/.dev ## a crash before and after every commit of a scenario, on each adapter; every eighth on PostgreSQL
	$(BIN)/python -m tests.process.crash_points $(ARGS)
	$(BIN)/python -m tests.process.crash_points --database postgresql --every 8 $(ARGS)

model-faults: $(VENV)/.dev ## TURNS=10000 turns on a model that fails three times of ten
	$(BIN)/python -m tests.process.model_faults --turns $(TURNS) $(ARGS)

mutations: $(VENV)/.dev ## break safeguards on purpose: do the tests notice?
	$(BIN)/python -m tests.process.mutations $(ARGS)
	$(BIN)/python -m tests.sessions.mutations $(ARGS)

# All three from pyproject.toml. Pins that still fit stay; ARGS=--upgrade moves them. The runtime and build files are
# held to the versions of the development file, because all three are installed into one environment here. hatchling
# asks for editables only when it builds an editable wheel, so its own requirements do not name it.
LOCK := compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11
lock: $(VENV)/pyvenv.cfg ## pin the requirements anew (ARGS=--upgrade for newer versions)
	@$(PIP) install --quiet uv
	$(BIN)/uv pip $(LOCK) $(ARGS) --group dev pyproject.toml --output-file requirements-dev.txt
	$(BIN)/uv pip $(LOCK) $(ARGS) --constraint requirements-dev.txt pyproject.toml --output-file requirements.txt
	$(BIN)/uv pip $(LOCK) $(ARGS) --group bench --output-file requirements-bench.txt
	$(BIN)/python -c 'import tomllib; \
		print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], "editables", sep="\n")' | \
		$(BIN)/uv pip $(LOCK) $(ARGS) --constraint requirements-dev.txt - --output-file requirements-build.txt

clean: ## remove the environment and all that tools have written here
	rm -rf $(VENV) $(PEERS) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# pip's own output is hundreds of lines, and its progress bar cannot be had without them. So they go to a file, a
# terminal sees one line with a bar, and a failure shows the end of the file. While pip unpacks it says nothing at all, so
# what is there already is counted. The stamp is touched by the left side of
# the pipe, because sh knows only the right side's exit status.
# $(1): what to say, $(2): the requirements files, $(3): a command to run after them
define install
	@rm -f $@; total=$$(cat $(2) | grep -c '=='); count=0; [ -t 1 ] || echo '  installing  $(1) ('"$$total"' packages)'; \
	{ $(PIP) install $(HASHED) $(addprefix -r ,$(2)) && $(3) && touch $@; } 2>&1 | tee $(VENV)/install.log | \
	{ show() { done_=$$(($$1 * 24 / total)); [ $$done_ -le 24 ] || done_=24; \
		printf '\r  installing  $(1)  [%.*s%.*s] %d/%d %-24.24s' $$done_ '########################' \
			$$((24 - done_)) '........................' $$1 $$total "$$2"; }; \
	unpacking=; while read -r word name rest; do \
		case "$$word" in Collecting|Requirement|Ignoring) count=$$((count + 1)) ;; Installing) name=unpacking ;; *) continue ;; esac; \
		[ "$$word" = Requirement ] && name=$${rest#*: }; name=$${name%%[=:]*}; \
		[ -t 1 ] && [ -z "$$unpacking" ] || continue; \
		[ "$$word" = Installing ] || { show $$count "$$name"; continue; }; \
		{ while kill -0 $$$$ 2>/dev/null; do show $$(ls -d $(UNPACKED) 2>/dev/null | wc -l) unpacking; sleep 0.5; done; } & unpacking=$$!; \
	done; [ -z "$$unpacking" ] || { kill $$unpacking; wait $$unpacking 2>/dev/null; show $$total ''; }; }; [ ! -t 1 ] || echo; \
	[ -e $@ ] || { tail -n 20 $(VENV)/install.log; \
		echo 'palaver: the packages could not be installed; the whole story is in $(VENV)/install.log' >&2; exit 1; }
endef

$(VENV)/.runtime: $(BUILD_REQUIREMENTS) pyproject.toml $(VENV)/pyvenv.cfg
	$(call install,Palaver,$(BUILD_REQUIREMENTS),$(PIP) install --no-deps --no-build-isolation --editable .)

$(VENV)/.dev: requirements-dev.txt $(VENV)/.runtime
	$(call install,the tools for tests and checks,requirements-dev.txt,true)

# Without them the benchmarks measure the rest, so a failure here is told and passed over.
$(PEERS)/.installed: requirements-bench.txt $(VENV)/pyvenv.cfg
	@echo '  installing  what Palaver is measured against, into $(PEERS)'
	@$(BIN)/python -m venv --clear $(PEERS) && \
	{ $(PEERS)/bin/python -m pip install --quiet $(HASHED) -r requirements-bench.txt >$(PEERS)/install.log 2>&1 && touch $@ || \
		{ tail -n 3 $(PEERS)/install.log; rm -rf $(PEERS); echo '  they could not be installed: measured without them' >&2; }; }

# An environment that was copied or moved along with its folder still runs the code of the old place, and one whose
# Python has gone runs none. One that was interrupted while it was made has no pip yet. All are made again.
ifeq ($(shell [ -x $(BIN)/python ] && [ -x $(BIN)/pip ] && grep -sF ' $(CURDIR)/$(VENV)' $(VENV)/pyvenv.cfg),)
.PHONY: $(VENV)/pyvenv.cfg
endif
$(VENV)/pyvenv.cfg:
	@python='$(PYTHON)'; \
	if [ -z "$$python" ] || ! "$$python" -c '$(NEW_ENOUGH)' >/dev/null 2>&1; then \
		echo 'palaver: Python 3.11 or newer is needed; none of python3.13, python3.12, python3.11, python3 is that.' >&2; \
		echo '         Install one (Debian, Ubuntu: apt install python3 python3-venv; macOS: brew install python),' >&2; \
		echo '         or name yours: make PYTHON=/path/to/python3.11' >&2; exit 1; fi; \
	if ! "$$python" -c 'import venv, ensurepip' >/dev/null 2>&1; then \
		echo "palaver: $$python has no venv module; Debian and Ubuntu ship it apart: apt install python3-venv" >&2; \
		exit 1; fi; \
	echo "  environment $(VENV), $$("$$python" --version)"; \
	"$$python" -m venv --clear $(VENV)

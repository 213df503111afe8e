# Two commands to begin with: `make demo` and `make test`. Both set up all that they need.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Tests run side by side, each runner in network namespaces of its own.
JOBS ?= auto

NATIVE := setup.py pyproject.toml src/ringtun/_native.pyx $(wildcard src/ringtun/native/*)

# Each fuzzer has its seeds in tests/native/seeds, and finds of the core what it needs.
FUZZ_SECONDS ?= 60
FUZZERS := $(patsubst tests/native/fuzz_%.c,%,$(wildcard tests/native/fuzz_*.c))
FUZZED := $(wildcard $(addprefix src/ringtun/native/,checksum.c segment.c coalesce.c))
FUZZ_FLAGS := -std=c11 -D_GNU_SOURCE -Wall -Wextra -Werror -O2 -g -Isrc/ringtun/native \
	-fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all

.PHONY: help demo test test-installer docs soak fuzz msm check lint types format bench bench-quick \
	bench-docs clean

help:
	@echo "make demo    run the main job: two namespaces, an adapter in each, joined in Python"
	@echo "make test    run the tests"
	@echo "make test-installer   install packages and modules in Wine, and remove them"
	@echo "make docs    build the documentation into build/docs"
	@echo "make msm     build the merge modules for Windows into build (WINTUN= and SIGN=)"
	@echo "make check   all that CI runs: format, lint, types, documentation, tests"
	@echo "make soak    the long tests"
	@echo "make fuzz    fuzz the native core, each fuzzer for FUZZ_SECONDS= (60)"
	@echo "make bench   measure, beside the baselines (ROWS= and ROUNDS= select)"
	@echo "make bench-quick   the same for daily work: fewer rows, shorter, in two minutes"
	@echo "make bench-docs    put the figures of make bench into docs/benchmarks.md"
	@echo "make format  format the code"

demo: build/ready
	@scripts/need.sh demo
	@$(BIN)/ringtun demo

test: build/ready build/ready-to-test
	$(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile -m "not soak"

# In a Windows of each runner's own. Without what it takes there is nothing to be tried; Wintun's release
# is fetched before, for the tests have no network.
test-installer: build/ready build/ready-to-test
	@if scripts/need.sh installer; then \
		$(MAKE) -s build/wintun; \
		$(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile -m wine tests; \
	else echo "NOT TRIED: installing in Wine, for want of the packages above" >&2; fi

soak: build/ready build/ready-to-test
	$(BIN)/python -m pytest -q -m soak

docs: build/ready-to-document
	$(BIN)/sphinx-build -E -a -W --keep-going -n -q -d build/doctrees docs build/docs
	@echo "build/docs/index.html"

# Wintun's release, unpacked, by default fetched; and options such as --sign and --sign-key.
WINTUN ?= build/wintun
SIGN ?=

msm: build/ready $(WINTUN)
	@scripts/need.sh msm
	@$(BIN)/ringtun msm build --wintun $(WINTUN) --output build $(SIGN)

build/wintun: | build/ready
	@$(BIN)/python scripts/fetch_wintun.py $@

fuzz: $(FUZZERS:%=build/fuzz/%)
	@for name in $(FUZZERS); do \
		echo "Fuzzing $$name for $(FUZZ_SECONDS) s"; \
		mkdir -p build/fuzz/$$name.corpus; \
		build/fuzz/$$name -max_total_time=$(FUZZ_SECONDS) -verbosity=0 -print_final_stats=1 \
			-artifact_prefix=build/fuzz/$$name- \
			build/fuzz/$$name.corpus tests/native/seeds/$$name || exit 1; \
	done

build/fuzz/%: tests/native/fuzz_%.c $(FUZZED) $(wildcard tests/native/*.h src/ringtun/native/*.h)
	@scripts/need.sh fuzz
	@mkdir -p $(@D)
	clang $(FUZZ_FLAGS) $< $(FUZZED) -o $@

check: lint types docs test

lint: build/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: build/ready
	$(BIN)/mypy

format: build/ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: build/ready-to-bench
	@$(BIN)/python -m benchmarks

# What most changes show themselves in; a row brings along those that it is compared to.
comma := ,
QUICK := F.tcp.whole F.tcp.batch-inline F.tcp.gathered F.tcp.asyncio-packet F.udp64.batch-inline \
	E.udp-same.inline E.udp-apart.inline R.64.untouched R.64.views R.64.pop R.64.write I.inline

bench-quick: build/ready-to-bench
	@ROWS="$(or $(ROWS),$(subst $() ,$(comma),$(strip $(QUICK))))" ROUNDS="$(or $(ROUNDS),3)" \
		$(BIN)/python -m benchmarks --fresh --seconds 0.5 \
		--json build/bench-quick.json --keep build/bench-quick-rounds.json

bench-docs: build/ready
	@$(BIN)/python -m benchmarks.page

# The virtual environment, with ringtun in it as it stands in this checkout, its native core built.
build/ready: $(NATIVE) scripts/need.sh
	@PYTHON=$(PYTHON) scripts/need.sh build
	@test -x $(BIN)/python || { echo "Making $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "Installing what ringtun needs, and building it"
	@$(BIN)/pip install -qq --disable-pip-version-check "setuptools>=77" "Cython>=3.1"
	@$(BIN)/pip install -qq --disable-pip-version-check --no-build-isolation -e ".[dev]"
	@$(BIN)/python -c "import ringtun._native"
	@mkdir -p build && touch $@

build/ready-to-test: scripts/need.sh
	@scripts/need.sh test msm
	@mkdir -p build && touch $@

build/ready-to-document: build/ready
	@$(BIN)/pip install -qq --disable-pip-version-check --no-build-isolation -e ".[docs]"
	@touch $@

# Rows whose program cannot be installed are named, and left out.
build/ready-to-bench: build/ready scripts/need.sh
	@scripts/need.sh build bench
	@for package in python-pytun pytun-pmd3; do \
		$(BIN)/pip install -qq --disable-pip-version-check $$package \
			|| { echo "$$package cannot be installed"; missing=1; }; \
	done; test "$$missing" || touch $@

clean:
	rm -rf build $(VENV) src/ringtun/_native.c src/ringtun/*.so src/*.egg-info

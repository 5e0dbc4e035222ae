PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEPS := $(VENV)/.deps-installed
STAMP := $(VENV)/.nodebits-installed
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
NATIVE := CMakeLists.txt $(shell find csrc cmake -type f 2>/dev/null)
CXX_FILES := $(shell find csrc tests/csrc -name '*.cpp' -o -name '*.h')

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test slow triton test-gpu lite capi docs docs-test lint stubs bench sanitize sanitized fuzz clean

help:
	@echo 'make demo    train, quantize and pack a 4-bit GCN on the embedded data set, into runs/demo'
	@echo 'make test    run the tests'
	@echo 'make slow    run the longer tests'
	@echo 'make triton  run the tests of the kernels for CUDA on an interpreter (200 MB more)'
	@echo 'make test-gpu  run the same tests on the CUDA card of this machine'
	@echo 'make lite    build the wheel of nodebits-lite and test it where no torch is'
	@echo 'make capi    build libnodebits, here and for aarch64, and run C programs with it'
	@echo 'make docs    build the documentation site into build/site (any broken link is a fault)'
	@echo 'make docs-test  run every block of code in the documentation, on small data'
	@echo 'make lint    ruff, mypy, clang-format and the rules of prose'
	@echo 'make stubs   list the methods for type checkers, after one was added'
	@echo 'make bench   time neighbour sums and a GCN beside torch and PyG'
	@echo 'make sanitize  run the tests of kernels and plans, on every level of this machine, under the address'
	@echo '             and undefined-behaviour sanitizers (SANITIZE_TESTS="tests/plan" for a part)'
	@echo 'make fuzz    read mutated files of every form (FUZZ_ARGS="--count 1000000"; SANITIZE=1)'
	@echo 'make clean   remove build products and .venv'
	@echo 'Each first makes .venv if it is missing or out of date. PYTHON=python3.12 picks the interpreter.'

# torch comes first and pinned, so that no other package's requirement chooses the build of torch.
# cmake and ninja come from the package index: only Python and a C++ compiler are assumed.
$(DEPS): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'nodebits needs Python 3.11 or later; choose one with: make PYTHON=python3.12' >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "$(PYTHON) has no venv or ensurepip module; on Debian or Ubuntu: apt install python3-venv" >&2; exit 1; }
	@command -v $(CXX) >/dev/null || \
	  { echo 'no C++ compiler ($(CXX)); on Debian or Ubuntu: apt install g++, on macOS: xcode-select --install' >&2; exit 1; }
	@test -x $(BIN)/python || { echo 'creating $(VENV)'; $(PYTHON) -m venv $(VENV); }
	@echo 'installing torch and the build tools'
	@$(PIP) install --quiet -c constraints.txt torch
	@$(PIP) install --quiet -c constraints.txt scikit-build-core nanobind cmake ninja
	@touch $@

# Build isolation would download a second torch-sized environment for every build.
$(STAMP): $(DEPS) $(NATIVE)
	@echo 'building and installing nodebits'
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(PIP) install --quiet -c constraints.txt --no-build-isolation -e '.[dev]'
	@touch $@

setup: $(STAMP)

demo: $(STAMP)
	$(BIN)/nodebits quantize --dataset digits --model gcn --method degree-quant --bits 4 --seeds 1 --out runs/demo --force

test: $(STAMP)
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal $(PYTEST_ARGS)

# Those of C and of the documentation have targets of their own.
slow: $(STAMP)
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal -m slow --ignore=tests/capi --ignore=tests/docs \
	  $(PYTEST_ARGS)

# Not among the development tools, since it takes as much as torch. A card is not needed.
triton: export TRITON_INTERPRET = 1
triton: $(STAMP)
	@$(PIP) install --quiet -c constraints.txt triton
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal tests/ops/backends $(PYTEST_ARGS)

# The same tests on a card. One process, since a card's memory is shared; where none can serve, all tests would be
# skipped, so the reason is a fault.
test-gpu: $(STAMP)
	@$(PIP) install --quiet -c constraints.txt triton
	@$(BIN)/python -c 'import sys; from nodebits.ops.backends.triton.choice import device_problem; \
	  sys.exit(device_problem())'
	$(BIN)/python -m pytest tests/ops/backends tests/plan/device $(PYTEST_ARGS)

# An environment of its own: only what the wheel brings along, and pytest.
LITE := build/lite
lite: $(DEPS)
	rm -rf $(LITE)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(PIP) wheel --quiet --no-build-isolation --no-deps -w $(LITE) packages/lite
	$(PYTHON) -m venv $(LITE)/venv
	$(LITE)/venv/bin/python -m pip install --quiet -c constraints.txt $(LITE)/*.whl pytest
	cd $(LITE) && venv/bin/python -m pytest -c $(CURDIR)/packages/lite/pyproject.toml \
	  --confcutdir=$(CURDIR)/tests/lite $(CURDIR)/tests/lite

capi: $(STAMP)
	$(BIN)/python -m pytest -m slow tests/capi $(PYTEST_ARGS)

# The site's tools are no development tools. A notice of Material's about another program is left out.
docs: export NO_MKDOCS_2_WARNING = 1
docs: $(STAMP)
	@$(PIP) install --quiet -c constraints.txt 'mkdocs-material>=9.7' 'mkdocstrings[python]>=1'
	$(BIN)/python -m mkdocs build --strict
	@echo 'the site is build/site/index.html'

docs-test: $(STAMP)
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal -m slow tests/docs $(PYTEST_ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python tests/prose.py
	$(BIN)/python tests/stubs.py
	$(if $(CXX_FILES),$(BIN)/clang-format --dry-run -Werror $(CXX_FILES))

stubs: $(STAMP)
	$(BIN)/python tests/stubs.py --write

bench: $(STAMP)
	$(BIN)/nodebits bench aggregate --graph arxiv-like
	$(BIN)/nodebits bench model --graph arxiv-like --models gcn --bits 8,4,2

# The interpreter is not built with the sanitizers, so their runtime is loaded first.
SANITIZED := build/sanitize
WITH_SANITIZERS = LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libubsan.so)" \
  ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
  $(BIN)/python tests/with_kernels.py $(SANITIZED)/_kernels.*.so
SANITIZE_TESTS ?= tests/ops tests/plan
sanitize: sanitized
	$(WITH_SANITIZERS) -m pytest $(SANITIZE_TESTS) --capture=sys $(PYTEST_ARGS)

sanitized: $(STAMP)
	@PATH="$(CURDIR)/$(BIN):$$PATH" cmake -G Ninja -S . -B $(SANITIZED) -DNODEBITS_SANITIZE=ON \
	  -DPython_EXECUTABLE="$(CURDIR)/$(BIN)/python" -DCMAKE_CXX_COMPILER="$(CXX)" >/dev/null
	@PATH="$(CURDIR)/$(BIN):$$PATH" cmake --build $(SANITIZED)

fuzz: export PYTHONPATH = tests:examples/nodebits-smoothness/src
fuzz: $(if $(SANITIZE),sanitized,$(STAMP))
	$(if $(SANITIZE),$(WITH_SANITIZERS),$(BIN)/python) -m fuzz.run $(FUZZ_ARGS)

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# Everything a user or developer runs. Each target does its own set-up; `make` alone lists them.
# CPU build of torch: point UV_FIND_LINKS (or PIP_FIND_LINKS) at a folder or page that has one.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export OMP_NUM_THREADS ?= 1
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)

.PHONY: help install demo test test-fast test-long mutations lint format benchmarks clean

help:
	@echo "make demo        clips, a dataset, the audit of its judge, a model that learns from nothing"
	@echo "make test        lint, types and every test that a user runs"
	@echo "make test-fast   the tests that take seconds"
	@echo "make test-long   kills, faults at scale, real servers, mutations"
	@echo "make mutations   break the code on purpose and see the named tests fail"
	@echo "make benchmarks  scale and throughput, printed as JSON"

$(READY): pyproject.toml constraints.txt environment/torchvision_hook.py
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed"'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "uv>=0.9"
	$(BIN)/python -m uv pip install --quiet --compile-bytecode --python $(BIN)/python -c constraints.txt -e '.[dev]'
	$(BIN)/python environment/torchvision_hook.py install
	@touch $@

install: $(READY)

demo: $(READY)
	$(BIN)/python -m sandbox.demo --output-dir out/demo

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# One worker per core; whoever is done takes over tests of the other.
PYTEST := $(BIN)/python -m pytest --numprocesses auto --dist worksteal

test: lint
	$(PYTEST) -m "not slow"

test-fast: $(READY)
	$(PYTEST) -m "not slow and not process"

test-long: $(READY)
	bash tests/browser/install.sh
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile -m slow
	$(BIN)/python tests/mutations/run.py

mutations: $(READY)
	$(BIN)/python tests/mutations/run.py

benchmarks: $(READY)
	$(BIN)/python benchmarks/scale.py
	$(BIN)/python benchmarks/throughput.py

clean:
	rm -rf $(VENV) out build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

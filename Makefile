# Everything a user or developer runs. Each target does its own set-up; `make` alone lists them.
# CPU build of torch: point UV_FIND_LINKS (or PIP_FIND_LINKS) at a folder or page that has one.

# A Python 3.11 or newer is found by itself (environment/find_python.sh); PYTHON=... takes another.
PYTHON ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export OMP_NUM_THREADS ?= 1
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)

.PHONY: help install engines newest demo docs test test-fast test-long mutations fuzz campaigns lint format benchmarks clean

help:
	@echo "make demo        clips, a dataset, the audit of its judge, RL that repairs a small video model"
	@echo "make docs        the pages and the API reference, as a site in site/index.html"
	@echo "make test        lint, types and every test that a user runs"
	@echo "make engines     an environment with vLLM, DeepSpeed and Ray, for tests of test-long"
	@echo "make newest      an environment with the newest transformers, for tests of campaigns"
	@echo "make test-fast   the tests that take seconds"
	@echo "make test-long   kills, faults at scale, real servers, three mutations of ten, short fuzzing"
	@echo "make mutations   break the code on purpose and see the named tests fail"
	@echo "make fuzz        20 minutes of hostile files, replies, media and model folders"
	@echo "make campaigns   200 kills of a large build, 30 of fine-tuning, 30 of RL (an hour or two)"
	@echo "make benchmarks  scale and throughput, printed as JSON"

$(READY): pyproject.toml constraints.txt environment/torchvision_hook.py environment/find_python.sh
	found=$$(PYTHON="$(PYTHON)" bash environment/find_python.sh $(VENV)) && \
		{ test -x $(BIN)/python && $(BIN)/python -c '' || "$$found" -m venv --clear $(VENV); }
	$(BIN)/python -m pip install --quiet "uv>=0.9"
	$(BIN)/python -m uv pip install --quiet --compile-bytecode --python $(BIN)/python -c constraints.txt -e '.[dev]'
	$(BIN)/python environment/torchvision_hook.py install
	@touch $@

install: $(READY)

# vLLM's CPU build, DeepSpeed and Ray beside this project, for tests: 3 GB, made once.
engines:
	PYTHON="$(PYTHON)" bash environment/engines/install.sh

# The newest transformers that we test with, in place of that of constraints.txt.
newest:
	PYTHON="$(PYTHON)" bash environment/newest/install.sh

demo: $(READY)
	$(BIN)/python -m sandbox.demo --output-dir out/demo

# -W: a warning is an error. Nothing is fetched to build the site or to read it.
docs: $(READY)
	$(BIN)/python -m sphinx -W --keep-going --quiet -b html -d site/.doctrees docs site
	@echo "open site/index.html"

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# What touches transformers: tested with the newest one, too.
AT_BOTH_ENDS := tests/train tests/judges/backends tests/sandbox tests/extending

# One worker per core; whoever is done takes over tests of the other.
PYTEST := $(BIN)/python -m pytest --numprocesses auto --dist worksteal

test: lint
	$(PYTEST) -m "not slow"

test-fast: $(READY)
	$(PYTEST) -m "not slow and not heavy"

test-long: $(READY) engines
	bash tests/browser/install.sh
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile -m "slow and not campaign"
	$(BIN)/python tests/mutations/run.py --share 0.3
	$(BIN)/python tests/fuzz/run.py --minutes 3
	$(BIN)/python tests/campaigns/run.py --share 0.1

mutations: $(READY) engines
	$(BIN)/python tests/mutations/run.py

# Both append what they found to the file that docs/reports/robustness.md names.
fuzz: $(READY)
	$(BIN)/python tests/fuzz/run.py --record docs/reports/robustness_runs.jsonl

campaigns: $(READY) newest
	$(BIN)/python tests/campaigns/run.py --record docs/reports/robustness_runs.jsonl
	$(PYTEST) -m campaign
	.venv-newest/bin/python -m pytest --numprocesses auto --dist loadfile -m "not slow" $(AT_BOTH_ENDS)

benchmarks: $(READY)
	$(BIN)/python benchmarks/scale.py
	$(BIN)/python benchmarks/throughput.py

clean:
	rm -rf $(VENV) .venv-engines .venv-newest out site build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

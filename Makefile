# make demo        set up what is missing and run the main job on the frames in sample_data
# make test        set up what is missing and run the tests          (PYTEST="-k psf" picks some)
# make lint        ruff and mypy
# make bench       time restorations beside Richardson-Lucy and published networks
# make bench-files what many small files cost, and how fast files are written and read
# make bench-size  time and memory as frames grow                 (ARGS="--sizes 2000 20000")
# make bench-quality  every method on every frame, one table      (DATA=folder of frames, FRAMES=list.toml, OUT=folder)
# make bench-methods  train and score every method and backbone   (DATA=folder of real frames, MINUTES=10 of each)
# make quality     measure all figures of docs/benchmarks.md       (DATA=folder of real frames)
# make judges      which check catches which planted defect, false alarms, the trust mask  (half an hour)
# make docs        write docs/cli.md and docs/checks.md from the package
# make clean       remove the environment and everything that was made
#
# TORCH_INDEX=URL  a wheel index to take torch from, for instance one with CPU builds
# PYTHON=python3.x the interpreter for the environment, 3.11 or newer
SHELL  := /bin/bash
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
PYTEST ?=
UV     := $(shell command -v uv 2>/dev/null)
PYTHON ?= $(firstword $(foreach p,python3 python3.14 python3.13 python3.12 python3.11,$(shell \
	$(p) -c 'import sys; sys.version_info >= (3, 11) and print("$(p)")' 2>/dev/null)))
export OMP_NUM_THREADS ?= 2

.DEFAULT_GOAL := help
.PHONY: demo test lint bench bench-size bench-files bench-quality bench-methods quality judges docs clean help

demo: $(STAMP)
	PATH="$(CURDIR)/$(BIN):$$PATH" bash docs/demo.sh

test: $(STAMP)
	$(BIN)/python -m pytest $(PYTEST)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(STAMP)
	$(BIN)/python docs/bench.py $(ARGS)

bench-files: $(STAMP)
	$(BIN)/python docs/bench_files.py
	$(BIN)/python docs/bench_files.py --end tif
	$(BIN)/python docs/bench_io.py

bench-size: $(STAMP)
	$(BIN)/python docs/bench_size.py $(ARGS)

bench-quality: $(STAMP)
	$(BIN)/python docs/quality.py $(or $(DATA),$(error make bench-quality needs DATA=folder of frames)) --only frames \
		$(if $(FRAMES),--frames $(FRAMES)) $(if $(OUT),--out $(OUT)) $(ARGS)

bench-methods: $(STAMP)
	$(BIN)/python docs/bench_methods.py $(DATA) --minutes $(or $(MINUTES),10) $(ARGS)

quality: $(STAMP)
	$(BIN)/python docs/quality.py $(or $(DATA),$(error make quality needs DATA=folder of real frames))

judges: $(STAMP)
	$(BIN)/python docs/judges.py $(ARGS)

docs: $(STAMP)
	$(BIN)/python -m sciresdiff.cli.reference docs

clean:
	rm -rf $(VENV) build dist demo *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | head -13

# uv does not read pip's find-links, so they are handed over.
$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11 or newer found; give one with PYTHON=/path/to/python" >&2; exit 1; }
ifneq ($(UV),)
	test -x $(BIN)/python || $(UV) venv --python $(PYTHON) $(VENV)
	$(if $(PIP_FIND_LINKS),UV_FIND_LINKS="$(PIP_FIND_LINKS)") $(UV) pip install --python $(BIN)/python \
		$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX) --index-strategy unsafe-best-match) -c constraints.txt -e '.[dev]'
else
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -c constraints.txt -e '.[dev]'
endif
	@touch $@

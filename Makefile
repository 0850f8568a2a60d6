# make demo        set up what is missing and run the main job on the frames in sample_data
# make test        set up what is missing and run the tests          (PYTEST="-k psf" picks some)
# make lint        ruff and mypy
# make bench       time restorations beside Richardson-Lucy and published networks
# make bench-files what many small files cost, and how fast files are written and read
# make bench-size  time and memory as frames grow                 (ARGS="--sizes 2000 20000")
# make bench-mosaic  time and memory of a mosaic that is killed and resumed  (ARGS="--sides 2048")
# make bench-quality  every method on every frame, one table      (DATA=folder of frames, FRAMES=list.toml, OUT=folder)
# make bench-methods  train and score every method and backbone   (DATA=folder of real frames, MINUTES=10 of each)
# make quality     measure all figures of docs/reference/benchmarks.md       (DATA=folder of real frames)
# make judges      which check catches which planted defect, false alarms, the trust mask  (half an hour)
# make docs        write cli.md, checks.md and modules.md of docs/reference from the package, then the site into site/
# make sample      measure the table of the README            (two minutes)
# make clean       remove the environment and everything that was made
#
# TORCH_INDEX=URL  a wheel index to take torch from, for instance one with CPU builds
# PYTHON=python3.x the interpreter for the environment, 3.11 or newer
SHELL  := /bin/bash
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
SITE   := $(VENV)/.docs
PYTEST ?=
UV     := $(shell command -v uv 2>/dev/null)
PYTHON ?= $(firstword $(foreach p,python3 python3.14 python3.13 python3.12 python3.11,$(shell \
	$(p) -c 'import sys; sys.version_info >= (3, 11) and print("$(p)")' 2>/dev/null)))
COMMA  := ,
# of scripts that no test runs: whether what they name is there
NAMES_ONLY := $(addprefix --disable-error-code=,arg-type call-overload dict-item func-returns-value misc operator \
	return-value union-attr var-annotated)
export OMP_NUM_THREADS ?= 2

.DEFAULT_GOAL := help
.PHONY: demo test lint bench bench-size bench-mosaic bench-files bench-quality bench-methods quality judges sample docs clean help

demo: $(STAMP)
	PATH="$(CURDIR)/$(BIN):$$PATH" bash docs/demo.sh

test: $(STAMP)
	$(BIN)/python -m pytest $(PYTEST)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy
	MYPYPATH=docs/benchmarks $(BIN)/mypy $(NAMES_ONLY) docs/benchmarks/*.py

bench: $(STAMP)
	$(BIN)/python docs/benchmarks/bench.py $(ARGS)

bench-files: $(STAMP)
	$(BIN)/python docs/benchmarks/bench_files.py
	$(BIN)/python docs/benchmarks/bench_files.py --end tif
	$(BIN)/python docs/benchmarks/bench_io.py

bench-size: $(STAMP)
	$(BIN)/python docs/benchmarks/bench_size.py $(ARGS)

bench-mosaic: $(STAMP)
	$(BIN)/python docs/benchmarks/bench_mosaic.py $(ARGS)

bench-quality: $(STAMP)
	$(BIN)/python docs/benchmarks/quality.py $(or $(DATA),$(error make bench-quality needs DATA=folder of frames)) --only frames \
		$(if $(FRAMES),--frames $(FRAMES)) $(if $(OUT),--out $(OUT)) $(ARGS)

bench-methods: $(STAMP)
	$(BIN)/python docs/benchmarks/bench_methods.py $(DATA) --minutes $(or $(MINUTES),10) $(ARGS)

quality: $(STAMP)
	$(BIN)/python docs/benchmarks/quality.py $(or $(DATA),$(error make quality needs DATA=folder of real frames))

judges: $(STAMP)
	$(BIN)/python docs/benchmarks/judges.py $(ARGS)

docs: $(SITE)
	$(BIN)/python -m sciresdiff.cli.reference docs/reference
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo 'open site/index.html'

sample: $(STAMP)
	$(BIN)/python docs/benchmarks/sample.py $(ARGS)

clean:
	rm -rf $(VENV) build dist demo site *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | head -15

# uv does not read pip's find-links, so they are handed over. $(call install,EXTRAS) installs the package with those extras.
ifneq ($(UV),)
install = $(if $(PIP_FIND_LINKS),UV_FIND_LINKS="$(PIP_FIND_LINKS)") $(UV) pip install --python $(BIN)/python \
	$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX) --index-strategy unsafe-best-match) -c constraints.txt -e '.[$(1)]'
else
install = $(BIN)/python -m pip install -q $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -c constraints.txt -e '.[$(1)]'
endif

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11 or newer found; give one with PYTHON=/path/to/python" >&2; exit 1; }
	test -x $(BIN)/python || $(if $(UV),$(UV) venv --python $(PYTHON),$(PYTHON) -m venv) $(VENV)
	$(call install,dev)
	@touch $@

$(SITE): $(STAMP)
	$(call install,dev$(COMMA)docs)
	@touch $@

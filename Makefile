# Everything runs from one virtual environment in .venv, which is made and filled as it is needed; nothing but
# Python ≥ 3.11 and make must be there before. A stamp file in .venv stands for each thing installed: it is made anew
# when the pins, the dependencies or the version change.
#
#   make PYTHON=python3.12     use this interpreter for a new environment
#   make test TESTS=tests/test_docs.py     run these tests only
#   WHYBOX_DATA=/path make test            run the tests on real data too

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install --quiet -c constraints.txt
PINS := pyproject.toml constraints.txt src/whybox/_version.py
TESTS :=
OUTPUT := whybox-demo.html

.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test lint format bench docs figures clean

help:  ## say what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/whybox.stamp  ## explain three handwritten digits and write a report
	@$(BIN)/whybox demo --output $(OUTPUT)

# One thread: on the small models of the tests more are no faster, and far slower where the cores are busy.
test: $(VENV)/dev.stamp  ## run the tests; those on real data where WHYBOX_DATA names it
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(TESTS)

lint: $(VENV)/dev.stamp  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/dev.stamp  ## bring the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/bench.stamp  ## measure against the other libraries; minutes
	$(BIN)/python -m benchmarks

docs: $(VENV)/docs.stamp  ## write what is generated, and build the pages into site/
	$(BIN)/python docs/generate.py
	$(BIN)/python -m benchmarks.table
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo site/index.html

figures: $(VENV)/whybox.stamp  ## draw the figures of the documentation anew
	$(BIN)/python docs/figures/draw.py

clean:  ## remove what was built and installed
	rm -rf $(VENV) site dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis

# torch comes first and by itself: whatever is installed afterwards finds its requirement met, so that no other build
# of torch takes its place (torchvision and timm ask for torch, and are content with this one).
$(VENV)/torch.stamp: constraints.txt
	@test -n "$(PYTHON)" || { echo "whybox needs Python 3.11 or newer: make PYTHON=/path/to/python3" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) torch
	@touch $@

$(VENV)/whybox.stamp: $(VENV)/torch.stamp $(PINS)
	$(INSTALL) --editable .
	@touch $@

$(VENV)/dev.stamp: $(VENV)/torch.stamp $(PINS)
	$(INSTALL) --editable '.[dev,vision,hf]'
	@touch $@ $(VENV)/whybox.stamp

$(VENV)/bench.stamp: $(VENV)/torch.stamp $(PINS)
	$(INSTALL) --editable '.[bench,vision,hf]'
	@touch $@ $(VENV)/whybox.stamp

$(VENV)/docs.stamp: $(VENV)/torch.stamp $(PINS)
	$(INSTALL) --editable '.[docs]'
	@touch $@ $(VENV)/whybox.stamp

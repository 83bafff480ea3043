# Every target works on a bare machine with Python 3.11 or newer; nothing outside this folder is touched.
# make demo | extras | test | test-system | fuzz | lint | format | docs

PYTHON ?= python3
CORES ?= $(shell getconf _NPROCESSORS_ONLN)
BIN := .venv/bin
SNAKEFILES := Snakefile workflow/rules
DICTIONARIES := --dictionary - --dictionary .ci/spelling.txt
PYTEST := python -m pytest -q --dist loadfile --no-loadscope-reorder
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: demo extras test test-system fuzz lint format docs install store clean

demo: install
	snakemake --cores $(CORES) --quiet rules
	@echo
	@cat results/tables/accuracy.md
	@echo
	@echo "last epoch, clean test images, mean ± sd in percent; more in results/tables, figures in results/figures:"
	@ls results/figures/*.png

# optional packages: without them their tests are skipped
extras: $(BIN)/.extras

test: install
	$(PYTEST) -n $(CORES) -m "not system"

test-system: install
	$(PYTEST) -n $$(($(CORES) + 1)) -m system  # one more than cores: much of it is waiting

# `make test` tries 25 inputs of every reader, always the same; this tries so many new ones, about a minute on two cores
fuzz: EXAMPLES ?= 400
fuzz: install
	RELEARN_FUZZ_EXAMPLES=$(EXAMPLES) $(PYTEST) -n $(CORES) tests/fuzz

lint: $(BIN)/.lint
	ruff check .
	ruff format --check .
	snakefmt --check $(SNAKEFILES)
	mypy
	codespell $(DICTIONARIES)

format: $(BIN)/.lint
	ruff check --fix-only .
	ruff format .
	snakefmt $(SNAKEFILES)

# the pages are in site/; --strict makes a broken link an error
docs: $(BIN)/.docs
	mkdocs build --strict

install: $(BIN)/.installed

# torch before the rest: where a CPU build is preferred (pip's --extra-index-url or --find-links), torchvision must find it there
$(BIN)/.installed: envs/requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || (echo "relearn needs Python 3.11 or newer; name one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2)
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet $$(grep '^torch==' envs/requirements.txt)
	$(BIN)/pip install --quiet -r envs/requirements.txt
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(BIN)/.lint $(BIN)/.docs: $(BIN)/.%: envs/requirements-%.txt $(BIN)/.installed
	$(BIN)/pip install --quiet -r $<
	@touch $@

# no other torch: it must stay the build that is there
$(BIN)/.extras: envs/requirements-extras.txt $(BIN)/.installed
	$(BIN)/pip install --quiet --constraint envs/requirements.txt -r $<
	@touch $@

# after a change of a source that the quickstart's results depend on: makes them again, and the DVC remote in this repository
store: install
	snakemake --cores $(CORES) --quiet rules
	relearn grid --write
	rm -f dvc.lock  # stages that are no longer in dvc.yaml would stay in it
	relearn adopt --dvc
	rm -rf .dvc/store
	dvc push --quiet

clean:
	rm -rf results .snakemake site

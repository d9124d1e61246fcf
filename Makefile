# `make demo` and `make test` are all that a newcomer needs: each sets up what it uses, once.
PYTHON ?= python3
VENV ?= .venv
ATLAS ?= demo-atlas
STARS ?= 6000
INPUTS ?= 100000
FLIPS ?= 20
KILLS ?= 1000
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --no-warn-script-location
# pip's bars of progress where somebody looks
SHOWN := $(shell test -t 2 && echo --progress-bar on || echo --quiet)
READY := $(VENV)/.ready

.PHONY: demo test harden check bench docs release clean help

help:
	@echo "make demo    build $(ATLAS) from real Gaia XP stars and run the three searches (STARS=all for 40,226)"
	@echo "make test    run the tests"
	@echo "make check   ruff, mypy and import-linter on the installed package"
	@echo "make harden  run the slow and exhaustive tests, the fuzzer and the kill test (INPUTS=100000, FLIPS=20, KILLS=1000)"
	@echo "make bench   print the benchmarks' ratios"
	@echo "make docs    build the documentation in build/site, without network"
	@echo "make release build and check the wheel and the source distribution in dist/"
	@echo "make clean   remove the virtual environment and the demo's atlas"

$(READY): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "setting up $(VENV), once: 1 of 2, torch (the largest download, 200 MB to 3 GB) ..."
	@$(PIP) $(SHOWN) torch==2.13.0
	@echo "setting up $(VENV), once: 2 of 2, this package and what else it needs ..."
	@$(PIP) --quiet -e '.[cpu,demo,plots,test]'
	@touch $(READY)

demo: $(READY)
	@$(BIN)/specclip-search demo --atlas $(ATLAS) --stars $(STARS)

test: $(READY)
	@$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

check: $(READY)
	@$(BIN)/ruff check .
	@rm -rf build && $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target build/installed .
	@cd build/installed && ../../$(BIN)/mypy --config-file ../../pyproject.toml
	@cd build/installed && PYTHONPATH=. ../../$(BIN)/lint-imports --config ../../pyproject.toml --no-cache

harden: $(READY)
	@SPECCLIP_HARDEN_FLIPS=$(FLIPS) $(BIN)/python -m pytest tests/hardening
	@$(BIN)/python -m pytest --hypothesis-profile=harden -m 'slow or hypothesis'
	@$(BIN)/python tests/hardening/fuzz/run.py --inputs $(INPUTS)
	@$(BIN)/python tests/hardening/kills/run.py --kills $(KILLS)

bench: $(READY)
	@for script in tests/benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

docs: $(READY)
	@$(BIN)/python -c 'import mkdocs' 2>/dev/null || $(PIP) --quiet 'mkdocs>=1.6'
	@$(BIN)/python -P docs/make_site.py && echo "build/site/README.html"

release: $(READY)
	@$(BIN)/python -c 'import build' 2>/dev/null || $(PIP) --quiet build
	@PYTHON=$(BIN)/python .ci/release

clean:
	rm -rf $(VENV) $(ATLAS)

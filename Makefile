# Two commands: `make book` and `make test`. `make help` lists the others.
# Needed beforehand: Python 3.11 or newer, make, a C library. Everything else goes into .venv.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
# Notebooks and test workers run side by side, one per core, each with one thread: see tools/execute.py.
export OMP_NUM_THREADS := 1
export MKL_NUM_THREADS := 1
export OPENBLAS_NUM_THREADS := 1
export PYDEVD_DISABLE_FILE_VALIDATION := 1
# The kernel "python3" of .venv, even where the user has installed another one under that name.
export JUPYTER_PREFER_ENV_PATH := 1

.PHONY: help book test serve notebooks benchmarks freeze clean distclean
.DEFAULT_GOAL := help

help:  ## This list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# The stamp is as old as the last installation: a changed version range or pin installs again.
# PyTorch comes first and alone, at its exact version: with an open range pip would fetch the newest build.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, found %s: set PYTHON=..." % sys.version.split()[0])'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { echo "Python cannot make virtual environments (Debian: install python3-venv)"; exit 1; }
	@echo "Installing into .venv"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[book,test]'
	@touch $(STAMP)

book: $(STAMP)  ## Execute the notebooks and build the site into _build/html
	@$(BIN)/python tools/execute.py
	@$(BIN)/python tools/build.py

# One pytest run for everything, so that its last line is the whole result. "loadscope" keeps a notebook's cells together.
test: book  ## Build the book, then check everything
	@$(BIN)/python -m pytest -q -ra --doctest-modules --nbval --nbval-current-env --nbval-cell-timeout=300 \
	    -p no:benchmark -n $$($(BIN)/python -c 'from tools.execute import cores; print(min(8, cores()))') --dist loadscope \
	    lib tests $$($(BIN)/python tools/notebooks.py --list)

serve: book  ## Show the site on this machine, on port 8000
	@$(BIN)/python -m http.server 8000 --bind 127.0.0.1 --directory _build/html

notebooks: $(STAMP)  ## Run every notebook and store its text output (after a change in a lesson)
	@$(BIN)/python tools/notebooks.py --run

# --no-deps: the dependencies of these two bring a CUDA build of PyTorch; what they need is in the extra "bench".
benchmarks: $(STAMP)  ## Time the library beside its peers
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps curvlinops-for-pytorch linear_operator
	@mkdir -p _build
	@for threads in 1 2; do THREADS=$$threads $(BIN)/python -m pytest -q -p no:cacheprovider benchmarks \
	    --benchmark-columns=min --benchmark-json=_build/benchmarks_$$threads.json || exit 1; done
	@$(BIN)/python -m benchmarks.table _build/benchmarks_1.json _build/benchmarks_2.json

freeze:  ## Write constraints.txt anew (slow: a clean environment)
	@rm -rf _build/freeze && $(PYTHON) -m venv _build/freeze
	@_build/freeze/bin/python -m pip install --quiet -c constraints.txt torch
	@_build/freeze/bin/python -m pip install --quiet "torch==$$(sed -n 's/^torch==//p' constraints.txt)" -e '.[book,test,lessons,bench]'
	@_build/freeze/bin/python -m pip install --quiet --no-deps curvlinops-for-pytorch linear_operator setuptools wheel --upgrade
	@{ sed -n '/^#/p' constraints.txt; _build/freeze/bin/python -m pip freeze --all --exclude-editable \
	    | grep == | grep -v '^pip==' | sed 's/+cpu$$//' | LC_ALL=C sort -f; } > _build/constraints.txt
	@mv _build/constraints.txt constraints.txt

clean:  ## Remove what was built
	rm -rf _build .pytest_cache .ruff_cache

distclean: clean  ## Remove the virtual environment too
	rm -rf .venv

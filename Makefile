# Every target makes the environment it needs; nothing has to be installed by hand
# beyond Python (3.11 is what development uses; PYTHON=... picks another).
PYTHON ?= python3
VENV   ?= .venv
PY     := $(VENV)/bin/python
STAMP  := $(VENV)/.installed

# What makes a table: scripts of benchmarks/ that are neither shared code (_...) nor steps of the
# calibration of dimensions, which take arguments.
NO_TABLE := benchmarks/_% benchmarks/dimension_ablation.py benchmarks/dimension_calibration.py
TABLES   := $(patsubst benchmarks/%.py,benchmarks/results/%.md,$(filter-out $(NO_TABLE),$(wildcard benchmarks/*.py)))

# tables are timed, and share an environment
.NOTPARALLEL:

.PHONY: demo test lint doctest docs sklearn-versions papers benchmarks clean

demo: $(STAMP)            ## fit real data, sample, leave a picture in output/
	$(PY) examples/plot_gaussian_score.py --save output

test: $(STAMP)            ## the whole test suite
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2

lint: $(STAMP)            ## style and formatting
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

doctest: $(STAMP)         ## every example in every docstring and in the guides
	$(PY) -m pytest -q --doctest-modules skdiffusion
	$(PY) -m pytest -q --doctest-glob="*.md" README.md docs

docs: $(STAMP)            ## the site, gallery included, in docs/_build/html; no warning, no broken link
	$(PY) -m pip install -q -c constraints.txt -e ".[docs]"
	OMP_NUM_THREADS=1 MPLBACKEND=Agg $(PY) -m sphinx -q -E -W --keep-going -b html docs docs/_build/html
	$(PY) docs/_links.py docs/_build/html

sklearn-versions:         ## the contract on the oldest and the newest scikit-learn
	$(MAKE) _sklearn VENV=.venv-sklearn-1.6 SKLEARN="scikit-learn==1.6.*"
	$(MAKE) _sklearn VENV=.venv-sklearn-new SKLEARN="scikit-learn"

.PHONY: _sklearn
# scikit-learn 1.6 loads its checks beside array-api-compat only with SCIPY_ARRAY_API set
_sklearn: $(STAMP)
	$(PY) -m pip install -q --upgrade "$(SKLEARN)"
	$(PY) -c "import sklearn; print('scikit-learn', sklearn.__version__)"
	SCIPY_ARRAY_API=1 $(PY) -m pytest -q -n 2 tests/estimators tests/test_estimator_checks.py

# Data that is not in scikit-learn: SKDIFFUSION_DATA=folder. Tables that need it say so and stop, and
# `make -k benchmarks` goes on with the others. All of them take hours.
papers:                   ## the claims of the papers: benchmarks/results/papers.md
	$(MAKE) _papers VENV=.venv-benchmarks EXTRAS=plot,benchmarks

benchmarks: $(TABLES)     ## every table; one alone: make benchmarks/results/NAME.md

benchmarks/results/%.md: FORCE
	$(MAKE) _table VENV=.venv-benchmarks EXTRAS=plot,benchmarks TABLE=$*

.PHONY: _papers _table FORCE
_papers: $(STAMP)
	OMP_NUM_THREADS=1 $(PY) benchmarks/papers/all.py

_table: $(STAMP)
	OMP_NUM_THREADS=1 $(PY) benchmarks/$(TABLE).py

# torch first and pinned: an unpinned one may fetch gigabytes of GPU libraries.
EXTRAS ?= dev
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install -q -c constraints.txt torch
	$(PY) -m pip install -q -c constraints.txt -e ".[$(EXTRAS)]"
	touch $@

clean:
	rm -rf .venv .venv-* output .pytest_cache .ruff_cache docs/_build docs/api docs/gallery docs/results

# Two commands do everything on a fresh machine:  make lab   and   make test   (make quick: a minute of it)
PYTHON ?= python3
VENV   ?= .venv
ifeq ($(OS),Windows_NT)
PY := $(VENV)/Scripts/python
else
PY := $(VENV)/bin/python
endif
READY := $(VENV)/.ready
UV := $(shell uv --version 2>/dev/null)# make UV= setup: by pip though uv is there
INSTALL := $(if $(UV),uv pip install --python $(PY),$(PY) -m pip install --disable-pip-version-check) --quiet
WORKERS ?= 2
TESTS := -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
CORE := $(addprefix tests/test_,attacks.py judging.py losses.py nets.py steps.py views.py)

.PHONY: lab test quick coverage style core setup extra graders lint format demo studies reproduce screenshots site slides docs clean
lab: $(READY)          ## set up what is missing and open the first notebook
	$(PY) -m explore lab

test: $(READY) style   ## every ring: style, library, notebooks, real browser; WORKERS=2 files at a time
	$(PY) $(TESTS)

quick: $(READY)        ## a minute: style, types, the library's core
	@$(MAKE) --no-print-directory -j2 style core

coverage: $(READY)     ## every ring, with the share of explore/ that the tests' own processes run; under 90 % fails
	$(PY) $(TESTS) --cov=explore --cov-report=term-missing:skip-covered

style: $(READY)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

core: $(READY)
	OMP_NUM_THREADS=1 $(PY) -m pytest -q $(CORE)

setup: $(READY)        ## make .venv and install, by uv where it is there

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v=sys.version_info[:2]; ok=v>=(3,11); ok or print("Python 3.11 or newer is needed, $(PYTHON) is %d.%d: run  make PYTHON=python3.12 $(MAKECMDGOALS)" % v); sys.exit(not ok)'
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(INSTALL) -c constraints.txt -e '.[all,test]'
	@touch $(READY)

extra: $(READY)        ## an extra besides, EXTRA=cluster, lars or onnx
	$(INSTALL) -c constraints.txt -e '.[$(EXTRA)]'

GRADERS := .venv-graders
GRADING ?= nbgrader otter-grader
graders: $(GRADERS)/.ready ## nbgrader and otter-grader on every lesson's copies, solved, spoiled and blank (a quarter of an hour)
	GRADERS_ALL=1 $(PY) -m pytest -q -s tests/test_graders.py

$(GRADERS)/.ready: constraints.txt $(READY) # sees the packages of $(VENV), and has the graders' own pins beside them
	$(PY) -m venv $(GRADERS)
	$(PY) -c "import sysconfig; print('import site; site.addsitedir(%r)' % sysconfig.get_path('purelib'))" > graders.pth
	mv graders.pth "$$($(GRADERS)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")"
	$(GRADERS)/bin/python -m pip install --disable-pip-version-check --quiet -c constraints.txt $(GRADING)
	@touch $@

lint format: $(READY)
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

demo: $(READY)         ## train the three shipped runs again (CPU; the times are in docs/benchmarks.md)
	$(PY) data/make_demo.py

studies: $(READY)      ## train the shipped studies again (CPU, one to two hours on two cores; goes on where it was stopped)
	$(PY) data/make_studies.py

TIER ?= cpu
reproduce: $(READY)    ## the claims on CIFAR-10 again, TIER=cpu (hours on two cores) or TIER=gpu; ARGS='--data-dir ~/data --root ~/data'
	$(PY) data/make_reproduction.py --tier $(TIER) $(ARGS)

screenshots: $(READY)  ## the README's pictures, from the browser ring
	CLAE_SCREENSHOTS=docs $(PY) -m pytest -m browser

SITE ?= build/site
site: $(READY)         ## the lessons as a static site, SITE=folder: run, with panels that work in the browser (minutes)
	$(INSTALL) -c constraints.txt -e '.[site]'
	$(PY) -m explore site $(SITE)

SLIDES ?= build/slides
slides: $(READY)       ## a lecture of 45 minutes as slides that work offline, SLIDES=folder: the lessons are run (minutes)
	$(INSTALL) -c constraints.txt -e '.[site]'
	$(PY) -m explore slides $(SLIDES)

docs: $(READY)         ## the page of all names, from the docstrings: build/api/index.html
	$(INSTALL) -c constraints.txt -e '.[docs]'
	$(PY) -m pdoc --output-directory build/api explore '!explore.panels.widgets'

clean:
	rm -rf $(VENV) .venv-newest $(GRADERS) .pytest_cache .mypy_cache .ruff_cache

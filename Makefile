# budgetlab: `make demo` shows a result, `make test` runs the tests, `make lab` opens the course.
# Set PYTHON to use another interpreter, VENV to install elsewhere.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SHELL := /bin/bash

.PHONY: help gallery demo test soak coverage mutants fuzz lowest newest lab app lint bench notebooks course docs clean
.DEFAULT_GOAL := help

help:
	@echo "make demo       train, compare and write a page with figures (two minutes at most)"
	@echo "make test       run all tests"
	@echo "make lab        open JupyterLab at the first notebook"
	@echo "make app        open the training bench and the playground as pages for a lecture room"
	@echo "make notebooks  run every notebook and keep its outputs"
	@echo "make course     write build/course: students' copy without solutions, instructors' with"
	@echo "make docs       write build/docs/index.html: the course and the reference as a site"
	@echo "make gallery    write demo/gallery.html, every plot with its call, from the demo's records"
	@echo "make bench      measure what the speed claims rest on"
	@echo "make lint       check style and types"
	@echo "make coverage   run all tests and say which lines and branches no test reaches"
	@echo "make mutants    change the package line by line, in a copy, and say what no test notices"
	@echo "make fuzz       feed damaged input to all that reads files; FUZZ_EXAMPLES=20000 for longer"
	@echo "make soak       kill and resume every method with every augmentation; takes long"
	@echo "make lowest     run the tests on the oldest packages that pyproject.toml allows"
	@echo "make newest     run the tests on PYTHON=python3.13 and the newest packages"
	@echo "make clean      remove $(VENV) and what demo and tests wrote"

# What each command needs and no more: the package alone, with its pages, or with all that tests use.
# pip says hundreds of lines: they go into a file, and its end is shown where something fails.
LOG := build/install.log
EXTRA_app := [app]
EXTRA_test := [test]
# TORCH_INDEX: an index that offers the processor-only build of PyTorch (README, Installation).
TORCH_INDEX ?=
PIP = $(BIN)/python -m pip install --disable-pip-version-check

$(VENV)/.python: pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; v >= (3, 11) or sys.exit("budgetlab needs Python 3.11 or newer, and $(PYTHON) is %d.%d: choose another, such as make demo PYTHON=python3.12" % v)'
	@echo "A virtual environment in $(VENV)."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed $(VENV)/.installed-app $(VENV)/.installed-test: $(VENV)/.installed%: $(VENV)/.python
	@mkdir -p build && : > $(LOG)
	@if [ -n "$(TORCH_INDEX)" ]; then \
		echo "PyTorch from the index you gave, about 1 GB (what pip says goes into $(LOG))."; \
		$(PIP) torch torchvision --index-url "$(TORCH_INDEX)" >> $(LOG) 2>&1 || { tail -20 $(LOG); exit 1; }; \
	fi
	@torch="with PyTorch for GPUs, about 6 GB: some minutes on a fast line"; \
	$(BIN)/python -c 'import importlib.util as i; assert i.find_spec("torch")' 2> /dev/null && torch="PyTorch is there"; \
	echo "budgetlab and what it needs ($$torch; what pip says goes into $(LOG))."
	@$(PIP) $(CONSTRAINT) -e '.$(EXTRA$(subst -,_,$*))' >> $(LOG) 2>&1 || { tail -20 $(LOG); exit 1; }
	@touch $@
	@echo "Installed."

demo: $(VENV)/.installed
	@$(BIN)/budgetlab demo

gallery: demo
	@$(BIN)/python docs/gallery.py demo/runs --out demo/gallery.html

# Two at a time; then, with nothing else beside them, those in a browser.
WORKERS ?= 2

test: $(VENV)/.installed-test
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --ignore=tests/browser
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile tests/browser

# What is checked beyond that, and what was found: docs/quality.md.
FUZZ_EXAMPLES ?= 1000

soak: $(VENV)/.installed-test
	@BUDGETLAB_SOAK=1 $(BIN)/python -m pytest tests/test_lock.py tests/test_sweep.py

coverage: $(VENV)/.installed-test
	@$(BIN)/python -m pytest --cov --cov-report=term:skip-covered --cov-report=html:build/coverage

# In a copy: the changes must never be seen by anybody else.
# All take hours. A part: make mutants MUTANTS="'budgetlab.budget.*'".
mutants: $(VENV)/.installed-test
	@rm -rf build/mutants && mkdir -p build/mutants && cp -r budgetlab tests pyproject.toml README.md build/mutants
	@$(BIN)/python -c 'import mutmut' 2> /dev/null || $(BIN)/python -m pip install -q mutmut==3.8.1
	@cd build/mutants && OMP_NUM_THREADS=1 $(abspath $(BIN))/mutmut run --max-children $(WORKERS) $(MUTANTS)
	@cd build/mutants && $(abspath $(BIN))/mutmut results | grep survived || true

fuzz: $(VENV)/.installed-test
	@BUDGETLAB_FUZZ=$(FUZZ_EXAMPLES) $(BIN)/python -m pytest -q --timeout 0 tests/test_fuzz.py

lowest: $(VENV)/.installed-test
	@mkdir -p build && $(BIN)/python tests/lowest.py > build/lowest.txt
	@$(MAKE) --no-print-directory test VENV=.venv-lowest CONSTRAINT='-c build/lowest.txt'

newest:
	@$(MAKE) --no-print-directory test VENV=.venv-newest

# For this machine only, and with a token; both can be set: make app IP=0.0.0.0 PORT=8080.
# A variable of the environment that happens to be called IP must not open them to the network.
# The lab asks nobody for news or newer versions, nor whether it may, and shows no buttons of
# nbgrader: notebooks/lab/labconfig switches them off.
IP = 127.0.0.1
PORT ?= 8866

lab: $(VENV)/.installed
	@JUPYTER_CONFIG_PATH=notebooks/lab $(BIN)/python -m jupyterlab notebooks/00_what_a_budget_buys.ipynb --ip=$(IP) --LabApp.news_url=None --LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate --LabApp.extension_manager=readonly

# Where Notebook 7 is installed, its part for JupyterLab does not fit into Voila's pages.
app: $(VENV)/.installed-app
	@JUPYTER_PATH=notebooks $(BIN)/python -m voila notebooks/app --template=offline --classic-tree \
		--VoilaConfiguration.extension_denylist=@jupyter-notebook/lab-extension \
		--VoilaConfiguration.extension_denylist=@jupyter/nbgrader \
		--Voila.ip=$(IP) --port=$(PORT) --Voila.auto_token=True

lint: $(VENV)/.installed-test
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

bench: $(VENV)/.installed-test
	@$(BIN)/python -m benchmarks.speed
	@$(BIN)/python benchmarks/reading.py

notebooks: $(VENV)/.installed-test
	@$(BIN)/python notebooks/build.py

course: $(VENV)/.installed-test
	@$(BIN)/python notebooks/course.py

docs: $(VENV)/.installed-test
	@$(BIN)/python docs/book.py

clean:
	rm -rf $(VENV) .venv-lowest .venv-newest build demo .coverage .pytest_cache .ruff_cache .mypy_cache .hypothesis

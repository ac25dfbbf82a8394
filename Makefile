# Each command sets up what it needs: a virtual environment of the project's own in .venv, and a kernel in it.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready-$(shell cksum pyproject.toml | cut -d ' ' -f 1)

PROFILE ?= demo
ONLY ?=
LAB_OPTIONS ?=

.PHONY: help setup figures test test-gpu lab notebooks docs lint bench clean

help:
	@echo "make setup     the environment alone"
	@echo "make figures   all tables and figures into figures/$(PROFILE)/   (ONLY=name for one, PROFILE=smoke|demo)"
	@echo "make test      unit tests, every notebook, the batch"
	@echo "make test-gpu  what only a GPU shows, in ten minutes; it leaves gpu_report.json"
	@echo "make lab       the notebooks in JupyterLab   (LAB_OPTIONS=--allow-root for root in a container)"
	@echo "make notebooks run the notebooks in place, to commit them with their outputs"
	@echo "make lint      style, types, import contracts, lines of code"
	@echo "make bench     speed, as ratios"
	@echo "make docs      the site, into site/"

setup: $(READY)

figures: $(READY)
	$(BIN)/wsolkit reproduce $(ONLY) --profile $(PROFILE)
	@$(BIN)/wsolkit compare --profile $(PROFILE) --brief

test: $(READY)
	$(BIN)/python tests/run_all.py

test-gpu: $(READY)
	$(BIN)/python -m pytest tests/gpu -q -s -rs

lab: $(READY)
	JUPYTER_PREFER_ENV_PATH=1 $(BIN)/jupyter lab --notebook-dir=notebooks --MultiKernelManager.default_kernel_name=wsolkit $(LAB_OPTIONS)

notebooks: $(READY)
	WSOLKIT_PROFILE=demo $(BIN)/jupyter nbconvert --to notebook --execute --inplace \
		--ExecutePreprocessor.record_timing=False --ExecutePreprocessor.timeout=7200 \
		--NotebookExporter.preprocessors=wsolkit.reproduce.pages.still_widgets notebooks/*.ipynb
	$(BIN)/python tests/result_tables.py

lint: $(READY)
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports --no-cache
	$(BIN)/python tests/count_lines.py

bench: $(READY)
	$(BIN)/python tests/benchmarks/box_meter.py
	$(BIN)/python tests/benchmarks/training_step.py
	$(BIN)/python tests/benchmarks/cost.py

docs: $(READY)
	$(BIN)/python -m sphinx -q -W docs site
	@echo "site/index.html"

clean:
	rm -rf $(VENV)

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "wsolkit needs Python 3.11 or newer; this is %s. Try: make PYTHON=python3.12 ..." % sys.version.split()[0])'
	@echo "Setting up $(VENV), once: PyTorch and Jupyter are large, this takes a few minutes ..."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --editable '.[notebooks,dev]'
	@$(BIN)/python -m compileall -q -j 0 $(VENV)/lib >/dev/null 2>&1 || true  # on all cores; pip would take one
	$(BIN)/python -m ipykernel install --sys-prefix --name wsolkit --display-name wsolkit >/dev/null
	@$(BIN)/jupyter labextension disable --level=sys_prefix "@jupyterlab/apputils-extension:announcements" >/dev/null 2>&1  # no question about news on the first start
	@rm -f $(VENV)/.ready-*
	@touch $@

# The commands of masbook; `make help` lists them. Words after ARGS= are handed to the tool: make test ARGS="-k bus".

PYTHON := .venv/bin/python
ARGS ?=

# `venv` where .venv has no interpreter, or one that an upgrade of the system took away.
NO_PYTHON := $(shell test -x $(PYTHON) || echo venv)

# The first interpreter that runs and is new enough. The pinned set is tested on 3.11, so that comes first.
FIND_PYTHON = for it in python3.11 python3 python3.12 python3.13 python3.14; do \
	"$$it" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null && { command -v "$$it"; break; }; done

# The kernel `python3` is the one of .venv, whatever other kernels the machine has.
export JUPYTER_PREFER_ENV_PATH := 1
unexport JUPYTER_PATH

.DEFAULT_GOAL := help
.PHONY: help install lab test lint format notebooks bench

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: .venv/installed ## Make .venv with the pinned packages (uv if it is there, else pip)

lab: install ## Open chapter 00 in JupyterLab; without a display, print its address
	@case "$$(uname)$$DISPLAY$$WAYLAND_DISPLAY" in Linux) browser=--no-browser ;; *) browser= ;; esac; \
	exec $(PYTHON) -m jupyterlab --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb --ServerApp.root_dir="$(CURDIR)" \
		--ip=127.0.0.1 --allow-root $$browser $(ARGS)

test: lint ## Check everything: style, types, every module, every notebook, the browser where Chromium is installed
	@$(PYTHON) -m pytest -n logical --maxprocesses 8 --dist loadfile $(ARGS)

lint: install ## Check style and types
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m mypy

format: install ## Mend style where that can be done for you
	@$(PYTHON) -m ruff check --fix .
	@$(PYTHON) -m ruff format .

notebooks: install ## Run every notebook again, in place
	@PYTHONPATH="$(CURDIR)/tests/offline" $(PYTHON) tests/notebooks/execute.py $(ARGS)

bench: install ## Measure against bare queues, SimPy and a heap
	@PYTHONPATH="$(CURDIR)/tests/offline" $(PYTHON) tests/bench/run.py $(ARGS)

.PHONY: venv
venv:
	@rm -rf .venv
	@python=$$($(FIND_PYTHON)); \
	if command -v uv > /dev/null; then uv venv --quiet --python "$${python:->=3.11}" .venv; \
	elif [ -n "$$python" ]; then "$$python" -m venv .venv || { rm -rf .venv; exit 1; }; \
	else echo 'masbook needs Python 3.11 or newer, or uv, on the PATH.' >&2; exit 1; fi

.venv/installed: pyproject.toml constraints.txt $(NO_PYTHON)
	@echo 'Installing masbook and its tools into .venv; with pip this takes a minute or two.'
	@if command -v uv > /dev/null; then uv pip install --quiet --python $(PYTHON) -c constraints.txt -e '.[dev]'; \
	else { $(PYTHON) -m pip --version > /dev/null 2>&1 || $(PYTHON) -m ensurepip > /dev/null; } && \
		$(PYTHON) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'; fi
	@$(PYTHON) -m jupyter labextension disable --level=sys_prefix @jupyterlab/apputils-extension:announcements > /dev/null 2>&1
	@touch $@

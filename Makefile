# Each target sets up what it needs: a virtual environment in .venv, installed from pyproject.toml.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.DEFAULT_GOAL := help
.PHONY: help install demo monitor pretrain pretrain-digits test chaos lint audit clean

help:  ## show these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo '$(RUN) -m deploy   lists the commands, once one of these has installed what they need'

install: $(VENV)/installed  ## set up .venv and nothing else

demo: $(VENV)/installed  ## post-train a small LlamaGen on emoji
	$(RUN) -m deploy train deploy/recipes/emoji.yaml

monitor: $(VENV)/installed  ## show a running job in Prometheus
	$(RUN) -m deploy monitor

# With a second classifier, which judges where the first one scores.
pretrain: $(VENV)/installed  ## train the demo's models from scratch
	$(RUN) -m deploy pretrain deploy/recipes/emoji.yaml --overwrite
	rm -f deploy/recipes/emoji/judge.safetensors
	$(RUN) -m deploy pretrain deploy/recipes/emoji.yaml evaluation.classifier=deploy/recipes/emoji/judge.safetensors seed=1

# The models of the digits, then a second classifier, and the smaller generator over the same tokenizer.
pretrain-digits: $(VENV)/installed  ## train those of mnist.yaml and studies.yaml
	$(RUN) -m deploy pretrain deploy/recipes/mnist.yaml --overwrite compute.num_threads=2
	rm -f deploy/recipes/mnist/judge.safetensors deploy/recipes/mnist/policy_small.safetensors
	$(RUN) -m deploy pretrain deploy/recipes/mnist.yaml evaluation.classifier=deploy/recipes/mnist/judge.safetensors seed=1
	$(RUN) -m deploy pretrain deploy/recipes/studies.yaml

# What starts a Ray cluster comes by itself: its processes want the cores.
test: $(VENV)/installed  ## the test suite, some twelve minutes on two cores
	$(RUN) -m pytest -m "not ray and not chaos" -n auto --maxprocesses=4 --dist loadfile
	$(RUN) -m pytest -m "ray and not chaos" --durations=10

chaos: $(VENV)/installed  ## processes killed at random, longer runs
	$(RUN) -m pytest -m chaos

lint: $(VENV)/installed  ## ruff, formatting, types
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

# A report of the installed packages' known vulnerabilities; it fails nothing.
audit: $(VENV)/installed  ## known vulnerabilities of the installed packages
	$(RUN) .ci/audit.py

clean:  ## remove .venv and runs
	rm -rf $(VENV) runs

$(VENV)/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(f"$(PYTHON) is Python {v[0]}.{v[1]}, and 3.11 or later \
	is needed: make $(MAKECMDGOALS) PYTHON=python3.12" if v < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade pip
	$(RUN) -m pip install --quiet '.[demo,dev]'
	touch $@

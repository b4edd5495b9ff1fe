# Each target sets up what it needs: a virtual environment in .venv, installed from pyproject.toml.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: demo monitor pretrain test chaos lint audit clean

demo: $(VENV)/installed
	$(RUN) -m deploy train deploy/recipes/demo.yaml

monitor: $(VENV)/installed
	$(RUN) -m deploy monitor

# The models of the demo, then the studies' generator over the same tokenizer.
pretrain: $(VENV)/installed
	$(RUN) -m deploy pretrain deploy/recipes/demo.yaml --overwrite compute.num_threads=2
	rm -f deploy/recipes/demo/policy_small.safetensors
	$(RUN) -m deploy pretrain deploy/recipes/studies.yaml

# What starts a Ray cluster comes by itself: its processes want the cores.
test: $(VENV)/installed
	$(RUN) -m pytest -m "not ray and not chaos" -n auto --maxprocesses=4 --dist loadfile
	$(RUN) -m pytest -m "ray and not chaos" --durations=10

chaos: $(VENV)/installed
	$(RUN) -m pytest -m chaos

lint: $(VENV)/installed
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

# A report of the installed packages' known vulnerabilities; it fails nothing.
audit: $(VENV)/installed
	$(RUN) .ci/audit.py

clean:
	rm -rf $(VENV) runs

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade pip
	$(RUN) -m pip install --quiet '.[demo,dev]'
	touch $@

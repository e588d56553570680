PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
# TORCH=cpu installs torch without the CUDA libraries, which are about 2 GB.
TORCH ?=

.PHONY: demo test quick lint clean

demo: $(VENV)/run
	$(RUN) run_pipeline.py --video datasets/samples/demo.mp4 --annotations datasets/samples/demo.json \
		--weights tridos-nano-drone-ir-fine --output runs/demo --overwrite

test: $(VENV)/installed lint
	$(RUN) -m pytest

# The tests that need no process, no training and no real video: less than a minute.
quick: $(VENV)/installed
	$(RUN) -m pytest -m "not slow"

lint: $(VENV)/installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy -p pipeline -p datasets -p detectors -p trackers -p mote -m run_pipeline

# Installs once, and again whenever the pinned versions change: what a run needs, then what the checks need.
$(VENV)/run: requirements-run.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or newer is needed: make PYTHON=python3.11')"
	$(PYTHON) -m venv $(VENV)
	$(if $(TORCH),$(RUN) -m pip install --quiet --disable-pip-version-check uv)
	$(if $(TORCH),$(VENV)/bin/uv pip install --python $(RUN) --torch-backend=$(TORCH) torch==$(shell sed -n 's/^torch==//p' requirements-run.txt))
	$(RUN) -m pip install --quiet --disable-pip-version-check --requirement requirements-run.txt
	touch $@

$(VENV)/installed: $(VENV)/run requirements.txt requirements-dev.txt
	$(RUN) -m pip install --quiet --disable-pip-version-check --requirement requirements-dev.txt
	touch $@

clean:
	rm -rf $(VENV) runs

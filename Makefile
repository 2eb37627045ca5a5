# make run    set up, then two passes of the loop: no key and no GPU needed
# make test   set up, then the tests
# make setup  set up alone, into .venv
# make lint   ruff and mypy
# make torture  the tests that take long, at full size (a day on two cores, hours on sixteen); CORPUS=FOLDER adds attacks of your own

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.set-up

.PHONY: run test setup lint torture

run: setup
	$(BIN)/agent run --iterations 2

test: setup
	$(BIN)/python -m pytest -n auto

lint: setup
	$(BIN)/ruff check .
	$(BIN)/mypy

torture: setup
	AGENT_TORTURE=300 $(BIN)/python -m pytest tests
	for folder in tests/attacks $(CORPUS); do $(BIN)/python tests/torture/attacks.py $$folder --repeat 20 || exit 1; done

setup: $(STAMP)

# A Python that has torch with CUDA lends it to the environment; elsewhere a pinned torch is installed.
$(STAMP): pyproject.toml constraints.txt
	@if $(PYTHON) -c 'import torch, sys; sys.exit(torch.version.cuda is None)' 2>/dev/null; then \
		echo "using the torch with CUDA that $(PYTHON) has" && \
		$(PYTHON) -m venv --system-site-packages $(VENV) && \
		$(BIN)/python -m pip install --quiet -e '.[dev]'; \
	else \
		$(PYTHON) -m venv $(VENV) && \
		$(BIN)/python -m pip install --quiet uv && \
		UV_FIND_LINKS="$${UV_FIND_LINKS:-$$PIP_FIND_LINKS}" UV_PYTHON_DOWNLOADS=never \
			$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt -e '.[dev]'; \
	fi
	@touch $@

# On a fresh machine each of these does all the set-up it needs: make demo, make test, make test-slow, make check.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
TORCH  ?= 2.13.0

.PHONY: setup demo test test-slow check format clean

setup: $(VENV)/.installed

# torch first and alone: with torch present no later requirement makes pip fetch a CUDA build.
$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "torch==$(TORCH)"
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@

demo: setup
	PATH="$(abspath $(BIN)):$$PATH" bash examples/demo.sh

test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

# Every kill, fuzz input and full-size tensor; `make test` has a sample of each.
test-slow: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile -m slow

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf out build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

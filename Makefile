# On a fresh machine each of these does all the set-up it needs: make demo, make test, make test-slow, make check.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
TORCH  ?= 2.13.0
# Which build of torch: with CUDA (1) where there is an NVIDIA driver, else for the CPU alone (0).
CUDA   ?= $(shell test -e /proc/driver/nvidia/version || nvidia-smi -L >/dev/null 2>&1 && echo 1 || echo 0)
CPU_INDEX ?= https://download.pytorch.org/whl/cpu

.PHONY: setup demo test test-slow check docs format tiny clean

setup: $(VENV)/.installed

# A build for the CPU has a name of its own, except for macOS, where there is no other.
ifeq ($(CUDA)$(shell uname -s),0Linux)
TORCH_WHAT = torch $(TORCH) for the CPU, about 200 MB (make CUDA=1: the build for NVIDIA GPUs)
TORCH_ARGS = --no-deps "torch==$(TORCH)+cpu" --extra-index-url $(CPU_INDEX) --retries 2 --timeout 20
TORCH_ELSE = || { echo "If it is the CPU build that cannot be had: make CUDA=1 takes the 2.7 GB of PyPI."; exit 1; }
else
TORCH_WHAT = torch $(TORCH) as PyPI has it, about 2.7 GB on Linux (make CUDA=0: for the CPU, 200 MB)
TORCH_ARGS = "torch==$(TORCH)"
endif
# Progress for people, not for logs.
PIP = quiet=; test -t 1 || quiet=--quiet; $(BIN)/python -m pip install $$quiet

# torch first and alone: with torch present no later requirement makes pip fetch a CUDA build.
$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Fetching $(TORCH_WHAT)"
	$(PIP) $(TORCH_ARGS) $(TORCH_ELSE)
	@echo "Fetching longvie's other packages, about 230 MB, and triton for the tests, 200 MB"
	$(PIP) -c constraints.txt -e ".[dev]"
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
	$(REFERENCE) $(VENV)/commands.md
	diff -u docs/commands.md $(VENV)/commands.md || { echo "docs/commands.md is old: make docs"; exit 1; }

# The reference of all commands, written from the commands themselves.
REFERENCE = $(BIN)/typer longvie_cli.cli.app utils docs --name longvie --title Commands --output
docs: setup
	$(REFERENCE) docs/commands.md

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The embedded model from nothing: about three hours of two cores. Stopped, it goes on where it was.
WORK ?= out/tiny-training
tiny: setup
	$(BIN)/python -m longvie_cli.training.tiny $(WORK) --out $(WORK)/tiny
	@echo "The preset is in $(WORK)/tiny: longvie generate --weights $(WORK)/tiny ..., or copy it over src/longvie_cli/assets/tiny"

clean:
	rm -rf out build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

# `make demo` and `make test` need nothing but Python >= 3.11 and make: each makes the environment it runs in.
PYTHON ?= python3
GPU := $(shell command -v nvidia-smi >/dev/null 2>&1 && echo yes)
RUNTIME := $(if $(GPU),gpu,cpu)
CONSTRAINTS := $(if $(GPU),,-c constraints/cpu.txt)
PIP := -m pip --disable-pip-version-check install --quiet
VENV := .venv/bin
OLD := .venv-transformers-5.19/bin

.PHONY: demo test test-long check lint types readme clean

demo: .venv/.ready
	$(VENV)/speckv demo

test: check .venv-transformers-5.19/.ready
	$(VENV)/python -m pytest -m "not long"
	$(OLD)/python -m pytest -m "not long and not smollm2" tests/test_transformers_exact.py tests/test_transformers_hook.py

# Minutes of model time, results stored in benchmarks/results/.
test-long: .venv/.ready
	$(VENV)/python -m pytest -m long

check: lint types

lint: .venv/.ready
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .

types: .venv/.ready
	$(VENV)/mypy

# mypy reads an editable install only in strict mode, which links each file: reinstall when the set of files changes.
SOURCES := $(shell find controller export integrations benchmarks -name '*.py' | LC_ALL=C sort)
FILES := $(shell echo $(SOURCES) | cksum | tr -d ' ')

.venv/.ready: pyproject.toml constraints/cpu.txt .venv/.files-$(FILES)
	touch $@

.venv/.files-$(FILES): pyproject.toml
	test -x $(VENV)/python || $(PYTHON) -m venv .venv
	$(VENV)/python $(PIP) --upgrade setuptools wheel
	$(VENV)/python $(PIP) $(CONSTRAINTS) -e ".[$(RUNTIME),transformers,bench,dev]" --config-settings editable_mode=strict
	rm -f .venv/.files-*
	touch $@

.venv-transformers-5.19/.ready: pyproject.toml constraints/transformers-5.19.txt
	test -x $(OLD)/python || $(PYTHON) -m venv .venv-transformers-5.19
	$(OLD)/python $(PIP) --upgrade setuptools wheel
	$(OLD)/python $(PIP) -c constraints/transformers-5.19.txt -e ".[cpu,transformers]" pytest hypothesis pyarrow
	touch $@

# README's tables, from the stored results.
readme: .venv/.ready
	$(VENV)/python -m speckv.benchmarks.readme

clean:
	rm -rf .venv .venv-transformers-5.19 build *.egg-info .pytest_cache .mypy_cache .ruff_cache

# `make demo` and `make test` need nothing but Python >= 3.11 and make: each makes the environment it runs in.
PYTHON ?= python3
GPU := $(shell command -v nvidia-smi >/dev/null 2>&1 && echo yes)
RUNTIME := $(if $(GPU),gpu,cpu)
CONSTRAINTS := $(if $(GPU),,-c constraints/cpu.txt)
PIP := -m pip --disable-pip-version-check install --quiet
VENV := .venv/bin
SGLANG := .venv-sglang/bin
# Other versions of transformers than .venv's, in environments of their own: one per constraints/transformers-VERSION.txt.
OTHERS := $(patsubst constraints/transformers-%.txt,%,$(wildcard constraints/transformers-*.txt))

.PHONY: demo bench test test-quick test-main test-install $(OTHERS:%=test-transformers-%) $(OTHERS:%=test-long-transformers-%) test-long test-sglang soak check lint types readme clean

demo: .venv/.ready
	$(VENV)/speckv demo

# A small benchmark in both frameworks, its report and what it recommends; some minutes, and the models' download.
bench: .venv/.ready .venv-sglang/.ready
	$(VENV)/speckv bench out/bench.json --quick
	$(VENV)/speckv report out/bench.json -o out/report
	$(VENV)/speckv recommend out/bench.json

# SGLang's environment first: one test of the main ones compares both frameworks.
test: check .venv-sglang/.ready test-main $(OTHERS:%=test-transformers-%) test-sglang

# Two at a time on two cores; README's install lines are among them.
TESTS := -m pytest -n 2 --dist worksteal
test-main: .venv/.ready
	$(VENV)/python $(TESTS) -m "not long"

# The inner loop, without a model: tests/helpers/quick.py says what is left out.
test-quick: .venv/.ready
	$(VENV)/python $(TESTS) --quick -m "not long" tests

# README's install lines in fresh environments, with what pip resolves today: five minutes, and 6 GB meanwhile.
test-install: .venv/.ready
	$(VENV)/python -m pytest -m install

# What depends on the version: where the hook hangs, and what it hands over. The rest of the loop's tests, and attention
# other than sdpa, in test-long.
HOOK_TESTS := $(patsubst %,tests/integrations/transformers/test_%.py,hook exact faults tree batch direct)
$(OTHERS:%=test-transformers-%): test-transformers-%: .venv-transformers-%/.ready
	.venv-transformers-$*/bin/python $(TESTS) -m "not long and not smollm2" -k "not eager" $(HOOK_TESTS)

$(OTHERS:%=test-long-transformers-%): test-long-transformers-%: .venv-transformers-%/.ready
	.venv-transformers-$*/bin/python -m pytest -m "not smollm2" tests/integrations/transformers

# SGLang's tests alone. Elsewhere those that need it are skipped.
SGLANG_TESTS := tests/integrations/sglang
test-sglang: .venv-sglang/.ready
	$(SGLANG)/python -m pytest -n 2 --dist loadfile -m "not long" $(SGLANG_TESTS)

# A quarter of an hour of mixed load with aborts on real servers; stores benchmarks/results/soak-sglang.json.
soak: .venv-sglang/.ready
	PYTHONPATH=tests/helpers $(SGLANG)/python tests/integrations/sglang/soak.py --json benchmarks/results/soak-sglang.json

# Minutes of model time, results stored in benchmarks/results/.
test-long: .venv/.ready .venv-sglang/.ready $(OTHERS:%=test-long-transformers-%)
	OMP_NUM_THREADS=2 $(VENV)/python -m pytest -m long
	OMP_NUM_THREADS=2 $(SGLANG)/python -m pytest -m long $(SGLANG_TESTS)

check: lint types

lint: .venv/.ready
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .

types: .venv/.ready
	$(VENV)/mypy

# mypy reads an editable install only in strict mode, which links each file: reinstall when the set of files changes.
SOURCES := $(shell find controller export integrations benchmarks -name '*.py' | LC_ALL=C sort)
FILES := $(shell echo $(SOURCES) | cksum | tr -d ' ')

.venv/.ready: .venv/.files-$(FILES)
	touch $@

.venv/.files-$(FILES): pyproject.toml constraints/cpu.txt constraints/numbers.txt
	test -x $(VENV)/python || $(PYTHON) -m venv .venv
	$(VENV)/python $(PIP) --upgrade setuptools wheel
	$(VENV)/python $(PIP) $(CONSTRAINTS) -e ".[$(RUNTIME),transformers,bench,dev]" --config-settings editable_mode=strict
	rm -f .venv/.files-*
	touch $@

.venv-transformers-%/.ready: pyproject.toml constraints/transformers-%.txt constraints/numbers.txt
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python $(PIP) --upgrade setuptools wheel
	$(@D)/bin/python $(PIP) -c constraints/transformers-$*.txt -e ".[cpu,transformers]" pytest pytest-xdist hypothesis scipy peft optimum-quanto
	touch $@

# SGLang pins CUDA packages; without a GPU what it needs of them is stood in for, so pip must not resolve its
# dependencies. A stale speckv.egg-info beside the sources would hide the plugin's entry point from a server.
SGLANG_LISTS := constraints/sglang-cpu.txt constraints/sglang-cpu-requirements.txt
SGLANG_FILES := $(FILES)-$(shell cat tests/sglang_cpu/pyproject.toml $$(find tests/sglang_cpu -name '*.py' | LC_ALL=C sort) | cksum | tr -d ' ')

.venv-sglang/.ready: pyproject.toml $(SGLANG_LISTS) .venv-sglang/.files-$(SGLANG_FILES)
	touch $@

.venv-sglang/.files-$(SGLANG_FILES): pyproject.toml $(SGLANG_LISTS)
	test -x $(SGLANG)/python || $(PYTHON) -m venv .venv-sglang
	$(SGLANG)/python $(PIP) --upgrade setuptools wheel
	$(SGLANG)/python $(PIP) -c constraints/sglang-cpu.txt torch transformers
	$(SGLANG)/python $(PIP) --no-deps sglang==0.5.23 xgrammar==0.2.7
	$(SGLANG)/python $(PIP) -c constraints/sglang-cpu.txt -r constraints/sglang-cpu-requirements.txt
	$(SGLANG)/python $(PIP) --no-build-isolation --no-deps --force-reinstall ./tests/sglang_cpu
	$(SGLANG)/python $(PIP) -c constraints/sglang-cpu.txt -e ".[cpu]" --config-settings editable_mode=strict
	rm -rf speckv.egg-info tests/sglang_cpu/build tests/sglang_cpu/*.egg-info .venv-sglang/.files-*
	touch $@

# README's tables, from the stored results, and the reference's, from the commands.
readme: .venv/.ready
	$(VENV)/python -m speckv.benchmarks.publish.readme
	$(VENV)/python -m speckv.benchmarks.publish.reference

clean:
	rm -rf .venv .venv-* build *.egg-info .pytest_cache .mypy_cache .ruff_cache

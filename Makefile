# Each target does its own set-up and needs only Python 3.11 (or later) and make; a second call is quick.
#   make demo ARGS='--json out.json'    make test ARGS='-k store'    make install PIP_ARGS='...'
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
ARGS ?=
PIP_ARGS ?=
BIN := $(VENV)/bin
# Tools that inspect an environment from outside: not part of it, nor of its bill of materials.
AUDIT := $(VENV)/audit
AUDIT_ARGS ?=
# Exact versions: tests compare results to the last digits. Some indexes serve these as CUDA builds of several gigabytes; a CPU
# build does: PIP_ARGS='--extra-index-url ...' (README.md).
TORCH := torch==2.13.0 torchvision==0.28.0

.PHONY: install demo test slow chaos fuzz bench lint format sbom audit clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml Makefile
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP_ARGS) $(TORCH)
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP_ARGS) -e '.[test,lint]'
	touch $@

# Much smaller, without torch: enough for the demo, unless the rest is there or it is to learn. Only modules in use are compiled.
$(VENV)/.demo-installed: pyproject.toml Makefile
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile $(PIP_ARGS) -e '.[demo]'
	touch $@

demo: $(if $(wildcard $(VENV)/.installed)$(findstring --learn,$(ARGS)),install,$(VENV)/.demo-installed)
	$(BIN)/tamis demo $(ARGS)

# Two processes, the longest tests first. ARGS='-n 0' runs a single process, for a debugger.
test: install
	$(BIN)/python -m pytest -n 3 --dist loadgroup --no-loadscope-reorder $(ARGS)

# The tests on Apache Kafka that take long: every right of every command, rebalances among four workers, brokers that die.
slow: install
	$(BIN)/python -m pytest -n 2 --dist loadgroup --no-loadscope-reorder -m slow $(ARGS)

# Both guarantees under a hundred kills each (`make test`: a few), on three brokers of Apache Kafka where Java and Maven are;
# takes some minutes. ARGS='--kills 10 --seed 7 --broker noida'
chaos: install
	$(BIN)/python -m tests.chaos $(ARGS)

# All generated examples of the tests (`make test`: half), then the fuzzer on every decoder. make fuzz ARGS='--cases 1000000'
fuzz: install
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP_ARGS) -e '.[fuzz]'
	$(BIN)/python -m pytest -m hypothesis --hypothesis-profile=whole
	$(BIN)/python -m tests.fuzz $(ARGS)

# All performance figures: build/benchmarks.json and their sections of docs/benchmarks.md, on Apache Kafka where there are Java 17 and
# Maven, else on an embedded broker. Takes an hour on an idle machine; ARGS='--scale 0.2' takes less.
bench: install
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP_ARGS) -e '.[bench]'
	$(BIN)/python -m tests.benchmarks.everything $(ARGS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	mkdir -p $(VENV)/self && ln -sfn ../.. $(VENV)/self/tamis
	$(BIN)/pyright

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(AUDIT)/.installed: pyproject.toml
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/pip install --quiet --disable-pip-version-check $(PIP_ARGS) $$($(PYTHON) -c "import tomllib; \
	  print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['audit'])")
	touch $@

# For another environment, such as a plant's: make sbom ENVIRONMENT=/opt/tamis/bin/python
ENVIRONMENT ?= $(BIN)/python

sbom: $(if $(filter $(BIN)/python,$(ENVIRONMENT)),install) $(AUDIT)/.installed
	mkdir -p build
	$(AUDIT)/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible -o build/sbom.json $(ENVIRONMENT)
	@$(PYTHON) -c "import json; parts = json.load(open('build/sbom.json'))['components']; \
	  print('build/sbom.json:', len(parts), 'components')"

# The bill's packages, without the suffix +cpu, which no index knows. --strict: a package that was not looked up is a failure.
audit: sbom
	@$(PYTHON) -c "import json; parts = json.load(open('build/sbom.json'))['components']; \
	  print(*sorted({part['name'] + '==' + part['version'].split('+')[0] for part in parts}), sep='\n')" > build/audit.txt
	$(AUDIT)/bin/pip-audit --strict --no-deps --disable-pip --requirement build/audit.txt $(AUDIT_ARGS) || { echo \
	  "audit failed: a vulnerability, or no answer from the service (see above; AUDIT_ARGS='-s osv' asks another)"; exit 1; }

clean:
	rm -rf $(VENV) build demo out out.json *.egg-info

# Each target does all the set-up it needs, with Python 3.11 (or later) and make alone; a second call is quick.
#   make demo ARGS='--json out.json'    make test ARGS='-k store'    make install PIP_ARGS='...'
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
ARGS ?=
PIP_ARGS ?=
BIN := $(VENV)/bin
# Exact: other builds of torch bring gigabytes of CUDA, and results are compared to the last digits.
TORCH := torch==2.13.0 torchvision==0.28.0

.PHONY: install demo test fuzz lint format clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml Makefile
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP_ARGS) $(TORCH)
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP_ARGS) -e '.[test,lint]'
	touch $@

demo: install
	$(BIN)/tamis demo $(ARGS)

test: install
	$(BIN)/python -m pytest $(ARGS)

# make fuzz ARGS='--cases 1000000'
fuzz: install
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP_ARGS) -e '.[fuzz]'
	$(BIN)/python -m tests.fuzz $(ARGS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	mkdir -p $(VENV)/self && ln -sfn ../.. $(VENV)/self/tamis
	$(BIN)/pyright

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build demo out out.json *.egg-info

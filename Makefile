# make demo          train I-JEPA on the built-in pictures for some minutes; needs Python 3.11 to 3.13 and nothing else
# make demo-video    the same for V-JEPA on the built-in clips
# make test          install what the tests need, run them all; make test ARGS="-k masker" runs some,
#                    JOBS=0 in one process
# make check         format, lint, types, who imports whom
# make format        let ruff put format and imports right
# make clean         remove what building and testing left behind (.venv and runs stay)

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
ARGS ?=
JOBS ?= 2

.PHONY: demo demo-video test check format clean
.DELETE_ON_ERROR:

demo: .venv/.ready
	$(BIN)/jepakit demo

demo-video: .venv/.ready
	$(BIN)/jepakit demo video

test: .venv/.ready-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses=$(JOBS) --dist=worksteal $(ARGS)

check: .venv/.ready-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

format: .venv/.ready-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -path ./.venv -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf

# Installed once; again only where one of the two files has changed. After that nothing is fetched.
.venv/.ready: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install -c constraints.txt -e .
	touch $@

.venv/.ready-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install -c constraints.txt -e ".[dev]"
	touch $@ .venv/.ready

$(BIN)/python:
	@command -v "$(PYTHON)" > /dev/null || { \
		echo "There is no '$(PYTHON)' here. Name one: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
		echo "jepakit needs Python 3.11 to 3.13; '$(PYTHON)' is $$("$(PYTHON)" -V 2>&1)." \
		"Name another: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@"$(PYTHON)" -m venv .venv || { rm -rf .venv; \
		echo "'$(PYTHON)' cannot make a virtual environment (on Debian: apt install python3-venv)." >&2; exit 1; }

# One command per intent, for people and CI alike.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
# Where the packages for a machine without network are collected.
WHEELHOUSE ?= wheelhouse

.PHONY: demo test check docs bench wheelhouse format clean

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || test -x $(BIN)/python || { \
		echo "$(PYTHON) is missing; name another, 3.11 or newer: make PYTHON=python3.12" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/medtool demo brainmet demo/brainmet --force

test: $(STAMP)
	$(BIN)/python -m pytest -n auto --dist worksteal

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(STAMP)
	$(BIN)/python docs/generate.py

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP)
	$(BIN)/python benchmarks/run_all.py

wheelhouse: $(STAMP)
	rm -f $(WHEELHOUSE)/medtool-*
	$(BIN)/python -m build --outdir $(WHEELHOUSE) .
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check -c constraints.txt \
		--wheel-dir $(WHEELHOUSE) $(WHEELHOUSE)/medtool-*.whl

clean:
	rm -rf $(VENV) build dist wheelhouse

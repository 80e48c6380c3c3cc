# The only two commands a newcomer needs: `make run` and `make test`.
VENV := .venv
PY := $(VENV)/bin/python
OUT ?= runs/demo

.PHONY: setup run test slow lint notebooks clean

setup: $(VENV)/.run

# What `make run` needs: the base dependencies, data and plots.
$(VENV)/.run: pyproject.toml constraints.txt
	python3 -m venv $(VENV)
	$(PY) -m pip install --quiet -c constraints.txt -e ".[run]"
	touch $@

# What the tests, lint and type check need on top.
$(VENV)/.test: $(VENV)/.run
	$(PY) -m pip install --quiet -c constraints.txt -e ".[test]"
	touch $@

run: setup
	rm -rf $(OUT)
	$(PY) -m mipprune prune --data digits --model resnet20 --method spr --macs 40% --out $(OUT)

test: $(VENV)/.test
	$(PY) -m pytest

slow: $(VENV)/.test
	$(PY) -m pytest -m slow

lint: $(VENV)/.test
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

notebooks: $(VENV)/.test
	MIPPRUNE_NOTEBOOK_SIZE=smoke $(PY) -m pytest --nbmake notebooks

clean:
	rm -rf $(VENV) build dist *.egg-info

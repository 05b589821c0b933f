# Two commands do everything on a fresh machine: `make demo` and `make test`.
.PHONY: setup demo test check ui clean reference-model reference-seeds twins suites docs

PY := .venv/bin/python

setup: ## create the environment only
	@scripts/setup

demo: ## run the main job on the embedded default and say where the report is
	@scripts/setup
	@.venv/bin/steelyard run studies/laptop

test: ## all tests, real engines included
	@scripts/setup
	@scripts/test

check: ## lint, format, types, import direction
	@scripts/setup
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@$(PY) -m pytest tests/test_imports.py

ui: ## Dagster's web UI on loopback
	@scripts/setup
	@.venv/bin/steelyard ui --write

clean: ## remove the state and the environment; nothing else was ever written
	rm -rf .venv "$${STEELYARD_HOME:-var}" .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info

reference-model: ## train the embedded reference model from scratch
	@scripts/setup
	@$(PY) -m reference_model.train --out reference_model/weights

reference-seeds: ## train three seeds and write their table into the model card; the shipped weights stay
	@scripts/setup
	@$(PY) -m reference_model.seeds

twins: ## make the adapters of the ladder of known truth from the shipped weights
	@scripts/setup
	@$(PY) -m reference_model.twins --weights reference_model/weights --out reference_model/twins

suites: ## regenerate the suites' data
	@scripts/setup
	@$(PY) -m reference_model.suites

bench-%: ## run a bench, such as bench-dose_response; its last line is one JSON object
	@scripts/setup
	@$(PY) -m benchmarks.$*

docs: ## regenerate the generated reference pages and schemas
	@scripts/setup
	@$(PY) -m warehouse.dictionary
	@.venv/bin/steelyard schema --write studies/schema --reference docs/reference/study.md

# Everything a user runs from a clone. Needs Python >= 3.11 and make; creates .venv itself.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup demo model-cards test test-slow docs docs-serve package-check clean

setup: $(STAMP)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "hf-score needs Python 3.11 or newer; set PYTHON=python3.x"'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[dev]'
	@touch $@

demo: setup
	@rm -rf runs/demo
	$(BIN)/accelerate launch --cpu --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no \
		examples/run_score.py --model test_resnet --from_scratch --image_size 32 --dataset fashion_patch \
		--erm_epochs 10 --erm_learning_rate 2e-3 --num_train_epochs 6 --learning_rate 5e-4 \
		--per_device_train_batch_size 32 --per_device_eval_batch_size 128 --mask_area 0.1 \
		--controls --num_seeds 3 --seed 0 --disable_tqdm true --output_dir runs/demo

# The cards of our own models, from new runs.
model-cards: demo
	$(BIN)/hf-score card runs/demo --output_dir model_cards/fashion_patch-test_resnet --license apache-2.0

test: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest

test-slow: setup
	$(BIN)/pytest -m slow

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	$(BIN)/python tests/check_site.py site

docs-serve: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve --dev-addr 127.0.0.1:8000

$(VENV)/.docs: $(STAMP)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[docs]'
	@touch $@

# The sdist, the wheel that is built from it, and what a user has who installs that wheel and nothing else.
package-check: setup
	rm -rf dist
	$(BIN)/uv build --quiet --python $(BIN)/python
	$(BIN)/python tests/check_package.py dist

clean:
	rm -rf runs dist site

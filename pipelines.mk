# out/NAME.best.parquet   ## Best-of-N of NAME.jsonl, only when it or a variable below changed
#
#   make out/NAME.best.parquet MODEL=MODEL REWARD=REWARD N=16
#
# MODEL      generator: a hub id or a folder
# REWARD     scorers, several with spaces between: REWARD="first=org/rm second=org/other-rm"
# N          candidates per prompt
# SAMPLING   further flags that decide the candidates: SAMPLING="--max-tokens 256 --seed 1"
# SELECTION  further flags that only choose among them: SELECTION="--strategy top-k --k 4"
#
# Every variable can come from the command line, the environment or the including Makefile.
# What was used is kept in out/NAME.settings; another value makes the target out of date.
#
# Candidates are kept in a pool. MODEL, N and SAMPLING decide them, so each combination has a
# pool of its own, out/NAME.HASH.pool, and out/NAME.pool is a link to the last one used:
#   - interrupted: the same command goes on with the pool;
#   - another SELECTION or REWARD: nothing is generated again;
#   - another MODEL, N or SAMPLING: a new pool; back to the old values: the old pool is complete;
#   - NAME.jsonl grew at its end: only the new rows are run;
#   - its old rows changed, or a model's files did: bon says what differs and stops, because it
#     never mixes two runs. Start afresh with: rm -r out/NAME.*.pool
# Nothing here deletes a pool.
#
# From a Makefile in another folder, whose prompts and out/ these then are:
#
#   MODEL := my/model
#   include /path/to/bon/pipelines.mk
#   all: out/train.best.parquet out/eval.best.parquet
#
# BON is the command (default: the one in that checkout's .venv; run `make setup` there once).
# With `make -j` several models run at once: leave -j out on one GPU.

MODEL ?= Qwen/Qwen3-0.6B
REWARD ?= Skywork/Skywork-Reward-V2-Qwen3-0.6B
N ?= 8
SAMPLING ?=
SELECTION ?=
BON ?= $(bon_folder).venv/bin/bon
BON_READY ?=

bon_folder := $(dir $(lastword $(MAKEFILE_LIST)))
bon_quote = '$(subst ','\'',$(strip $(1)))'
bon_candidates = MODEL=$(MODEL) N=$(N) SAMPLING=$(SAMPLING)
bon_settings = $(bon_candidates) REWARD=$(REWARD) SELECTION=$(SELECTION)
bon_hash = $(shell printf %s $(call bon_quote,$(bon_candidates)) | cksum | (read a b; printf %08x $$a))
bon_changed = $(shell [ "$$(cat out/$(1).settings 2>/dev/null)" = \
	$(call bon_quote,$(bon_settings)) ] || echo .bon-force)

.bon-force:
.PHONY: .bon-force
.PRECIOUS: out/%.best.parquet

.SECONDEXPANSION:
out/%.best.parquet: %.jsonl $$(call bon_changed,$$*) | $(BON_READY)
	@mkdir -p $(@D)
	$(BON) select $< --model $(MODEL) $(addprefix --reward ,$(REWARD)) -n $(N) $(SAMPLING) \
		$(SELECTION) --pool out/$*.$(bon_hash).pool -o $@
	@printf '%s\n' $(call bon_quote,$(bon_settings)) >out/$*.settings
	@if [ -L out/$*.pool ] || [ ! -e out/$*.pool ]; then \
		rm -f out/$*.pool && ln -s $(notdir $*).$(bon_hash).pool out/$*.pool; fi

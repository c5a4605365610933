# out/NAME.best.parquet       ## Best-of-N of NAME.jsonl, only when it or a variable below changed
# out/NAME.dpo.parquet        ## DPO pairs of NAME.jsonl, from the same pool
# out/NAME.filtered.parquet   ## The candidates of NAME.jsonl that pass FILTERS, from the same pool
#
#   make out/NAME.best.parquet MODEL=MODEL REWARD=REWARD N=16
#   make out/NAME.dpo.parquet PAIRS="--strategy verified --rule math"
#   make out/NAME.filtered.parquet FILTERS="--min-reward 0 --dedup near"
#
# MODEL      generator: a hub id or a folder
# REWARD     scorers, several with spaces between: REWARD="first=org/rm second=org/other-rm"
# N          candidates per prompt
# SAMPLING   further flags that decide the candidates: SAMPLING="--max-tokens 256 --seed 1"
# SELECTION  further flags of select, that only choose among them: SELECTION="--strategy top-k --k 4"
# PAIRS      further flags of build-dpo: PAIRS="--strategy sigma --min-margin 10%"
# FILTERS    further flags of filter: FILTERS="--filter length:max_tokens=400"
#
# Every variable can come from the command line, the environment or the including Makefile.
# What was used is kept in out/NAME.best.settings (dpo, filtered); another value makes the target
# out of date, and so does a run that failed or ended with too many drops.
#
# Candidates are kept in a pool. MODEL, N and SAMPLING decide them, so each combination has a
# pool of its own, out/NAME.HASH.pool, and out/NAME.pool is a link to the last one used:
#   - interrupted: the same command goes on with the pool;
#   - another SELECTION, PAIRS, FILTERS or REWARD, or another of the three targets: nothing is
#     generated again;
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
#   all: out/train.dpo.parquet out/eval.best.parquet
#
# BON is the command (default: the one in that checkout's .venv; run `make setup` there once).
# With `make -j` several models run at once, and two targets may want one pool: leave -j out.

MODEL ?= Qwen/Qwen3-0.6B
REWARD ?= Skywork/Skywork-Reward-V2-Qwen3-0.6B
N ?= 8
SAMPLING ?=
SELECTION ?=
PAIRS ?=
FILTERS ?=
BON ?= $(bon_folder).venv/bin/bon
BON_READY ?=

bon_folder := $(dir $(lastword $(MAKEFILE_LIST)))
bon_quote = '$(subst ','\'',$(strip $(1)))'
bon_candidates = MODEL=$(MODEL) N=$(N) SAMPLING=$(SAMPLING)
bon_hash = $(shell printf %s $(call bon_quote,$(bon_candidates)) | cksum | (read a b; printf %08x $$a))
# $(1) the result's name, $(2) its kind, $(3) the variable with the flags of its command
bon_settings = $(bon_candidates) REWARD=$(REWARD) $(1)=$($(1))
bon_changed = $(shell [ "$$(cat out/$(1).$(2).settings 2>/dev/null)" = \
	$(call bon_quote,$(call bon_settings,$(3))) ] || echo .bon-force)

.bon-force:
.PHONY: .bon-force
.PRECIOUS: out/%.best.parquet out/%.dpo.parquet out/%.filtered.parquet

# $(1) the kind of result, $(2) the command that makes it, $(3) the variable with its flags
define bon_rule
out/%.$(1).parquet: %.jsonl $$$$(call bon_changed,$$$$*,$(1),$(3)) | $$(BON_READY)
	@mkdir -p $$(@D)
	@rm -f out/$$*.$(1).settings
	$$(BON) $(2) $$< --model $$(call bon_quote,$$(MODEL)) $$(addprefix --reward ,$$(REWARD)) -n $$(N) \
		$$(SAMPLING) $$($(3)) --pool out/$$*.$$(bon_hash).pool -o $$@
	@printf '%s\n' $$(call bon_quote,$$(call bon_settings,$(3))) >out/$$*.$(1).settings
	@if [ -L out/$$*.pool ] || [ ! -e out/$$*.pool ]; then \
		rm -f out/$$*.pool && ln -s $$(notdir $$*).$$(bon_hash).pool out/$$*.pool; fi
endef

.SECONDEXPANSION:
$(eval $(call bon_rule,best,select,SELECTION))
$(eval $(call bon_rule,dpo,build-dpo,PAIRS))
$(eval $(call bon_rule,filtered,filter,FILTERS))

# Three steps: candidates once on a GPU machine, then as many sets as you like on any machine.
#
#   make -f examples/three_steps.mk pool                  # 1 and 2, on the GPU machine
#   rsync -a out/train.pool laptop:work/out/              # the pool is all that is needed
#   make -f examples/three_steps.mk sets                  # 3, no model is loaded; -B makes them anew
#
# PROMPTS, MODEL, REWARD, N and STRATEGIES can be given on the command line.

PROMPTS ?= train.jsonl
MODEL ?= Qwen/Qwen3-0.6B
REWARD ?= Skywork/Skywork-Reward-V2-Qwen3-0.6B
N ?= 16
STRATEGIES ?= best-worst sigma max-margin verified
BON ?= bon
POOL := out/$(basename $(notdir $(PROMPTS))).pool
SETS := $(STRATEGIES:%=$(POOL:.pool=).%.dpo.parquet)

.PHONY: pool sets
sets: $(SETS)

# 1. Sample N candidates for each prompt. Killed? The same command goes on. 2. Score them.
# Both run every time: what is there costs seconds, and other settings are refused, not ignored.
pool:
	$(BON) generate $(PROMPTS) --model $(MODEL) -n $(N) --pool $(POOL)
	$(BON) score $(POOL) --reward $(REWARD)

# 3. Pair them, one set for each strategy; what the pool has is never made again.
$(SETS): $(POOL:.pool=).%.dpo.parquet: | $(POOL)
	$(BON) build-dpo $(POOL) --strategy $* -o $@

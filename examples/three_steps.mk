# Three steps: candidates once on a GPU machine, then as many sets as you like on any machine.
#
#   make -f examples/three_steps.mk pool                  # 1 and 2, on the GPU machine
#   rsync -a out/train.pool laptop:work/out/              # the pool is all that is needed
#   make -f examples/three_steps.mk sets                  # 3, no model is loaded
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
pool: $(POOL).scored
sets: $(SETS)

# 1. Sample N candidates for each prompt. Killed? The same command goes on.
$(POOL).sampled: $(PROMPTS)
	@mkdir -p $(@D)
	$(BON) generate $< --model $(MODEL) -n $(N) --pool $(POOL)
	@touch $@

# 2. Score them.
$(POOL).scored: $(POOL).sampled
	$(BON) score $(POOL) --reward $(REWARD)
	@touch $@

# 3. Pair them, one set for each strategy; what the pool has is never made again.
$(SETS): $(POOL:.pool=).%.dpo.parquet: $(POOL)/pool.json
	$(BON) build-dpo $(POOL) --strategy $* -o $@

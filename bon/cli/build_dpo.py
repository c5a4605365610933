"""`bon build-dpo`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bon.cli.app import app, guarded
from bon.cli.flags import Invocation, command
from bon.config import GROUPS as COMMAND_GROUPS
from bon.config import (
    ExportSettings,
    GenerateSettings,
    InputSettings,
    PairSettings,
    ResponseSettings,
    RunSettings,
    ScoreSettings,
    Settings,
)

if TYPE_CHECKING:
    from bon.cli.places import SourceKind
    from bon.cli.stages import Made

GROUPS = COMMAND_GROUPS["build-dpo"]


@command(
    app,
    "build-dpo",
    *GROUPS,
    source_help="Prompt file (or folder, glob, Hub dataset), a dataset that has responses, "
    "or a pool.",
    output_help="File (.parquet, .jsonl, .csv) or folder to write; by default NAME.dpo.parquet.",
    examples=[
        "bon build-dpo prompts.jsonl -m Qwen/Qwen3-0.6B "
        "-r Skywork/Skywork-Reward-V2-Qwen3-0.6B -n 16 -o pairs.parquet",
        "bon build-dpo prompts.pool --strategy verified --rule math -o verified.parquet",
        "bon build-dpo prompts.pool --min-margin 10% --format llama-factory -o pairs/",
        "bon build-dpo candidates.jsonl --strategy max-margin --max-pairs 2",
    ],
    panel="Pipelines",
    run=guarded,
)
def build_dpo(call: Invocation) -> None:
    """DPO pairs: sample, score and pair the responses to each prompt as chosen and rejected.

    From a prompt file it makes the pool beside the output (or resumes it); responses that a
    dataset has are taken as they are; from a pool it reads only, so another strategy costs no
    GPU time. Pairs that are tied, equal, empty or cut off are dropped, each with its reason.
    """
    from bon.cli.closing import describe, finish
    from bon.cli.curation import (
        card_facts,
        check_upload,
        pair_tokenizer,
        publish,
        ready_pool,
        run_seed,
        step_texts,
    )
    from bon.cli.places import check_places, default_pool, input_stem, source_kind
    from bon.cli.stages import judge_pool
    from bon.exports.formats import choose_format
    from bon.exports.target import check_output
    from bon.pipeline.build_dpo import PairBuilder, check_pairs
    from bon.pipeline.export import write_set

    settings, export = call.settings(PairSettings), call.settings(ExportSettings)
    check_pairs(settings)
    form = choose_format(export.format, "pairs")
    output = call.output or Path(f"{input_stem(call.source)}.dpo.parquet")
    check_output(output, form)
    check_upload(export, output)
    kind = source_kind(call)
    root = Path(call.source) if kind == "pool" else call.settings(RunSettings).pool
    root = root or default_pool(call.source, output)
    if kind == "pool":
        idle = (InputSettings, ResponseSettings, GenerateSettings, ScoreSettings, RunSettings)
        allowed = {"limit", "seed", "max_drops", "engine", "rule_answer_column", "rule_timeout_s"}
        call.refuse_for_pool(allowed, *idle)
    else:
        check_places(call.source, output, root)
    with_scores = _needs_rewards(call, kind)
    if call.dry_run:
        steps = step_texts(call, kind, root, with_scores=with_scores)
        steps += [f"pair {settings.strategy} to {output}"]
        groups: list[type[Settings]] = (
            [PairSettings, ExportSettings] if kind == "pool" else list(GROUPS)
        )
        describe(call, root, groups, steps)
        return
    tokenize = pair_tokenizer(settings)
    made = ready_pool(call, kind, root, group=True, with_scores=with_scores)
    rule = _rule(settings, made)
    if rule is not None and rule != "label":
        made = judge_pool(call, made, f"{rule}=rule:{settings.rule or 'math'}")
    scorer = _scorer(settings, made)
    seed = run_seed(call, made)
    builder = PairBuilder(
        made.pool,
        settings,
        scorer=scorer,
        rule=rule,
        seed=seed,
        limit=call.settings(InputSettings).limit,
        tokenize=tokenize,
    )
    written = write_set(
        builder.tables(),
        builder.schema,
        "pairs",
        form,
        export,
        output=output,
        seed=seed,
        books=builder.report.accounting,
        card=lambda: card_facts(call, made, builder.report.as_json(), _method(settings)),
    )
    result = {**builder.report.as_json(), **publish(call, export, output, written)}
    title = f"{settings.strategy} pairs by {' and '.join(filter(None, (scorer, rule)))}"
    finish(call, made, title, builder.report.accounting, result)


def _method(settings: PairSettings) -> dict[str, Any]:
    """Return what the dataset card says of the pairing: the strategy and what was set."""
    said = settings.model_dump(mode="json", exclude_unset=True)
    return {"strategy": settings.strategy, **said}


def _needs_rewards(call: Invocation, kind: SourceKind) -> bool:
    """Tell whether to score: not a pool, and verified and given scores only where asked to."""
    if kind == "pool":
        return False
    asked = call.given("reward")
    return asked or (kind == "prompts" and call.settings(PairSettings).strategy != "verified")


def _scorer(settings: PairSettings, made: Made) -> str | None:
    """Name the scores that rank; verified does without where there are only verdicts."""
    from bon.pipeline.ranked import is_verdict, ranking_scorer, scorer_names

    if settings.strategy == "verified" and settings.rank_by is None:
        rewards = [one for one in scorer_names(made.pool) if not is_verdict(made.pool, one)]
        if not rewards:
            return None
    return ranking_scorer(made.pool, settings.rank_by)


def _rule(settings: PairSettings, made: Made) -> str | None:
    """Name the verdicts in the pool: those of a rule, or the input's own."""
    if settings.rule is None and settings.strategy != "verified":
        return None
    has_labels = "label" in made.pool.manifest.scorers
    said = settings.rule or ("label" if has_labels else "math")
    return said if said == "label" else f"rule-{said}"

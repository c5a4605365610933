"""`bon build-dpo`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bon.cli.app import app, guarded
from bon.cli.flags import Invocation, command
from bon.config import GROUPS as COMMAND_GROUPS
from bon.config import (
    ExportSettings,
    GenerateSettings,
    InputSettings,
    PairSettings,
    RankingSettings,
    ResponseSettings,
    RunSettings,
    ScoreSettings,
    Settings,
)
from bon.errors import SettingsError, SettingsMismatchError
from bon.places import Place, place

if TYPE_CHECKING:
    from bon.cli.places import SourceKind
    from bon.cli.stages import Made
    from bon.pipeline.recipes import Recipe
    from bon.pipeline.rewards import Ranking
    from bon.pool.pool import Pool

GROUPS = COMMAND_GROUPS["build-dpo"]

_OWN_FLAGS = {
    "max-margin": ("min_preference_prob", "preference_temperature", "max_pairs"),
    "sigma": ("num_sigmas",),
    "quantile": ("chosen_quantile", "rejected_quantile"),
    "k-vs-k": ("k",),
}
"""Flags that one strategy alone has a use for."""


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
    from bon.cli.build import scorer_settings
    from bon.cli.closing import describe, finish
    from bon.cli.curation import (
        card_facts,
        note_unused_answers,
        pair_tokenizer,
        publish,
        ready_pool,
        run_seed,
        step_texts,
    )
    from bon.cli.engines import check_engine, check_workers
    from bon.cli.idle_flags import refuse_idle_flags
    from bon.cli.mappers import CURATING_FIELDS, make_mapper
    from bon.cli.output import plan_output
    from bon.cli.places import check_apart, check_places, default_pool, source_kind
    from bon.cli.ranking import check_ranking, refuse_across_prompts
    from bon.cli.repairing import restore_pool
    from bon.pipeline.build_dpo import PairBuilder, check_pairs
    from bon.pipeline.export import NativeSet, write_set
    from bon.pipeline.rewards import fit_ranking
    from bon.pool.snapshot import unchanged

    settings = call.settings(PairSettings)
    check_pairs(settings)
    check_ranking(call)
    call.refuse_for_strategy(_OWN_FLAGS, settings.strategy)
    output = plan_output(call, "pairs", "dpo")
    kind = source_kind(call)
    root = place(call.source) if kind == "pool" else call.settings(RunSettings).pool
    root = root or default_pool(call.source, output.path)
    if kind == "pool":
        idle = (InputSettings, ResponseSettings, GenerateSettings, ScoreSettings, RunSettings)
        allowed = {"limit", "seed", "max_drops", "rule_answer_column", "rule_timeout_s"}
        call.refuse_for_pool(allowed | CURATING_FIELDS, *idle)
        check_workers(call)
    else:
        check_places(call.source, *output.places, root)
        restore_pool(call, root)
        note_unused_answers(call, kind)
    check_apart(root, *output.places)
    with_scores = _needs_rewards(call, kind)
    if kind != "pool":
        check_engine(call, kind, with_scores=with_scores)
    scorers = scorer_settings(call.settings(ScoreSettings)) if with_scores else []
    refuse_idle_flags(call, scorers, judges=_asks_a_rule(settings))
    recipe = _recipe_to_be(call, settings, kind, root, with_scores=with_scores)
    for name in ("min_chosen", "min_margin"):
        if call.given(name):
            refuse_across_prompts(recipe, f"--{name.replace('_', '-')}")
    if call.dry_run:
        steps = step_texts(call, kind, root, with_scores=with_scores)
        steps += [f"pair {settings.strategy} to {output.path}"]
        describe(call, root, _read_groups(kind, with_scores=with_scores), steps)
        return
    tokenize = pair_tokenizer(settings)
    made = ready_pool(call, kind, root, group=True, with_scores=with_scores)
    rule = _rule(settings, made.pool)
    if rule is not None and rule != "label":
        made = _judged(call, made, rule)
    limit = call.settings(InputSettings).limit
    with (
        unchanged(made.pool) as snapshot,
        make_mapper(call, made.pool, limit, is_slow=tokenize is not None) as mapper,
    ):
        recipe = recipe or _recipe(call, settings, made.pool)
        ranking = None if recipe is None else fit_ranking(made.pool, recipe, limit, mapper)
        seed = run_seed(call, made)
        builder = PairBuilder(
            made.pool,
            settings,
            ranking=ranking,
            rule=rule,
            seed=seed,
            limit=limit,
            tokenize=tokenize,
            mapper=mapper,
        )
        rows = NativeSet(
            snapshot.through(builder.tables()),
            builder.schema,
            output.kind,
            builder.report.accounting,
            card=lambda: card_facts(
                call, made, builder.report.as_json(), _method(settings, ranking)
            ),
        )
        written = write_set(rows, output.path, output.form, output.export, seed=seed)
    result = {**builder.report.as_json(), **publish(call, output.export, output.path, written)}
    result |= {} if ranking is None else {"ranking": ranking.as_json()}
    by = " and ".join(filter(None, (builder.report.scorer, rule)))
    title = f"{settings.strategy} pairs" + (f" by {by}" if by else "")
    finish(call, made, title, builder.report.accounting, result)


def _asks_a_rule(settings: PairSettings) -> bool:
    """Tell whether a rule may judge; only the pool tells whether the input's own verdicts do."""
    return settings.rule in ("math", "exact") or (
        settings.rule is None and settings.strategy == "verified"
    )


def _method(settings: PairSettings, ranking: Ranking | None) -> dict[str, Any]:
    """Return what the dataset card says of the pairing: the strategy and what was set."""
    said = settings.model_dump(mode="json", exclude_unset=True)
    ranked = {} if ranking is None else {"ranking": ranking.as_json()}
    return {"strategy": settings.strategy, **said, **ranked}


def _needs_rewards(call: Invocation, kind: SourceKind) -> bool:
    """Tell whether to score: not a pool, and verified and given scores only where asked to."""
    if kind == "pool":
        return False
    asked = call.given("reward")
    return asked or (kind == "prompts" and call.settings(PairSettings).strategy != "verified")


def _read_groups(kind: SourceKind, *, with_scores: bool) -> list[type[Settings]]:
    """List the groups of settings that a source has a use for."""
    if kind == "pool":
        return [RankingSettings, PairSettings, ExportSettings]
    idle: list[type[Settings]] = [] if kind == "prompts" else [GenerateSettings]
    idle += [] if with_scores else [ScoreSettings]
    return [group for group in GROUPS if group not in idle]


def _recipe_to_be(
    call: Invocation, settings: PairSettings, kind: SourceKind, root: Place, *, with_scores: bool
) -> Recipe | None:
    """Decide before any work what will rank; none where only the source's own scores can tell.

    Raises:
        SettingsError: several scorers and none named, or the named one, or the verdicts, will not
            be there.
        EngineError: a rule needs a package that is not installed.
    """
    from bon.cli.build import scorer_settings
    from bon.cli.plans import kind_of
    from bon.cli.ranking import recipe_to_be
    from bon.pipeline.ranked import scorer_names
    from bon.pool.pool import Pool
    from bon.scorers.rules import find_rule

    ranking = call.settings(RankingSettings)
    if kind == "pool":
        pool = Pool.open(root)
        names, rule = scorer_names(pool), _rule(settings, pool)
        if rule is None or rule in names:
            return _recipe(call, settings, pool)
        # these verdicts are still to come
        if not names and ranking.is_plain and ranking.rank_by is None:
            return None
        return _recipe(call, settings, pool, coming=[rule])
    if settings.rule == "label" and kind == "prompts":
        raise _no_labels(call.source)
    if settings.rule in ("math", "exact") or (
        settings.strategy == "verified" and kind == "prompts"
    ):
        find_rule(settings.rule or "math")
    if not with_scores:
        return None
    scorers = scorer_settings(call.settings(ScoreSettings))
    rewards = [one for one in scorers if not kind_of(one.spec).gives_verdicts(one)]
    if not rewards and ranking.is_plain and ranking.rank_by is None:
        if kind == "prompts" and settings.strategy != "verified":
            recipe_to_be(call, scorers)  # several verdicts, and nothing says which ranks
        return None
    if kind != "prompts" and ranking.rank_by is not None:
        return None  # the input may have brought what is named
    coming = [f"rule-{settings.rule}"] if settings.rule in ("math", "exact") else []
    return recipe_to_be(call, scorers, root, coming)


def _recipe(
    call: Invocation, settings: PairSettings, pool: Pool, coming: Sequence[str] = ()
) -> Recipe | None:
    """Decide what ranks a pool; verified does without where there are only verdicts."""
    from bon.pipeline.ranked import is_verdict, pool_recipe, scorer_names

    names, ranking = scorer_names(pool), call.settings(RankingSettings)
    if not names and not _has_candidates(pool):
        return None  # nothing to rank: every row is a drop already
    is_open = ranking.is_plain and ranking.rank_by is None
    has_rewards = any(not is_verdict(pool, name) for name in names)
    if settings.strategy == "verified" and is_open and not has_rewards:
        return None
    return pool_recipe(pool, ranking, coming=coming)


def _judged(call: Invocation, made: Made, rule: str) -> Made:
    """Add a rule's verdicts where they are missing.

    Raises:
        SettingsMismatchError: the pool has verdicts by other settings.
    """
    from bon.cli.stages import judge_pool

    try:
        return judge_pool(call, made, f"{rule}={rule.replace('-', ':', 1)}")
    except SettingsMismatchError as error:
        verdicts = made.pool.layout.root / "scores" / rule
        error.next_step = f"repeat the old settings, or remove {verdicts}: rules judge again fast"
        raise


def _has_candidates(pool: Pool) -> bool:
    from bon.pool.pool import CANDIDATES

    return any(pool.num_rows(CANDIDATES, part) for part in pool.layout.numbers(CANDIDATES))


def _rule(settings: PairSettings, pool: Pool) -> str | None:
    """Name the verdicts in the pool: those of a rule, or the input's own.

    Raises:
        SettingsError: the input's own are asked for, and it has none.
    """
    if settings.rule is None and settings.strategy != "verified":
        return None
    has_labels = "label" in pool.layout.scorer_names()
    said = settings.rule or ("label" if has_labels else "math")
    if said == "label" and not has_labels:
        if not _has_candidates(pool):
            return None
        raise _no_labels(str(pool.layout.root))
    return said if said == "label" else f"rule-{said}"


def _no_labels(where: str) -> SettingsError:
    return SettingsError(
        "there are no verdicts for --rule label",
        where=where,
        why="the input says of no response whether it is right",
        next_step="give --rule math or --rule exact, with --rule-answer-column",
    )

"""Joins names to classes: from settings to the generator, scorers and reader of a run.

The plans are imported where they are asked for: a command that only reads a pool does without.
"""

from __future__ import annotations

from pathlib import Path

from bon.config import (
    GenerateSettings,
    InputSettings,
    ResponseSettings,
    ScorerSettings,
    ScoreSettings,
)
from bon.config.scorer_spec import parse_scorer_spec
from bon.errors import SettingsError
from bon.pipeline.plans import GenerationPlan, GivenPlan, PromptsPlan, ScoringPlan
from bon.sources.prompts import PromptReader, input_digest
from bon.sources.responses import ResponseReader

__all__ = ["generation_plan", "given_plan", "prompts_plan", "scorer_settings", "scoring_plans"]


def prompts_plan(source: str, settings: InputSettings, part_size: int | None) -> PromptsPlan:
    """Plan the reading of a prompt file; its first row is read here, so that a wrong file fails
    before anything is written."""
    digest = input_digest(source)
    rows = PromptReader(source, settings)
    next(iter(rows), None)
    return PromptsPlan(
        name=Path(source).name,
        rows=rows,
        fingerprint=settings.fingerprint(),
        digest=digest,
        limit=settings.limit,
        part_size=part_size,
    )


def given_plan(
    source: str,
    inputs: InputSettings,
    responses: ResponseSettings,
    part_size: int | None,
    *,
    group: bool,
) -> GivenPlan:
    """Plan the reading of an input with responses; its first row is read here."""
    digest = input_digest(source)
    rows = ResponseReader(source, inputs, responses, group=group)
    next(iter(rows), None)
    return GivenPlan(
        name=Path(source).name,
        rows=rows,
        fingerprint=inputs.fingerprint() | responses.fingerprint() | {"group": group},
        digest=digest,
        limit=inputs.limit,
        part_size=part_size,
    )


def generation_plan(settings: GenerateSettings) -> GenerationPlan:
    """Plan the sampling, as `bon.cli.plans.generators` does."""
    from bon.cli.plans import generators

    return generators.generation_plan(settings)


def scoring_plans(settings: ScoreSettings) -> list[ScoringPlan]:
    """Plan the scorers, in the order in which they were given."""
    from bon.cli.plans import kind_of

    return [kind_of(one.spec).plan(one) for one in scorer_settings(settings)]


def scorer_settings(settings: ScoreSettings) -> list[ScorerSettings]:
    """Resolve each `[NAME=]SPEC`; without a name it is the last part of the spec.

    Raises:
        SettingsError: a name stands twice, or options that a kind of scorer does not take.
        UnknownChoiceError: there is no such rule.
        EngineError: a rule needs a package that is not installed.
    """
    result = [_one_scorer(settings, said) for said in settings.specs]
    names = [one.name for one in result]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise SettingsError(
            f"two scorers are named {sorted(twice)[0]!r}", next_step="name them: -r NAME=SPEC"
        )
    return result


def _one_scorer(settings: ScoreSettings, said: str) -> ScorerSettings:
    from bon.cli.plans import KINDS, kind_of

    parsed = parse_scorer_spec(said, kinds=tuple(kind.prefix for kind in KINDS if kind.prefix))
    scorer = ScorerSettings(
        name=parsed.name,
        spec=parsed.spec,
        options=parsed.options,
        revision=settings.reward_revision,
        allow_pickle=settings.reward_allow_pickle,
        dtype=settings.reward_dtype,
        max_length=settings.reward_max_length,
        truncation_side=settings.reward_truncation_side,
        template=settings.reward_template,
        batch_tokens=settings.reward_batch_tokens,
        device=settings.reward_device,
        engine=settings.scorer_engine,
        step_separator=settings.step_separator,
        step_aggregate=settings.step_aggregate,
        answer_column=settings.rule_answer_column,
        rule_timeout_s=settings.rule_timeout_s,
        server_concurrency=settings.server_concurrency,
        server_timeout_s=settings.server_timeout_s,
        server_patience_s=settings.server_patience_s,
    )
    kind_of(scorer.spec).check(scorer)
    return scorer

"""Models: their files, tokenizers, templates and limits; no weight is read."""

from __future__ import annotations

from collections.abc import Iterator

from bon.chat import ChatTemplate
from bon.cli.build import generation_plan
from bon.cli.idle_flags import refuse_idle_steps
from bon.cli.plans import kind_of
from bon.cli.validation.plan import Note, PlannedRun, ok, skipped, warning
from bon.cli.validation.silence import silenced
from bon.config import GenerateSettings, ScorerSettings
from bon.errors import BonError, first_line
from bon.generators.transformers import TransformersGenerator
from bon.generators.vllm import VllmGenerator
from bon.generators.weightless import prompt_encoder
from bon.pipeline.plans import ScoringPlan
from bon.records import Message
from bon.scorers.encoding import ConversationEncoder
from bon.scorers.weightless import check_weightless

__all__ = ["check_generator", "check_scorers"]

_USER: Message = {"role": "user", "content": "?"}
_SYSTEM: Message = {"role": "system", "content": "!"}


def check_generator(run: PlannedRun) -> Iterator[Note | BonError]:
    """Find the generator, or ask its server, and make its template render."""
    if not run.has_sampling:
        yield skipped("nothing would be sampled")
        return
    settings = run.call.settings(GenerateSettings)
    if settings.temperature == 0 and settings.num_candidates > 1:
        yield warning("temperature 0: all candidates of a prompt are the same")
    plan = run.generation = generation_plan(settings)
    digest = str(plan.fingerprint.get("model_digest") or "")
    known = f", digest {digest[:16]}" if digest else ""
    yield ok(f"{plan.fingerprint['model']}: {plan.engine}, {plan.engine_why}{known}")
    if not isinstance(plan.generator, TransformersGenerator | VllmGenerator):
        yield skipped("the server templates the prompts: how long they are is not counted here")
        return
    with silenced(is_loud=run.call.verbose):
        encoder = run.encoder = prompt_encoder(plan.generator)
    yield ok(
        f"{encoder.context_tokens:,} tokens of context, {encoder.vocab_size:,} in its vocabulary"
    )
    if settings.lora:
        yield skipped("whether the adapter fits is seen only with the weights")
    if not settings.raw:
        yield from _roles(encoder.chat, is_wanted=bool(settings.system_prompt))


def check_scorers(run: PlannedRun) -> Iterator[Note | BonError]:
    """Find every scorer's model, or ask its server, and make its template render."""
    for settings in run.scorers:
        try:
            yield from _scorer(run, settings)
        except BonError as error:
            yield error
    if len(run.scorings) == len(run.scorers) and run.scorers:
        read = {name for plan in run.scorings for name in plan.fingerprint}
        refuse_idle_steps(run.call, ScorerSettings.step_fields - read)


def _scorer(run: PlannedRun, settings: ScorerSettings) -> Iterator[Note]:
    plan = kind_of(settings.spec).plan(settings)
    run.scorings.append(plan)
    yield ok(f"{settings.name}: {_described(plan, settings)}")
    with silenced(is_loud=run.call.verbose):
        encoder = check_weightless(plan.scorer)
    if encoder is None:
        return
    run.encoders[settings.name] = encoder
    if isinstance(encoder, ConversationEncoder):
        yield ok(f"{settings.name}: conversations of up to {encoder.max_length:,} tokens")
        if getattr(encoder.chat.tokenizer, "chat_template", None) or encoder.chat.override:
            yield from _roles(encoder.chat, is_wanted=False, name=f"{settings.name}: ")


def _described(plan: ScoringPlan, settings: ScorerSettings) -> str:
    digest = str(plan.fingerprint.get("digest") or "")
    noun, why = kind_of(settings.spec).noun, plan.engine_why or ""
    parts = [noun, plan.engine, why.removeprefix(f"{noun}, "), digest and f"digest {digest[:16]}"]
    return ", ".join(part for part in parts if part)


def _roles(chat: ChatTemplate, *, is_wanted: bool, name: str = "") -> Iterator[Note]:
    """Say whether a template takes a user's turn, and a system message before it."""
    alone = _refusal(chat, [_USER])
    if alone is not None:
        yield warning(f"{name}its chat template refuses a user's turn: {alone}")
        return
    why = _refusal(chat, [_SYSTEM, _USER])
    if why is None:
        yield ok(f"{name}its chat template renders, a system message too")
        return
    text = f"{name}its chat template refuses a system message ({why})"
    if is_wanted:
        yield warning(f"{text}, which --system-prompt puts before every prompt that has none")
    else:
        yield ok(f"{text}: prompts that have one would be dropped")


def _refusal(chat: ChatTemplate, messages: list[Message]) -> str | None:
    try:
        chat.tokens(messages, add_generation_prompt=True)
    except Exception as error:  # Jinja's own errors and those that a template raises
        return first_line(error)
    return None

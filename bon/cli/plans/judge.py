"""`-r [NAME=]judge:MODEL` and `judge:server:URL`: a language model that is asked."""

from __future__ import annotations

from typing import Any

from bon.cli.plans.files import read_text, text_digest
from bon.cli.plans.kinds import ScorerKind, pickles_of
from bon.cli.plans.language_models import refuse_others
from bon.config import ScorerSettings
from bon.config.scorer_spec import parse_options
from bon.errors import SettingsError
from bon.pipeline.models import read_config, resolve_model
from bon.pipeline.plans import ScoringPlan
from bon.scorers.judge import (
    PREFIX,
    SERVER,
    JudgeOptions,
    JudgeScorer,
    Question,
    is_server,
    read_question,
)
from bon.scorers.judge.model import Asking
from bon.scorers.judge.server import ServerJudge
from bon.scorers.judge.server_words import check_served_words
from bon.scorers.judge.vllm import VllmJudge
from bon.serving.addresses import find_api_key, parse_urls
from bon.serving.contact import first_contact
from bon.serving.models import ServedModel, find_served_model

__all__ = ["JUDGE"]

_LOCAL_READS = {"reward_allow_pickle": "judge:MODEL"}
_SERVER_READS = dict.fromkeys(
    ("server_concurrency", "server_timeout_s", "server_patience_s"), "judge:server:URL"
)

_ASKED = {
    "yes-no": "the probability of yes, read in one step",
    "rubric": "a score parsed from its answer",
    "pairwise": "every pair in both orders",
}


def check(settings: ScorerSettings) -> None:
    """Raise where options or the template cannot be used; asks no server, loads no model."""
    what = settings.spec.removeprefix(PREFIX)
    if is_server(settings.spec):  # the URLs first: other messages may then show them
        find_api_key(parse_urls(what.removeprefix(SERVER)))
    _read(settings)
    if is_server(settings.spec):
        _refuse_idle(settings, JudgeOptions.local_fields, "the server runs the model")
    else:
        _refuse_idle(settings, {"model"}, "it names a model on a server")
        if not what:
            raise SettingsError(
                "there is no judge in this scorer's spec",
                where=_where(settings),
                next_step="give judge:MODEL (a hub id or a folder) or judge:server:URL",
            )


def plan(settings: ScorerSettings) -> ScoringPlan:
    """Plan a judge; a model is found (and downloaded) here, a server asked for its model's name.

    Raises:
        ModelError: there is no such model.
        ServerError: the server is not reached, or serves no such model.
        SettingsError: an option, or a file that one names, cannot be used.
    """
    options, question = _read(settings)
    asking = Asking(question.words, options.answer_tokens, options.thinking)
    model: ServerJudge | VllmJudge
    if is_server(settings.spec):
        model, identity = _server(settings, options, asking)
    else:
        model, identity = _local(settings, options, asking)
    fingerprint = {
        "kind": "judge",
        "name": settings.name,
        **identity,
        **_reading(options, question),
        "judge_version": JudgeScorer.version,
    }
    return ScoringPlan(
        settings.name,
        JudgeScorer(options, question, model),
        fingerprint,
        engine="server" if is_server(settings.spec) else "vllm",
        engine_why=f"a judge, {options.mode}: {_ASKED[options.mode]}",
        num_gpus=options.tensor_parallel_size,
    )


def _read(settings: ScorerSettings) -> tuple[JudgeOptions, Question]:
    options = parse_options(JudgeOptions, settings.options, _where(settings))
    return options, read_question(options)


def _where(settings: ScorerSettings) -> str:
    return f"-r {settings.name}={settings.spec}"


def _refuse_idle(settings: ScorerSettings, names: set[str] | frozenset[str], why: str) -> None:
    for name in sorted(names & settings.options.keys()):
        raise SettingsError(
            f"the option {name!r} does nothing here",
            where=_where(settings),
            why=why,
            next_step="leave it out",
        )


def _local(
    settings: ScorerSettings, options: JudgeOptions, asking: Asking
) -> tuple[VllmJudge, dict[str, Any]]:
    found = resolve_model(
        settings.spec.removeprefix(PREFIX), options.revision, pickles_of(settings)
    )
    refuse_others(
        read_config(found, owner="judge"),
        found.path,
        "a judge answers in text: …ForCausalLM",
        "give an instruction-tuned language model; a reward model is given without judge:",
    )
    template = read_text(options.chat_template, "judge:MODEL?chat_template=")
    identity = {
        "spec": f"{PREFIX}{found.name}",
        "digest": found.digest,
        "dtype": options.dtype,
        "max_model_len": options.max_model_len,
        "chat_template": text_digest(template),
    }
    return VllmJudge(options, asking, found.path, template), identity


def _server(
    settings: ScorerSettings, options: JudgeOptions, asking: Asking
) -> tuple[ServerJudge, dict[str, Any]]:
    urls = parse_urls(settings.spec.removeprefix(PREFIX).removeprefix(SERVER))
    served, words_are_tokens = _find(settings, options, urls, asking.words)
    judge = ServerJudge(
        asking,
        served,
        urls,
        settings.server_concurrency,
        settings.server_timeout_s,
        settings.server_patience_s,
        words_are_tokens,
    )
    if "thinking" in settings.options and not judge.sends_variables:
        raise SettingsError(
            "the option 'thinking' does nothing here",
            where=_where(settings),
            why="of the servers that bon knows, only vLLM, SGLang and llama.cpp hand it to the "
            f"chat template; this one calls itself {served.owner!r}",
            next_step="leave it out; give a model that thinks room for it by max_tokens",
        )
    identity = {
        "spec": f"{PREFIX}{SERVER.rstrip(':')}",
        "model": served.name,
        "sends_variables": judge.sends_variables,
    }
    return judge, identity


def _find(
    settings: ScorerSettings,
    options: JudgeOptions,
    urls: tuple[str, ...],
    words: tuple[str, str] | None,
) -> tuple[ServedModel, bool]:
    """Return the judge, and whether its words are known to be tokens."""
    with first_contact(
        urls,
        timeout_s=settings.server_timeout_s,
        patience_s=settings.server_patience_s,
        otherwise="the judge's server is not reached",
    ) as client:
        served = find_served_model(client, options.model)
        return served, words is not None and check_served_words(client, served, words)


def _reading(options: JudgeOptions, question: Question) -> dict[str, Any]:
    """Return how the judge is asked and its answer read, as far as that decides its scores."""
    found: dict[str, Any] = {
        "mode": options.mode,
        "template": text_digest(question.source),
        "words": question.words and list(question.words),
        "max_tokens": options.answer_tokens,
        "thinking": options.thinking,
    }
    own = {
        "rubric": {"pattern", "scale"},
        "pairwise": {"pattern", "max_pairs", "ridge"},
        "yes-no": set[str](),
    }
    return found | options.model_dump(mode="json", include=own[options.mode])


JUDGE = ScorerKind(
    prefix=PREFIX,
    noun="a judge",
    reads=_LOCAL_READS | _SERVER_READS,
    reads_of=lambda settings: _SERVER_READS if is_server(settings.spec) else _LOCAL_READS,
    gives_verdicts=lambda settings: False,
    check=check,
    plan=plan,
)

"""Judges for tests: a server that says what a test says, and a scorer made as `-r` makes it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bon.cli.plans import kind_of
from bon.config import ScorerSettings
from bon.config.scorer_spec import parse_scorer_spec
from bon.records import CandidateGroup
from bon.scorers.judge import JudgeScorer
from support.servers import Answer, Asked, FakeServer

__all__ = ["ChatServer", "chats", "group", "judge_of", "settings_of"]

Said = str | Mapping[str, float] | None
"""A text; or tokens with their probabilities, for the first place; or null."""


def settings_of(said: str, **fields: Any) -> ScorerSettings:
    """Return the settings of `-r said`, checked."""
    parsed = parse_scorer_spec(f"judge={said}", kinds=("judge:",))
    values = {"name": parsed.name, "spec": parsed.spec, "options": parsed.options}
    settings = ScorerSettings(**{**values, "server_patience_s": 5.0, **fields})
    kind_of(settings.spec).check(settings)
    return settings


def judge_of(said: str, **fields: Any) -> JudgeScorer:
    """Return the scorer of `-r said`, not entered yet."""
    scorer = kind_of("judge:").plan(settings_of(said, **fields)).scorer
    assert isinstance(scorer, JudgeScorer)
    return scorer


def group(*responses: str, prompt_id: str = "p", ask: str = "Ask", **extra: Any) -> CandidateGroup:
    """Return a prompt of one turn with its responses."""
    return CandidateGroup(prompt_id, ({"role": "user", "content": ask},), responses, extra)


def chats(server: FakeServer) -> list[Asked]:
    """Return what was asked of the judge itself."""
    return [one for one in server.posts if one.path == "/v1/chat/completions"]


@dataclass
class ChatServer:
    """Chat completions as OpenAI documents them, said by `say` from the question."""

    say: Callable[[str], Said]
    models: tuple[str, ...] = ("the-judge",)
    owned_by: str = "vllm"
    fault: Callable[[Asked], Answer | None] = lambda asked: None
    num_tokens: Callable[[str], int] | None = None
    """Of a text, as /tokenize says it; none: there is no such path."""
    questions: list[str] = field(default_factory=list)

    def __call__(self, asked: Asked) -> Answer:
        return self.fault(asked) or self._answer(asked)

    def _answer(self, asked: Asked) -> Answer:
        if asked.path == "/v1/models":
            rows = [
                {"id": one, "object": "model", "owned_by": self.owned_by} for one in self.models
            ]
            return Answer({"object": "list", "data": rows})
        if asked.path == "/tokenize" and self.num_tokens:
            return Answer({"tokens": [7] * self.num_tokens(asked.body["prompt"])})
        if asked.path != "/v1/chat/completions":
            return Answer({"detail": "Not Found"}, status=404)
        (message,) = asked.body["messages"]
        self.questions.append(message["content"])
        said = self.say(message["content"])
        choice: dict[str, Any] = {"index": 0, "finish_reason": "stop", "logprobs": None}
        choice["message"] = {"role": "assistant", "content": said}
        if isinstance(said, Mapping):
            top = [{"token": one, "logprob": math.log(p)} for one, p in said.items()]
            first = next(iter(said), "")
            choice["message"]["content"] = first
            place = {"token": first, "logprob": 0.0, "top_logprobs": top}
            choice["logprobs"] = {"content": [place] if top else []}
        usage = {"prompt_tokens": len(message["content"]), "completion_tokens": 1}
        return Answer({"choices": [choice], "usage": usage})

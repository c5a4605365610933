"""A judge behind a server that speaks OpenAI's chat completions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bon.records import Drop
from bon.scorers.judge.model import Answer, Asking, thinking_variables
from bon.scorers.judge.words import log_sum
from bon.serving.client import ServerClient, ServerRequest

__all__ = ["ServerJudge"]

_PATH = "/v1/chat/completions"
_MOST_LIKELY = 20
"""The most that OpenAI, vLLM and SGLang give."""


@dataclass
class ServerJudge:
    """`JudgeModel` whose server applies the chat template."""

    asking: Asking
    model: str
    """Its name on the server."""
    takes_variables: bool
    """Whether the server hands variables to the model's chat template."""
    urls: tuple[str, ...]
    concurrency: int
    """Requests in flight for each URL."""
    timeout_s: float
    patience_s: float
    num_tokens_computed: int = 0
    """Nobody counts: what the server's own cache had is not told."""
    retries: Mapping[str, int] = field(default_factory=Counter)
    """How often was asked again since it was entered, by cause."""

    def __enter__(self) -> ServerJudge:
        from bon.serving.addresses import find_api_key

        self._client = ServerClient(
            self.urls,
            concurrency=self.concurrency,
            timeout_s=self.timeout_s,
            patience_s=self.patience_s,
            api_key=find_api_key(self.urls),
        ).__enter__()
        self.retries = self._client.retries
        return self

    def __exit__(self, *error: object) -> None:
        self._client.__exit__(*error)

    def answer(self, questions: Sequence[str]) -> list[Answer | Drop]:
        """Answer each question, or say why not; in their order."""
        requests = (
            ServerRequest(number, _PATH, self._body(question))
            for number, question in enumerate(questions)
        )
        found: dict[Any, Answer | Drop] = {
            reply.key: self._answer(reply.body) if reply.drop is None else reply.drop
            for reply in self._client.stream(requests, self._check)
        }
        return [found[number] for number in range(len(questions))]

    def _body(self, question: str) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
            "max_tokens": self.asking.max_tokens,
        }
        if self.asking.words is not None:
            body |= {"logprobs": True, "top_logprobs": _MOST_LIKELY}
        if self.takes_variables:
            body["chat_template_kwargs"] = thinking_variables(self.asking.thinking)
        return body

    def _check(self, body: Any) -> None:
        """Raise where a body is no chat completion of the kind that was asked for."""
        _Completion.read(body, has_logprobs=self.asking.words is not None)

    def _answer(self, body: Any) -> Answer | Drop:
        words = self.asking.words
        said = _Completion.read(body, has_logprobs=words is not None)
        if words is None:
            return Answer(said.num_tokens, said.text, is_cut=said.is_cut)
        first, second = (
            log_sum([logprob for token, logprob in said.likeliest if token.strip() == word])
            for word in words
        )
        if max(first, second) == -math.inf:
            shown = ", ".join(repr(token) for token, _ in said.likeliest[:5]) or "nothing"
            neither = " nor ".join(map(repr, words))
            why = f"neither {neither} is among the judge's likeliest tokens: {shown}"
            return Drop("judge_unparseable", why)
        return Answer(said.num_tokens, said.text, (first, second))


@dataclass(frozen=True, slots=True)
class _Completion:
    """What is read of a chat completion."""

    num_tokens: int
    text: str
    likeliest: tuple[tuple[str, float], ...]
    """Tokens for the answer's first place with their log-probabilities."""
    is_cut: bool

    @classmethod
    def read(cls, body: Any, *, has_logprobs: bool) -> _Completion:
        """Read a body; raises ValueError, KeyError, TypeError or IndexError where it is another."""
        choice = dict(body["choices"][0])
        text = dict(choice["message"]).get("content")
        if not isinstance(text, str | None):
            raise TypeError("content is no text")
        likeliest = cls._likeliest(choice) if has_logprobs else ()
        num_tokens = dict(dict(body).get("usage") or {}).get("prompt_tokens")
        is_cut = choice.get("finish_reason") == "length"
        return cls(int(num_tokens or 0), text or "", likeliest, is_cut)

    @staticmethod
    def _likeliest(choice: dict[str, Any]) -> tuple[tuple[str, float], ...]:
        logprobs = choice.get("logprobs")
        if not isinstance(logprobs, dict) or not isinstance(logprobs.get("content"), list):
            raise ValueError("no logprobs, which this server may not give: ask for ?mode=rubric")
        return tuple(
            (str(one["token"]), float(one["logprob"]))
            for place in logprobs["content"][:1]
            for one in place["top_logprobs"]
        )

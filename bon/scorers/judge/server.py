"""A judge behind a server that speaks OpenAI's chat completions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bon.errors import ModelError, ServerError
from bon.records import Drop
from bon.scorers.judge.model import Answer, Asking, thinking_variables
from bon.scorers.judge.words import log_sum
from bon.serving.client import ServerClient, ServerRequest
from bon.serving.models import ServedModel
from bon.serving.sampling import limit_name, truncation

__all__ = ["ServerJudge"]

_PATH = "/v1/chat/completions"
_TAKE_VARIABLES = frozenset({"vllm", "sglang", "llamacpp"})
"""Servers, as they call themselves, that hand `chat_template_kwargs` to chat templates."""
_MOST_LIKELY = 20
"""The most that OpenAI, vLLM and SGLang give."""
_ENOUGH_ANSWERS = 32
"""A word that is among the likeliest tokens of none of so many is none that the judge says."""
_PLAIN_QUESTION = "Say Yes."


@dataclass
class ServerJudge:
    """`JudgeModel` whose server applies the chat template."""

    asking: Asking
    model: ServedModel
    urls: tuple[str, ...]
    concurrency: int
    """Requests in flight for each URL."""
    timeout_s: float
    patience_s: float
    words_are_tokens: bool = False
    """Whether both words are known to be tokens of the judge: then one of them may stay unseen."""
    num_tokens_computed: int = 0
    """Nobody counts: what the server's own cache had is not told."""
    retries: Mapping[str, int] = field(default_factory=Counter)
    """How often was asked again since it was entered, by cause."""

    @property
    def sends_variables(self) -> bool:
        """Tell whether the server hands variables to the model's chat template."""
        return self.model.owner in _TAKE_VARIABLES

    def __enter__(self) -> ServerJudge:
        from bon.serving.addresses import find_api_key

        self._is_taken = False
        self._num_read = 0
        self._unseen = set(self.asking.words or ())
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
        if self._unseen and self._num_read:
            print(f"judge: {self._named_unseen()}: each score is 0, 1 or none")

    def answer(self, questions: Iterable[str]) -> list[Answer | Drop]:
        """Answer each question, or say why not; in their order.

        Raises:
            ServerError: the server is gone, or refuses whatever it is asked in this way.
            ModelError: the judge never says one of the two words.
        """
        requests = (
            ServerRequest(number, _PATH, self._body(question))
            for number, question in enumerate(questions)
        )
        found: dict[Any, Answer | Drop] = {}
        for reply in self._client.stream(requests, self._check):
            if reply.drop is None:
                self._is_taken = True
                found[reply.key] = self._answer(reply.body)
            else:
                self._refuse_if_all_are(reply.drop)
                found[reply.key] = reply.drop
        return [found[number] for number in range(len(found))]

    def _body(self, question: str) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model.id,
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
            limit_name(self.urls): self.asking.max_tokens,
        }
        # plainly greedy: what is not said would be as the model's generation_config.json has it
        if others := truncation(self.model.owner):
            body |= {"top_p": 1.0, **others}
        if self.asking.words is not None:
            body |= {"logprobs": True, "top_logprobs": _MOST_LIKELY}
        if self.sends_variables:
            body["chat_template_kwargs"] = thinking_variables(self.asking.thinking)
        return body

    def _refuse_if_all_are(self, drop: Drop) -> None:
        """Raise where not even a plain question is taken: the fault is then in how is asked."""
        if self._is_taken or drop.reason != "server_refused":
            return
        reply = self._client.ask(
            ServerRequest("plain", _PATH, self._body(_PLAIN_QUESTION)), self._check
        )
        self._is_taken = reply.drop is None
        if reply.drop is not None and reply.drop.reason == "server_refused":
            raise ServerError(
                "the server refuses the judge's questions",
                where=", ".join(self.urls),
                why=reply.drop.detail,
                next_step="not even a plain question is taken: judges are asked at temperature 0, "
                "yes-no and pairs with top_logprobs, and max_tokens must fit into the context",
            )

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
        self._watch(first, second, said)
        if max(first, second) == -math.inf:
            neither = " nor ".join(map(repr, words))
            why = f"neither {neither} is among the judge's likeliest tokens: {said.shown}"
            return Drop("judge_unparseable", why)
        return Answer(said.num_tokens, said.text, (first, second))

    def _watch(self, first: float, second: float, said: _Completion) -> None:
        """Raise where the judge never says a word: all scores would be 0, 1 or none."""
        for word, logprob in zip(self.asking.words or (), (first, second), strict=True):
            if logprob > -math.inf:
                self._unseen.discard(word)
        self._num_read += 1
        if self._unseen and self._num_read >= _ENOUGH_ANSWERS and not self.words_are_tokens:
            raise ModelError(
                self._named_unseen(),
                where=", ".join(self.urls),
                why="a word must be one token that the judge would begin its answer with, as it "
                f"is written; it rather says {said.shown}",
                next_step="give two words that it would say, as in ?words=yes,no (the template "
                "must ask for them), or ask for a number instead: ?mode=rubric",
            )

    def _named_unseen(self) -> str:
        unseen = " and ".join(
            repr(word) for word in self.asking.words or () if word in self._unseen
        )
        return f"{unseen}: not among the likeliest tokens of any of {self._num_read} answers"


@dataclass(frozen=True, slots=True)
class _Completion:
    """What is read of a chat completion."""

    num_tokens: int
    text: str
    likeliest: tuple[tuple[str, float], ...]
    """Tokens for the answer's first place with their log-probabilities."""
    is_cut: bool

    @property
    def shown(self) -> str:
        """The likeliest of the likeliest, for people."""
        return ", ".join(repr(token) for token, _ in self.likeliest[:5]) or "nothing"

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

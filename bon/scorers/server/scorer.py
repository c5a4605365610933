"""The scorer of reward models behind a server."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bon.config import ScorerSettings
from bon.errors import ServerError, ServerPathError
from bon.records import CandidateGroup, Drop, Scores
from bon.scorers.conversations import reward_scores
from bon.scorers.encoding import Encoded
from bon.scorers.families.base import Family
from bon.scorers.server.discovery import FoundServer
from bon.scorers.server.kinds import (
    SglangIds,
    SglangTexts,
    Speech,
    VllmClassify,
    VllmPooling,
    as_text,
)
from bon.scorers.server.reading import served_encoder
from bon.serving.addresses import find_api_key
from bon.serving.client import ServerClient, ServerReply, ServerRequest
from bon.serving.faults import EXCERPT_CHARS

__all__ = ["ServerScorer"]

_CONVERSATIONS = 8
"""Most of one request; what fails in company is asked alone."""
_TOKENS = 1 << 14
"""Most tokens of one request, where it has more than one conversation."""
_PROBE = CandidateGroup("probe", ({"role": "user", "content": "What is 1 + 1?"},), ("It is 2.",))
_FAULTS = (ValueError, KeyError, TypeError, IndexError, AttributeError)


@dataclass
class ServerScorer:
    """`Scorer` whose conversations are templated here and scored by a server.

    Token ids come from the same encoder as in this process, and are sent as they are.
    """

    settings: ScorerSettings
    urls: tuple[str, ...]
    server: FoundServer
    tokenizer_path: str
    """Folder of its tokenizer, on this machine."""
    family: Family
    config: dict[str, Any]
    """Its config.json, empty where the folder has none."""
    template: str | None = None
    """Jinja source in place of the tokenizer's own template."""
    num_tokens_computed: int = 0
    """Nobody counts: what the server's own cache had is not told."""
    halved_batch_tokens: int | None = None
    """None: the server's memory is its own."""
    retries: Mapping[str, int] = field(default_factory=Counter)
    """How often was asked again since it was entered, by cause."""

    def __enter__(self) -> ServerScorer:
        self._encoder = served_encoder(
            self.tokenizer_path,
            self.family,
            self.config,
            self.settings,
            self.template,
            self.server.max_length,
        )
        self._client = ServerClient(
            self.urls,
            concurrency=self.settings.server_concurrency,
            timeout_s=self.settings.server_timeout_s,
            patience_s=self.settings.server_patience_s,
            api_key=find_api_key(self.urls),
        ).__enter__()
        self.retries = self._client.retries
        try:
            self._speech = self._find_speech()
        except BaseException:
            self._client.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._client.__exit__(*error)
        if self.retries:
            causes = ", ".join(f"{cause} ×{count}" for cause, count in sorted(self.retries.items()))
            print(f"asked again {sum(self.retries.values())} times: {causes}", file=sys.stderr)

    def score(self, groups: Sequence[CandidateGroup]) -> list[Scores]:
        """Score every response of every group; a failed one is none, with its reason.

        The next conversations are put together while the server is at work. Equal ones are asked
        once.
        """
        encoded: list[list[Encoded | Drop]] = []
        rewards: dict[Encoded, float | Drop] = {}
        alone: list[list[Encoded]] = []
        for chunk, reply in self._replies(_chunks(self._distinct(groups, encoded, rewards))):
            if reply.drop is not None and len(chunk) > 1:
                alone += [[item] for item in chunk]
            else:
                rewards |= zip(chunk, self._read(reply, chunk), strict=True)
        for chunk, reply in self._replies(alone):
            rewards |= zip(chunk, self._read(reply, chunk), strict=True)
        return [
            reward_scores(
                group, items, [one if isinstance(one, Drop) else rewards[one] for one in items]
            )
            for group, items in zip(groups, encoded, strict=True)
        ]

    def _distinct(
        self,
        groups: Sequence[CandidateGroup],
        encoded: list[list[Encoded | Drop]],
        rewards: dict[Encoded, float | Drop],
    ) -> Iterator[Encoded]:
        """Encode group by group and yield what is to be asked; fill in what is known without."""
        seen = set[Encoded]()
        for group in groups:
            items = self._encoder.encode(group)
            encoded.append(items)
            for item in items:
                if isinstance(item, Drop) or item in seen:
                    continue
                seen.add(item)
                if isinstance(self._speech, SglangTexts) and not self._speech.texts(item):
                    why = "no text has exactly this conversation's tokens"
                    rewards[item] = Drop("no_text", why)
                else:
                    yield item

    def _replies(
        self, chunks: Iterable[list[Encoded]]
    ) -> Iterator[tuple[list[Encoded], ServerReply]]:
        """Ask for each of the chunks, several at a time."""
        asked: dict[int, list[Encoded]] = {}

        def requests() -> Iterator[ServerRequest]:
            for number, chunk in enumerate(chunks):
                asked[number] = chunk
                yield self._request(number, chunk)

        for reply in self._client.stream(requests()):
            yield asked.pop(int(str(reply.key))), reply

    def _request(self, number: int, items: Sequence[Encoded]) -> ServerRequest:
        speech = self._speech

        def check(body: Any) -> None:
            speech.rewards(body, items)

        return ServerRequest(number, speech.path, speech.body(items), check)

    def _read(self, reply: ServerReply, chunk: Sequence[Encoded]) -> list[float | Drop]:
        if reply.drop is not None:
            return [reply.drop] * len(chunk)
        return self._speech.rewards(reply.body, chunk)

    def _find_speech(self) -> Speech:
        """Find out, with one conversation, how this server is to be asked.

        Raises:
            ServerError: it gives no reward for it.
        """
        item, why = self._probe(), ""
        for speech in self._speeches():
            where = self.urls[0] + speech.path
            if isinstance(speech, SglangTexts) and not speech.texts(item):
                why += "; and no text has exactly a conversation's tokens"
                break
            try:
                reply = self._client.ask(ServerRequest("probe", speech.path, speech.body([item])))
            except ServerPathError as error:
                why = error.why
                continue
            if reply.drop is None:
                self._check_probe(speech, reply.body, item)
                return speech
            why = reply.drop.detail
        raise _no_rewards(self.server, where, why)

    def _speeches(self) -> list[Speech]:
        """Return what may be understood, the likeliest first."""
        model, use = self.server.model, self.family.vllm
        if self.server.kind == "sglang":
            tokenizer = self._encoder.chat.tokenizer
            texts = SglangTexts(model, lambda item: as_text(tokenizer, item) or "")
            return [SglangIds(model), texts]
        per_step = use is not None and use.per_step
        token = getattr(self._encoder.form, "token_id", None)
        pooling = VllmPooling(model, per_step, self.settings.step_aggregate, token)
        if use is not None and use.task == "token_classify":
            return [pooling]
        return [VllmClassify(model), pooling]

    def _probe(self) -> Encoded:
        """Return a conversation, or where the template takes none such, a few tokens."""
        (found,) = self._encoder.encode(_PROBE)
        if isinstance(found, Encoded):
            return found
        tokens = self._encoder.chat.tokenizer.encode("It is 2.", add_special_tokens=False)
        tokens = tokens[: self._encoder.max_length]
        return Encoded(tuple(tokens), False, (len(tokens) - 1,))

    def _check_probe(self, speech: Speech, body: Any, item: Encoded) -> None:
        try:
            speech.rewards(body, [item])
        except _FAULTS as error:
            said = " ".join(str(body)[:EXCERPT_CHARS].split())
            why = f"{error or type(error).__name__}; it says: {said}"
            raise _no_rewards(self.server, self.urls[0] + speech.path, why) from error


def _chunks(items: Iterable[Encoded]) -> Iterator[list[Encoded]]:
    """Yield conversations that are asked together: neighbours, which share the longest prefixes."""
    chunk: list[Encoded] = []
    num_tokens = 0
    for item in items:
        size = len(item.tokens)
        if chunk and (len(chunk) == _CONVERSATIONS or num_tokens + size > _TOKENS):
            yield chunk
            chunk, num_tokens = [], 0
        chunk.append(item)
        num_tokens += size
    if chunk:
        yield chunk


def _no_rewards(server: FoundServer, where: str, why: str) -> ServerError:
    start = {
        "vllm": "start vLLM with --runner pooling and a reward model of one label; one that "
        """rewards steps with --pooler-config '{"tok_pooling_type": "ALL"}'""",
        "sglang": "start SGLang with --is-embedding and a reward model",
    }
    return ServerError(
        "the server gives no reward", where=where, why=why, next_step=start[server.kind]
    )

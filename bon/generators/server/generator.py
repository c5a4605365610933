"""A generator behind servers: each prompt is asked for until it has all of its candidates."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from bon.config import GenerateSettings
from bon.generators.prompting import is_greedy, numbered
from bon.generators.server.bodies import Asker
from bon.generators.server.choices import Answered, read_answer
from bon.records import Candidate, Drop, GenerationRequest, GenerationResult
from bon.serving.addresses import find_api_key
from bon.serving.client import ServerClient, ServerReply, ServerRequest

__all__ = ["ServerGenerator"]

_MOST_CHOICES = 128
"""Most candidates of one request: OpenAI's own limit."""


@dataclass(eq=False)
class _Open:
    """A prompt whose candidates are being asked for."""

    request: GenerationRequest
    prompt: dict[str, Any]
    num_wanted: int
    found: dict[int, Candidate] = field(default_factory=dict)
    num_prompt_tokens: int = 0
    is_over: bool = False

    def drop(self, why: Drop) -> GenerationResult:
        """End it without candidates."""
        self.is_over = True
        return GenerationResult(self.request.prompt_id, (), drop=why)

    def result(self) -> GenerationResult:
        """End it; all candidates are there."""
        self.is_over = True
        ordered = [self.found[number] for number in range(self.num_wanted)]
        candidates = numbered(self.request, ordered)
        return GenerationResult(self.request.prompt_id, candidates, self.num_prompt_tokens)


@dataclass(frozen=True, slots=True, eq=False)
class _Piece:
    """Some of a prompt's candidates, asked for at once."""

    prompt: _Open
    start: int
    count: int
    is_probe_of: int = 0
    """So many were refused together: perhaps the server gives no more than some at a time."""


@dataclass
class ServerGenerator:
    """`Generator` behind servers that speak OpenAI's API.

    Candidate i of a prompt is asked for with the seed `request.seed + i`: as the i-th choice of
    one request where the server gives several (vLLM counts the seed up itself), else alone.
    """

    asker: Asker
    urls: tuple[str, ...]
    concurrency: int
    """Requests in flight for each URL."""
    timeout_s: float
    patience_s: float
    retries: Mapping[str, int] = field(default_factory=Counter)
    """How often was asked again since it was entered, by cause."""

    @property
    def settings(self) -> GenerateSettings:
        """How is sampled."""
        return self.asker.settings

    def __enter__(self) -> ServerGenerator:
        self._client = ServerClient(
            self.urls,
            concurrency=self.concurrency,
            timeout_s=self.timeout_s,
            patience_s=self.patience_s,
            api_key=find_api_key(self.urls),
        ).__enter__()
        self.retries = self._client.retries
        self._most_choices = _MOST_CHOICES
        self._most_given = 1
        return self

    def __exit__(self, *error: object) -> None:
        self._client.__exit__(*error)

    def stream(self, requests: Iterable[GenerationRequest]) -> Iterator[GenerationResult]:
        """Sample every request; pulls as many as keep the servers busy."""
        waiting = iter(requests)
        pieces = deque[_Piece]()
        while True:
            for reply in self._client.stream(self._asked(waiting, pieces), read_answer):
                yield from self._take(reply, pieces)
            if not pieces:  # else they came after the last prompt had been pulled
                return

    def _asked(
        self, waiting: Iterator[GenerationRequest], pieces: deque[_Piece]
    ) -> Iterator[ServerRequest | ServerReply]:
        """Yield what is to be asked next: what is left of prompts, then new prompts.

        A prompt that cannot be sent is a reply already.
        """
        while True:
            while pieces:
                piece = pieces.popleft()
                if piece.prompt.is_over:
                    continue
                if piece.count > self._most_choices:  # that has been found out since
                    pieces.extendleft(reversed(self._again(piece)))
                    continue
                yield self._request(piece)
            request = next(waiting, None)
            if request is None:
                return
            num_wanted = 1 if is_greedy(self.settings) else request.num_candidates
            prompt = self.asker.prompt(request)
            if isinstance(prompt, Drop):
                opened = _Open(request, {}, num_wanted)
                yield ServerReply(_Piece(opened, 0, num_wanted), drop=prompt)
                continue
            pieces.extend(self._split(_Open(request, prompt, num_wanted), 0, num_wanted))

    def _split(self, prompt: _Open, start: int, stop: int, most: int = 0) -> list[_Piece]:
        """Return a prompt's candidates in pieces of what the server gives at once."""
        most = min(most or self._most_choices, self._most_choices)
        return [
            _Piece(prompt, first, min(most, stop - first)) for first in range(start, stop, most)
        ]

    def _again(self, piece: _Piece, most: int = 0) -> list[_Piece]:
        """Return smaller pieces in place of one."""
        return self._split(piece.prompt, piece.start, piece.start + piece.count, most)

    def _request(self, piece: _Piece) -> ServerRequest:
        seed = piece.prompt.request.seed + piece.start
        body = self.asker.body(piece.prompt.prompt, seed, piece.count)
        return ServerRequest(piece, self.asker.path, body)

    def _take(self, reply: ServerReply, pieces: deque[_Piece]) -> Iterator[GenerationResult]:
        piece: Any = reply.key
        if piece.prompt.is_over:
            return
        if reply.drop is None:
            yield from self._found(piece, read_answer(reply.body), pieces)
        elif reply.drop.reason == "server_refused" and piece.count > 1:
            yield from self._refused(piece, reply.drop, pieces)
        else:
            yield piece.prompt.drop(reply.drop)

    def _refused(
        self, piece: _Piece, drop: Drop, pieces: deque[_Piece]
    ) -> Iterator[GenerationResult]:
        """Find out whether a request was refused for its prompt or for its many candidates.

        Where the server has answered the prompt, it was for the number, which is halved. A number
        that was never given is tried with one candidate; one that was given is not at fault.
        """
        if piece.count > self._most_choices:
            pieces.extend(self._again(piece))
        elif piece.prompt.found:
            pieces.extend(self._again(piece, self._halved(piece.count)))
        elif piece.count > self._most_given:
            pieces.append(_Piece(piece.prompt, piece.start, 1, is_probe_of=piece.count))
        else:
            yield piece.prompt.drop(drop)

    def _halved(self, count: int) -> int:
        """Return what to ask for after so many were refused; of all, if it was never given."""
        if count > self._most_given:
            self._most_choices = min(self._most_choices, max(count // 2, self._most_given))
        return count // 2

    def _found(
        self, piece: _Piece, answered: Answered, pieces: deque[_Piece]
    ) -> Iterator[GenerationResult]:
        prompt = piece.prompt
        if answered.drop is not None:
            yield prompt.drop(answered.drop)
            return
        given = answered.candidates[: piece.count]
        prompt.found |= {piece.start + place: one for place, one in enumerate(given)}
        prompt.num_prompt_tokens = prompt.num_prompt_tokens or answered.num_prompt_tokens
        self._most_given = max(self._most_given, len(given))
        if len(given) < piece.count:
            self._most_choices = min(self._most_choices, len(given))
        most = self._halved(piece.is_probe_of) if piece.is_probe_of else 0
        start, stop = piece.start + len(given), piece.start + (piece.is_probe_of or piece.count)
        pieces.extend(self._split(prompt, start, stop, most))
        if len(prompt.found) == prompt.num_wanted:
            yield prompt.result()

"""The rows that travel through `bon`, and every Arrow schema they are stored with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict

import pyarrow as pa

from bon.shown import encodable

__all__ = [
    "CANDIDATES_SCHEMA",
    "DROPS_SCHEMA",
    "GIVEN_ID",
    "MESSAGES_TYPE",
    "PAIR_FIELDS",
    "PROMPTS_SCHEMA",
    "PROMPT_FIELDS",
    "RESPONSE_FIELDS",
    "SCORES_SCHEMA",
    "YOUNGER_COLUMNS",
    "Candidate",
    "CandidateGroup",
    "Drop",
    "GenerationRequest",
    "GenerationResult",
    "GivenResponse",
    "GivenResponses",
    "Message",
    "Prompt",
    "Rescored",
    "Scores",
]


class Message(TypedDict):
    """One turn of a conversation."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """One conversation that ends before the assistant's turn, and where it came from."""

    prompt_id: str
    messages: tuple[Message, ...]
    extra: dict[str, Any]
    """The input's other columns, as JSON values."""
    row: int
    """Position among all input rows, good and bad, from 0."""
    where: str
    """`file:line` for messages."""


@dataclass(frozen=True, slots=True)
class Drop:
    """One input row, prompt or candidate that does not reach the output, and why."""

    reason: str
    """A short stable name that is counted, such as `malformed_json`."""
    detail: str
    """One sentence for a person."""
    where: str = ""
    id: str = ""
    row: int = -1
    """Position among all input rows, from 0."""
    candidate: int | None = None
    """The candidate's number where one candidate was dropped, none for a whole row."""

    def __post_init__(self) -> None:
        """Make sure that the sentence can be stored: it may quote a library or a server."""
        object.__setattr__(self, "detail", encodable(self.detail))


@dataclass(frozen=True, slots=True)
class Candidate:
    """One sampled response."""

    candidate: int
    """Its number among its prompt's candidates, 0..N-1."""
    response: str
    finish_reason: str | None
    """`stop` or `length`; none where the response was given and nobody knows."""
    num_tokens: int | None
    """None where the response was given, not sampled."""
    logprob: float | None
    """Sum of the response tokens' log-probabilities (nats) under the model, before temperature."""
    seed: int | None
    token_ids: tuple[int, ...] | None = None
    """As sampled, with the end token; none where nobody knows (given responses, some servers)."""


@dataclass(frozen=True, slots=True)
class GivenResponse:
    """One response that an input already has."""

    response: str
    score: float | None = None
    """The input's own score, higher is better."""
    is_correct: bool | None = None
    """The input's own verdict."""
    finish_reason: str | None = None
    num_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class GivenResponses:
    """A prompt that came with its responses; of a pair, the chosen one first.

    Where rows of the input are not grouped by prompt, several rows may have one id; the prompt's
    id is then the row's number, and `extra[GIVEN_ID]` the id that the row had.
    """

    prompt: Prompt
    responses: tuple[GivenResponse, ...]


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """N candidates wanted for one prompt; candidate i is sampled with `seed + i`."""

    prompt_id: str
    messages: tuple[Message, ...]
    num_candidates: int
    seed: int


@dataclass(frozen=True, slots=True)
class GenerationResult:
    """A prompt's candidates in order of their number, or the reason why there are none."""

    prompt_id: str
    candidates: tuple[Candidate, ...]
    num_prompt_tokens: int = 0
    drop: Drop | None = None


@dataclass(frozen=True, slots=True)
class CandidateGroup:
    """A prompt with all its responses, so that a scorer can share the prompt's work."""

    prompt_id: str
    messages: tuple[Message, ...]
    responses: tuple[str, ...]
    extra: Mapping[str, Any] = field(default_factory=dict)
    """The input's other columns, for scorers that compare with a reference."""
    candidates: tuple[Candidate, ...] = ()
    """The responses with all that a pool knows of them, for scorers that ask for it."""
    generation: Mapping[str, Any] = field(default_factory=dict)
    """The settings that a pool's candidates were sampled with, likewise; none for given ones."""


@dataclass(frozen=True, slots=True)
class Scores:
    """One scorer's results for one group, in the order of its responses."""

    prompt_id: str
    scores: tuple[float | None, ...]
    """Higher is better; none where scoring failed, with the reason in `reasons`."""
    num_tokens: tuple[int, ...]
    """Tokens of the scored conversation after truncation."""
    truncated: tuple[bool, ...]
    reasons: dict[int, Drop] = field(default_factory=dict)
    """Why a score is none, by position."""


@dataclass(frozen=True, slots=True)
class Rescored:
    """A prompt's stored scores, and what a reference gave some of its candidates."""

    prompt_id: str
    scores: tuple[float | None, ...]
    """All of the prompt's, by candidate number."""
    references: dict[int, float | Drop]
    """By candidate number: the reference's score, or why there is none."""


GIVEN_ID = "__prompt_id__"
"""Key in `extra` for the id of an input row, where a pool's own id had to be another."""

MESSAGES_TYPE = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))

PROMPTS_SCHEMA = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("prompt", MESSAGES_TYPE),
        ("extra", pa.string()),  # a JSON object: its keys may differ from row to row
        ("row", pa.int64()),
        ("where", pa.string()),
    ]
)
CANDIDATES_SCHEMA = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("candidate", pa.int32()),
        ("response", pa.string()),
        ("finish_reason", pa.string()),
        ("num_tokens", pa.int32()),
        ("logprob", pa.float32()),
        ("seed", pa.int64()),
        ("token_ids", pa.list_(pa.int32())),
    ]
)
YOUNGER_COLUMNS = frozenset({"token_ids"})
"""Columns that parts written by older versions lack; they are read as null."""
SCORES_SCHEMA = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("candidate", pa.int32()),
        ("score", pa.float32()),
        ("num_tokens", pa.int32()),
        ("truncated", pa.bool_()),
    ]
)
DROPS_SCHEMA = pa.schema(
    [
        ("where", pa.string()),
        ("id", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("row", pa.int64()),
        ("candidate", pa.int32()),
    ]
)

RESPONSE_FIELDS = (
    pa.field("prompt_id", pa.string()),
    pa.field("prompt", pa.string()),
    pa.field("response", pa.string()),
    pa.field("messages", MESSAGES_TYPE),
    pa.field("reward", pa.float32()),
    pa.field("candidate", pa.int32()),
    pa.field("num_candidates", pa.int32()),
    pa.field("rewards", pa.list_(pa.float32())),
    pa.field("finish_reason", pa.string()),
    pa.field("num_tokens", pa.int32()),
)
"""A set of responses, one row each; `messages` is the whole conversation, `prompt` its last user
turn. `rewards` is there where a row stands for all candidates of its prompt (select)."""

PAIR_FIELDS = (
    pa.field("prompt", MESSAGES_TYPE),
    pa.field("chosen", MESSAGES_TYPE),
    pa.field("rejected", MESSAGES_TYPE),
    pa.field("score_chosen", pa.float32()),
    pa.field("score_rejected", pa.float32()),
    pa.field("margin", pa.float32()),
    pa.field("prompt_id", pa.string()),
    pa.field("candidate_chosen", pa.int32()),
    pa.field("candidate_rejected", pa.int32()),
    pa.field("num_tokens_chosen", pa.int32()),
    pa.field("num_tokens_rejected", pa.int32()),
)
"""A set of preference pairs; `chosen` and `rejected` are one assistant message each."""

PROMPT_FIELDS = (pa.field("prompt_id", pa.string()), pa.field("prompt", MESSAGES_TYPE))
"""A set of prompts."""

"""The rows that travel through `bon`, and every Arrow schema they are stored with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypedDict

import pyarrow as pa

__all__ = [
    "CANDIDATES_SCHEMA",
    "DROPS_SCHEMA",
    "MESSAGES_TYPE",
    "PROMPTS_SCHEMA",
    "SCORES_SCHEMA",
    "Candidate",
    "CandidateGroup",
    "Drop",
    "GenerationRequest",
    "GenerationResult",
    "Message",
    "Prompt",
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


@dataclass(frozen=True, slots=True)
class Candidate:
    """One sampled response."""

    candidate: int
    """Its number among its prompt's candidates, 0..N-1."""
    response: str
    finish_reason: str
    """`stop` or `length`."""
    num_tokens: int
    logprob: float | None
    """Sum of the response tokens' log-probabilities (nats) under the model, before temperature."""
    seed: int


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
    ]
)
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

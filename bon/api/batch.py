"""From the lists that trainers give to a reward function to groups of candidates, and back."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bon.errors import InputError
from bon.records import Candidate, CandidateGroup, Drop, Message, Scores
from bon.sources.ids import Ids
from bon.sources.messages import read_turns
from bon.sources.rows import RowFault

__all__ = ["Batch", "read_batch"]

_OF_THE_TRAINER = frozenset(
    {"completion_ids", "environments", "log_extra", "log_metric", "trainer_state"}
)
"""What TRL hands over beside the columns of the dataset."""
_SURROGATE = re.compile("[\ud800-\udfff]")
"""No text: it cannot be written, and no tokenizer takes it."""
_JSON = (str, int, float, bool, list, tuple, dict, type(None))


@dataclass(frozen=True, slots=True)
class Batch:
    """The completions of one call."""

    groups: tuple[CandidateGroup, ...]
    positions: tuple[tuple[int, ...], ...]
    """Where the responses of each group stand in the call."""
    drops: dict[int, Drop]
    """Completions that cannot be read, by position."""

    def spread(self, results: Sequence[Scores]) -> tuple[list[float | None], list[Drop]]:
        """Return a reward for each completion of the call, and why some have none."""
        num_read = sum(map(len, self.positions))
        rewards: list[float | None] = [None] * (num_read + len(self.drops))
        drops = list(self.drops.values())
        for places, result in zip(self.positions, results, strict=True):
            for place, score in zip(places, result.scores, strict=True):
                rewards[place] = None if score is None else float(score)
            drops += result.reasons.values()
        return rewards, drops


@dataclass(frozen=True, slots=True)
class _Row:
    position: int
    messages: tuple[Message, ...]
    response: str
    extra: dict[str, Any]
    token_ids: tuple[int, ...] | None
    """As sampled; none where the trainer does not say, or where they are those of several turns."""

    def continues(self, other: _Row) -> bool:
        """Tell whether it is a candidate of the same prompt, right behind the other."""
        try:
            return (
                self.position == other.position + 1
                and self.messages == other.messages
                and bool(self.extra == other.extra)
            )
        except ValueError:  # arrays inside: whether they are equal is no single answer
            return False


def read_batch(
    prompts: Sequence[Any], completions: Sequence[Any], columns: Mapping[str, Any]
) -> Batch:
    """Read a call of TRL's contract: prompts and completions are texts or lists of messages.

    Of `columns` all that are lists are the dataset's, a value a completion. Consecutive completions
    of one prompt, whose other columns are equal too, become one group: so a scorer can share the
    prompt's work among them, and a judge can compare them. `completion_ids` are sampled tokens, for
    scorers that count them.

    Raises:
        InputError: the lists are not of one length.
    """
    texts, asked = list(completions), list(prompts)
    _check_length("prompts", asked, len(texts))
    extras, ids = _extras(columns, len(texts)), _token_ids(columns, len(texts))
    runs: list[list[_Row]] = []
    drops: dict[int, Drop] = {}
    for position, (prompt, completion) in enumerate(zip(asked, texts, strict=True)):
        try:
            messages, response, num_turns = _conversation(prompt, completion)
        except RowFault as error:
            drops[position] = Drop(error.fault.reason, error.fault.detail)
            continue
        token_ids = ids[position] if num_turns == 1 else None
        row = _Row(position, messages, response, extras[position], token_ids)
        if runs and row.continues(runs[-1][-1]):
            runs[-1].append(row)
        else:
            runs.append([row])
    names = Ids()
    groups = tuple(_group(names.make(run[0].messages), run) for run in runs)
    return Batch(groups, tuple(tuple(row.position for row in run) for run in runs), drops)


def _group(prompt_id: str, run: Sequence[_Row]) -> CandidateGroup:
    candidates = tuple(
        Candidate(number, row.response, None, len(row.token_ids), None, None, row.token_ids)
        for number, row in enumerate(run)
        if row.token_ids is not None
    )
    return CandidateGroup(
        prompt_id,
        run[0].messages,
        tuple(row.response for row in run),
        run[0].extra,
        candidates if len(candidates) == len(run) else (),
    )


def _conversation(prompt: Any, completion: Any) -> tuple[tuple[Message, ...], str, int]:
    """Return the messages before the response that is scored, its text, and the completion's number
    of turns."""
    turns = _turns(completion, "completion", "assistant")
    if not turns or turns[-1]["role"] != "assistant":
        what = f"ends with a turn of {turns[-1]['role']!r}" if turns else "is empty"
        raise RowFault("missing_response", f"the completion {what}, not of the assistant")
    messages = (*_turns(prompt, "prompt", "user"), *turns[:-1])
    return messages, turns[-1]["content"], len(turns)


def _turns(value: Any, name: str, role: str) -> tuple[Message, ...]:
    if isinstance(value, str):
        turns: tuple[Message, ...] = (Message(role=role, content=value),)
    else:
        turns, _ = read_turns(list(value) if isinstance(value, tuple) else value, name)
    if any(_SURROGATE.search(turn["content"]) for turn in turns):
        raise RowFault("invalid_unicode", f"the {name} has half of a surrogate pair")
    return turns


def _extras(columns: Mapping[str, Any], num_rows: int) -> list[dict[str, Any]]:
    """Return the dataset's other columns, a mapping for each completion."""
    lists: dict[str, list[Any]] = {}
    for name, column in columns.items():
        values = column.tolist() if hasattr(column, "tolist") else column  # numpy, torch
        is_column = isinstance(values, Sequence) and not isinstance(values, str | bytes)
        if is_column and name not in _OF_THE_TRAINER:
            _check_length(name, values, num_rows)
            lists[name] = [_plain(value) for value in values]
    return [
        {name: values[row] for name, values in lists.items() if isinstance(values[row], _JSON)}
        for row in range(num_rows)
    ]


def _plain(value: Any) -> Any:
    """Return a number of numpy or torch as Python's own; all else is itself."""
    return value.item() if getattr(value, "shape", None) == () else value


def _token_ids(columns: Mapping[str, Any], num_rows: int) -> list[tuple[int, ...] | None]:
    """Return what TRL says of the sampled tokens, end token included."""
    said = columns.get("completion_ids")
    if not isinstance(said, list | tuple) or len(said) != num_rows:
        return [None] * num_rows
    return [tuple(map(int, ids)) if isinstance(ids, list | tuple) else None for ids in said]


def _check_length(name: str, values: Sequence[Any], num_rows: int) -> None:
    if len(values) != num_rows:
        raise InputError(
            f"{name!r} has {len(values)} values for {num_rows} completions",
            why="a reward function is given one value of each column for each completion",
            next_step="repeat a prompt and its columns for each of its completions",
        )

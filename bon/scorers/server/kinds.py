"""What is sent to each kind of reward server, and how its answer is read."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from bon.records import Drop
from bon.scorers.encoding import Encoded
from bon.scorers.families.steps import StepAggregate, aggregate

__all__ = ["SglangIds", "SglangTexts", "Speech", "VllmClassify", "VllmPooling", "as_text"]


class Speech(Protocol):
    """How conversations are put to a server, and rewards read from what it says."""

    @property
    def path(self) -> str:
        """Where to ask."""
        ...

    def body(self, items: Sequence[Encoded]) -> dict[str, Any]:
        """Return the request for some conversations."""
        ...

    def rewards(self, body: Any, items: Sequence[Encoded]) -> list[float | Drop]:
        """Return the raw reward of each.

        Raises:
            ValueError, KeyError, TypeError, IndexError: the answer is not what was promised.
        """
        ...


@dataclass(frozen=True, slots=True)
class VllmClassify:
    """vLLM's `/classify`, of models with a classification head."""

    model: str
    path: str = "/classify"

    def body(self, items: Sequence[Encoded]) -> dict[str, Any]:
        """Ask with token ids, for what the head gives and not its sigmoid."""
        return _vllm_body(self.model, items)

    def rewards(self, body: Any, items: Sequence[Encoded]) -> list[float | Drop]:
        """Return the one label's value of each."""
        return [_only(row["probs"]) for row in _vllm_rows(body, items)]


@dataclass(frozen=True, slots=True)
class VllmPooling:
    """vLLM's `/pooling`, of models that give every token, or every step, a row of labels."""

    model: str
    per_step: bool
    """Rows are the two labels of steps; otherwise the last one is the reward."""
    aggregate: StepAggregate
    step_token: int | None = None
    """Token whose rows alone a server gives that pools steps by itself."""
    path: str = "/pooling"

    def body(self, items: Sequence[Encoded]) -> dict[str, Any]:
        """Ask with token ids, for what the head gives and not its softmax."""
        return _vllm_body(self.model, items)

    def rewards(self, body: Any, items: Sequence[Encoded]) -> list[float | Drop]:
        """Return what the rows of each conversation come to."""
        rows = _vllm_rows(body, items)
        return [self._reward(row["data"], item) for row, item in zip(rows, items, strict=True)]

    def _reward(self, rows_RL: Any, item: Encoded) -> float:
        if not self.per_step:
            if not isinstance(rows_RL[0], list):
                return _only(rows_RL)  # a server that pools the last token alone
            if len(rows_RL) not in (1, len(item.tokens)):
                raise ValueError(f"{len(rows_RL)} rows for {len(item.tokens)} tokens")
            return _only(rows_RL[-1])
        return aggregate([_right(row) for row in self._read(rows_RL, item)], self.aggregate)

    def _read(self, rows_RL: Sequence[Any], item: Encoded) -> list[Any]:
        """Return the rows at the steps' ends."""
        if len(rows_RL) == len(item.tokens):
            return [rows_RL[position] for position in item.reads]
        places = [at for at, token in enumerate(item.tokens) if token == self.step_token]
        if len(rows_RL) == len(places):
            return [rows_RL[places.index(position)] for position in item.reads]
        raise ValueError(
            f"{len(rows_RL)} rows for {len(item.tokens)} tokens and {len(item.reads)} steps"
        )


@dataclass(frozen=True, slots=True)
class SglangIds:
    """SGLang's `/classify` with token ids."""

    model: str
    path: str = "/classify"

    def body(self, items: Sequence[Encoded]) -> dict[str, Any]:
        """Ask with token ids."""
        return {"model": self.model, "input_ids": [list(item.tokens) for item in items]}

    def rewards(self, body: Any, items: Sequence[Encoded]) -> list[float | Drop]:
        """Return the one number of each."""
        return _sglang_rewards(body, len(items))


@dataclass(frozen=True, slots=True)
class SglangTexts:
    """SGLang's `/classify` with texts, for servers that take no token ids."""

    model: str
    texts: Callable[[Encoded], str]
    """From a conversation to the text that the server's tokenizer makes its tokens of."""
    path: str = "/classify"

    def body(self, items: Sequence[Encoded]) -> dict[str, Any]:
        """Ask with texts."""
        return {"model": self.model, "text": [self.texts(item) for item in items]}

    def rewards(self, body: Any, items: Sequence[Encoded]) -> list[float | Drop]:
        """Return the one number of each."""
        return _sglang_rewards(body, len(items))


def as_text(tokenizer: Any, item: Encoded) -> str | None:
    """Return the text that a tokenizer makes exactly these tokens of, none where there is none.

    A server puts the special tokens in front and behind that its tokenizer adds: they are left out
    of the text, or there would be two.
    """
    tokens = list(item.tokens)
    for start, stop in ((0, None), (1, None), (1, -1), (0, -1)):
        text = tokenizer.decode(tokens[start:stop], skip_special_tokens=False)
        if list(tokenizer(text)["input_ids"]) == tokens:
            return str(text)
    return None


def _vllm_body(model: str, items: Sequence[Encoded]) -> dict[str, Any]:
    inputs = [list(item.tokens) for item in items]
    return {"model": model, "input": inputs, "use_activation": False}


def _vllm_rows(body: Any, items: Sequence[Encoded]) -> list[Any]:
    rows = sorted(body["data"], key=lambda row: int(row["index"]))
    if [row["index"] for row in rows] != list(range(len(items))):
        raise ValueError(f"{len(rows)} results for {len(items)} conversations")
    return rows


def _sglang_rewards(body: Any, count: int) -> list[float | Drop]:
    rows = body if isinstance(body, list) else [body]  # one is no list
    if len(rows) != count:
        raise ValueError(f"{len(rows)} results for {count} conversations")
    return [_only(row["embedding"]) for row in rows]


def _only(values: Any) -> float:
    """Return the one number of a list."""
    if not isinstance(values, list) or len(values) != 1:
        count = len(values) if isinstance(values, list) else "no"
        raise ValueError(f"{count} numbers for a conversation, a reward model gives one")
    return _number(values[0])


def _number(value: Any) -> float:
    if value is None:
        return math.nan  # what JSON has in its place
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{value!r} is no number")
    return float(value)


def _right(row_2: Any) -> float:
    """Return the probability of label 1, that a step is right, from two logits."""
    wrong, right = (_number(value) for value in row_2)
    if wrong > right:
        odds = math.exp(right - wrong)
        return odds / (1 + odds)
    return 1 / (1 + math.exp(wrong - right))

"""The pairs of one frame: what is computed of its rows alone, wherever that happens."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bon.config import PairSettings
from bon.guards import (
    GUARDS,
    below_min_chosen,
    both_right,
    both_wrong,
    chosen_truncated,
    empty_response,
    guard_reasons,
    length_ratio,
    low_margin,
    response_lengths,
    same_after_truncation,
    same_text,
    tie,
)
from bon.pairs import REASONS, Pairs, form_pairs
from bon.pipeline.conversations import single_turns
from bon.pipeline.frames import Frame
from bon.pipeline.passthrough import PassThrough, given_ids
from bon.pipeline.rewards import Ranking
from bon.records import PAIR_FIELDS, Drop, Message

__all__ = ["FormedPairs", "Pairing", "Tokenize"]

_MEASURED = ("margin", "score_chosen", "score_rejected", "num_tokens_chosen", "num_tokens_rejected")
"""Numbers of the pairs whose means are reported."""

Tokenize: TypeAlias = Callable[[Sequence[Sequence[Message]]], list[list[int]]]
"""Conversations to token ids, by the template of the model that will be trained."""


@dataclass(frozen=True, slots=True)
class FormedPairs:
    """What comes of one frame: its pairs, and what is to be booked."""

    table: pa.Table
    num_candidates: int
    num_pairs: int
    """Before the guards."""
    pair_drops: dict[str, int]
    num_kept: int
    drops: tuple[Drop, ...]
    sums: dict[str, tuple[float, int]]
    """Of the pairs' numbers, by the name of their mean, and of how many."""


@dataclass(frozen=True, slots=True)
class _Batch:
    """The pairs that were formed of one part, and what the guards look at."""

    frame: Frame
    pairs: Pairs
    reward_PN: NDArray[np.float64]
    right_PN: NDArray[np.float64] | None
    length_PN: NDArray[np.float64] | None
    """None where nothing asks for lengths."""
    margin_Q: NDArray[np.float64]

    @property
    def chosen_Q(self) -> NDArray[np.int64]:
        """Rows of the chosen candidates."""
        return self.frame.start_P[self.pairs.prompt_Q] + self.pairs.chosen_Q

    @property
    def rejected_Q(self) -> NDArray[np.int64]:
        """Rows of the rejected candidates."""
        return self.frame.start_P[self.pairs.prompt_Q] + self.pairs.rejected_Q


@dataclass(frozen=True, slots=True)
class Pairing:
    """Forms and guards the pairs of one frame; can be pickled, and changes nothing."""

    settings: PairSettings
    ranking: Ranking | None
    rule: str | None
    seed: int
    tokenize: Tokenize | None
    others: PassThrough
    lowest: float = -math.inf
    """The margin that pairs must be above."""

    @property
    def schema(self) -> pa.Schema:
        """The columns of the pairs, then the input's own."""
        return pa.schema([*PAIR_FIELDS, *self.others.fields])

    def __call__(self, frame: Frame) -> FormedPairs:
        """Form and guard the pairs of a frame."""
        batch = self._form(frame)
        reason_Q = self._guard(batch)
        names, counts = np.unique(reason_Q[reason_Q != ""], return_counts=True)
        drops = _drops(batch, reason_Q)
        table = self._table(batch, np.flatnonzero(reason_Q == ""))
        return FormedPairs(
            table,
            frame.candidates.num_rows,
            len(reason_Q),
            dict(zip(names.tolist(), counts.tolist(), strict=True)),
            len(frame.count_P) - len(drops),
            drops,
            _sums(table),
        )

    def margins(self, frame: Frame) -> NDArray[np.float64]:
        """Return the margins of a frame's pairs, before the guards."""
        return self._form(frame).margin_Q

    @property
    def needs_lengths(self) -> bool:
        """Whether anything asks for the lengths of responses."""
        settings = self.settings
        return settings.match_length is not None or settings.max_length_ratio is not None

    def _form(self, frame: Frame) -> _Batch:
        settings = self.settings
        width = int(frame.count_P.max(initial=0))
        if self.ranking is None:
            reward_PN = np.full((len(frame.count_P), width), np.nan)
        else:
            reward_PN = frame.padded(frame.scores[self.ranking.name])
        right_PN = None
        if self.rule is not None:
            right_C = frame.scores[self.rule]
            if self.ranking is not None:  # what a gate keeps out is neither chosen nor rejected
                right_C = np.where(self.ranking.passes_gates(frame), right_C, np.nan)
            right_PN = frame.padded(right_C)
        length_PN = None
        if self.needs_lengths:
            texts, tokens = frame.candidates["response"], frame.candidates["num_tokens"]
            length_PN = frame.padded(response_lengths(texts, tokens, frame.count_P))
        draws = settings.strategy == "best-random"
        pairs = form_pairs(
            reward_PN,
            frame.count_P,
            strategy=settings.strategy,
            right_PN=right_PN,
            length_PN=length_PN,
            match_length=settings.match_length,
            seed_P=_seeds(frame.prompts["prompt_id"], self.seed) if draws else None,
            min_preference_prob=settings.min_preference_prob,
            preference_temperature=settings.preference_temperature,
            max_pairs=settings.max_pairs,
            num_sigmas=settings.num_sigmas,
            chosen_quantile=settings.chosen_quantile,
            rejected_quantile=settings.rejected_quantile,
            k=settings.k,
        )
        margin_Q = pairs.margins(reward_PN)
        return _Batch(frame, pairs, reward_PN, right_PN, length_PN, margin_Q)

    def _guard(self, batch: _Batch) -> NDArray[np.str_]:
        settings, pairs, columns = self.settings, batch.pairs, batch.frame.candidates
        verified = settings.strategy == "verified"
        chosen_Q = columns["response"].take(pa.array(batch.chosen_Q))
        rejected_Q = columns["response"].take(pa.array(batch.rejected_Q))
        failed = {
            "chosen_truncated": chosen_truncated(
                columns["finish_reason"].take(pa.array(batch.chosen_Q))
            ),
            "empty_response": empty_response(chosen_Q, rejected_Q),
            "same_text": same_text(chosen_Q, rejected_Q),
        }
        if not verified:
            failed["tie"] = tie(batch.margin_Q)
        if not verified or "min_margin" in settings.model_fields_set:
            failed["low_margin"] = low_margin(batch.margin_Q, self.lowest)
        if settings.min_chosen is not None:
            reward_Q = pairs.of_chosen(batch.reward_PN)
            failed["below_min_chosen"] = below_min_chosen(reward_Q, settings.min_chosen)
        if batch.right_PN is not None and not verified:
            right = pairs.of_chosen(batch.right_PN), pairs.of_rejected(batch.right_PN)
            failed |= {"both_right": both_right(*right), "both_wrong": both_wrong(*right)}
        if settings.max_length_ratio is not None and batch.length_PN is not None:
            lengths = pairs.of_chosen(batch.length_PN), pairs.of_rejected(batch.length_PN)
            failed["length_ratio"] = length_ratio(*lengths, settings.max_length_ratio)
        if self.tokenize is not None:
            tokens = (self._truncated(batch, texts) for texts in (chosen_Q, rejected_Q))
            failed["same_after_truncation"] = same_after_truncation(*tokens)
        return guard_reasons(failed, len(pairs.prompt_Q), settings.allow)

    def _truncated(self, batch: _Batch, responses_Q: pa.ChunkedArray) -> list[list[int]]:
        """Tokens of prompt and response, the end cut off as trainers do."""
        assert self.tokenize is not None
        prompts_Q = batch.frame.prompts["prompt"].take(pa.array(batch.pairs.prompt_Q)).to_pylist()
        whole = [
            [*prompt, Message(role="assistant", content=response)]
            for prompt, response in zip(prompts_Q, responses_Q.to_pylist(), strict=True)
        ]
        return [tokens[: self.settings.max_length] for tokens in self.tokenize(whole)]

    def _table(self, batch: _Batch, kept: NDArray[np.int64]) -> pa.Table:
        pairs, frame = batch.pairs, batch.frame
        prompt_K, chosen_K, rejected_K = (
            pa.array(rows[kept]) for rows in (pairs.prompt_Q, batch.chosen_Q, batch.rejected_Q)
        )
        chosen, rejected = (frame.candidates.take(rows) for rows in (chosen_K, rejected_K))
        scores = {
            "score_chosen": pairs.of_chosen(batch.reward_PN)[kept],
            "score_rejected": pairs.of_rejected(batch.reward_PN)[kept],
            "margin": batch.margin_Q[kept],
        }
        columns = {
            "prompt": frame.prompts["prompt"].take(prompt_K),
            "chosen": single_turns(chosen["response"].combine_chunks()),
            "rejected": single_turns(rejected["response"].combine_chunks()),
            **{name: pa.array(v, pa.float32(), from_pandas=True) for name, v in scores.items()},
            "prompt_id": given_ids(frame.prompts).take(prompt_K),
            "candidate_chosen": chosen["candidate"],
            "candidate_rejected": rejected["candidate"],
            "num_tokens_chosen": chosen["num_tokens"],
            "num_tokens_rejected": rejected["num_tokens"],
        }
        ours = [columns[item.name] for item in PAIR_FIELDS]
        extras = self.others.read(frame.prompts)
        others = [array.take(prompt_K) for array in self.others.arrays(extras)]
        return pa.table([*ours, *others], schema=self.schema)


def _drops(batch: _Batch, reason_Q: NDArray[np.str_]) -> tuple[Drop, ...]:
    """Return the prompts that have no pair left, each with the reason of its first one."""
    pairs = batch.pairs
    reason_P = pairs.reason_P.astype(object)
    first_Q = np.flatnonzero(np.diff(pairs.prompt_Q, prepend=-1))
    reason_P[pairs.prompt_Q[first_Q]] = reason_Q[first_Q]
    reason_P[pairs.prompt_Q[reason_Q == ""]] = ""
    dropped = np.flatnonzero(reason_P != "")
    columns = batch.frame.prompts.select(["where", "prompt_id", "row"])
    return tuple(
        Drop(
            reason,
            REASONS.get(reason) or GUARDS[reason],
            place["where"],
            place["prompt_id"],
            place["row"],
        )
        for reason, place in zip(
            reason_P[dropped], columns.take(pa.array(dropped)).to_pylist(), strict=True
        )
    )


def _sums(table: pa.Table) -> dict[str, tuple[float, int]]:
    """Sum the pairs' numbers, by the name of their mean; nulls do not count."""
    sums = {}
    for name in _MEASURED:
        values = table[name]
        total = pc.sum(values.cast(pa.float64())).as_py() or 0.0
        sums[f"mean_{name}"] = total, len(values) - values.null_count
    return sums


def _seeds(prompt_ids: pa.ChunkedArray, seed: int) -> NDArray[np.uint64]:
    """Return each prompt's own seed: its draws are no other prompt's."""
    digests = [
        hashlib.blake2b(f"pairs\0{seed}\0{prompt_id}".encode(), digest_size=8).digest()
        for prompt_id in prompt_ids.to_pylist()
    ]
    return np.frombuffer(b"".join(digests), dtype="<u8")

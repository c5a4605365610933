"""DPO pairs: a ranked pool in, chosen and rejected responses out, as Arrow tables."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bon.config import PairSettings
from bon.errors import SettingsError, UnknownChoiceError, did_you_mean
from bon.guards import (
    GUARDS,
    below_min_chosen,
    both_right,
    both_wrong,
    check_guards,
    chosen_truncated,
    empty_response,
    guard_reasons,
    length_ratio,
    low_margin,
    margin_threshold,
    response_lengths,
    same_after_truncation,
    same_text,
    tie,
)
from bon.pairs import REASONS, Pairs, form_pairs
from bon.pipeline.accounting import Accounting
from bon.pipeline.conversations import single_turns
from bon.pipeline.frames import Frame
from bon.pipeline.passthrough import PassThrough, given_ids
from bon.pipeline.ranked import open_books
from bon.pipeline.rewards import Ranking, ranked_frames
from bon.pool.pool import Pool
from bon.records import PAIR_FIELDS, Drop, Message

__all__ = ["PairBuilder", "PairReport", "Tokenize", "check_pairs"]

RULE_NAMES = ("math", "exact", "label")
"""What `--rule` takes: two rules, and the input's own verdicts."""

Tokenize: TypeAlias = Callable[[Sequence[Sequence[Message]]], list[list[int]]]
"""Conversations to token ids, by the template of the model that will be trained."""


@dataclass
class PairReport:
    """What pairing did; means are over the pairs that were written."""

    accounting: Accounting
    strategy: str
    scorer: str | None
    rule: str | None
    num_candidates: int = 0
    num_pairs: int = 0
    """Pairs formed, before the guards."""
    pair_drops: Counter[str] = field(default_factory=Counter)
    """Formed pairs that a guard dropped, by reason."""
    _totals: dict[str, tuple[float, int]] = field(default_factory=dict)

    def add(self, name: str, values: pa.Array | pa.ChunkedArray) -> None:
        """Take values into the mean of this name; nulls do not count."""
        total, count = self._totals.get(name, (0.0, 0))
        total += pc.sum(values.cast(pa.float64())).as_py() or 0.0
        self._totals[name] = total, count + len(values) - values.null_count

    def as_json(self) -> dict[str, Any]:
        """Return the report for `--json`."""
        # The difference of two large float32 may be infinite, which JSON cannot say.
        means = {
            name: total / num if math.isfinite(total) else None
            for name, (total, num) in self._totals.items()
            if num
        }
        return {
            **self.accounting.as_json(),
            "strategy": self.strategy,
            "scorer": self.scorer,
            "rule": self.rule,
            "candidates": self.num_candidates,
            "pairs": self.num_pairs,
            "pair_drops": dict(sorted(self.pair_drops.items())),
            **means,
        }


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


def check_pairs(settings: PairSettings) -> None:
    """Find before any engine work what would stop the pairing.

    Raises:
        SettingsError: options that contradict each other, or a guard or rule that does not exist.
    """
    check_guards(settings.allow)
    if settings.rule not in (None, *RULE_NAMES):
        raise UnknownChoiceError(
            f"bad value for --rule: {settings.rule!r}",
            next_step=did_you_mean(str(settings.rule), RULE_NAMES),
        )
    if (settings.max_length is None) != (settings.tokenizer is None):
        raise SettingsError(
            "--max-length and --tokenizer go together",
            why="pairs are compared as the trained model's tokens",
            next_step="give both: the limit of the training, and the model that will be trained",
        )
    if settings.min_margin.endswith("%") and float(settings.min_margin[:-1]) > 100:
        raise SettingsError(
            f"bad value for --min-margin: {settings.min_margin!r}",
            why="no more than all pairs can be dropped",
            next_step="give a share up to `100%`, or a reward difference such as `0.5`",
        )
    if settings.strategy == "quantile" and settings.chosen_quantile <= settings.rejected_quantile:
        raise SettingsError(
            "--chosen-quantile must be above --rejected-quantile",
            why=f"they are {settings.chosen_quantile:g} and {settings.rejected_quantile:g}",
        )


class PairBuilder:
    """Forms and guards the pairs of a pool, part by part.

    `ranking` gives the rewards, `rule` names the scores that say right (1) or wrong (0); either
    may be none. `tokenize` is needed where `settings.max_length` is.

    Raises:
        PoolIncompleteError: parts are missing.
    """

    def __init__(
        self,
        pool: Pool,
        settings: PairSettings,
        *,
        ranking: Ranking | None,
        rule: str | None,
        seed: int,
        limit: int | None,
        tokenize: Tokenize | None = None,
    ) -> None:
        self._pool, self._settings, self._seed, self._limit = pool, settings, seed, limit
        self._ranking, self._tokenize = ranking, tokenize
        self._verdicts = [] if rule is None else [rule]
        read = [*(() if ranking is None else ranking.reads), *self._verdicts]
        books = open_books(pool, list(dict.fromkeys(read)), limit)
        self.report = PairReport(books, settings.strategy, ranking.name if ranking else None, rule)
        self._others = PassThrough(pool, limit, [item.name for item in PAIR_FIELDS])

    @property
    def schema(self) -> pa.Schema:
        """The columns of the pairs, then the input's own."""
        return pa.schema([*PAIR_FIELDS, *self._others.fields])

    def tables(self) -> Iterator[pa.Table]:
        """Yield the pairs in input order, a table for each part, and keep the books."""
        lowest = self._lowest_margin()
        columns = ["response", "finish_reason", "num_tokens"]
        for frame in self._frames(["prompt", "extra", "where"], columns):
            batch = self._form(frame)
            reason_Q = self._guard(batch, lowest)
            self._book(batch, reason_Q)
            yield self._table(batch, np.flatnonzero(reason_Q == ""))

    def _frames(self, prompts: Sequence[str], candidates: Sequence[str]) -> Iterator[Frame]:
        return ranked_frames(
            self._pool,
            self._ranking,
            scorers=self._verdicts,
            limit=self._limit,
            prompt_columns=prompts,
            candidate_columns=candidates,
        )

    def _lowest_margin(self) -> float:
        """Return the margin that pairs must be above; a share of all margins takes a first pass."""
        said = self._settings.min_margin
        if not said.endswith("%"):
            return margin_threshold(said, np.empty(0))
        needs = ["response", "num_tokens"] if self._needs_lengths else []
        margins = [self._form(frame).margin_Q for frame in self._frames([], needs)]
        return margin_threshold(said, np.concatenate([np.empty(0), *margins]))

    @property
    def _needs_lengths(self) -> bool:
        settings = self._settings
        return settings.match_length is not None or settings.max_length_ratio is not None

    def _form(self, frame: Frame) -> _Batch:
        settings, report = self._settings, self.report
        width = int(frame.count_P.max(initial=0))
        if report.scorer is None:
            reward_PN = np.full((len(frame.count_P), width), np.nan)
        else:
            reward_PN = frame.padded(frame.scores[report.scorer])
        right_PN = None
        if report.rule is not None:
            right_C = frame.scores[report.rule]
            if self._ranking is not None:  # what a gate keeps out is neither chosen nor rejected
                right_C = np.where(self._ranking.passes_gates(frame), right_C, np.nan)
            right_PN = frame.padded(right_C)
        length_PN = None
        if self._needs_lengths:
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
            seed_P=_seeds(frame.prompts["prompt_id"], self._seed) if draws else None,
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

    def _guard(self, batch: _Batch, lowest: float) -> NDArray[np.str_]:
        settings, pairs, columns = self._settings, batch.pairs, batch.frame.candidates
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
            failed["low_margin"] = low_margin(batch.margin_Q, lowest)
        if settings.min_chosen is not None:
            reward_Q = pairs.of_chosen(batch.reward_PN)
            failed["below_min_chosen"] = below_min_chosen(reward_Q, settings.min_chosen)
        if batch.right_PN is not None and not verified:
            right = pairs.of_chosen(batch.right_PN), pairs.of_rejected(batch.right_PN)
            failed |= {"both_right": both_right(*right), "both_wrong": both_wrong(*right)}
        if settings.max_length_ratio is not None and batch.length_PN is not None:
            lengths = pairs.of_chosen(batch.length_PN), pairs.of_rejected(batch.length_PN)
            failed["length_ratio"] = length_ratio(*lengths, settings.max_length_ratio)
        if self._tokenize is not None:
            tokens = (self._truncated(batch, texts) for texts in (chosen_Q, rejected_Q))
            failed["same_after_truncation"] = same_after_truncation(*tokens)
        return guard_reasons(failed, len(pairs.prompt_Q), settings.allow)

    def _truncated(self, batch: _Batch, responses_Q: pa.ChunkedArray) -> list[list[int]]:
        """Tokens of prompt and response, the end cut off as trainers do."""
        assert self._tokenize is not None
        prompts_Q = batch.frame.prompts["prompt"].take(pa.array(batch.pairs.prompt_Q)).to_pylist()
        whole = [
            [*prompt, Message(role="assistant", content=response)]
            for prompt, response in zip(prompts_Q, responses_Q.to_pylist(), strict=True)
        ]
        return [tokens[: self._settings.max_length] for tokens in self._tokenize(whole)]

    def _book(self, batch: _Batch, reason_Q: NDArray[np.str_]) -> None:
        """Count a prompt with a pair left as kept, any other by the reason of its first pair."""
        report, pairs, prompts = self.report, batch.pairs, batch.frame.prompts
        reason_P = pairs.reason_P.astype(object)
        first_Q = np.flatnonzero(np.diff(pairs.prompt_Q, prepend=-1))
        reason_P[pairs.prompt_Q[first_Q]] = reason_Q[first_Q]
        reason_P[pairs.prompt_Q[reason_Q == ""]] = ""
        report.num_candidates += batch.frame.candidates.num_rows
        report.num_pairs += len(reason_Q)
        names, counts = np.unique(reason_Q[reason_Q != ""], return_counts=True)
        report.pair_drops.update(dict(zip(names.tolist(), counts.tolist(), strict=True)))
        dropped = np.flatnonzero(reason_P != "")
        places = prompts.select(["where", "prompt_id", "row"]).take(pa.array(dropped)).to_pylist()
        for reason, place in zip(reason_P[dropped], places, strict=True):
            detail = REASONS.get(reason) or GUARDS[reason]
            where, prompt_id, row = place["where"], place["prompt_id"], place["row"]
            report.accounting.add(Drop(reason, detail, where, prompt_id, row))
        report.accounting.kept_rows += len(reason_P) - len(dropped)
        report.accounting.output_rows += int((reason_Q == "").sum())

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
        self._measure(columns)
        ours = [columns[item.name] for item in PAIR_FIELDS]
        extras = self._others.read(frame.prompts)
        others = [array.take(prompt_K) for array in self._others.arrays(extras)]
        return pa.table([*ours, *others], schema=self.schema)

    def _measure(self, columns: dict[str, Any]) -> None:
        for name in ("margin", "score_chosen", "score_rejected"):
            self.report.add(f"mean_{name}", columns[name])
        for side in ("chosen", "rejected"):
            self.report.add(f"mean_num_tokens_{side}", columns[f"num_tokens_{side}"])


def _seeds(prompt_ids: pa.ChunkedArray, seed: int) -> NDArray[np.uint64]:
    """Return each prompt's own seed: its draws are no other prompt's."""
    digests = [
        hashlib.blake2b(f"pairs\0{seed}\0{prompt_id}".encode(), digest_size=8).digest()
        for prompt_id in prompt_ids.to_pylist()
    ]
    return np.frombuffer(b"".join(digests), dtype="<u8")

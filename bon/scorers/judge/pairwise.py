"""One score a candidate from pairs that a judge compared, each in both orders."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from bon.bradley_terry import fit_bradley_terry
from bon.records import CandidateGroup, Drop, Scores
from bon.scorers.judge.model import Answer
from bon.scorers.judge.pairing import chosen_pairs
from bon.scorers.judge.templates import Question

__all__ = ["score_pairs"]

_DECIMALS = 6
"""Equal records give strengths that differ in the fit's last bits: rounded, they are ties."""

Ask = Callable[[Iterable[str | Drop]], list[Answer | Drop]]
"""Pulls the questions as it needs them: all of them would be many gigabytes."""
Verdict = Callable[[Answer], float | Drop]
"""1 where an answer prefers the response that stood first, 0 for the second, 0.5 for neither."""


@dataclass
class _Tournament:
    """A group's distinct responses, and who is compared with whom."""

    group: CandidateGroup
    texts: list[str]
    pairs: list[tuple[int, int]]
    """Places in `texts`; each pair is asked in this order, then in the other."""
    outcomes: dict[tuple[int, int], float] = field(default_factory=dict)
    """What the first of a pair won: 1, 0.5 or 0; not there where a comparison failed."""
    failures: dict[int, Drop] = field(default_factory=dict)
    """Why a comparison of this text failed, the first of them."""
    num_tokens: dict[int, int] = field(default_factory=dict)
    """Of the questions in which a text stood first."""

    def questions(self, question: Question) -> Iterator[str | Drop]:
        """Yield both orders of every pair."""
        for left, right in self.pairs:
            for a, b in ((left, right), (right, left)):
                yield question.fill(self.group, response_a=self.texts[a], response_b=self.texts[b])

    def hear(self, answers: Sequence[Answer | Drop], verdict: Verdict) -> None:
        """Take the answers to `questions`."""
        for number, pair in enumerate(self.pairs):
            values: list[float | Drop] = []
            for first, answer in zip(pair, answers[2 * number : 2 * number + 2], strict=True):
                values.append(answer if isinstance(answer, Drop) else verdict(answer))
                if isinstance(answer, Answer):
                    self.num_tokens[first] = self.num_tokens.get(first, 0) + answer.num_tokens
            self._note(pair, *values)

    def _note(self, pair: tuple[int, int], forth: float | Drop, back: float | Drop) -> None:
        if isinstance(forth, Drop) or isinstance(back, Drop):
            failure = forth if isinstance(forth, Drop) else back
            assert isinstance(failure, Drop)
            for place in pair:
                self.failures.setdefault(place, failure)
            return
        # a win counts where both orders agree on it; all else is a tie
        self.outcomes[pair] = forth if forth == 1.0 - back else 0.5

    def scores(self, ridge: float) -> Scores:
        """Fit the outcomes; a text all of whose comparisons failed has no score."""
        compared = {place for pair in self.outcomes for place in pair}
        known = sorted(compared) if self.pairs else range(len(self.texts))
        rank = {place: number for number, place in enumerate(known)}
        win_NN = np.zeros((len(known), len(known)))
        for (left, right), won in self.outcomes.items():
            win_NN[rank[left], rank[right]] += won
            win_NN[rank[right], rank[left]] += 1.0 - won
        strength_N = fit_bradley_terry(win_NN, ridge=ridge)
        places = [self.texts.index(response) for response in self.group.responses]
        found = [float(strength_N[rank[place]]) if place in rank else None for place in places]
        there = [value for value in found if value is not None]
        mean = sum(there) / len(there) if there else 0.0
        return Scores(
            self.group.prompt_id,
            tuple(
                None if value is None else round(value - mean, _DECIMALS) + 0.0 for value in found
            ),
            tuple(self.num_tokens.get(place, 0) for place in places),
            (False,) * len(places),
            {
                number: self.failures[place]
                for number, place in enumerate(places)
                if place not in rank
            },
        )


def score_pairs(
    groups: Sequence[CandidateGroup],
    question: Question,
    ask: Ask,
    verdict: Verdict,
    *,
    max_pairs: int | None,
    ridge: float,
) -> list[Scores]:
    """Score every response of every group by Bradley-Terry strengths, mean 0 within the prompt.

    Equal responses are one: they get the same score and are not compared. A comparison counts where
    both orders got a verdict.
    """
    tournaments = [_tournament(group, max_pairs) for group in groups]
    answers = iter(ask(text for one in tournaments for text in one.questions(question)))
    for one in tournaments:
        one.hear(list(islice(answers, 2 * len(one.pairs))), verdict)
    return [one.scores(ridge) for one in tournaments]


def _tournament(group: CandidateGroup, max_pairs: int | None) -> _Tournament:
    texts = list(dict.fromkeys(group.responses))
    return _Tournament(group, texts, chosen_pairs(group.prompt_id, texts, max_pairs))

"""The scorer that asks a judge about every candidate, or about pairs of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from typing import ClassVar

from bon.records import CandidateGroup, Drop, Scores
from bon.scorers.judge.answers import (
    Find,
    rubric_score,
    text_verdict,
    word_verdict,
    yes_probability,
)
from bon.scorers.judge.model import Answer, JudgeModel
from bon.scorers.judge.options import JudgeOptions
from bon.scorers.judge.pairing import num_pairs
from bon.scorers.judge.pairwise import score_pairs
from bon.scorers.judge.templates import Question
from bon.scorers.rules.limited import LimitedProcess

__all__ = ["JudgeScorer"]

_SMALL_SHARE = 0.5
_PATTERN_S = 5.0
"""Computing time for a pattern on one answer."""
_QUESTIONS_A_SLICE = 16_384
"""Many more than an engine runs at once, so that it seldom runs empty; few enough for their answers
(some kilobytes each, where the judge thinks) to fit into memory."""


@dataclass
class JudgeScorer:
    """`Scorer` whose scores a language model gives."""

    version: ClassVar[int] = 2
    """Goes up when the same answers come to give other scores."""

    options: JudgeOptions
    question: Question
    model: JudgeModel
    halved_batch_tokens: int | None = None

    @property
    def num_tokens_computed(self) -> int:
        """Tokens that the judge computed since the scorer was entered; 0 behind a server."""
        return self.model.num_tokens_computed

    @property
    def retries(self) -> Mapping[str, int]:
        """How often a server was asked again since the scorer was entered, by cause."""
        retries: Mapping[str, int] = getattr(self.model, "retries", {})
        return retries

    def __enter__(self) -> JudgeScorer:
        self._find: Find | None = None
        with ExitStack() as entered:  # what was entered is left again where the next cannot be
            if self.options.pattern is not None:
                # of its own, with a limit: a pattern may take for ever on what a judge says
                setup = {"how": "verdict", "pattern": self.options.pattern, "group": None}
                process = LimitedProcess(
                    "pattern_work.py", setup, _PATTERN_S, "the judge's pattern"
                )
                entered.callback(process.stop)
                process.start()
                self._find = process.ask
            entered.enter_context(self.model)
            self._entered = entered.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._entered.close()

    def score(self, groups: Sequence[CandidateGroup]) -> list[Scores]:
        """Judge every response of every group; a failed one is none, with its reason."""
        return [scores for some in self._slices(groups) for scores in self._judged(some)]

    def _slices(self, groups: Sequence[CandidateGroup]) -> Iterator[list[CandidateGroup]]:
        """Yield groups of so many questions as are asked before the engine runs empty."""
        some: list[CandidateGroup] = []
        num_asked = 0
        for group in groups:
            num = len(group.responses)
            is_pairs = self.options.mode == "pairwise"
            num_asked += 2 * num_pairs(num, self.options.max_pairs) if is_pairs else num
            some.append(group)
            if num_asked >= _QUESTIONS_A_SLICE:
                yield some
                some, num_asked = [], 0
        if some:
            yield some

    def _judged(self, groups: Sequence[CandidateGroup]) -> list[Scores]:
        if self.options.mode == "pairwise":
            return score_pairs(
                groups, self.question, self._ask, self._verdict,
                max_pairs=self.options.max_pairs, ridge=self.options.ridge,
            )  # fmt: skip
        answers = iter(
            self._ask(
                self.question.fill(group, response=response)
                for group in groups
                for response in group.responses
            )
        )
        return [
            self._points(group, list(islice(answers, len(group.responses)))) for group in groups
        ]

    def _points(self, group: CandidateGroup, answers: Sequence[Answer | Drop]) -> Scores:
        values = [one if isinstance(one, Drop) else self._point(one) for one in answers]
        return Scores(
            group.prompt_id,
            tuple(None if isinstance(one, Drop) else one for one in values),
            tuple(0 if isinstance(one, Drop) else one.num_tokens for one in answers),
            (False,) * len(values),
            {place: one for place, one in enumerate(values) if isinstance(one, Drop)},
        )

    def _point(self, answer: Answer) -> float | Drop:
        if self.options.mode == "rubric":
            return rubric_score(answer, self._find, self.options.bounds)
        return yes_probability(answer)

    def _verdict(self, answer: Answer) -> float | Drop:
        if self.options.reads_text:
            return text_verdict(answer, self._find)
        return word_verdict(answer)

    def _ask(self, questions: Iterable[str | Drop]) -> list[Answer | Drop]:
        """Ask each question once, however often it is there; a drop stays one."""
        asked: list[int | Drop] = []
        numbers: dict[bytes, int] = {}  # by digest: the texts themselves would fill the memory

        def distinct() -> Iterator[str]:
            for one in questions:
                if isinstance(one, Drop):
                    asked.append(one)
                    continue
                digest = sha256(one.encode("utf-8", "surrogatepass")).digest()
                is_new = digest not in numbers
                asked.append(numbers.setdefault(digest, len(numbers)))
                if is_new:
                    yield one

        answers = self.model.answer(distinct())
        self._note_share(answers)
        return [one if isinstance(one, Drop) else answers[one] for one in asked]

    def _note_share(self, answers: Sequence[Answer | Drop]) -> None:
        """Say in the log where a judge would rather have said something else than its two words."""
        pairs = [one.logprobs for one in answers if isinstance(one, Answer) and one.logprobs]
        share = sum(math.exp(first) + math.exp(second) for first, second in pairs)
        if pairs and share < _SMALL_SHARE * len(pairs):
            words = " and ".join(map(repr, self.question.words or ()))
            print(
                f"judge: {words} have {share / len(pairs):.1%} of the probability together: the "
                "judge would say something else; see that the template asks for them"
            )

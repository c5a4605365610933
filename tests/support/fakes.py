"""Fakes of what the pipeline is joined to: a source, a generator, a scorer, an engine.

All are deterministic, picklable, and import nothing heavy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Self

from bon.pipeline.jobs import StageReport
from bon.pipeline.plans import GenerationPlan, PromptsPlan, ScoringPlan
from bon.pipeline.run import generate, generate_and_score, open_pool, read_prompts, score
from bon.pool.pool import Pool
from bon.protocols import Event, Needs, PartDone, PartWork, Stage
from bon.records import (
    Candidate,
    CandidateGroup,
    Drop,
    GenerationRequest,
    GenerationResult,
    Prompt,
    Scores,
)


def prompt(row: int, text: str | None = None, **extra: Any) -> Prompt:
    """The prompt of one input row, id `p<row>`."""
    content = f"question {row}" if text is None else text
    messages = ({"role": "user", "content": content},)
    return Prompt(f"p{row}", messages, extra, row, f"in.jsonl:{row + 1}")


def bad_row(row: int) -> Drop:
    """An input row that is no prompt."""
    return Drop("malformed_json", "it is cut off", where=f"in.jsonl:{row + 1}", row=row)


def input_rows(num_rows: int, *, bad: Iterable[int] = ()) -> list[Prompt | Drop]:
    """Rows 0..num_rows-1, those in `bad` malformed, each good one with its own columns."""
    wrong = set(bad)
    return [
        bad_row(row) if row in wrong else prompt(row, answer=row, tags=[f"t{row}"])
        for row in range(num_rows)
    ]


@dataclass
class FakeSource:
    """Rows from a list; counts how often it is read."""

    rows: list[Prompt | Drop]
    limit: int | None = None
    num_reads: int = 0

    def __iter__(self) -> Iterator[Prompt | Drop]:
        self.num_reads += 1
        return islice(iter(self.rows), self.limit)

    def describe(self) -> str:
        return "read as a list"


@dataclass
class FakeGenerator:
    """Samples a response that depends on the prompt's text and the candidate's seed alone.

    Holds `window` requests at a time and answers them last first. Prompts in `too_long` become
    drops; those in `lost` get no answer at all, which no generator may do.
    """

    window: int = 1
    too_long: frozenset[str] = frozenset()
    lost: frozenset[str] = frozenset()
    salt: str = ""
    requests: list[GenerationRequest] = field(default_factory=list)
    num_entered: int = 0

    def __enter__(self) -> Self:
        self.num_entered += 1
        return self

    def __exit__(self, *error: object) -> None:
        self.num_entered -= 1

    def stream(self, requests: Iterable[GenerationRequest]) -> Iterator[GenerationResult]:
        assert self.num_entered == 1
        source = iter(requests)
        while batch := list(islice(source, self.window)):
            self.requests += batch
            for request in reversed(batch):
                if request.prompt_id not in self.lost:
                    yield self._answer(request)

    def _answer(self, request: GenerationRequest) -> GenerationResult:
        if request.prompt_id in self.too_long:
            drop = Drop("prompt_too_long", "it has 9 tokens, the model takes 8")
            return GenerationResult(request.prompt_id, (), drop=drop)
        text = request.messages[-1]["content"]
        return GenerationResult(
            request.prompt_id,
            tuple(
                fake_candidate(text, number, request.seed + number, self.salt)
                for number in range(request.num_candidates)
            ),
            num_prompt_tokens=2,
        )


def fake_candidate(text: str, number: int, seed: int, salt: str = "") -> Candidate:
    """The response that `FakeGenerator` gives for this seed: some words, then a digit."""
    digest = hashlib.sha256(f"{text}|{seed}|{salt}".encode()).digest()
    num_words = 1 + digest[0] % 5
    words = " ".join(f"w{byte}" for byte in digest[1 : 1 + num_words])
    finish = "stop" if digest[8] % 2 else "length"
    return Candidate(number, f"{words} {digest[9] % 10}", finish, num_words, -digest[10] / 8, seed)


def by_length(group: CandidateGroup, number: int) -> float | None:
    """A score: the response's length in characters."""
    return float(len(group.responses[number]))


@dataclass
class FakeScorer:
    """Scores by `table[prompt_id][candidate]` where given, else by length; none is a failure."""

    table: Mapping[str, Sequence[float | None]] = field(default_factory=dict)
    groups: list[CandidateGroup] = field(default_factory=list)
    num_entered: int = 0
    num_tokens_computed: int = 0
    halved_batch_tokens: int | None = None

    def __enter__(self) -> Self:
        self.num_entered += 1
        return self

    def __exit__(self, *error: object) -> None:
        self.num_entered -= 1

    def score(self, groups: Sequence[CandidateGroup]) -> list[Scores]:
        assert self.num_entered == 1
        self.groups += groups
        results = [self._score(group) for group in groups]
        self.num_tokens_computed += sum(sum(result.num_tokens) for result in results)
        return results

    def _score(self, group: CandidateGroup) -> Scores:
        numbers = range(len(group.responses))
        values = self.table.get(group.prompt_id) or [by_length(group, n) for n in numbers]
        failed = Drop("non_finite_score", "the reward model gave nan")
        return Scores(
            group.prompt_id,
            tuple(values),
            tuple(len(response.split()) for response in group.responses),
            tuple(False for _ in numbers),
            {n: failed for n in numbers if values[n] is None},
        )


@dataclass
class InlineEngine:
    """Runs work in this process; with `stop_after`, dies once so many parts are committed."""

    stop_after: int | None = None
    parts: list[int] = field(default_factory=list)

    def run(self, work: PartWork, parts: Sequence[int], needs: Needs = Needs()) -> Iterator[Event]:
        self.parts += parts
        num_done = 0
        for event in work.run(parts):
            yield event
            num_done += isinstance(event, PartDone)
            if num_done == self.stop_after:
                return

    def close(self) -> None:
        """It holds nothing."""

    def run_chain(self, stages: Sequence[Stage]) -> Iterator[tuple[int, Event]]:
        num_done = 0
        for part in sorted({part for stage in stages for part in stage.parts}):
            for number, stage in enumerate(stages):
                for event in self.run(stage.work, [part]) if part in stage.parts else ():
                    yield number, event
                    num_done += isinstance(event, PartDone)
                    if num_done == self.stop_after:
                        return


def ignore(stage: str, num_parts: int, event: Event) -> None:
    """An observer that looks away."""


@dataclass
class Run:
    """One run of the stages over a pool: what `bon select` does before it selects."""

    rows: list[Prompt | Drop]
    limit: int | None = None
    part_size: int | None = 4
    num_candidates: int = 3
    seed: int = 0
    generator: FakeGenerator = field(default_factory=FakeGenerator)
    scorer: FakeScorer = field(default_factory=FakeScorer)
    scorer_name: str = "reward"
    engine: InlineEngine = field(default_factory=InlineEngine)
    fingerprint: dict[str, Any] = field(default_factory=dict)

    def prompts(self, root: Path) -> Pool:
        """Open the pool and bring its prompts up to date."""
        text = repr(self.rows).encode()
        plan = PromptsPlan(
            "in.jsonl",
            FakeSource(self.rows, self.limit),
            {"layout": None},
            hashlib.sha256(text).hexdigest(),
            self.limit,
            self.part_size,
        )
        return read_prompts(open_pool(root, plan, self.generation), plan)

    @property
    def generation(self) -> GenerationPlan:
        settings = {"model": "fake", "num_candidates": self.num_candidates, "seed": self.seed}
        return GenerationPlan(
            self.generator, {**settings, **self.fingerprint}, self.num_candidates, self.seed
        )

    def candidates(self, root: Path) -> Pool:
        """Go on until the candidates are there."""
        pool = self.prompts(root)
        generate(pool, self.generation, self.engine, self.limit, ignore)
        return pool

    def scores(self, root: Path) -> Pool:
        """Go on until the scores are there."""
        pool = self.candidates(root)
        plan = ScoringPlan(self.scorer_name, self.scorer, {"spec": "by length"})
        score(pool, plan, self.engine, self.limit, ignore)
        return Pool.open(root)

    def streamed(
        self, root: Path, *names: str, observe: Callable[[str, int, Event], None] = ignore
    ) -> list[StageReport]:
        """Go on until candidates and scores are there, each part scored once it is sampled."""
        pool = self.prompts(root)
        plans = [
            ScoringPlan(name, self.scorer, {"spec": "by length"})
            for name in names or (self.scorer_name,)
        ]
        return generate_and_score(pool, self.generation, plans, self.engine, self.limit, observe)


def add_scores(
    pool: Pool,
    name: str,
    table: Mapping[str, Sequence[float | None]],
    *,
    is_rule: bool = False,
    **said: object,
) -> Pool:
    """Score a pool once more."""
    fingerprint = {"spec": name, **said, **({"rule_version": 1} if is_rule else {})}
    run = Run([])
    score(pool, ScoringPlan(name, FakeScorer(table), fingerprint), run.engine, None, ignore)
    return Pool.open(pool.layout.root)

"""What sampling and scoring have in common: a late commit belongs to what is there by then."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from support.commands import pool_files
from support.fakes import FakeGenerator, FakeScorer, Run, input_rows, prompt

from bon.errors import PoolLockedError, PoolNotFoundError
from bon.pipeline.generate import GenerateParts
from bon.pipeline.score import ScoreParts
from bon.pool.pool import CANDIDATES, Pool
from bon.protocols import Scope
from bon.records import CandidateGroup, GenerationRequest, GenerationResult, Scores

SCORES = "scores/reward"
ROWS = input_rows(6)
CORRECTED = [prompt(0, "a corrected question", answer=0, tags=["t0"]), *ROWS[1:]]


@dataclass
class Meanwhile(FakeGenerator):
    """Samples, and before it gives its first answer, others do something to the pool."""

    do: Callable[[], object] = lambda: None
    window: int = 4

    def _answer(self, request: GenerationRequest) -> GenerationResult:
        do, self.do = self.do, lambda: None
        do()
        return super()._answer(request)


@dataclass
class ScoringMeanwhile(FakeScorer):
    """The same, of a scorer."""

    do: Callable[[], object] = lambda: None
    given: list[str] = field(default_factory=list)

    def score(self, groups: Sequence[CandidateGroup]) -> list[Scores]:
        self.given += [text for group in groups for text in group.responses]
        do, self.do = self.do, lambda: None
        do()
        return super().score(groups)


def test_candidates_of_prompts_that_were_corrected_are_not_committed(tmp_path: Path) -> None:
    """Nothing had been committed, so the pool is begun afresh; then the old worker wakes."""
    root = tmp_path / "a.pool"
    Run(ROWS).prompts(root)
    old = Meanwhile(do=lambda: Run(CORRECTED).prompts(root))
    with pytest.raises(PoolLockedError, match="begun afresh"):
        list(GenerateParts(root, old, 3, 0).run([0, 1]))
    assert Pool.open(root).layout.numbers(CANDIDATES) == []

    Run(CORRECTED).scores(root)
    Run(CORRECTED).scores(tmp_path / "whole.pool")
    assert pool_files(root) == pool_files(tmp_path / "whole.pool")


def test_candidates_of_other_settings_are_not_committed(tmp_path: Path) -> None:
    root = tmp_path / "a.pool"
    warm, cold = (
        Run(ROWS, fingerprint={"temperature": 1}),
        Run(ROWS, fingerprint={"temperature": 0}),
    )
    warm.prompts(root)
    old = Meanwhile(do=lambda: cold.prompts(root))
    with pytest.raises(PoolLockedError, match="begun afresh"):
        list(GenerateParts(root, old, 3, 0).run([0, 1]))
    assert Pool.open(root).layout.numbers(CANDIDATES) == []


def test_a_pool_that_is_gone_is_not_made_again_by_an_old_worker(tmp_path: Path) -> None:
    root = tmp_path / "a.pool"
    Run(ROWS).prompts(root)
    old = Meanwhile(do=lambda: root.rename(tmp_path / "moved.pool"))
    with pytest.raises(PoolNotFoundError):
        list(GenerateParts(root, old, 3, 0).run([0, 1]))
    assert not root.exists()


def test_scores_of_candidates_that_were_replaced_meanwhile_are_made_again(tmp_path: Path) -> None:
    root, other = tmp_path / "a.pool", tmp_path / "other.pool"
    pool = Run(ROWS).candidates(root)
    Run(ROWS, generator=FakeGenerator(salt="on another GPU")).candidates(other)
    theirs = Pool.open(other).layout.part(CANDIDATES, 0)
    path = pool.layout.part(CANDIDATES, 0)
    new = Pool.open(other).read(CANDIDATES, 0)["response"].to_pylist()
    assert new != pool.read(CANDIDATES, 0)["response"].to_pylist()
    _name_scorer(root)
    scorer = ScoringMeanwhile(do=lambda: theirs.rename(path))

    list(ScoreParts(root, scorer, "reward").run([0]))

    assert scorer.given[-len(new) :] == new, "those that are there were scored"
    pool = Pool.open(root)
    assert pool.read(SCORES, 0)["score"].to_pylist() == [float(len(text)) for text in new]


def test_scores_of_a_scorer_that_is_another_by_now_are_not_committed(tmp_path: Path) -> None:
    root = tmp_path / "a.pool"
    Run(ROWS).candidates(root)
    _name_scorer(root)
    scorer = ScoringMeanwhile(do=lambda: _name_scorer(root, "another"))
    with pytest.raises(PoolLockedError, match="begun afresh"):
        list(ScoreParts(root, scorer, "reward").run([0]))
    assert Pool.open(root).layout.numbers(SCORES) == []


def test_settings_in_the_words_of_another_version_are_the_same(tmp_path: Path) -> None:
    root = tmp_path / "a.pool"
    Run(ROWS).candidates(root)
    _name_scorer(root)
    scorer = ScoringMeanwhile(do=lambda: _name_scorer(root, "by length, reworded", is_same=True))
    list(ScoreParts(root, scorer, "reward").run([0, 1]))
    assert Pool.open(root).pending(SCORES) == []
    assert Pool.open(root).read(SCORES, 0).num_rows == 12


@pytest.mark.parametrize(
    "other",
    [
        {"fingerprint": {"temperature": 2}},
        {"rows": CORRECTED},
        {"part_size": 6},
        {"generator": FakeGenerator(too_long=frozenset({"p1"}))},  # and its drops are not there
    ],
    ids=["settings", "prompts", "part size", "drops"],
)
def test_what_came_late_is_done_again_by_who_is_asked_for_it(
    tmp_path: Path, other: dict[str, object]
) -> None:
    """The moment between an old worker's last look and its commit is there all the same."""
    root, old = tmp_path / "a.pool", tmp_path / "old.pool"
    Run(ROWS).prompts(root)
    replace(Run(ROWS), **other).candidates(old)  # type: ignore[arg-type]
    late = Pool.open(old).layout.part(CANDIDATES, 0)
    path = Pool.open(root).layout.part(CANDIDATES, 0)
    path.parent.mkdir()
    generator = Meanwhile(do=lambda: late.rename(path))

    list(GenerateParts(root, generator, 3, 0).run([0, 1]))

    Run(ROWS).candidates(tmp_path / "whole.pool")
    assert pool_files(root) == pool_files(tmp_path / "whole.pool")


@pytest.mark.parametrize("work", [GenerateParts, ScoreParts])
def test_a_worker_that_sees_no_pool_says_where_it_must_lie(tmp_path: Path, work: type) -> None:
    given = (FakeGenerator(), 3, 0) if work is GenerateParts else (FakeScorer(), "reward")
    with pytest.raises(PoolNotFoundError) as caught:
        list(work(tmp_path / "a.pool", *given).run([0]))
    assert "shared folder" in caught.value.next_step
    assert "object store" in caught.value.next_step


def test_prompts_of_other_parts_are_tried_though_they_are_done(tmp_path: Path) -> None:
    """As a witness that the model lives where a worker has nothing but a prompt that ends it."""
    root = tmp_path / "a.pool"
    Run(input_rows(10, bad=range(4, 8)), limit=9).candidates(root)
    grown = Run(input_rows(10, bad=range(4, 8)))
    grown.prompts(root)
    _name_scorer(root)
    before = pool_files(root)
    sampling = GenerateParts(root, generator := FakeGenerator(), 3, 0)
    scoring = ScoreParts(root, scorer := FakeScorer(), "reward")
    assert sampling.prompt_ids(2) == ["p9"]

    assert list(sampling.others(2)) == [(0, "p0")], "part 1 has none"
    assert list(sampling.others(0)) == [(2, "p8")]
    assert list(scoring.others(2)) == [(0, "p0")]
    for work in (sampling, scoring):
        list(work.within(Scope(frozenset({"p0"}))).run([0]))  # type: ignore[attr-defined]

    assert [one.prompt_id for one in generator.requests] == ["p0"]
    assert [one.prompt_id for one in scorer.groups] == ["p0"]
    assert pool_files(root) == before, "nothing is committed"


def _name_scorer(root: Path, spec: str = "by length", *, is_same: bool = False) -> None:
    pool = Pool.open(root)
    pool.save(pool.manifest.with_scorer("reward", {"spec": spec}, is_same=is_same))

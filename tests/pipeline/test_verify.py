"""Verifying: random candidates are scored again, and what differs is found."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from support.commands import pool_files
from support.fakes import FakeScorer, InlineEngine, Run, ignore, input_rows

from bon.pipeline.verify import VerifyPlan, VerifyReport, VerifyScores, verify
from bon.pool.pool import Pool, scores_kind
from bon.protocols import Engine, Event, Needs, PartDone, PartWork, Progress, Ready, Verified
from bon.records import CandidateGroup

KIND = scores_kind("reward")


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    """Ten prompts with three candidates each in parts of four; p1's second one has no score."""
    table = {"p1": [1.0, None, 2.0]}
    return Run(input_rows(10), scorer=FakeScorer(table)).scores(tmp_path / "p")


def checked(
    pool: Pool,
    num_candidates: int,
    *,
    seed: int = 0,
    limit: int | None = None,
    reference: FakeScorer | None = None,
    engine: Engine | None = None,
) -> VerifyReport:
    reference = reference or FakeScorer({"p1": [1.0, 2.0]})
    plan = VerifyPlan("reward", reference, num_candidates, seed)
    return verify(pool, plan, engine or InlineEngine(), limit, ignore)


def tamper(pool: Pool, changes: dict[tuple[str, int], float]) -> None:
    """Write other numbers into a scorer's parts, by prompt and candidate."""
    for part in pool.parts():
        rows = pool.read(KIND, part).to_pylist()
        for row in rows:
            row["score"] = changes.get((row["prompt_id"], row["candidate"]), row["score"])
        table = pa.Table.from_pylist(rows, pool.read(KIND, part).schema)
        pool.commit(KIND, part, table, pool.drops(KIND, part), pool.covers(KIND, part))


def stored(pool: Pool) -> dict[tuple[str, int], float | None]:
    rows = [row for part in pool.parts() for row in pool.read(KIND, part).to_pylist()]
    return {(row["prompt_id"], row["candidate"]): row["score"] for row in rows}


def test_all_scores_are_confirmed_and_the_pool_stays_as_it_is(pool: Pool) -> None:
    before = pool_files(pool.layout.root)

    report = checked(pool, 1000)

    assert (report.num_candidates, report.num_failed, report.num_prompts) == (29, 0, 10)
    assert (report.largest_difference, report.num_rankings_changed) == (0.0, 0)
    assert pool_files(pool.layout.root) == before


def test_a_score_that_is_another_is_found_and_so_is_its_ranking(pool: Pool) -> None:
    scores = {key: value for key, value in stored(pool).items() if key[0] == "p6"}
    top = max(scores, key=lambda key: (scores[key] or 0.0, -key[1]))
    tamper(pool, {top: -7.0, ("p2", 0): 0.5 + (stored(pool)[("p2", 0)] or 0.0)})

    report = checked(pool, 1000)

    assert report.largest_difference == pytest.approx((scores[top] or 0.0) + 7.0)
    assert report.largest_at == {
        "prompt_id": "p6", "candidate": top[1], "score": -7.0, "reference": scores[top],
    }  # fmt: skip
    assert "p6" in report.rankings_changed
    assert report.num_rankings_changed == len(report.rankings_changed)
    assert set(report.rankings_changed) <= {"p6", "p2"}
    assert json.loads(json.dumps(report.as_json()))["rankings_changed"] == report.rankings_changed


def test_a_shift_of_all_scores_changes_no_ranking(pool: Pool) -> None:
    tamper(pool, {key: value + 4.0 for key, value in stored(pool).items() if value is not None})
    report = checked(pool, 1000)
    assert (report.largest_difference, report.num_rankings_changed) == (4.0, 0)


def test_k_candidates_are_drawn_by_the_seed(pool: Pool) -> None:
    def drawn(seed: int) -> list[CandidateGroup]:
        reference = FakeScorer()
        assert checked(pool, 6, seed=seed, reference=reference).num_candidates == 6
        return reference.groups

    assert sum(len(group.responses) for group in drawn(0)) == 6
    assert drawn(0) == drawn(0)
    assert drawn(0) != drawn(1)
    assert drawn(-3) != drawn(0)


def test_every_scored_candidate_can_be_drawn_and_no_other(pool: Pool) -> None:
    seen = set()
    for seed in range(150):
        reference = FakeScorer()
        checked(pool, 1, seed=seed, reference=reference)
        ((group, text),) = [(one, one.responses[0]) for one in reference.groups]
        seen.add((group.prompt_id, text))
    candidates = {
        (row["prompt_id"], row["response"])
        for part in pool.parts()
        for row in pool.read("candidates", part).to_pylist()
        if (row["prompt_id"], row["candidate"]) != ("p1", 1)
    }
    assert seen == candidates


def test_what_the_reference_cannot_score_is_reported_and_keeps_its_rank(pool: Pool) -> None:
    reference = FakeScorer({"p1": [1.0, 2.0], "p3": [None, None, None]})

    report = checked(pool, 1000, reference=reference)

    assert (report.num_candidates, report.num_failed) == (29, 3)
    assert report.failures[0] == {
        "prompt_id": "p3", "candidate": 0, "reason": "non_finite_score",
        "detail": "the reward model gave nan",
    }  # fmt: skip
    assert (report.largest_difference, report.num_rankings_changed) == (0.0, 0)


def test_only_parts_with_a_chosen_candidate_are_given_to_the_engine(pool: Pool) -> None:
    engine = InlineEngine()
    checked(pool, 1, engine=engine)
    assert len(engine.parts) == 1
    engine = InlineEngine()
    checked(pool, 1000, limit=4, engine=engine)
    assert engine.parts == [0]


def test_nothing_is_loaded_where_no_candidate_has_a_score(tmp_path: Path) -> None:
    table = {"p0": [None] * 3, "p1": [None] * 3}
    pool = Run(input_rows(2), scorer=FakeScorer(table)).scores(tmp_path / "p")
    engine = InlineEngine()
    report = checked(pool, 5, engine=engine)
    assert engine.parts == []
    assert (report.num_candidates, report.largest_difference) == (0, None)


class StumblingEngine:
    """An engine whose worker dies just before it says that its first part is done."""

    def run(self, work: PartWork, parts: Sequence[int], needs: Needs = Needs()) -> Iterator[Event]:
        yield from (event for event in work.run(parts[:1]) if not isinstance(event, PartDone))
        yield from work.run(parts)


def test_a_part_that_is_redone_counts_once(pool: Pool) -> None:
    report = checked(pool, 1000, engine=StumblingEngine())
    assert (report.num_candidates, report.num_prompts) == (29, 10)


def test_events_can_travel_between_processes(pool: Pool) -> None:
    reference = FakeScorer()
    work = VerifyScores(pool.layout.root, reference, "reward", {1: (0, 2), 0: (3,)})

    events = list(work.run([1, 0]))

    assert [type(event) for event in events] == [
        Ready, Progress, Verified, PartDone, Progress, Verified, PartDone,
    ]  # fmt: skip
    assert pickle.loads(pickle.dumps(events)) == events
    _, progress, verified = events[:3]
    assert isinstance(progress, Progress)
    assert (progress.num_prompts, progress.num_candidates) == (1, 2)
    assert progress.num_tokens_computed == progress.num_tokens > 0
    assert isinstance(verified, Verified)
    (prompt,) = verified.prompts
    assert (prompt.prompt_id, len(prompt.scores)) == ("p4", 3)
    assert prompt.references == {0: prompt.scores[0], 2: prompt.scores[2]}
    assert reference.groups[0].messages == pool.prompts(1)[0].messages
    assert reference.groups[0].extra == pool.prompts(1)[0].extra
    assert reference.num_entered == 0

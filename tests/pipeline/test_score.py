"""Scoring: a part at a time, failed candidates named, keys those of the candidates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.commands import pool_files
from support.fakes import FakeGenerator, FakeScorer, InlineEngine, Run, ignore, input_rows

from bon.errors import PoolIncompleteError
from bon.pipeline.plans import ScoringPlan
from bon.pipeline.run import score
from bon.pipeline.score import ScoreParts
from bon.pool.pool import CANDIDATES, Pool
from bon.protocols import PartDone, Progress, Ready, retries_of
from bon.records import CandidateGroup, Scores

KIND = "scores/reward"


def test_scores_have_the_keys_of_the_candidates_in_every_part(tmp_path: Path) -> None:
    run = Run(input_rows(10, bad=[5]), generator=FakeGenerator(too_long=frozenset({"p2"})))
    pool = run.scores(tmp_path / "p")
    keys = ["prompt_id", "candidate"]
    for part in range(3):
        candidates, scores = pool.read(CANDIDATES, part), pool.read(KIND, part)
        assert candidates.select(keys).equals(scores.select(keys))
        lengths = [float(len(r)) for r in candidates.column("response").to_pylist()]
        assert scores.column("score").to_pylist() == lengths
        assert pool.covers(KIND, part) == pool.num_prompts(part)
    assert [len(group.responses) for group in run.scorer.groups] == [3] * 8
    assert run.scorer.groups[0].messages == pool.prompts(0)[0].messages
    assert run.scorer.num_entered == 0


def test_failed_candidates_are_null_and_dropped_by_number(tmp_path: Path) -> None:
    table = {"p0": [1.0, None, 2.0], "p5": [None, 0.5, None]}
    pool = Run(input_rows(6), scorer=FakeScorer(table)).scores(tmp_path / "p")

    rows = pool.read(KIND, 0).to_pylist() + pool.read(KIND, 1).to_pylist()
    nulls = [(r["prompt_id"], r["candidate"]) for r in rows if r["score"] is None]
    assert nulls == [("p0", 1), ("p5", 0), ("p5", 2)]
    drops = list(pool.read_drops(KIND))
    assert [(d.id, d.candidate, d.row, d.where, d.reason) for d in drops] == [
        ("p0", 1, 0, "in.jsonl:1", "non_finite_score"),
        ("p5", 0, 5, "in.jsonl:6", "non_finite_score"),
        ("p5", 2, 5, "in.jsonl:6", "non_finite_score"),
    ]
    assert pool.layout.drops(KIND, 1) == tmp_path / "p/drops/scores/reward/part-00001.parquet"


def test_part_whose_prompts_were_all_dropped_is_not_shown_to_the_scorer(tmp_path: Path) -> None:
    gone = FakeGenerator(too_long=frozenset({"p4", "p6", "p7"}))
    run = Run(input_rows(8, bad=[5]), generator=gone)
    pool = run.scores(tmp_path / "p")
    assert pool.read(KIND, 1).num_rows == 0
    assert pool.pending(KIND) == []
    assert len(run.scorer.groups) == 4


def test_events(tmp_path: Path) -> None:
    pool = Run(input_rows(6)).candidates(tmp_path / "p")
    events = list(ScoreParts(pool.layout.root, FakeScorer(), "r").run([1, 0]))
    assert [type(e) for e in events] == [Ready, Progress, PartDone, Progress, PartDone]
    num_tokens = sum(len(text.split()) for text in pool.read(CANDIDATES, 1)["response"].to_pylist())
    assert events[1] == Progress(2, 6, num_tokens, num_tokens), "what this part alone took"
    assert events[3] != events[1]
    assert [e.part for e in events if isinstance(e, PartDone)] == [1, 0]


@pytest.mark.parametrize("gone", [[0], [1, 2]])
def test_deleted_parts_are_scored_again_byte_for_byte(tmp_path: Path, gone: list[int]) -> None:
    rows = input_rows(10)
    pool = Run(rows).scores(tmp_path / "p")
    before = pool_files(pool.layout.root)
    for part in gone:
        pool.layout.part(KIND, part).unlink()
    again = Run(rows)
    again.scores(tmp_path / "p")
    assert pool_files(tmp_path / "p") == before
    assert again.engine.parts == gone
    assert again.generator.requests == []


def test_scoring_waits_for_all_candidates(tmp_path: Path) -> None:
    """A part that grew must not be scored before its new prompts were sampled."""
    Run(input_rows(6)).scores(tmp_path / "p")
    pool = Run(input_rows(7)).prompts(tmp_path / "p")
    assert pool.pending(CANDIDATES) == [1]
    plan = ScoringPlan("reward", FakeScorer(), {"spec": "by length"})
    with pytest.raises(PoolIncompleteError, match="1 of 2 parts have no candidates yet"):
        score(pool, plan, InlineEngine(), None, ignore)
    assert score(pool, plan, InlineEngine(), 4, ignore).num_parts_done == 0


class AskingScorer(FakeScorer):
    """A scorer whose server is busy twice in each part, and once when it is entered."""

    def __enter__(self) -> AskingScorer:
        self.retries = Counter({"429": 1})
        super().__enter__()
        return self

    def score(self, groups: Sequence[CandidateGroup]) -> list[Scores]:
        self.retries["429"] += 2
        self.retries["connection"] += len(groups)
        return super().score(groups)


def test_how_often_a_server_was_asked_again_is_reported(tmp_path: Path) -> None:
    run = Run(input_rows(6))
    pool = run.candidates(tmp_path / "p")
    scorer = AskingScorer()
    progress = [
        event
        for event in ScoreParts(pool.layout.root, scorer, "reward").run([0, 1])
        if isinstance(event, Progress)
    ]
    assert [event.retries for event in progress] == [
        {"429": 3, "connection": 4},
        {"429": 2, "connection": 2},
    ]
    plan = ScoringPlan("again", scorer, {"spec": "by length"})
    report = score(pool, plan, InlineEngine(), None, ignore)
    assert report.as_json()["retries"] == {"429": 5, "connection": 6}
    report = score(Pool.open(pool.layout.root), plan, InlineEngine(), None, ignore)
    assert report.as_json()["retries"] == {}


def test_a_scorer_that_asks_nobody_never_asks_again(tmp_path: Path) -> None:
    assert retries_of(FakeScorer()) == {}

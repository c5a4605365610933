"""Making a pool: what is refused, what is started afresh, what is skipped."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from support.commands import pool_files
from support.fakes import FakeScorer, FakeSource, InlineEngine, Run, ignore, input_rows

from bon.errors import PoolCorruptError, PoolError, SettingsMismatchError
from bon.pipeline.jobs import StageReport
from bon.pipeline.plans import PromptsPlan, ScoringPlan
from bon.pipeline.run import DEFAULT_PART_SIZE, open_pool, read_prompts, score
from bon.pool.pool import CANDIDATES, PROMPTS, Pool
from bon.protocols import Event, Needs, PartDone, PartWork
from bon.records import CandidateGroup, Scores

ROWS = input_rows(10, bad=[5])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A pool with scores."""
    Run(ROWS).scores(tmp_path / "p")
    return tmp_path / "p"


@pytest.mark.parametrize(
    ("limit", "parts"), [(0, 0), (1, 1), (4, 1), (5, 2), (8, 2), (9, 3), (100, 3), (None, 3)]
)
def test_parts_and_prompts_in_the_view_of_a_limit(
    root: Path, limit: int | None, parts: int
) -> None:
    pool = Pool.open(root)
    assert pool.manifest.part_size == 4

    assert pool.parts(limit) == list(range(parts))
    rows = [prompt.row for part in pool.parts(limit) for prompt in pool.prompts(part, limit)]
    assert rows == [row for row in range(10 if limit is None else min(limit, 10)) if row != 5]


def test_second_run_does_nothing(root: Path) -> None:
    before = pool_files(root)
    again = Run(ROWS)
    again.scores(root)
    assert again.engine.parts == []
    assert again.generator.requests == []
    assert pool_files(root) == before


def test_whole_pool_is_made_of_whole_files(root: Path) -> None:
    names = {PROMPTS, CANDIDATES, "scores/reward"}
    parts = {f"{name}/part-0000{n}.parquet" for name in names for n in range(3)}
    assert set(pool_files(root)) == {*parts, "pool.json", "drops/prompts/part-00001.parquet"}


def test_other_generation_settings_are_refused_by_name(root: Path) -> None:
    before = pool_files(root)
    with pytest.raises(SettingsMismatchError) as caught:
        Run(ROWS, num_candidates=5, seed=1, fingerprint={"top_p": 0.5}).scores(root)
    assert caught.value.why == "num_candidates: 3 -> 5; seed: 0 -> 1; top_p: 1.0 -> 0.5"
    assert pool_files(root) == before


@pytest.mark.parametrize("num_rows", [3, 10])
def test_where_all_candidates_are_lost_their_scores_stay(tmp_path: Path, num_rows: int) -> None:
    """In a pool of one part, one lost file is all of them."""
    rows = input_rows(num_rows, bad=[1])
    root = Run(rows).scores(tmp_path / "p").layout.root
    whole = pool_files(root)
    shutil.rmtree(root / CANDIDATES)
    before = pool_files(root)
    for other in (Run(rows, num_candidates=2), Run(rows, seed=1), Run(rows, part_size=8)):
        with pytest.raises(SettingsMismatchError):
            other.scores(root)
        assert pool_files(root) == before
    again = Run(rows)
    again.scores(root)
    assert again.scorer.groups == []
    assert pool_files(root) == whole


def test_other_part_size_is_refused_and_none_is_the_pools_own(root: Path) -> None:
    with pytest.raises(SettingsMismatchError, match="input settings") as caught:
        Run(ROWS, part_size=8).scores(root)
    assert caught.value.why == "part_size: 4 -> 8"
    Run(ROWS, part_size=None).scores(root)
    fresh = Run(ROWS, part_size=None).prompts(root.parent / "fresh")
    assert fresh.manifest.part_size == DEFAULT_PART_SIZE


def test_scorer_with_other_settings_is_refused_and_a_second_name_is_not(root: Path) -> None:
    pool = Pool.open(root)
    other = {"spec": "by length", "max_length": 9}
    with pytest.raises(SettingsMismatchError, match="scorer 'reward' has scored") as caught:
        score(pool, ScoringPlan("reward", FakeScorer(), other), InlineEngine(), None, ignore)
    assert caught.value.why == "max_length: null -> 9"
    assert "-r NEWNAME=SPEC" in caught.value.next_step

    score(pool, ScoringPlan("second", FakeScorer(), other), InlineEngine(), None, ignore)
    assert Pool.open(root).manifest.scorers == {
        "reward": {"spec": "by length"}, "second": other,
    }  # fmt: skip
    assert Pool.open(root).layout.scorer_names() == ["reward", "second"]


STEPS = {"step_separator": None, "step_aggregate": "min"}


@pytest.mark.parametrize(
    ("old", "new"),
    [({}, {}), ({}, STEPS), (STEPS, {}), ({**STEPS, "step_aggregate": "mean"}, {})],
)
def test_settings_of_steps_count_only_where_steps_are_read(
    old: dict[str, Any], new: dict[str, Any], root: Path
) -> None:
    fingerprint = {"spec": "by length"}
    pool = Pool.open(root)
    pool = pool.save(
        pool.manifest.model_copy(update={"scorers": {"reward": {**fingerprint, **old}}})
    )
    plan = ScoringPlan("reward", FakeScorer(), fingerprint | new)
    assert score(pool, plan, InlineEngine(), None, ignore).num_parts_done == 0
    assert Pool.open(root).manifest.scorers == {"reward": fingerprint | new}


def test_another_aggregate_of_steps_is_refused(root: Path) -> None:
    other = {"spec": "by length", **STEPS, "step_aggregate": "mean"}
    with pytest.raises(SettingsMismatchError) as caught:
        score(Pool.open(root), ScoringPlan("reward", FakeScorer(), other), InlineEngine(), None,
              ignore)  # fmt: skip
    assert caught.value.why == 'step_aggregate: "min" -> "mean"'


@pytest.mark.parametrize(
    ("old", "typed", "new", "refused"),
    [
        (None, None, "\n", False),
        ("\\n", "\\n", "\n", False),
        ("\n", "\\n", "\n", False),
        ("|", None, "\n", True),
        ("\n\n", None, "\n", True),
        (None, "|", "|", True),
    ],
)
def test_separators_as_they_were_typed_in_older_pools(
    old: str | None, typed: str | None, new: str, refused: bool, root: Path
) -> None:
    pool = Pool.open(root)
    before = {"reward": {"spec": "by length", **STEPS, "step_separator": old}}
    pool = pool.save(pool.manifest.model_copy(update={"scorers": before}))
    fingerprint = {"spec": "by length", **STEPS, "step_separator": new}
    plan = ScoringPlan("reward", FakeScorer(), fingerprint, typed={"step_separator": typed})
    with pytest.raises(SettingsMismatchError) if refused else nullcontext():
        score(pool, plan, InlineEngine(), None, ignore)


@dataclass
class Cutting(FakeScorer):
    """Cuts the last candidate."""

    def score(self, groups: Sequence[CandidateGroup]) -> list[Scores]:
        return [
            replace(one, truncated=(*one.truncated[:-1], True)) for one in super().score(groups)
        ]


@pytest.mark.parametrize(
    ("cuts", "family", "differs"),
    [
        (False, 1, None),
        (True, 1, "encoder_version: 1 -> 2"),
        (False, 2, "family_version: 1 -> 2"),
    ],
)
def test_older_pools_are_refused_where_their_conversations_were_read_otherwise(
    cuts: bool, family: int, differs: str | None, root: Path
) -> None:
    versions = {"encoder_version": 2, "family_version": family}
    old = ScoringPlan("rm", Cutting() if cuts else FakeScorer(), {"spec": "x"})
    score(Pool.open(root), old, InlineEngine(), None, ignore)
    new = ScoringPlan("rm", FakeScorer(), {"spec": "x"} | versions)
    if differs is None:
        score(Pool.open(root), new, InlineEngine(), None, ignore)
        assert Pool.open(root).manifest.scorers["rm"] == {"spec": "x"} | versions
    else:
        with pytest.raises(SettingsMismatchError) as caught:
            score(Pool.open(root), new, InlineEngine(), None, ignore)
        assert caught.value.why == differs


def test_pool_without_candidates_is_started_afresh(tmp_path: Path) -> None:
    Run(input_rows(30)).prompts(tmp_path / "p")
    Run(ROWS, part_size=5, seed=9).scores(tmp_path / "p")
    Run(ROWS, part_size=5, seed=9).scores(tmp_path / "direct")
    assert pool_files(tmp_path / "p") == pool_files(tmp_path / "direct")


def test_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "thesis.txt").write_text("mine")
    with pytest.raises(PoolError, match="not a pool and not empty") as caught:
        Run(ROWS).prompts(tmp_path)
    assert caught.value.why == "it holds prompts"
    assert (tmp_path / "prompts" / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("content", ['{"balls": 15}', '{"format_version": 2}', "x"])
def test_folder_with_a_strange_pool_json_is_left_alone(tmp_path: Path, content: str) -> None:
    (tmp_path / "pool.json").write_text(content)
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores" / "mine.txt").write_text("mine")
    with pytest.raises(PoolCorruptError):
        Run(ROWS).prompts(tmp_path)
    assert (tmp_path / "scores" / "mine.txt").read_text() == "mine"
    assert (tmp_path / "pool.json").read_text() == content


def plan(source: FakeSource, digest: str | None) -> PromptsPlan:
    return PromptsPlan("in.jsonl", source, {"layout": None}, digest, source.limit, 4)


def test_input_is_read_again_only_where_its_bytes_or_the_limit_ask_for_it(tmp_path: Path) -> None:
    def num_reads(limit: int | None, digest: str | None) -> int:
        source = FakeSource(ROWS, limit)
        one = plan(source, digest)
        read_prompts(open_pool(tmp_path / "p", one, Run(ROWS).generation), one)
        return source.num_reads

    assert num_reads(6, "a") == 1
    Run(ROWS, limit=4).candidates(tmp_path / "p")  # from now on it is not started afresh
    assert num_reads(6, "a") == 1, "Run has another digest"
    assert num_reads(6, "a") == num_reads(3, "a") == 0
    assert num_reads(7, "a") == 1
    assert num_reads(None, "a") == 1
    assert num_reads(None, "a") == num_reads(20, "a") == 0
    assert num_reads(None, "b") == 1
    assert num_reads(None, None) == 1, "a source without files is always compared"
    pool = Pool.open(tmp_path / "p")
    assert pool.manifest.input == {
        "settings": {"layout": None}, "source": "in.jsonl", "description": "read as a list",
        "digest": None, "rows": 10, "whole": True, "content": pool.prompts_digest(),
    }  # fmt: skip


def test_limit_bounds_what_is_sampled(tmp_path: Path) -> None:
    Run(ROWS).candidates(tmp_path / "all")
    run = Run(ROWS, limit=4)
    run.prompts(tmp_path / "p")
    Run(ROWS, limit=8).prompts(tmp_path / "p")
    run.candidates(tmp_path / "p")
    assert run.engine.parts == [0]
    run.candidates(tmp_path / "all")
    assert len(pool_files(tmp_path / "all")) == 8, "the rest stays"


def test_stage_report(root: Path) -> None:
    seen: list[tuple[str, int, Event]] = []
    for part in (0, 1):
        Pool.open(root).layout.part("scores/reward", part).unlink()
    report = score(
        Pool.open(root), ScoringPlan("reward", FakeScorer(), {"spec": "by length"}),
        InlineEngine(), None, lambda *event: seen.append(event),
    )  # fmt: skip
    assert (report.num_parts, report.num_parts_done, report.num_candidates) == (3, 2, 21)
    assert {(name, parts) for name, parts, _ in seen} == {("score reward", 2)}
    assert [e.part for _, _, e in seen if isinstance(e, PartDone)] == [0, 1]
    told = json.loads(json.dumps(report.as_json()))
    assert told["tokens_per_s"] > 0
    assert StageReport("x").as_json()["tokens_per_s"] is None
    assert told["num_tokens"] == told["num_tokens_computed"] > 0
    assert told["share_saved"] == 0.0


@dataclass
class Halving(FakeScorer):
    """Runs out of memory in its second part and in its third one."""

    def score(self, groups: Sequence[CandidateGroup]) -> list[Scores]:
        self.halved_batch_tokens = {0: None, 4: 1024, 7: 512}[len(self.groups)]
        return super().score(groups)


def test_the_last_budget_is_reported_where_memory_ran_out(tmp_path: Path) -> None:
    pool = Run(ROWS).candidates(tmp_path / "p")
    plan = ScoringPlan("reward", Halving(), {"spec": "by length"})
    report = score(pool, plan, InlineEngine(), 4, ignore)
    assert report.as_json()["halved_batch_tokens"] is None
    plan = ScoringPlan("other", Halving(), {"spec": "by length"})
    report = score(pool, plan, InlineEngine(), None, ignore)
    assert report.as_json()["halved_batch_tokens"] == 512


@dataclass
class Reviving(InlineEngine):
    """Starts work that died again with the parts that are left, as the worker process does."""

    num_deaths: int = 0

    def run(self, work: PartWork, parts: Sequence[int], needs: Needs = Needs()) -> Iterator[Event]:
        left = list(parts)
        while left:
            try:
                for event in work.run(list(left)):
                    yield event
                    if isinstance(event, PartDone):
                        left.remove(event.part)
            except InterruptedError:
                self.num_deaths += 1


def test_a_part_that_is_done_again_after_a_death_counts_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = Run(ROWS).candidates(tmp_path / "p")
    plan = ScoringPlan("one", FakeScorer(), {"spec": "by length"})
    want = score(pool, plan, InlineEngine(), None, ignore)
    commit = Pool.commit
    deaths = [1]

    def dying(pool: Pool, kind: str, number: int, *rest: Any, **named: Any) -> None:
        if number in deaths:
            deaths.remove(number)
            raise InterruptedError
        commit(pool, kind, number, *rest, **named)

    monkeypatch.setattr(Pool, "commit", dying)
    engine = Reviving()
    plan = ScoringPlan("two", FakeScorer(), {"spec": "by length"})
    found = score(pool, plan, engine, None, ignore)
    assert engine.num_deaths == 1
    assert found.num_candidates == want.num_candidates == 27
    assert found.num_tokens == found.num_tokens_computed == want.num_tokens
    assert found.num_parts_done == want.num_parts_done


def test_tokens_that_were_not_computed_are_saved_and_padding_is_not() -> None:
    report = StageReport("score r", num_tokens=1000, num_tokens_computed=390)
    assert report.as_json()["share_saved"] == pytest.approx(0.61)
    report.num_tokens_computed = 1120
    assert report.as_json()["share_saved"] == pytest.approx(-0.12)
    report.num_tokens_computed = 0  # a generator, or a rule: nobody counts
    assert report.as_json()["share_saved"] is None

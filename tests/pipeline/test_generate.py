"""Sampling: one stream across parts, commits as parts fill, nothing sampled twice."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.commands import pool_files
from support.damage import as_older
from support.fakes import FakeGenerator, InlineEngine, Run, fake_candidate, input_rows

import bon.pool.pool
from bon.errors import AccountingError
from bon.pipeline.generate import GenerateParts, sampling_seed
from bon.pipeline.ranked import count_sampled, open_books
from bon.pool.pool import CANDIDATES, PROMPTS, Pool
from bon.protocols import PartDone, Progress, Ready
from bon.records import GenerationRequest, GenerationResult


@pytest.mark.parametrize(
    ("run_seed", "prompt_id", "seed"),
    [  # the first 48 bits of `printf '0\0a' | sha256sum` and so on
        (0, "a", 0x5F1AA0C8DAD9), (1, "a", 0x03A95B5F06D9), (0, "b", 0xA8D4A7453E67),
        (-3, "ä/1", 0x01DF9077C7E5),
    ],
)  # fmt: skip
def test_known_sampling_seeds(run_seed: int, prompt_id: str, seed: int) -> None:
    assert sampling_seed(run_seed, prompt_id) == seed


@given(st.integers(), st.text(st.characters(codec="utf-8")))
def test_sampling_seed_is_48_bits_of_a_sha256(run_seed: int, prompt_id: str) -> None:
    text = str(run_seed).encode() + b"\x00" + prompt_id.encode()
    expected = int(hashlib.sha256(text).hexdigest()[:12], 16)
    assert sampling_seed(run_seed, prompt_id) == expected < 2**48


def test_candidates_of_every_prompt_in_input_order(tmp_path: Path) -> None:
    run = Run(input_rows(10, bad=[5]), seed=3)
    pool = run.candidates(tmp_path / "p")

    for part in range(3):
        prompts = pool.prompts(part)
        rows = pool.read(CANDIDATES, part).to_pylist()
        assert [(r["prompt_id"], r["candidate"]) for r in rows] == [
            (p.prompt_id, n) for p in prompts for n in range(3)
        ]
        for row in rows:
            text = next(p for p in prompts if p.prompt_id == row["prompt_id"]).messages[0][
                "content"
            ]
            seed = sampling_seed(3, row["prompt_id"]) + row["candidate"]
            expected = fake_candidate(text, row["candidate"], seed)
            assert (row["seed"], row["response"]) == (seed, expected.response)
            assert (row["logprob"], row["finish_reason"]) == (
                expected.logprob, expected.finish_reason,
            )  # fmt: skip
    assert run.generator.num_entered == 0, "its model was freed"


@pytest.mark.parametrize("window", [2, 3, 5, 100])
def test_results_out_of_order_give_the_same_bytes(tmp_path: Path, window: int) -> None:
    rows = input_rows(10, bad=[5])
    Run(rows).candidates(tmp_path / "in_order")
    run = Run(rows, generator=FakeGenerator(window=window))
    run.candidates(tmp_path / "mixed")
    assert pool_files(tmp_path / "mixed") == pool_files(tmp_path / "in_order")
    assert [r.prompt_id for r in run.generator.requests] == [f"p{n}" for n in range(10) if n != 5]


def test_events_tell_of_every_prompt_and_part(tmp_path: Path) -> None:
    pool = Run(input_rows(6)).prompts(tmp_path / "p")
    work = GenerateParts(pool.layout.root, FakeGenerator(window=3), 2, 0)
    events = list(work.run([0, 1]))
    assert isinstance(events[0], Ready)
    assert sorted(e.part for e in events if isinstance(e, PartDone)) == [0, 1]
    progress = [e for e in events if isinstance(e, Progress)]
    assert sum(e.num_prompts for e in progress) == 6
    assert sum(e.num_candidates for e in progress) == 12


def test_prompts_that_the_generator_drops_keep_their_place(tmp_path: Path) -> None:
    dropped = frozenset({"p1", "p4", "p6", "p7"})  # part 1 (rows 4 to 7) has no candidate left
    run = Run(input_rows(9, bad=[5]), generator=FakeGenerator(too_long=dropped))
    pool = run.candidates(tmp_path / "p")

    assert [(d.id, d.row, d.where, d.reason) for d in pool.read_drops(CANDIDATES)] == [
        (f"p{row}", row, f"in.jsonl:{row + 1}", "prompt_too_long") for row in (1, 4, 6, 7)
    ]
    assert pool.read(CANDIDATES, 1).num_rows == 0
    assert pool.covers(CANDIDATES, 1) == 3
    assert pool.pending(CANDIDATES) == []


@pytest.mark.parametrize("bad", [range(4, 8), range(4), range(8, 10), range(10)])
def test_part_without_prompts_commits(tmp_path: Path, bad: range) -> None:
    pool = Run(input_rows(10, bad=bad)).candidates(tmp_path / "p")
    assert pool.layout.numbers(CANDIDATES) == [0, 1, 2]
    assert pool.pending(CANDIDATES) == []


def test_grown_part_samples_only_what_is_missing(tmp_path: Path) -> None:
    too_long = frozenset({"p5", "p7"})
    Run(input_rows(6), generator=FakeGenerator(too_long=too_long)).candidates(tmp_path / "p")
    grown = Run(input_rows(9), generator=FakeGenerator(too_long=too_long))
    grown.candidates(tmp_path / "p")

    assert [r.prompt_id for r in grown.generator.requests] == ["p6", "p7", "p8"]
    Run(input_rows(9), generator=FakeGenerator(too_long=too_long)).candidates(tmp_path / "direct")
    assert pool_files(tmp_path / "p") == pool_files(tmp_path / "direct")


@pytest.mark.parametrize("gone", [[0], [1], [0, 2], [0, 1, 2]])
def test_deleted_parts_are_made_again_byte_for_byte(tmp_path: Path, gone: list[int]) -> None:
    rows = input_rows(10, bad=[5])
    generator = FakeGenerator(too_long=frozenset({"p2"}))
    pool = Run(rows, generator=generator).candidates(tmp_path / "p")
    before = pool_files(pool.layout.root)
    for part in gone:
        pool.layout.part(CANDIDATES, part).unlink()

    again = Run(rows, generator=replace(generator, requests=[], window=4))
    again.candidates(tmp_path / "p")

    assert pool_files(tmp_path / "p") == before
    wanted = {row.prompt_id for part in gone for row in pool.prompts(part)}
    assert {r.prompt_id for r in again.generator.requests} == wanted


def test_stopped_run_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    rows = input_rows(10)
    Run(rows).candidates(tmp_path / "whole")
    Run(rows, engine=InlineEngine(stop_after=1)).candidates(tmp_path / "p")
    assert Pool.open(tmp_path / "p").pending(CANDIDATES) == [1, 2]
    rest = Run(rows)
    rest.candidates(tmp_path / "p")
    assert rest.engine.parts == [1, 2]
    assert pool_files(tmp_path / "p") == pool_files(tmp_path / "whole")


def test_candidates_of_fewer_are_the_first_of_more(tmp_path: Path) -> None:
    few = Run(input_rows(3), num_candidates=2).candidates(tmp_path / "few")
    more = Run(input_rows(3), num_candidates=5).candidates(tmp_path / "more")
    rows = more.read(CANDIDATES, 0).to_pylist()
    assert few.read(CANDIDATES, 0).to_pylist() == [r for r in rows if r["candidate"] < 2]


def test_requests_are_pulled_lazily(tmp_path: Path) -> None:
    pool = Run(input_rows(40)).prompts(tmp_path / "p")
    ahead: list[int] = []

    class Watching(FakeGenerator):
        def stream(self, requests: Iterator[GenerationRequest]) -> Iterator[GenerationResult]:
            def watched() -> Iterator[GenerationRequest]:
                for number, request in enumerate(requests):
                    ahead.append(number // 4 - len(pool.layout.numbers(CANDIDATES)))
                    yield request

            return super().stream(watched())

    list(GenerateParts(pool.layout.root, Watching(window=3), 2, 0).run(iter(range(10))))
    assert max(ahead) <= 2, "parts that were opened long before they could be committed"


def test_prompt_that_the_generator_loses_is_an_error_and_whole_parts_stay(tmp_path: Path) -> None:
    run = Run(input_rows(8), generator=FakeGenerator(lost=frozenset({"p6"})))
    with pytest.raises(AccountingError, match="no result for 1 prompts") as caught:
        run.candidates(tmp_path / "p")
    assert "id=p6" in caught.value.where
    assert Pool.open(tmp_path / "p").layout.numbers(CANDIDATES) == [0]


def test_redone_candidates_take_their_old_scores_with_them(tmp_path: Path) -> None:
    rows = input_rows(8)
    Run(rows, scorer_name="other").scores(tmp_path / "p")
    pool = Run(rows).scores(tmp_path / "p")
    pool.layout.part(CANDIDATES, 1).unlink()

    Run(rows, generator=FakeGenerator(salt="another GPU")).candidates(tmp_path / "p")

    assert pool.pending("scores/reward") == pool.pending("scores/other") == [1]
    scored = Run(rows).scores(tmp_path / "p")
    responses = scored.read(CANDIDATES, 1).column("response").to_pylist()
    scores = scored.read("scores/reward", 1).column("score").to_pylist()
    assert scores == [float(len(response)) for response in responses]
    assert pool.layout.numbers(PROMPTS) == [0, 1]


class Dies(BaseException):
    """What ends a process, at the place where it would."""


def twice_scored(root: Path) -> Pool:
    """A pool of two parts that two scorers have scored, and whose part 1 of candidates is gone."""
    Run(input_rows(8), scorer_name="other").scores(root)
    pool = Run(input_rows(8)).scores(root)
    pool.layout.part(CANDIDATES, 1).unlink()
    return pool


def test_scores_of_candidates_that_come_back_the_same_stay(tmp_path: Path) -> None:
    pool = twice_scored(tmp_path / "p")
    before = pool_files(pool.layout.root)
    again = Run(input_rows(8))
    again.scores(pool.layout.root)
    assert again.engine.parts == [1], "only the candidates were made"
    assert before.items() < pool_files(pool.layout.root).items()


def test_scores_stay_until_other_candidates_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = twice_scored(tmp_path / "p")
    before = pool_files(pool.layout.root)
    other = FakeGenerator(salt="another GPU")
    monkeypatch.setattr(bon.pool.pool, "write_table", Mock(side_effect=OSError("no room")))
    with pytest.raises(OSError, match="no room"):
        Run(input_rows(8), generator=other).candidates(pool.layout.root)
    assert pool_files(pool.layout.root) == before


def test_a_run_that_dies_before_old_scores_are_removed_scores_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = twice_scored(tmp_path / "p")
    other = FakeGenerator(salt="another GPU")
    with monkeypatch.context() as patch, pytest.raises(Dies):
        patch.setattr(Path, "unlink", Mock(side_effect=Dies))
        Run(input_rows(8), generator=other).candidates(pool.layout.root)
    assert pool.pending(CANDIDATES) == []
    assert pool.pending("scores/reward") == pool.pending("scores/other") == [1]
    for name in ("other", "reward"):
        Run(input_rows(8), scorer_name=name).scores(pool.layout.root)
    direct = tmp_path / "direct"
    for name in ("other", "reward"):
        Run(input_rows(8), generator=other, scorer_name=name).scores(direct)
    for kind in ("scores/reward", "scores/other"):
        assert pool.read(kind, 1).equals(Pool.open(direct).read(kind, 1))


def test_scores_of_older_versions_go_before_their_candidates_come(tmp_path: Path) -> None:
    """They do not say of which candidates they are."""
    pool = twice_scored(tmp_path / "p")
    as_older(pool.layout.part("scores/reward", 1))
    Run(input_rows(8), generator=FakeGenerator(salt="another GPU")).candidates(tmp_path / "p")
    assert pool.pending("scores/reward") == [1]


def test_a_part_that_grew_keeps_its_scores_until_it_is_scored(tmp_path: Path) -> None:
    pool = Run(input_rows(6)).scores(tmp_path / "p")
    before = (tmp_path / "p/scores/reward/part-00001.parquet").read_bytes()
    Run(input_rows(7)).candidates(tmp_path / "p")
    assert (tmp_path / "p/scores/reward/part-00001.parquet").read_bytes() == before
    assert pool.pending("scores/reward") == [1]


@dataclass
class _Miscounting(FakeGenerator):
    """Gives one prompt another number of candidates than it was asked for."""

    given: int = 0

    def _answer(self, request: GenerationRequest) -> GenerationResult:
        result = super()._answer(request)
        if request.prompt_id != "p2":
            return result
        return replace(result, candidates=(result.candidates * 2)[: self.given])


@pytest.mark.parametrize("given", [0, 1, 2, 4])
def test_another_number_of_candidates_is_a_drop_and_the_books_close(
    tmp_path: Path, given: int
) -> None:
    pool = Run(input_rows(6), generator=_Miscounting(given=given)).scores(tmp_path / "p")
    books = open_books(pool, ["reward"], None)
    books.kept_rows = count_sampled(pool, None)
    books.close()
    assert dict(books.drops) == {"wrong_count": 1}
    (drop,) = books.examples
    assert (drop.id, drop.where) == ("p2", "in.jsonl:3")
    assert drop.detail == f"the generator gave {given} candidates of 3"

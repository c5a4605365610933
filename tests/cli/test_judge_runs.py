"""`bon score -r judge:…` as a user runs it, against a server that a test speaks for."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from support.commands import REWARD, bon, bon_json, bon_stopped, pool_files
from support.judges import ChatServer, Said, chats
from support.servers import Answer, Asked, FakeServer


def write(path: Path, *rows: dict[str, Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def rows(num_rows: int, *responses: str) -> list[dict[str, Any]]:
    return [
        {"prompt": f"Ask {number}", "responses": [f"{number}{one}" for one in responses]}
        for number in range(num_rows)
    ]


def scores(pool: Path, name: str) -> list[float | None]:
    files = sorted((pool / "scores" / name).glob("*.parquet"))
    return [value for file in files for value in pq.read_table(file)["score"].to_pylist()]


def longer(question: str) -> Said:
    """Prefer the longer answer; of one alone, say yes if it is long."""
    first, *second = re.findall(r"answer[^\n]*\]\n(.*)\n", question, re.IGNORECASE)
    if not second:
        return {"Yes": 0.1 * len(first), "No": 0.1}
    return {"A": 0.6, "B": 0.4} if len(first) > len(second[0]) else {"A": 0.4, "B": 0.6}


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer(ChatServer(longer)) as started:
        yield started


def test_both_ways_to_ask_end_in_one_pool(server: FakeServer, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", *rows(2, "a", "bbb"))
    judge = f"judge:server:{server.url}"

    found = bon_json(
        *("score", "in.jsonl", "-r", f"yes={judge}", "-r", f"pair={judge}?mode=pairwise"),
        cwd=tmp_path,
    )

    assert found["drops"] == {}
    pool = tmp_path / "in.pool"
    # "0a" has 2 letters, "0bbb" has 4: 0.2 / 0.3 and 0.4 / 0.5
    assert scores(pool, "yes") == pytest.approx([2 / 3, 0.8] * 2)
    assert scores(pool, "pair") == pytest.approx([-1.064, 1.064] * 2, abs=1e-3)
    manifest = json.loads((pool / "pool.json").read_text())
    assert manifest["scorers"]["yes"]["model"] == "the-judge"
    assert "127.0.0.1" not in (pool / "pool.json").read_text()

    asked = len(chats(server))
    done = bon("score", "in.pool", "-r", f"yes={judge}", "--verify", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "yes is a judge: there is nothing to verify" in done.stderr
    assert len(chats(server)) == asked


def test_a_pool_is_not_mixed_from_two_templates(server: FakeServer, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", *rows(1, "a"))
    judge = f"j=judge:server:{server.url}"
    bon_json("score", "in.jsonl", "-r", judge, cwd=tmp_path)
    (tmp_path / "own.jinja").write_text("{{ response }}: Yes or No?")

    done = bon("score", "in.pool", "-r", f"{judge}?template=own.jinja", cwd=tmp_path)

    assert done.returncode == 2
    assert "'j' has scored this pool with other settings" in done.stderr
    assert "template" in done.stderr


def test_single_candidates_are_not_compared(server: FakeServer, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", *rows(2, "a"))
    judge = f"judge:server:{server.url}?mode=pairwise"
    bon_json("score", "in.jsonl", "-r", f"j={judge}", "--source-kind=responses", cwd=tmp_path)
    assert scores(tmp_path / "in.pool", "j") == [0.0, 0.0]
    assert chats(server) == []


def test_no_rows_left_to_judge(server: FakeServer, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", *rows(2, "a"))
    judge = f"judge:server:{server.url}"
    bon_json("score", "in.jsonl", "-r", f"j={judge}", "--limit=0", cwd=tmp_path)
    assert scores(tmp_path / "in.pool", "j") == []
    assert chats(server) == []


def test_killed_and_started_again_the_pool_is_the_same(tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", *rows(6, "a", "bb", "ccc"))
    command = ("score", "in.jsonl", "--part-size", 1, "--server-concurrency", 1)
    pools = {}
    with FakeServer(ChatServer(longer)) as server:
        judge = ("-r", f"j=judge:server:{server.url}?mode=pairwise")
        bon_json(*command, *judge, "--pool", "whole.pool", cwd=tmp_path)
        pools["whole"] = pool_files(tmp_path / "whole.pool")

    def slow(asked: Asked) -> Answer | None:
        return Answer(chat._answer(asked).body, delay_s=0.1) if asked.number else None

    chat = ChatServer(longer, fault=slow)
    with FakeServer(chat) as server:
        judge = ("-r", f"j=judge:server:{server.url}?mode=pairwise")
        done = tmp_path / "killed.pool" / "scores" / "j"
        bon_stopped(
            *command, *judge, "--pool", "killed.pool", cwd=tmp_path,
            when=lambda: len(list(done.glob("*.parquet"))) >= 2, how=signal.SIGKILL,
        )  # fmt: skip
        assert 2 <= len(list(done.glob("*.parquet"))) < 6
        before = len(chat.questions)
        bon_json(*command, *judge, "--pool", "killed.pool", cwd=tmp_path)
        assert len(chat.questions) - before <= 4 * 6
    assert pool_files(tmp_path / "killed.pool") == pools["whole"]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("judge:some/model?template=plain.jinja", "does not use {{ response }}"),
        ("judge:some/model?mode=pairwise&pattern=x", "pattern needs max_tokens"),
        ("judge:some/model?moed=rubric", "did you mean 'mode'"),
        ("judge:./nowhere", "there is no model"),
        (f"judge:{REWARD}", "Qwen3ForSequenceClassification is not a causal language model"),
        ("judge:server:http://127.0.0.1:9?dtype=float16", "'dtype' does nothing"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(tmp_path: Path, spec: str, words: str) -> None:
    write(tmp_path / "in.jsonl", *rows(1, "a"))
    (tmp_path / "plain.jinja").write_text("Is it good?")

    done = bon("score", "in.jsonl", "-r", spec, cwd=tmp_path)

    assert done.returncode != 0
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "in.pool").exists()

"""`bon filter` end to end, on files and on pools; only a tiny reward model ever runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from support.commands import REWARD, SHARED_DATA, bon, bon_json, bon_stopped, pool_files
from support.datasets import (
    assert_books_close,
    assistant,
    left_over,
    read_lines,
    triples,
    user,
    write_lines,
)
from support.fakes import FakeGenerator, Run, input_rows

from bon.durable import process_tag

LONG = "The river runs past the old mill and the children play on its green banks every summer."
ALMOST = LONG.replace("every summer", "each summer")
LOOPING = "I think so. " * 30
REFUSAL = "I'm sorry, but I can't help with that."
GERMAN = "Der Fluss fließt an der alten Mühle vorbei, und die Kinder spielen dort im Sommer."
RESPONSES = [
    {"id": "a", "prompt": "Tell me of the river.", "topic": "r",
     "responses": [LONG, ALMOST, REFUSAL, GERMAN], "scores": [0.1, 0.9, -1.0, 0.4],
     "is_correct": [True, True, False, False], "num_tokens": [18, 18, 10, 16],
     "finish_reason": ["stop", "stop", "stop", "length"]},
    {"id": "b", "prompt": [user("Hi!"), assistant("Hallo ☃."), user("Do you really think so?")],
     "topic": None,
     "responses": [LOOPING, "yes", "yes", ""], "scores": [2.0, 1.0, 3.0, None],
     "is_correct": [True, True, True, True], "num_tokens": [90, 1, 1, 0],
     "finish_reason": ["length", "stop", "stop", "stop"]},
]  # fmt: skip
TEXTS = [text for row in RESPONSES for text in row["responses"]]


@pytest.fixture
def responses(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "responses.jsonl", RESPONSES)


def filtered(source: Path, *arguments: object) -> tuple[dict[str, Any], list[Any], list[Any]]:
    """Filter a file; return the result, the rows kept and the rows dropped."""
    folder = source.parent
    command = ("filter", source.name, *arguments, "-o", "kept.jsonl", "--dropped", "dropped.jsonl")
    result = bon_json(*command, cwd=folder)
    kept, dropped = (read_lines(folder / f"{name}.jsonl") for name in ("kept", "dropped"))
    assert_books_close(result, kept, dropped)
    assert left_over(folder) == []
    assert list(folder.glob("*.pool")) == []
    return result, kept, dropped


@pytest.mark.parametrize(
    ("spec", "gone"),
    [
        ("reward:min=0.4,max=2", [0, 2, 6, 7]),
        ("reward:top_k=1,by=prompt", [0, 2, 3, 4, 5, 7]),
        ("reward:min_quantile=0.5", [0, 2, 3, 7]),  # of -1, .1, .4, .9, 1, 2, 3 the median is .9
        ("difficulty:min=0.2,max=0.8", [4, 5, 6, 7]),
        ("length:min_chars=1,max_words=50,max_tokens=17", [0, 1, 4, 7]),
        ("finish-reason", [3, 4]),
        ('language:allowed=["de","fr"],min_prob=0.9', [0, 1, 2, 4, 5, 6, 7]),
        ("repetition", [4]),
        ("refusal", [2]),
        ("regex:pattern=^yes$", [0, 1, 2, 3, 4, 7]),
        ("regex:pattern=^yes$,keep=false", [5, 6]),
        ("exact_dedup", [5]),  # the second yes has the better score
        ("near_dedup:threshold=0.6,ngram=3", [0, 5]),
        ("diversity:threshold=0.6,scorer=given,on=response", [0, 5]),
    ],
)
def test_filters_of_candidates(responses: Path, spec: str, gone: list[int]) -> None:
    _, kept, dropped = filtered(responses, "--filter", spec)

    assert [row["response"] for row in dropped] == [TEXTS[n] for n in gone]
    assert [row["response"] for row in kept] == [
        text for n, text in enumerate(TEXTS) if n not in gone
    ]
    for row in kept + dropped:
        source = RESPONSES[0] if row["prompt_id"] == "a" else RESPONSES[1]
        assert row["messages"][-1] == assistant(row["response"])
        assert row["response"] == source["responses"][row["candidate"]]
        assert row["reward"] == source["scores"][row["candidate"]]
        assert row["topic"] == source["topic"]
        assert row["num_candidates"] == 4


def pair(number: int, chosen: str, rejected: str, margin: float) -> dict[str, Any]:
    return {"prompt": f"Question {number}: what is it?", "prompt_id": f"q{number}", "n": number,
            "chosen": [assistant(chosen)], "rejected": [assistant(rejected)],
            "score_chosen": 1 + margin, "score_rejected": 1}  # fmt: skip


PAIRS = [
    pair(0, LONG, "no", 4), pair(1, "yes", REFUSAL, 1), pair(2, "yes", LOOPING, 0.5),
    pair(3, GERMAN, "no", 2), pair(0, ALMOST, "no", 3), pair(0, LONG, "no", -2),
]  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "gone"),
    [
        ("margin:min=1", [2, 5]),
        ("margin:min=50%", [1, 2, 5]),
        ("agreement:min_prob=0.8", [1, 2, 5]),  # 1/(1+1/e) is 0.73
        ("length:max_words=40", [2]),
        ("finish_reason:keep_unknown=false", [0, 1, 2, 3, 4, 5]),
        ("language:allowed=en,on=prompt", []),
        ("repetition", [2]),
        ("refusal", [1]),
        ("regex:pattern=Question 0,on=prompt", [1, 2, 3]),
        ("exact_dedup", [5]),
        ("near_dedup:threshold=0.6,ngram=3", [4, 5]),
        ("diversity:threshold=0.9,on=prompt", []),  # rows 0, 4 and 5 are one prompt
        ("decontaminate:files=test.txt", [0, 4, 5]),
    ],
)
def test_filters_of_pairs(tmp_path: Path, spec: str, gone: list[int]) -> None:
    source = write_lines(tmp_path / "pairs.jsonl", PAIRS)
    (tmp_path / "test.txt").write_text("Question 0: what is it?\n")

    _, kept, dropped = filtered(source, "--filter", spec, "--max-drops", "100%")

    expected = [{**row, "prompt": [user(row["prompt"])]} for row in PAIRS]
    assert triples(dropped) == triples(expected[n] for n in gone)
    assert triples(kept) == triples(row for n, row in enumerate(expected) if n not in gone)
    assert [row["margin"] for row in dropped] == [PAIRS[n]["score_chosen"] - 1 for n in gone]
    assert [row["prompt_id"] for row in dropped] == [PAIRS[n]["prompt_id"] for n in gone]


def test_flipped_pairs_change_places_with_all_that_is_theirs(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "pairs.jsonl", PAIRS)

    result, kept, dropped = filtered(source, "--filter", "agreement:min_prob=0.7,action=flip")

    assert result["filters"][0]["num_flipped"] == 1
    assert [row["n"] for row in dropped] == [2]
    last = kept[-1]
    assert (last["chosen"], last["rejected"]) == (PAIRS[5]["rejected"], PAIRS[5]["chosen"])
    assert (last["score_chosen"], last["score_rejected"], last["margin"]) == (1.0, -1.0, 2.0)
    assert (last["candidate_chosen"], last["candidate_rejected"]) == (1, 0)


def test_order_counts(responses: Path) -> None:
    best, last = ("--filter", "reward:top_k=1,by=prompt"), ("--filter", "length:max_chars=100")

    _, kept, _ = filtered(responses, *best, *last)
    assert [row["response"] for row in kept] == [ALMOST, "yes"]
    _, kept, _ = filtered(responses, "--filter", "regex:pattern=^[A-Z]", *best, *last)
    assert [row["response"] for row in kept] == [ALMOST]


def test_short_flags_follow_in_their_order(responses: Path) -> None:
    (responses.parent / "eval.jsonl").write_text('{"question": "Hi! Do you really think so?"}\n')
    short = ["--diversity", 0.6, "--decontaminate", "eval.jsonl", "--dedup", "near",
             "--min-reward", 0.1, "--filter", "refusal"]  # fmt: skip

    result, kept, _ = filtered(responses, *short)

    assert [(one["name"], one["num_dropped"]) for one in result["filters"]] == [
        ("refusal", 1), ("reward", 1), ("near_dedup", 1), ("decontaminate", 2), ("diversity", 1),
    ]  # fmt: skip
    assert [row["response"] for row in kept] == [ALMOST, GERMAN]
    result, _, _ = filtered(responses, "--dedup", "exact")
    assert [one["name"] for one in result["filters"]] == ["exact_dedup"]


@pytest.mark.parametrize(
    "text",
    [
        '[[filter]]\nname = "length"\nmin-chars = 1\n[[filter]]\nname = "reward"\nmin = 0\n',
        '[filter]\nmin-reward = 0\nfilter = [{name = "length", min_chars = 1}]\n',
        '[filter]\nfilter = ["length:min_chars=1", "reward:min=0"]\n[select]\nk = 3\n',
        "[[filter.filter]]\nname='length'\nmin_chars=1\n[[filter.filter]]\nname='reward'\nmin=0\n",
    ],
)
def test_filters_of_a_config_file(responses: Path, text: str) -> None:
    (responses.parent / "run.toml").write_text(text)

    result, kept, _ = filtered(responses, "--config", "run.toml")

    assert [(one["name"], one["num_dropped"]) for one in result["filters"]] == [
        ("length", 1), ("reward", 1),
    ]  # fmt: skip
    assert len(kept) == 6


def test_flags_win_over_the_filters_of_the_file(responses: Path) -> None:
    (responses.parent / "run.toml").write_text('[[filter]]\nname = "refusal"\n')

    result, _, _ = filtered(responses, "--config", "run.toml", "--filter", "repetition")

    assert [one["name"] for one in result["filters"]] == ["repetition"]


@pytest.mark.slow
def test_agreement_asks_the_model_of_this_call(tmp_path: Path) -> None:
    right, wrong = ([str(n + n + 3 + off) for n in range(8)] for off in (0, 4))
    rows = [
        {"prompt": f"What is {n} + {n + 3}?", "score_chosen": 1, "score_rejected": 0,
         "chosen": (wrong if n % 2 else right)[n], "rejected": (right if n % 2 else wrong)[n]}
        for n in range(8)
    ]  # fmt: skip
    write_lines(tmp_path / "pairs.jsonl", rows)
    model = ("filter", "pairs.jsonl", "-r", f"reward={REWARD}", "-o", "kept.jsonl")

    done = bon(*model, "--min-agreement-prob", 0.5, "--dropped", "dropped.jsonl", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "the pairs' own scores rank and are written" in done.stderr
    kept, dropped = (read_lines(tmp_path / f"{name}.jsonl") for name in ("kept", "dropped"))
    scores = pq.read_table(tmp_path / "pairs.pool/scores/reward/part-00000.parquet")["score"]
    chosen, rejected = scores.to_pylist()[::2], scores.to_pylist()[1::2]
    agree = [rows[n]["chosen"] for n in range(8) if chosen[n] >= rejected[n]]
    assert [row["chosen"][0]["content"] for row in kept] == agree
    assert len(kept) + len(dropped) == 8
    assert 0 < len(kept) < 8
    assert {row["margin"] for row in kept + dropped} == {1.0}

    flip = ("--filter", "agreement:action=flip", "--rank-by", "reward")
    result = bon_json(*model, *flip, cwd=tmp_path)
    assert [stage["num_parts_done"] for stage in result["stages"]] == [0]
    assert result["filters"][0]["num_flipped"] == len(dropped)
    flipped = read_lines(tmp_path / "kept.jsonl")
    assert len(flipped) == 8
    assert all(row["margin"] >= 0 for row in flipped)


def test_a_reward_that_was_not_typed_is_used_only_where_it_is_needed(tmp_path: Path) -> None:
    write_lines(tmp_path / "pairs.jsonl", PAIRS)
    (tmp_path / "run.toml").write_text('reward = ["/no/model"]\n')
    command = ("filter", "pairs.jsonl", "--config", "run.toml", "-o", "o.jsonl")

    assert bon(*command, "--filter", "refusal", cwd=tmp_path).returncode == 0
    assert "no model '/no/model'" in bon(*command, "--filter", "agreement", cwd=tmp_path).stderr
    assert bon(*command, "-r", "/no/model", "--filter", "refusal", cwd=tmp_path).returncode == 1


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool of 20 rows, row 3 malformed, row 5 too long to sample for; 4 candidates each."""
    root = tmp_path_factory.mktemp("pools") / "p.pool"
    generator = FakeGenerator(too_long=frozenset({"p5"}))
    Run(input_rows(20, bad=[3]), num_candidates=4, generator=generator).scores(root)
    return root


def test_a_pool_is_only_read(pool: Path, tmp_path: Path) -> None:
    before = pool_files(pool)
    command = ("filter", pool, "--filter", "length:max_tokens=3", "--filter", "finish_reason",
               "--filter", "reward:top_k=1,by=prompt", "--limit", 10)  # fmt: skip

    result = bon_json(*command, "-o", "k.jsonl", "--dropped", "d.jsonl", cwd=tmp_path)

    kept, dropped = read_lines(tmp_path / "k.jsonl"), read_lines(tmp_path / "d.jsonl")
    assert_books_close(result, kept, dropped)
    assert result["input_rows"] == 10
    assert result["candidates"] == 8 * 4
    assert (result["drops"]["malformed_json"], result["drops"]["prompt_too_long"]) == (1, 1)
    assert all(row["num_tokens"] <= 3 and row["finish_reason"] == "stop" for row in kept)
    assert len({row["prompt_id"] for row in kept}) == len(kept)
    assert {row["answer"] for row in kept} <= set(range(10))
    assert pool_files(pool) == before


def test_rows_of_one_id_are_one_prompt(pool: Path, tmp_path: Path) -> None:
    select = ("select", pool, "--strategy", "top-k", "--k", 3, "--limit", 2, "-o", "set.jsonl")
    bon_json(*select, cwd=tmp_path)
    rows = read_lines(tmp_path / "set.jsonl")
    assert [row["prompt_id"] for row in rows] == ["p0"] * 3 + ["p1"] * 3
    alike = [{**row, "messages": rows[0]["messages"][:-1] + row["messages"][-1:]} for row in rows]
    write_lines(tmp_path / "alike.jsonl", alike)

    for by in ("prompt", "prompt_id"):
        _, kept, _ = filtered(tmp_path / "set.jsonl", "--filter", f"reward:top_k=1,by={by}")
        best = [max(group, key=lambda row: row["reward"]) for group in (rows[:3], rows[3:])]
        assert [row["candidate"] for row in kept] == [row["candidate"] for row in best]
    for name in ("exact_dedup", "near_dedup"):
        _, kept, _ = filtered(tmp_path / "set.jsonl", "--filter", f"{name}:on=prompt")
        assert len(kept) == 6
        _, kept, dropped = filtered(tmp_path / "alike.jsonl", "--filter", f"{name}:on=prompt")
        assert sorted({row["prompt_id"] for row in kept + dropped}) == ["p0", "p1"]
        assert len({row["prompt_id"] for row in kept}) == 1
        assert len(kept) == 3
    done = bon("filter", "set.jsonl", "--filter", "reward:top_k=1,by=promt", cwd=tmp_path)
    assert "did you mean 'prompt'?" in done.stderr
    done = bon("filter", "set.jsonl", "--filter", "reward:top_k=1,by=zzz", cwd=tmp_path)
    assert "no input column 'zzz'" in done.stderr
    assert "__prompt_id__" not in done.stderr


def test_a_pool_of_pairs_is_filtered_as_pairs(tmp_path: Path) -> None:
    write_lines(tmp_path / "pairs.jsonl", PAIRS)
    bon_json("filter", "pairs.jsonl", "--pool", "my.pool", "-o", "all.jsonl", cwd=tmp_path)

    result = bon_json("filter", "my.pool", "--filter", "margin:min=2", "-o", "k.jsonl",
                      "--format", "trl-dpo", cwd=tmp_path)  # fmt: skip

    assert (result["kind"], result["output_rows"], result["pool"]) == ("pairs", 3, "my.pool")
    assert [row["n"] for row in read_lines(tmp_path / "k.jsonl")] == [0, 3, 0]


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="the shared data folder is not here")
def test_the_same_questions_are_found(tmp_path: Path) -> None:
    """Both files hold GSM8K's first test questions, so all but 100 made up ones must go."""
    with (SHARED_DATA / "gsm8k_candidates.jsonl").open() as lines:
        rows = [json.loads(next(lines)) for _ in range(300)]
    for number in range(100):
        colour = ("red", "green", "blue")[number % 3]
        rows.append({**rows[0], "question": f"Which {colour} boat number {number} sails home?"})
    write_lines(tmp_path / "c.jsonl", rows)
    command = ("--decontaminate", SHARED_DATA / "gsm8k_test.jsonl")

    result, kept, dropped = filtered(tmp_path / "c.jsonl", *command)

    assert result["drops"] == {"decontaminate": 300}
    assert len(dropped) == 1200
    assert {row["prompt"] for row in dropped} == {row["question"] for row in rows[:300]}
    assert all("boat number" in row["prompt"] for row in kept)
    assert "gsm8k_test.jsonl:1, question" in dropped[0]["detail"]


def test_the_closing_table_shows_the_counts_of_pairs(tmp_path: Path) -> None:
    write_lines(tmp_path / "pairs.jsonl", [*PAIRS, {**PAIRS[0], "chosen": None}])
    command = ("filter", "pairs.jsonl", "--filter", "margin:min=2")

    done = bon(*command, "--dropped", "d.jsonl", "--max-drops", 3, cwd=tmp_path)

    assert done.returncode == 3
    assert done.stdout == "pairs.filtered.parquet\n"
    assert "filtered pairs, scores of given" in done.stderr
    assert "3 of 6, 3 dropped" in done.stderr
    assert "dropped pairs.jsonl:2 id=q1: margin: its margin by given, 1, is below" in done.stderr
    assert "dropped pairs.jsonl:7 id=q0: missing_response" in done.stderr
    assert "what was filtered out is in d.jsonl" in done.stderr
    assert "4 rows dropped, more than --max-drops allows" in done.stderr
    assert pq.read_table(tmp_path / "pairs.filtered.parquet").num_rows == 3
    assert bon(*command, "--max-drops", 4, "-q", cwd=tmp_path).returncode == 0


def test_json_is_one_object_and_nothing_else(responses: Path) -> None:
    done = bon("filter", responses, "--filter", "refusal", "--json", cwd=responses.parent)

    assert json.loads(done.stdout)["output_rows"] == 7
    assert "filtered responses" in done.stderr


@pytest.mark.parametrize("output", ["set", "set.parquet", "set.csv"])
def test_two_runs_give_the_same_bytes(responses: Path, output: str) -> None:
    found = []
    for name in ("one", "two"):
        folder = responses.parent / name
        folder.mkdir()
        write_lines(folder / "in.jsonl", RESPONSES)
        command = ("filter", "in.jsonl", "--dedup", "near", "-o", output, "--seed", 5)
        bon_json(*command, "--train-test-split", 0.5, cwd=folder)
        found.append({k: v for k, v in pool_files(folder).items() if "in.jsonl" not in k})
    assert found[0] == found[1]
    assert found[0]


def test_no_prompt_is_on_both_sides_of_a_split(tmp_path: Path) -> None:
    rows = [pair(n // 2, f"good {n}", "bad", 1) for n in range(80)]
    source = write_lines(tmp_path / "pairs.jsonl", rows)

    command = ("filter", source, "--filter", "margin:min=1", "--train-test-split", 0.3)
    result = bon_json(*command, "-o", "s.jsonl", cwd=tmp_path)

    train, test = read_lines(tmp_path / "s.jsonl"), read_lines(tmp_path / "s.test.jsonl")
    assert result["written_rows"] == {"train": len(train), "test": len(test)}
    assert len(train) + len(test) == 80
    assert test
    assert not {row["prompt_id"] for row in train} & {row["prompt_id"] for row in test}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--filter", "lenght:min_chars=1"], "did you mean 'length'?"),
        (["--filter", "length:min_char=1"], "did you mean 'min_chars'?"),
        (["--filter", "length"], "length"),
        (["--filter", "margin:min=1"], "use reward for these"),
        (["--min-agreement-prob", "0.5"], "the filter agreement is for pairs"),
        (["--filter", "regex:pattern=("], "not a regular expression"),
        (["--filter", "reward:min=1,scorer=other"], "there is no scorer 'other'"),
        (["--rank-by", "other", "--min-reward", "0"], "no scorer 'other'"),
        (["--format", "trl-dpo"], "cannot be made from responses"),
        (["-o", "responses.jsonl"], "the output would lie in the input"),
        (["-o", "x.jsonl", "--dropped", "x.jsonl"], "overwrite each other"),
        (["-o", "x", "--dropped", "x/d.jsonl"], "overwrite each other"),
        (["-o", "x.jsonl", "--train-test-split", "0.5", "--dropped", "x.test.jsonl"],
         "overwrite each other"),
        (["--dropped", "responses.jsonl"], "the output would lie in the input"),
        (["--dropped", "d.docx"], "cannot tell the file type"),
        (["--pool", "x", "-o", "x/y.jsonl"], "the output and the pool would lie in each other"),
        (["-o", "x.parquet", "--push-to-hub", "a/b"], "needs an output folder"),
        (["-o", "x", "--push-to-hub", "a/b"], "no token for the Hub"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_and_leaves_nothing(
    responses: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], message: str
) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(responses.parent / "hub"))
    before = responses.read_bytes()

    done = bon("filter", "responses.jsonl", *flags, cwd=responses.parent)

    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in responses.parent.iterdir()] == ["responses.jsonl"]
    assert responses.read_bytes() == before


def test_a_foreign_folder_is_left_as_it_is(responses: Path) -> None:
    foreign = responses.parent / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").touch()

    for flags in (["-o", "foreign"], ["--dropped", "foreign"]):
        done = bon("filter", "responses.jsonl", *flags, cwd=responses.parent)
        assert done.returncode == 1
        assert "the output folder holds other things" in done.stderr
    assert [path.name for path in foreign.iterdir()] == ["thesis.tex"]
    assert left_over(responses.parent) == []


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--filter", "margin:min=1"], "use reward for these"),
        (["--decontaminate", "nosuch.jsonl"], "no such input: nosuch.jsonl"),
        (
            ["--decontaminate", "p.jsonl", "--filter", "decontaminate:files=p.jsonl,columns=q"],
            "the evaluation data has no column 'q'",
        ),
        (["-r", "a=/no/model", "-r", "b=/no/model"], "name the one that ranks with --rank-by"),
        (["--rank-by", "other", "--min-reward", "0"], "there is no scorer 'other'"),
        (["--filter", "difficulty:scorer=rule-math"], "there is no scorer 'rule-math'"),
    ],
)
def test_filters_of_a_prompt_file_are_checked_before_any_model_is_looked_for(
    tmp_path: Path, flags: list[str], message: str
) -> None:
    write_lines(tmp_path / "p.jsonl", [{"prompt": "What is 1 + 2?"}])

    done = bon("filter", "p.jsonl", "-m", "/no/model", *flags, cwd=tmp_path)

    assert message in done.stderr
    assert done.returncode in (1, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["p.jsonl"]


def test_answers_are_not_taken_for_prompts(tmp_path: Path) -> None:
    chat = [{"messages": [user("Q"), assistant(text)]} for text in ("A", REFUSAL)]
    write_lines(tmp_path / "chats.jsonl", chat)
    command = ("filter", "chats.jsonl", "--filter", "refusal", "-o", "k.jsonl")

    done = bon(*command, cwd=tmp_path)
    assert done.returncode == 2
    assert "--source-kind responses to filter these answers" in done.stderr
    bon_json(*command, "--source-kind", "responses", cwd=tmp_path)
    assert [row["response"] for row in read_lines(tmp_path / "k.jsonl")] == ["A"]


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        (b"", 1, "has no rows"),
        (b"garbage\n\x00\xff\n", 1, "no row of in.jsonl can be read"),
        (b'{"prompt": "p", "chosen": null, "rejected": "r"}\n', 3, "missing_response"),
        (b'{"prompt": "p", "chosen": "c", "rejected": "r"}\nnot json', 0, "in.jsonl:2"),
    ],
)
def test_few_and_bad_rows(tmp_path: Path, content: bytes, code: int, message: str) -> None:
    (tmp_path / "in.jsonl").write_bytes(content)

    done = bon("filter", "in.jsonl", "--filter", "exact_dedup", "-o", "out.jsonl", cwd=tmp_path)

    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert left_over(tmp_path) == []
    assert (tmp_path / "out.jsonl").exists() == (code in (0, 3))


@pytest.mark.parametrize("name", ["o.jsonl", "o.parquet", "o.csv", "o"])
def test_no_rows_are_a_set_too(tmp_path: Path, name: str) -> None:
    write_lines(tmp_path / "in.jsonl", PAIRS)
    filters = [f"--filter={one}" for one in ("margin:min=0", "exact_dedup", "near_dedup", "refusal",
                                             "language:allowed=en", "diversity")]  # fmt: skip

    result = bon_json("filter", "in.jsonl", *filters[1:5], "--limit", 0, "-o", name, cwd=tmp_path)
    assert (result["input_rows"], result["written_rows"]) == (0, {"train": 0})
    write_lines(tmp_path / "in.jsonl", [pair(1, "yes", "no", -1)])
    filters += ["--max-drops", "1"]
    result = bon_json("filter", "in.jsonl", *filters, "-o", name, cwd=tmp_path)
    assert (result["drops"], result["written_rows"]) == ({"margin": 1}, {"train": 0})


@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_it_leaves_nothing(tmp_path: Path, how: signal.Signals, code: int) -> None:
    rows = (pair(n, f"good {n} " * 10, "bad", 1) for n in range(20_000))
    write_lines(tmp_path / "in.jsonl", rows)
    command = ("filter", "in.jsonl", "--dedup", "near", "-o", "out.jsonl", "--dropped", "d.jsonl")

    def is_reading() -> bool:
        return any(tmp_path.glob(".out.jsonl.scratch.*/pool/prompts/*"))

    stopped = bon_stopped(*command, cwd=tmp_path, when=is_reading, how=how)

    assert stopped.returncode == code
    assert "Traceback" not in stopped.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_scratch_of_a_dead_run_is_removed(responses: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    names = {pid: f".kept.jsonl.scratch.{process_tag(pid)}.tmp" for pid in (dead.pid, os.getpid())}
    for name in names.values():
        (responses.parent / name / "pool").mkdir(parents=True)

    bon_json("filter", "responses.jsonl", "-o", "kept.jsonl", cwd=responses.parent)

    assert left_over(responses.parent) == [names[os.getpid()]], "the living one's is its own"


def test_dry_run_says_the_steps_and_writes_nothing(responses: Path, pool: Path) -> None:
    folder = responses.parent
    command = ("filter", "responses.jsonl", "--dry-run", "--filter", "refusal", "--min-reward", 1)

    done = bon(*command, "--dropped", "d.jsonl", "-o", "new/k.jsonl", cwd=folder)
    assert done.returncode == 0, done.stderr
    for step in ("read responses from responses.jsonl\n", "filter by refusal", "to d.jsonl",
                 'filter by reward: {"min":1.0}', "write what is left to new/k.jsonl"):  # fmt: skip
        assert step in done.stdout
    assert "Qwen" not in done.stdout, "no model has a part in it"
    done = bon(*command, "-r", "r=org/model", "--json", cwd=folder)
    assert "score with r=org/model" in json.loads(done.stdout)["steps"]
    done = bon("filter", pool, "--dry-run", "--json", "--dedup", "exact", cwd=folder)
    assert json.loads(done.stdout)["parts"]["scores/reward"] == 5
    assert [path.name for path in folder.iterdir()] == ["responses.jsonl"]


def test_flags_that_a_pool_has_settled_are_refused(pool: Path, tmp_path: Path) -> None:
    flags = ("-r", "x", "-n", 4, "--source-kind", "pairs", "--part-size", 2, "--pool", "y")

    done = bon("filter", pool, *flags, cwd=tmp_path)

    assert done.returncode == 2
    for flag in ("--reward", "--num-candidates", "--source-kind", "--part-size", "--pool"):
        assert flag in done.stderr
    assert list(tmp_path.iterdir()) == []

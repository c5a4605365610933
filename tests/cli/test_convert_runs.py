"""`bon convert` and `--format` end to end: every form out, and in again."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from support.commands import PROMPTS, SHARED_DATA, bon, bon_json, bon_stopped, pool_files
from support.datasets import assistant, left_over, read_lines, triples, user, write_lines
from support.fakes import Run, input_rows

SYSTEM = {"role": "system", "content": "Be terse."}
TOOL = {"role": "tool", "content": '{"sum": 42}'}
LONG_CHAT = [SYSTEM, user("Zähl ☃ 数"), assistant("Eins."), user('Und\n\n"weiter"?')]
TOOL_CHAT = [user("Add 40 and 2."), assistant("I ask the tool."), TOOL]
PAIRS = [
    {"prompt_id": "m1", "prompt": LONG_CHAT, "chosen": [assistant("Zwei\n")],
     "rejected": [assistant("")], "score_chosen": 0.1, "score_rejected": -0.3, "topic": "count"},
    {"prompt_id": "m2", "prompt": TOOL_CHAT, "chosen": [assistant("It is 42.")],
     "rejected": [assistant("43")], "score_chosen": None, "score_rejected": None, "topic": None},
    {"prompt_id": "m2", "prompt": TOOL_CHAT, "chosen": [assistant("It is 42.")],
     "rejected": [assistant('ab, "cd"')], "score_chosen": 2, "score_rejected": 1,
     "topic": "sum"},
]  # fmt: skip


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "pairs.jsonl", PAIRS)


def converted(source: Path, output: str, *flags: object) -> list[dict[str, Any]]:
    """Convert a file, and return the rows written; the counts must be those of the rows."""
    result = bon_json("convert", source, "-o", output, *flags, cwd=source.parent)
    assert result["input_rows"] == result["kept_rows"] + sum(result["drops"].values())
    rows = read_lines(source.parent / output)
    assert result["written_rows"] == {"train": len(rows)}
    assert result["pool"] is None
    assert left_over(source.parent) == []
    return rows


PREFERENCE_FORMATS = ("bon", "trl-dpo", "trl-reward", "openrlhf", "llama-factory", "axolotl",
                      "nemo-rl", "ms-swift")  # fmt: skip


@pytest.mark.parametrize("form", PREFERENCE_FORMATS)
def test_pairs_come_back_from_every_form(pairs: Path, form: str) -> None:
    converted(pairs, "out.jsonl", "--format", form)

    back = converted(pairs.parent / "out.jsonl", "back.jsonl")

    assert triples(back) == triples(PAIRS)
    if form in ("nemo-rl", "ms-swift"):  # they have room for nothing else
        return
    for row, source in zip(back, PAIRS, strict=True):
        for name in ("prompt_id", "topic", "score_chosen", "score_rejected"):
            assert row[name] == source[name]
        scores = source["score_chosen"], source["score_rejected"]
        known = None not in scores
        assert row["margin"] == (pytest.approx(scores[0] - scores[1]) if known else None)
    extra = {"input_margin"} if form == "trl-reward" else set()  # 0 stands for unknown there
    assert back[0].keys() - converted(pairs, "native.jsonl")[0].keys() == extra


Q, A, B = user("Q"), assistant("good"), assistant("bad")
FOREIGN = {
    "ultrafeedback": {"prompt": "Q", "prompt_id": "x", "chosen": [Q, A], "rejected": [Q, B],
                      "score_chosen": 8.5, "score_rejected": 7.0},
    "trl-dpo": {"prompt": [Q], "chosen": [A], "rejected": [B]},
    "trl-text": {"prompt": "Q", "chosen": "good", "rejected": "bad"},
    "trl-reward": {"chosen": [Q, A], "rejected": [Q, B], "margin": 0.5},
    "openrlhf": {"prompt": [Q], "chosen": [A], "rejected": [B], "margin": 0.5},
    "llama-factory": {"conversations": [{"from": "human", "value": "Q"}],
                      "chosen": {"from": "gpt", "value": "good"},
                      "rejected": {"from": "gpt", "value": "bad"}},
    "axolotl": {"messages": [Q], "chosen": A, "rejected": B},
    "nemo-rl": {"context": [Q], "completions": [{"rank": 1, "completion": [B]},
                                                {"rank": 0, "completion": [A]}]},
    "ms-swift": {"messages": [Q, A], "rejected_response": "bad"},
    "argilla": {"instruction": "Q", "chosen_response": "good", "rejected_response": "bad",
                "chosen-rating": 4.0, "rejected-rating": 2.0},
    "helpsteer2": {"prompt": "Q", "response_1": "bad", "response_2": "good",
                   "preference_strength": 2},
    "helpsteer3": {"context": [Q], "response1": "good", "response2": "bad",
                   "overall_preference": -1},
    "hh-rlhf": {"chosen": "\n\nHuman: Q\n\nAssistant: good",
                "rejected": "\n\nHuman: Q\n\nAssistant: bad"},
}  # fmt: skip


@pytest.mark.parametrize("name", FOREIGN)
def test_pairs_of_others_are_read_and_written_in_another_form(tmp_path: Path, name: str) -> None:
    source = write_lines(tmp_path / "in.jsonl", [FOREIGN[name]])

    assert triples(converted(source, "bon.jsonl")) == [([Q], [A], [B])]
    ranked = [{"rank": 0, "completion": [A]}, {"rank": 1, "completion": [B]}]
    assert converted(source, "out.jsonl", "--format", "nemo-rl") == [
        {"context": [Q], "completions": ranked}
    ]


def test_a_margin_without_scores_is_kept_as_the_margin(tmp_path: Path) -> None:
    rows = [{**FOREIGN["trl-reward"], "margin": margin} for margin in (0.5, 2, None)]
    source = write_lines(tmp_path / "in.jsonl", rows)

    native = converted(source, "bon.jsonl")
    assert [row["margin"] for row in native] == [0.5, 2.0, None]
    assert "input_margin" not in native[0]
    openrlhf = converted(tmp_path / "bon.jsonl", "o.jsonl", "--format", "openrlhf")
    assert [row["margin"] for row in openrlhf] == [0.5, 2.0, None]
    write_lines(tmp_path / "in.jsonl", [{**row, "margin": "wide"} for row in rows])
    assert converted(source, "t.jsonl")[0]["input_margin"] == "wide"


def test_kto_has_both_halves_of_a_pair(pairs: Path) -> None:
    rows = converted(pairs, "kto.jsonl", "--format", "trl-kto")

    assert [row["label"] for row in rows] == [True, False] * 3
    assert [row["prompt"] for row in rows] == [row["prompt"] for row in PAIRS for _ in range(2)]
    assert [row["completion"] for row in rows] == [
        row[half] for row in PAIRS for half in ("chosen", "rejected")
    ]


CHATS = [
    {"id": "c1", "messages": [*LONG_CHAT, assistant("Zwei")], "topic": "a", "reward": 0.5},
    {"id": "c2", "messages": [*TOOL_CHAT, assistant("42")], "topic": None, "reward": None},
    {"id": "c3", "messages": [Q, assistant("")], "topic": "b", "reward": -1},
]


@pytest.mark.parametrize("form", ["bon", "trl-sft", "llama-factory", "axolotl", "ms-swift"])
def test_responses_come_back_from_every_form(tmp_path: Path, form: str) -> None:
    source = write_lines(tmp_path / "chats.jsonl", CHATS)
    responses = ("--source-kind", "responses")
    converted(source, "out.jsonl", *responses, "--format", form)

    back = converted(tmp_path / "out.jsonl", "back.jsonl", *responses)

    assert [row["messages"] for row in back] == [row["messages"] for row in CHATS]
    assert [row["response"] for row in back] == ["Zwei", "42", ""]
    if form != "ms-swift":
        assert [row["reward"] for row in back] == [0.5, None, -1.0]
        assert [row["prompt_id"] for row in back] == ["c1", "c2", "c3"]
        assert [row["topic"] for row in back] == ["a", None, "b"]
        assert not [name for name in back[0] if name.startswith("input_prompt")]


def test_sft_of_pairs_is_what_was_chosen_once(pairs: Path) -> None:
    rows = converted(pairs, "sft.jsonl", "--format", "trl-sft")

    assert [row["completion"] for row in rows] == [PAIRS[0]["chosen"], PAIRS[1]["chosen"]]
    assert [row["prompt"] for row in rows] == [LONG_CHAT, TOOL_CHAT]


def test_what_became_one_row_is_said(tmp_path: Path) -> None:
    question = [user("2+2?")]
    rows = [
        {
            "prompt_id": "x",
            "prompt": question,
            "chosen": [assistant("4")],
            "rejected": [assistant("5")],
        },
        {
            "prompt_id": "x",
            "prompt": question,
            "chosen": [assistant("four")],
            "rejected": [assistant("6")],
        },
        {
            "prompt_id": "x",
            "prompt": question,
            "chosen": [assistant("four")],
            "rejected": [assistant("7")],
        },
    ]
    write_lines(tmp_path / "pairs.jsonl", rows)
    command = ("convert", "pairs.jsonl", "--format", "trl-sft", "-o", "sft.jsonl")
    done = bon(*command, cwd=tmp_path)
    assert re.search(r"merged, same prompt/response\W+1 rows", done.stderr)
    result = bon_json(*command, cwd=tmp_path)

    assert (result["output_rows"], result["written_rows"], result["merged_rows"]) == (
        3, {"train": 2}, {"train": 1},
    )  # fmt: skip
    learned = [row["completion"] for row in read_lines(tmp_path / "sft.jsonl")]
    assert learned == [[assistant("4")], [assistant("four")]]
    assert "merged" not in bon("convert", "pairs.jsonl", "-o", "all.jsonl", cwd=tmp_path).stderr


@pytest.mark.parametrize("form", ["trl-grpo", "verl"])
def test_prompts_for_trainers_that_sample(tmp_path: Path, form: str) -> None:
    command = ("convert", PROMPTS, "--format", form, "-o", "out.jsonl")
    result = bon_json(*command, cwd=tmp_path)

    given, rows = read_lines(PROMPTS), read_lines(tmp_path / "out.jsonl")
    assert result["written_rows"] == {"train": len(given)}
    assert [row["prompt"] for row in rows] == [[user(row["prompt"])] for row in given]
    answers = [row["answer"] for row in given]
    if form == "verl":
        truths = [row["reward_model"] for row in rows]
        assert truths == [{"style": "rule", "ground_truth": answer} for answer in answers]
        assert [row["extra_info"]["index"] for row in rows] == list(range(len(given)))
        assert {row["data_source"] for row in rows} == {"out"}
    else:
        assert [row["answer"] for row in rows] == answers


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="the shared data folder is not here")
def test_gsm8k_for_verl(tmp_path: Path) -> None:
    command = ("convert", SHARED_DATA / "gsm8k_test.jsonl", "--format", "verl", "-o", "v.parquet")
    bon_json(*command, cwd=tmp_path)

    rows = pq.read_table(tmp_path / "v.parquet", page_checksum_verification=True).to_pylist()
    given = read_lines(SHARED_DATA / "gsm8k_test.jsonl")
    assert [row["prompt"][0]["content"] for row in rows] == [row["question"] for row in given]
    finals = [row["answer"].rpartition("#### ")[2].replace(",", "") for row in given]
    assert [row["reward_model"]["ground_truth"].replace(",", "") for row in rows] == finals


@pytest.mark.parametrize("name", ["x.jsonl.gz", "x.jsonl.zst", "x.parquet", "x.csv", "folder"])
def test_every_file_type_is_read_back(pairs: Path, name: str) -> None:
    expected = converted(pairs, "expected.jsonl")

    result = bon_json("convert", "pairs.jsonl", "-o", name, cwd=pairs.parent)

    assert all((pairs.parent / path).is_file() for path in result["files"])
    back = converted(pairs.parent / name, "back.jsonl")
    assert triples(back) == triples(PAIRS)
    if name != "x.csv":  # a table's cells are texts, and null is empty there
        assert back == expected
    for row, other in zip(back, expected, strict=True):
        scores = ("score_chosen", "score_rejected", "margin", "prompt_id", "num_tokens_chosen")
        assert {n: row[n] for n in scores} == {n: other[n] for n in scores}


@pytest.mark.parametrize("kind", ["pairs", "responses", "prompts"])
def test_no_prompt_is_on_both_sides_of_a_split(tmp_path: Path, kind: str) -> None:
    further = {
        "pairs": {"chosen": "yes", "rejected": "no"}, "responses": {"response": "yes"},
        "prompts": {},
    }[kind]  # fmt: skip
    rows = [{"prompt": f"Question {n // 2}?", "n": n, **further} for n in range(100)]
    write_lines(tmp_path / "in.jsonl", rows)
    command = ("convert", "in.jsonl", "--train-test-split", 0.3, "-o")

    result = bon_json(*command, "s.jsonl", cwd=tmp_path)
    train, test = read_lines(tmp_path / "s.jsonl"), read_lines(tmp_path / "s.test.jsonl")
    assert result["written_rows"] == {"train": len(train), "test": len(test)}
    assert sorted(row["n"] for row in train + test) == list(range(100))
    assert 10 <= len(test) <= 50
    assert not {row["n"] // 2 for row in train} & {row["n"] // 2 for row in test}
    bon_json(*command, "set", cwd=tmp_path)
    shards = {path.name: pq.read_table(path).num_rows for path in tmp_path.glob("set/data/*")}
    assert shards == {
        "train-00000-of-00001.parquet": len(train), "test-00000-of-00001.parquet": len(test),
    }  # fmt: skip


def test_a_folder_has_a_card_that_says_what_was_done(pairs: Path) -> None:
    write_lines(pairs, [*PAIRS, {**PAIRS[0], "chosen": None}])

    bon_json("convert", "pairs.jsonl", "-o", "set", "--format", "trl-dpo", cwd=pairs.parent)

    card = (pairs.parent / "set" / "README.md").read_text()
    assert "3 preference pairs, made with bon, in the form that TRL DPOTrainer takes." in card
    assert "| `missing_response` | input rows | 1 |" in card
    assert "best-of-n" not in card, "nothing was sampled"
    assert card.count("| form |") == 1


def test_a_second_export_replaces_the_first_and_nothing_else(pairs: Path) -> None:
    folder = pairs.parent / "set"
    bon_json("convert", "pairs.jsonl", "-o", "set", "--train-test-split", 0.5, cwd=pairs.parent)
    (folder / "notes.txt").write_text("mine")

    bon_json("convert", "pairs.jsonl", "-o", "set", cwd=pairs.parent)

    assert sorted(pool_files(folder)) == [
        ".bon-export.json", "README.md", "data/train-00000-of-00001.parquet", "notes.txt",
    ]  # fmt: skip


def test_two_runs_give_the_same_bytes(pairs: Path) -> None:
    found = []
    for name in ("one", "two"):
        (pairs.parent / name).mkdir()
        write_lines(pairs.parent / name / "pairs.jsonl", PAIRS)
        command = ("convert", "pairs.jsonl", "-o", "set", "--train-test-split", 0.5)
        bon_json(*command, "--format", "llama-factory", cwd=pairs.parent / name)
        found.append(pool_files(pairs.parent / name))
    assert found[0] == found[1]


def test_select_writes_every_form_of_responses(tmp_path: Path) -> None:
    Run(input_rows(6), num_candidates=3).scores(tmp_path / "p.pool")
    before = pool_files(tmp_path / "p.pool")

    for form in ("bon", "trl-sft", "llama-factory", "axolotl", "ms-swift", "trl-grpo", "verl"):
        result = bon_json("select", "p.pool", "--format", form, "-o", "o.jsonl", cwd=tmp_path)
        assert result["written_rows"] == {"train": 6}
        assert len(read_lines(tmp_path / "o.jsonl")) == 6
    done = bon("select", "p.pool", "--format", "trl-dpo", "-o", "x.jsonl", cwd=tmp_path)
    assert done.returncode == 2
    assert "cannot be made from responses" in done.stderr
    done = bon("select", "p.pool", "-o", "p.pool/x.jsonl", cwd=tmp_path)
    assert "the output and the pool would lie in each other" in done.stderr
    assert pool_files(tmp_path / "p.pool") == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--format", "trl-dop"], "did you mean 'trl-dpo'?"),
        (["--format", "nemo-rl", "-o", "x.parquet"], "NeMo RL does not read .parquet"),
        (["-o", "x.json"], "cannot tell the file type of 'x.json'"),
        (["-o", "pairs.jsonl"], "the output would lie in the input"),
        (["--id-column", "nothing", "-o", "new/deep/x.parquet"], "no column 'nothing'"),
        (["--source-kind", "prompts", "--format", "trl-dpo"], "cannot be made from prompts"),
        (["-o", "x.parquet", "--push-to-hub", "org/name"], "needs an output folder"),
        (["-o", "x", "--push-to-hub", "org/name"], "no token for the Hub"),
        (["--pool", "x.pool", "-o", "x.pool/y.parquet"], "would lie in each other"),
        (["--train-test-split", "1"], "--train-test-split"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(
    pairs: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], message: str
) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(pairs.parent / "hub"))
    before = pairs.read_bytes()

    done = bon("convert", "pairs.jsonl", *flags, cwd=pairs.parent)

    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in pairs.parent.iterdir()] == ["pairs.jsonl"]
    assert pairs.read_bytes() == before


def test_the_second_split_is_not_written_over_the_input(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "x.test.jsonl", PAIRS)

    command = ("convert", source.name, "-o", "x.jsonl", "--train-test-split", 0.5)
    done = bon(*command, cwd=tmp_path)

    assert done.returncode == 2
    assert "the output would lie in the input" in done.stderr
    assert read_lines(source) == PAIRS


def test_a_foreign_folder_and_a_pool_are_left_as_they_are(pairs: Path) -> None:
    foreign = pairs.parent / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").touch()

    done = bon("convert", "pairs.jsonl", "-o", "foreign", cwd=pairs.parent)
    assert done.returncode == 1
    assert "the output folder holds other things" in done.stderr
    assert [path.name for path in foreign.iterdir()] == ["thesis.tex"]
    (foreign / "pool.json").write_text("{}")
    done = bon("convert", "foreign", cwd=pairs.parent)
    assert done.returncode == 2
    assert "bon filter POOL --format FORMAT" in done.stderr


def test_rows_with_answers_name_the_flag_that_reads_them(tmp_path: Path) -> None:
    alpaca = {"instruction": "Sum", "input": "1 2", "output": "3"}
    for row in (CHATS[0], alpaca):
        write_lines(tmp_path / "in.jsonl", [row])
        done = bon("convert", "in.jsonl", "--format", "trl-sft", cwd=tmp_path)
        assert done.returncode == 2
        assert "give --source-kind responses" in done.stderr
    write_lines(tmp_path / "in.jsonl", [{"prompt": "Q"}])
    done = bon("convert", "in.jsonl", "--format", "trl-sft", cwd=tmp_path)
    assert "for prompts there are: bon, trl-grpo, verl" in done.stderr


def test_bad_rows_are_counted_and_the_rest_is_written(pairs: Path) -> None:
    with pairs.open("a") as file:
        file.write('not json\n{"prompt_id": "z", "prompt": "x", "chosen": "y"}\n')

    done = bon("convert", "pairs.jsonl", "--max-drops", 1, "--json", cwd=pairs.parent)

    assert done.returncode == 3
    result = json.loads(done.stdout)
    assert result["drops"] == {"malformed_json": 1, "missing_response": 1}
    assert (result["input_rows"], result["output_rows"]) == (5, 3)
    assert "pairs.jsonl:4" in done.stderr
    assert pq.read_table(pairs.parent / "pairs.bon.parquet").num_rows == 3


@pytest.mark.parametrize("form", ["trl-kto", "trl-reward", "nemo-rl", "llama-factory"])
def test_no_rows_are_a_set_too(pairs: Path, form: str) -> None:
    command = ("convert", "pairs.jsonl", "--format", form, "--limit", 0, "-o", "set")
    result = bon_json(*command, cwd=pairs.parent)

    assert (result["input_rows"], result["written_rows"]) == (0, {"train": 0})
    (shard,) = (pairs.parent / "set").rglob("train-*")
    assert shard.exists()


def test_limit_counts_input_rows(pairs: Path) -> None:
    rows = converted(pairs, "two.jsonl", "--limit", 2)
    assert triples(rows) == triples(PAIRS[:2])


def test_interrupted_it_leaves_nothing(tmp_path: Path) -> None:
    write_lines(tmp_path / "in.jsonl", ({**PAIRS[2], "prompt_id": str(n)} for n in range(20_000)))

    def is_reading() -> bool:
        return any(tmp_path.glob(".set.scratch.*/pool/prompts/*"))

    command = ("convert", "in.jsonl", "-o", "set")
    stopped = bon_stopped(*command, cwd=tmp_path, when=is_reading, how=signal.SIGINT)

    assert stopped.returncode == 130
    assert "Traceback" not in stopped.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_dry_run_writes_nothing(pairs: Path) -> None:
    done = bon("convert", "pairs.jsonl", "--dry-run", "-o", "new/x.jsonl", cwd=pairs.parent)

    assert done.returncode == 0
    assert "write them as bon to new/x.jsonl" in done.stdout
    assert "pool = null" in done.stdout
    assert [path.name for path in pairs.parent.iterdir()] == ["pairs.jsonl"]


def test_a_pool_that_was_asked_for_stays(pairs: Path) -> None:
    command = ("convert", "pairs.jsonl", "--pool", "my.pool", "-o", "x.jsonl")
    first = bon_json(*command, cwd=pairs.parent)
    before = pool_files(pairs.parent / "my.pool")

    assert first["pool"] == "my.pool"
    assert bon_json(*command, cwd=pairs.parent) == first
    assert pool_files(pairs.parent / "my.pool") == before

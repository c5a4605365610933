"""`bon build-dpo` as a user runs it: given responses and pools, no model but in the last test."""

from __future__ import annotations

import datetime
import decimal
import json
import os
import shutil
import signal
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.commands import (
    GENERATOR,
    MODELS,
    PROMPTS,
    REWARD,
    ROOT,
    SHARED_DATA,
    bon,
    bon_json,
    bon_stopped,
    pool_files,
)
from support.fakes import FakeGenerator, FakeScorer, Run, ignore, input_rows

from bon.exports.formats import FORMATS
from bon.guards import GUARDS
from bon.pairs import STRATEGIES
from bon.pipeline.plans import ScoringPlan
from bon.pipeline.run import score

GIVEN: list[dict[str, Any] | str] = [
    {"id": "a", "prompt": "q1", "responses": ["x y z", "w"], "scores": [1.0, 0.5], "n": 1},
    {"id": "b", "prompt": "q2", "responses": ["x", "w"], "scores": [1.0, 1.0]},
    {"id": "c", "prompt": "q3", "responses": ["x"], "scores": [1.0]},
    {"id": "d", "prompt": "q4", "responses": ["x", "X "], "scores": [2.0, 1.0]},
    {"id": "e", "prompt": "q5", "responses": ["x", "b"], "scores": [None, None]},
    {"id": "f", "prompt": "q6", "responses": ["x", "b"], "scores": [3, None]},
    {"id": "g", "prompt": "q7", "responses": ["x", ""], "scores": [3, 1]},
    '{"id": "h",',
    {"id": "i", "prompt": "q9", "responses": ["ü 🙂", None, "w"], "scores": [2.5, 9, 0.5]},
]


def write_lines(path: Path, rows: list[dict[str, Any] | str]) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """A folder with nine rows of given responses, two of which make a pair."""
    write_lines(tmp_path / "given.jsonl", GIVEN)
    return tmp_path


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `p.pool`: 40 rows, 2 malformed, 4 candidates each, two rewards and labels."""
    root = tmp_path_factory.mktemp("pool") / "p.pool"
    run = Run(
        input_rows(40, bad=[3, 17]),
        num_candidates=4,
        part_size=16,
        seed=5,
        generator=FakeGenerator(too_long=frozenset({"p9"})),
        scorer=FakeScorer({"p0": [None, 2.0, 1.0, 4.0], "p1": [1.0] * 4}),
    )
    pool = run.scores(root)
    odd = {f"p{n}": [float(c % 2) for c in range(n, n + 4)] for n in range(40)}
    score(pool, ScoringPlan("other", FakeScorer(odd), {"spec": "odd"}), run.engine, None, ignore)
    label = {"spec": "given", "rule_version": 1}
    score(pool.open(root), ScoringPlan("label", FakeScorer(odd), label), run.engine, None, ignore)
    return root.parent


def test_every_row_is_a_pair_or_a_drop_that_is_named(given: Path) -> None:
    done = bon("build-dpo", "given.jsonl", "-o", "o.jsonl", "--json", cwd=given)

    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert [row["prompt_id"] for row in read_lines(given / "o.jsonl")] == ["a", "i"]
    assert result["drops"] == {
        "all_tied": 1, "empty_response": 1, "malformed_json": 1, "no_scored_candidate": 1,
        "one_candidate": 1, "one_scored_candidate": 1, "same_text": 1,
    }  # fmt: skip
    assert result["input_rows"] == 9 == result["kept_rows"] + sum(result["drops"].values())
    assert result["candidate_drops"] == {"missing_response": 1}
    assert (result["pairs"], result["output_rows"], result["written_rows"]["train"]) == (4, 2, 2)
    assert result["mean_margin"] == pytest.approx((0.5 + 2.0) / 2)
    for said in ("input rows", "all_tied", "pairs formed", "given.jsonl:8: malformed_json"):
        assert said in done.stderr
    assert names(given) == ["given.jsonl", "given.pool", "o.jsonl"]


def test_stdout_is_the_output_alone(given: Path) -> None:
    done = bon("build-dpo", "given.jsonl", cwd=given)
    assert (done.returncode, done.stdout) == (0, "given.dpo.parquet\n")
    quiet = bon("build-dpo", "given.jsonl", "-q", cwd=given)
    assert (quiet.stdout, quiet.stderr) == ("given.dpo.parquet\n", "")


def test_a_row_that_scores_are_gone_from_keeps_its_numbers(given: Path) -> None:
    bon_json("build-dpo", "given.jsonl", "-o", "o.jsonl", cwd=given)
    row = read_lines(given / "o.jsonl")[1]
    assert row["prompt"] == [{"role": "user", "content": "q9"}]
    assert row["chosen"] == [{"role": "assistant", "content": "ü 🙂"}]
    assert row["rejected"] == [{"role": "assistant", "content": "w"}]
    assert (row["score_chosen"], row["score_rejected"], row["margin"]) == (2.5, 0.5, 2.0)


@pytest.mark.parametrize(("drops", "code"), [("6", 3), ("7", 0), ("77%", 3), ("78%", 0)])
def test_max_drops(given: Path, drops: str, code: int) -> None:
    done = bon("build-dpo", "given.jsonl", "--max-drops", drops, "-o", "o.jsonl", "-q", cwd=given)
    assert done.returncode == code
    assert ("more than --max-drops allows" in done.stderr) == (code == 3)
    assert len(read_lines(given / "o.jsonl")) == 2, "what is there is there"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_books_close_for_every_strategy(pool: Path, tmp_path: Path, strategy: str) -> None:
    before = pool_files(pool / "p.pool")
    flags = ["--strategy", strategy, "--rank-by", "reward", "-o", tmp_path / "o.parquet"]

    result = bon_json("build-dpo", "p.pool", *flags, cwd=pool)

    table = pq.read_table(tmp_path / "o.parquet", page_checksum_verification=True)
    assert result["input_rows"] == 40 == result["kept_rows"] + sum(result["drops"].values())
    assert result["kept_rows"] == len(set(table["prompt_id"].to_pylist())) > 0
    assert result["output_rows"] == table.num_rows
    assert result["pairs"] == table.num_rows + sum(result["pair_drops"].values())
    assert result["drops"]["malformed_json"] == 2
    assert result["drops"]["prompt_too_long"] == 1
    assert result["candidate_drops"] == {"non_finite_score": 1}
    assert result["candidates"] == 37 * 4
    assert result["stages"] == []
    assert pool_files(pool / "p.pool") == before, "it was only read"


def test_every_guard_can_be_allowed(pool: Path, tmp_path: Path) -> None:
    strict = ["--min-margin", "10%", "--min-chosen", 18, "--max-length-ratio", 2,
              "--rule", "label", "--max-length", 30, "--tokenizer", GENERATOR]  # fmt: skip
    allow = [word for guard in GUARDS for word in ("--allow", guard)]
    command = ("build-dpo", "p.pool", "--rank-by", "reward", "-o", tmp_path / "o.parquet", *strict)

    guarded, free = bon_json(*command, cwd=pool), bon_json(*command, *allow, cwd=pool)

    assert {"low_margin", "below_min_chosen", "chosen_truncated"} <= guarded["pair_drops"].keys()
    assert {"both_right", "both_wrong"} <= guarded["pair_drops"].keys()
    assert guarded["pairs"] == free["pairs"] == free["output_rows"] == 36
    assert free["pair_drops"] == {}
    assert free["drops"] == {"all_tied": 1, "malformed_json": 2, "prompt_too_long": 1}


def test_cut_to_the_trainers_tokens(tmp_path: Path) -> None:
    same = "the same words come first and only then " * 8
    rows: list[dict[str, Any] | str] = [
        {"id": "late", "prompt": "q", "responses": [same + "yes", same + "no"], "scores": [2, 1]},
        {"id": "soon", "prompt": "q", "responses": ["yes " + same, "no " + same], "scores": [2, 1]},
        {"id": "long", "prompt": same, "responses": ["yes", "no"], "scores": [2, 1]},
    ]
    write_lines(tmp_path / "r.jsonl", rows)
    flags = ("--tokenizer", GENERATOR, "-o", "o.jsonl")

    short = bon_json("build-dpo", "r.jsonl", *flags, "--max-length", 24, cwd=tmp_path)
    kept = [row["prompt_id"] for row in read_lines(tmp_path / "o.jsonl")]
    long = bon_json("build-dpo", "r.jsonl", *flags, "--max-length", 4096, cwd=tmp_path)

    assert (short["drops"], kept) == ({"same_after_truncation": 2}, ["soon"])
    assert long["drops"] == {}


def test_one_text_under_two_ids_lies_on_one_side(tmp_path: Path) -> None:
    rows: list[dict[str, Any] | str] = [
        {"id": f"{copy}{n}", "prompt": f"q{n}", "responses": ["a", "b"], "scores": [2, 1]}
        for copy in "xy"
        for n in range(60)
    ]
    write_lines(tmp_path / "r.jsonl", rows)

    result = bon_json(
        "build-dpo", "r.jsonl", "--train-test-split", 0.5, "-o", "o.jsonl", cwd=tmp_path
    )

    train, test = (
        [row["prompt"][0]["content"] for row in read_lines(tmp_path / name)]
        for name in ("o.jsonl", "o.test.jsonl")
    )
    assert result["files"] == ["o.jsonl", "o.test.jsonl"]
    assert result["written_rows"] == {"train": len(train), "test": len(test)}
    assert len(train) + len(test) == result["output_rows"] == 120
    assert not set(train) & set(test)
    assert min(len(train), len(test)) > 30, "five standard deviations from 60"


def test_several_turns_a_system_message_and_unicode(tmp_path: Path) -> None:
    prompt = [
        {"role": "system", "content": "Sei knapp.\u2028"},
        {"role": "user", "content": "日本語 e\u0301"},
        {"role": "assistant", "content": "はい"},
        {"role": "user", "content": "🙂\t\u0000 "},
    ]
    row = {"id": "ü/1", "prompt": prompt, "responses": ["\u2028a", "b\u0000"], "scores": [2, 1]}
    write_lines(tmp_path / "r.jsonl", [row | {"ключ": "\u0085"}])

    bon_json("build-dpo", "r.jsonl", "-o", "o.jsonl", cwd=tmp_path)
    bon_json("build-dpo", "r.jsonl", "-o", "o.parquet", cwd=tmp_path)

    (told,) = read_lines(tmp_path / "o.jsonl")
    assert told["prompt"] == prompt
    assert (told["chosen"][0]["content"], told["rejected"][0]["content"]) == ("\u2028a", "b\u0000")
    assert (told["prompt_id"], told["ключ"]) == ("ü/1", "\u0085")
    assert pq.read_table(tmp_path / "o.parquet").to_pylist() == [told]


TYPED: dict[str, tuple[pa.Array, list[Any]]] = {
    **{f"int{bits}": (pa.array([1, None, -(2 ** (bits - 1))], f"int{bits}"),
                      [1, None, -(2 ** (bits - 1))]) for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": (pa.array([2**bits - 1, None, 0], f"uint{bits}"),
                       [2**bits - 1, None, 0]) for bits in (8, 16, 32)},
    "uint64": (pa.array([2**64 - 1, None, 0], pa.uint64()), [str(2**64 - 1), None, "0"]),
    "halffloat": (pa.array([0.5, None, float("nan")], pa.float16()), [0.5, None, None]),
    "float": (pa.array([0.5, None, float("inf")], pa.float32()), [0.5, None, None]),
    "double": (pa.array([0.1, None, 1e300], pa.float64()), [0.1, None, 1e300]),
    **{f"decimal{bits}": (
        pa.array([decimal.Decimal("1.50"), None, decimal.Decimal("-2.00")], kind),
        ["1.50", None, "-2.00"],
    ) for bits, kind in ((32, pa.decimal32(5, 2)), (64, pa.decimal64(9, 2)),
                         (128, pa.decimal128(20, 2)), (256, pa.decimal256(50, 2)))},
    **{f"date{bits}": (
        pa.array([datetime.date(2024, 2, 29), None, datetime.date(1969, 1, 1)], f"date{bits}"),
        ["2024-02-29", None, "1969-01-01"],
    ) for bits in (32, 64)},
    "time32": (pa.array([datetime.time(1, 2, 3), None, datetime.time()], pa.time32("ms")),
               ["01:02:03", None, "00:00:00"]),
    "time64": (pa.array([datetime.time(1, 2, 3, 4), None, datetime.time()], pa.time64("us")),
               ["01:02:03.000004", None, "00:00:00"]),
    "timestamp": (pa.array([0, None, 1], pa.timestamp("s")),
                  ["1970-01-01T00:00:00", None, "1970-01-01T00:00:01"]),
    "timestamp_ns": (pa.array([1001, None, 0], pa.timestamp("ns")),
                     ["1970-01-01T00:00:00.000001", None, "1970-01-01T00:00:00"]),
    "timestamp_utc": (pa.array([0, None, 1], pa.timestamp("us", "UTC")),
                      ["1970-01-01T00:00:00+00:00", None, "1970-01-01T00:00:00.000001+00:00"]),
    "timestamp_tz": (pa.array([0, None, 1], pa.timestamp("ms", "Europe/Berlin")),
                     ["1970-01-01T01:00:00+01:00", None, "1970-01-01T01:00:00.001000+01:00"]),
    "duration": (pa.array([90_000, None, -500], pa.duration("ms")), [90.0, None, -0.5]),
    "binary": (pa.array([b"\x00\xff", None, b""], pa.binary()), ["AP8=", None, ""]),
    "large_binary": (pa.array([b"a", None, b""], pa.large_binary()), ["YQ==", None, ""]),
    "fixed_binary": (pa.array([b"ab", None, b"cd"], pa.binary(2)), ["YWI=", None, "Y2Q="]),
    "binary_view": (pa.array([b"ab", None, b""], pa.binary_view()), ["YWI=", None, ""]),
    "bool": (pa.array([True, None, False]), [True, None, False]),
    "bool8": (pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, None, 0], pa.int8())),
              [True, None, False]),
    "string": (pa.array(["ä\u2028\x00", None, ""]), ["ä\u2028\x00", None, ""]),
    "large_string": (pa.array(["x", None, ""], pa.large_string()), ["x", None, ""]),
    "string_view": (pa.array(["x", None, ""], pa.string_view()), ["x", None, ""]),
    "list": (pa.array([[1, None], None, []], pa.list_(pa.int32())), [[1, None], None, []]),
    "large_list": (pa.array([["a"], None, []], pa.large_list(pa.string())), [["a"], None, []]),
    "fixed_list": (pa.array([[1.0, 2.0], None, [3.0, 4.0]], pa.list_(pa.float32(), 2)),
                   [[1.0, 2.0], None, [3.0, 4.0]]),
    "struct": (pa.array([{"a": 1, "b": "x"}, None, {"a": None, "b": "y"}]),
               [{"a": 1, "b": "x"}, None, {"a": None, "b": "y"}]),
    "list_struct": (pa.array([[{"a": [1]}], None, []]), [[{"a": [1]}], None, []]),
    # its items are lists of a text and a number, so it is JSON text
    "map": (pa.array([[("k", 1)], None, []], pa.map_(pa.string(), pa.int32())),
            ['[["k", 1]]', None, "[]"]),
    "dictionary": (pa.array(["x", None, "y"]).dictionary_encode(), ["x", None, "y"]),
    "null": (pa.nulls(3), [None, None, None]),
    "uuid_type": (
        pa.ExtensionArray.from_storage(
            pa.uuid(), pa.array([uuid.UUID(int=5).bytes, None, b"\x00" * 16], pa.binary(16))
        ),
        [str(uuid.UUID(int=5)), None, str(uuid.UUID(int=0))],
    ),
}  # fmt: skip
"""Every Arrow type that Parquet can hold: a column, and what it must be in the output."""


@pytest.fixture(scope="module")
def typed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `typed.parquet`: three pairs, with a column of every type."""
    folder = tmp_path_factory.mktemp("typed")
    ours = {"prompt": ["q0", "q1", "q2"], "responses": [["a", "b"]] * 3, "scores": [[2.0, 1.0]] * 3}
    columns = {name: column for name, (column, _) in TYPED.items()}
    pq.write_table(pa.table({**ours, **columns}), folder / "typed.parquet")
    return folder


@pytest.mark.parametrize("output", ["o.parquet", "folder"])
def test_other_columns_of_every_type_load_in_datasets(
    typed: Path, tmp_path: Path, output: str
) -> None:
    import datasets

    result = bon_json("build-dpo", "typed.parquet", "-o", output, cwd=typed)

    assert (result["kept_rows"], result["drops"]) == (3, {})
    cache = str(tmp_path / "cache")
    if output == "folder":
        loaded = datasets.load_dataset(str(typed / output), cache_dir=cache)["train"]
    else:
        files = str(typed / output)
        loaded = datasets.load_dataset("parquet", data_files=files, cache_dir=cache)["train"]
    for name, (_, expected) in TYPED.items():
        assert list(loaded[name]) == expected, name


def test_other_columns_of_every_type_in_json(typed: Path) -> None:
    bon_json("build-dpo", "typed.parquet", "-o", "o.jsonl", cwd=typed)
    rows = read_lines(typed / "o.jsonl")
    for name, (_, expected) in TYPED.items():
        assert [row[name] for row in rows] == expected, name


def test_a_taken_name_is_kept_as_input_name(tmp_path: Path) -> None:
    row = {"id": "a", "prompt": "q", "responses": ["x", "y"], "scores": [2, 1]}
    write_lines(tmp_path / "r.jsonl", [row | {"margin": "mine", "score_chosen": 4}])
    bon_json("build-dpo", "r.jsonl", "-o", "o.jsonl", cwd=tmp_path)
    (told,) = read_lines(tmp_path / "o.jsonl")
    assert (told["input_margin"], told["input_score_chosen"]) == ("mine", 4)
    assert (told["margin"], told["score_chosen"]) == (1.0, 2.0)


def test_its_own_pairs_come_back_the_same(given: Path) -> None:
    bon_json("build-dpo", "given.jsonl", "-o", "one.parquet", cwd=given)
    result = bon_json("build-dpo", "one.parquet", "-o", "two.parquet", cwd=given)
    assert result["drops"] == {}
    one, two = (pq.read_table(given / name).to_pylist() for name in ("one.parquet", "two.parquet"))
    same = ("prompt", "chosen", "rejected", "score_chosen", "score_rejected", "margin", "prompt_id")
    assert [[row[name] for name in same] for row in one] == [
        [row[name] for name in same] for row in two
    ]


def test_margins_of_a_difference_and_of_a_share(tmp_path: Path) -> None:
    rows: list[dict[str, Any] | str] = [
        {"id": str(n), "prompt": f"q{n}", "responses": ["a", "b"], "scores": [n / 10, 0]}
        for n in range(1, 11)
    ]
    write_lines(tmp_path / "r.jsonl", rows)
    for said, kept in (("0.3", 7), ("30%", 7), (".95", 1), ("0%", 10), ("99.9%", 1), ("100%", 0)):
        flags = ("--min-margin", said, "-o", "o.jsonl", "--max-drops", "100%")
        result = bon_json("build-dpo", "r.jsonl", *flags, cwd=tmp_path)
        assert result["output_rows"] == kept, said
        assert result["drops"] == ({"low_margin": 10 - kept} if kept < 10 else {})


def test_matching_lengths_and_limit(tmp_path: Path) -> None:
    texts = ["1234567890", "1", "123456789"]
    rows: list[dict[str, Any] | str] = [
        {"id": str(n), "prompt": f"q{n}", "responses": texts, "scores": [3, 1, 2]} for n in range(5)
    ]
    write_lines(tmp_path / "r.jsonl", rows)
    flags = ("--match-length", 0.1, "--limit", 3, "-o", "o.jsonl")
    result = bon_json("build-dpo", "r.jsonl", *flags, cwd=tmp_path)
    assert result["input_rows"] == result["kept_rows"] == 3
    assert {row["rejected"][0]["content"] for row in read_lines(tmp_path / "o.jsonl")} == {texts[2]}


def test_a_config_file_with_a_table_of_its_own(given: Path) -> None:
    (given / "c.toml").write_text(
        'limit = 4\n[build-dpo]\nstrategy = "best-second"\nallow = ["same_text"]\n'
        'min-margin = "60%"\n[select]\nstrategy = "top-k"\n'
    )
    flags = ("--config", "c.toml", "-o", "o.jsonl")
    result = bon_json("build-dpo", "given.jsonl", *flags, cwd=given)
    assert (result["strategy"], result["input_rows"]) == ("best-second", 4)
    assert result["pair_drops"] == {"low_margin": 1}
    result = bon_json("build-dpo", "given.jsonl", *flags, "--min-margin", 0, cwd=given)
    assert result["pair_drops"] == {}, "flags win"
    (given / "c.toml").write_text("[build-dpo]\nstrategie = 1\n")
    done = bon("build-dpo", "given.jsonl", "--config", "c.toml", cwd=given)
    assert done.returncode == 2
    assert "did you mean 'strategy'?" in done.stderr


def test_a_folder_with_two_splits_and_a_card(pool: Path, tmp_path: Path) -> None:
    import datasets

    flags = ("--rank-by", "reward", "--train-test-split", 0.4, "-o", tmp_path / "pairs")
    result = bon_json("build-dpo", "p.pool", *flags, cwd=pool)

    card = (tmp_path / "pairs" / "README.md").read_text()
    for said in ("best-worst", "malformed_json", "all_tied", "fake", "bon build-dpo p.pool"):
        assert said in card, said
    loaded = datasets.load_dataset(str(tmp_path / "pairs"), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in loaded.items()} == result["written_rows"]
    assert loaded["train"].features["margin"] == datasets.Value("float32")
    train, test = (set(loaded[split]["prompt_id"]) for split in ("train", "test"))
    assert train and test and not train & test
    assert len(train | test) == result["kept_rows"]


@pytest.mark.parametrize("form", [one for one in FORMATS if "pairs" in one.kinds])
def test_every_format_that_takes_pairs(pool: Path, tmp_path: Path, form: Any) -> None:
    output = tmp_path / f"o{form.suffixes[0]}"
    flags = ("--rank-by", "reward", "--format", form.name, "-o", output)
    result = bon_json("build-dpo", "p.pool", *flags, cwd=pool)
    (num_rows,) = result["written_rows"].values()
    assert num_rows == result["output_rows"] * (2 if form.name == "trl-kto" else 1)
    if output.suffix == ".parquet":
        assert pq.read_metadata(output).num_rows == num_rows
    else:
        assert len(read_lines(output)) == num_rows


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--format", "trl-dop"], 2, "did you mean 'trl-dpo'?"),
        (["--format", "ms-swift", "-o", "x.parquet"], 2, "ms-swift does not read .parquet"),
        (["--format", "llama-factory", "-o", "x.csv"], 2, "does not read .csv"),
        (["-o", "x.txt"], 2, "cannot tell the file type"),
        (["-o", "given.jsonl"], 2, "the output would lie in the input"),
        (["-o", "given.jsonl/x.parquet"], 1, "is a file, not a folder"),
        (["-o", "out", "--pool", "out"], 2, "would lie in each other"),
        (["-o", "out", "--pool", "out/p"], 2, "would lie in each other"),
        (["-o", "p/x.parquet", "--pool", "p"], 2, "would lie in each other"),
        (["--push-to-hub", "a/b", "-o", "x.parquet"], 2, "--push-to-hub needs an output folder"),
        (["--allow", "same_tex"], 2, "did you mean 'same_text'?"),
        (["--rule", "maths"], 2, "did you mean 'math'?"),
        (["--max-length", 9], 2, "--max-length and --tokenizer go together"),
        (["--max-length", 9, "--tokenizer", "."], 1, "cannot load the tokenizer"),
        (["--min-margin", "-1"], 2, "bad value for --min-margin"),
        (["--min-margin", "101%"], 2, "bad value for --min-margin"),
        (["--strategy", "best"], 2, "--strategy"),
        (["--k", 3], 2, "--k does nothing for --strategy best-worst"),
        (["--num-sigmas", 3, "--strategy", "k-vs-k"], 2, "--num-sigmas does nothing"),
        (["--strategy", "quantile", "--chosen-quantile", 0.1], 2, "must be above"),
        (["--train-test-split", 1], 2, "--train-test-split"),
        (["-r", "a/b", "-r", "c/d"], 2, "name the one that ranks with --rank-by"),
        (["-r", "rule:maths"], 2, "rule"),
    ],
)  # fmt: skip
def test_what_would_stop_it_is_said_before_any_work(
    given: Path, flags: list[Any], code: int, message: str
) -> None:
    done = bon("build-dpo", "given.jsonl", *flags, cwd=given)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr and "bug in bon" not in done.stderr
    assert done.stdout == ""
    assert names(given) == ["given.jsonl"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["-r", "a/b", "-n", 4], "--num-candidates, --reward"),
        (["--source-kind", "pairs"], "--source-kind"),
        (["--dry-run"], "there are several scorers"),
        (["--rank-by", "rewrad", "--dry-run"], "did you mean 'reward'?"),
        (["--rank-by", "reward", "-o", "p.pool/x.parquet"], "would lie in each other"),
        (["--rank-by", "reward", "-o", "p.pool/prompts/part-00000.parquet"], "in each other"),
    ],
)
def test_what_a_pool_cannot_do_is_refused(pool: Path, flags: list[Any], message: str) -> None:
    before = pool_files(pool / "p.pool")
    done = bon("build-dpo", "p.pool", *flags, cwd=pool)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert pool_files(pool / "p.pool") == before
    assert names(pool) == ["p.pool"]


def test_a_pool_is_no_place_for_a_folder_of_shards(pool: Path) -> None:
    before = pool_files(pool / "p.pool")
    done = bon("build-dpo", "p.pool", "--rank-by", "reward", "-o", "p.pool", cwd=pool)
    assert done.returncode == 1
    assert "the output folder holds other things" in done.stderr
    assert pool_files(pool / "p.pool") == before


def test_a_split_does_not_write_over_the_input(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "r.test.jsonl", GIVEN)
    before = source.read_bytes()
    flags = ("--train-test-split", 0.5, "-o", "r.jsonl")
    done = bon("build-dpo", source.name, *flags, cwd=tmp_path)
    assert done.returncode == 2
    assert "the output would lie in the input" in done.stderr
    assert source.read_bytes() == before


def test_prompts_whose_ranking_cannot_be_are_refused_before_sampling(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("What is 1 + 2?\n")
    for flags, message in (
        (["-r", "a=x/y", "-r", "b=x/z"], "name the one that ranks"),
        (["-r", "a=x/y", "--rank-by", "b"], "there is no scorer 'b'"),
        (["-r", "rule:exact", "-r", "rule:math"], "name the one that ranks"),
        (["--rule", "label"], "no verdicts for --rule label"),
    ):
        done = bon("build-dpo", "p.txt", "-m", "no/model", *flags, cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        assert message in done.stderr
    assert names(tmp_path) == ["p.txt"]


def test_responses_without_scores_or_labels(tmp_path: Path) -> None:
    row = {"id": "a", "prompt": "q", "responses": ["x", "y"]}
    write_lines(tmp_path / "r.jsonl", [row])
    done = bon("build-dpo", "r.jsonl", "-o", "o.jsonl", cwd=tmp_path)
    assert done.returncode == 1
    assert "this pool has no scores" in done.stderr
    flags = ("--strategy", "verified", "--rule", "label", "-o", "o.jsonl")
    done = bon("build-dpo", "r.jsonl", *flags, cwd=tmp_path)
    assert done.returncode == 2
    assert "there are no verdicts for --rule label" in done.stderr
    assert names(tmp_path) == ["r.jsonl", "r.pool"]


def test_only_a_list_of_drops_that_is_there_is_pointed_at(tmp_path: Path) -> None:
    write_lines(tmp_path / "r.jsonl", GIVEN[:2])
    done = bon("build-dpo", "r.jsonl", cwd=tmp_path)
    assert "dropped r.jsonl:2 id=b: all_tied: all rewards are equal" in done.stderr
    assert "r.pool/drops" not in done.stderr
    write_lines(tmp_path / "r.jsonl", ["bad", *GIVEN[:2]])
    done = bon("build-dpo", "r.jsonl", cwd=tmp_path)
    assert "listed in r.pool/drops" in done.stderr
    assert (tmp_path / "r.pool" / "drops").is_dir()


def test_verdicts_by_another_column_need_the_old_ones_removed(tmp_path: Path) -> None:
    row = {"id": "a", "prompt": "1+1?", "responses": ["2", "3"], "solution": "2"}
    write_lines(tmp_path / "r.jsonl", [row])
    command = ("build-dpo", "r.jsonl", "--strategy", "verified", "-o", "o.jsonl")
    without = bon_json(*command, "--max-drops", "100%", cwd=tmp_path)
    assert without["drops"] == {"no_verdict": 1}
    assert without["candidate_drops"] == {"no_reference": 2}

    done = bon(*command, "--rule-answer-column", "solution", cwd=tmp_path)

    assert done.returncode == 2
    assert "answer_column" in done.stderr
    assert "remove r.pool/scores/rule-math" in done.stderr
    shutil.rmtree(tmp_path / "r.pool/scores/rule-math")
    result = bon_json(*command, "--rule-answer-column", "solution", cwd=tmp_path)
    assert (result["output_rows"], result["candidate_drops"]) == (1, {})
    (pair,) = read_lines(tmp_path / "o.jsonl")
    assert (pair["chosen"][0]["content"], pair["rejected"][0]["content"]) == ("2", "3")


def test_dry_run_says_what_it_would_do_and_writes_nothing(given: Path, pool: Path) -> None:
    done = bon("build-dpo", "given.jsonl", "--strategy", "sigma", "--dry-run", cwd=given)
    assert done.returncode == 0, done.stderr
    assert "read responses from given.jsonl into given.pool" in done.stdout
    assert "pair sigma to given.dpo.parquet" in done.stdout
    assert "top_p" not in done.stdout, "nothing is sampled"
    flags = ("--rank-by", "other", "--dry-run", "--json")
    told = json.loads(bon("build-dpo", "p.pool", *flags, cwd=pool).stdout)
    assert told["steps"] == ["pair best-worst to p.dpo.parquet"]
    assert told["settings"]["rank_by"] == "other"
    assert told["parts"]["scores/other"] == 3
    assert names(given) == ["given.jsonl"]
    assert names(pool) == ["p.pool"]
    assert bon("build-dpo", "nosuch.jsonl", "--dry-run", cwd=given).returncode == 1


def test_scorers_of_a_pool(pool: Path, tmp_path: Path) -> None:
    for scorer in ("reward", "other", "label"):
        flags = ("--rank-by", scorer, "-o", tmp_path / f"{scorer}.jsonl", "--allow", "same_text")
        result = bon_json("build-dpo", "p.pool", *flags, cwd=pool)
        assert result["scorer"] == scorer
    one, other = (read_lines(tmp_path / f"{name}.jsonl") for name in ("other", "label"))
    assert one == other, "the same numbers under two names"
    assert {row["margin"] for row in one} == {1.0}


def test_a_reward_model_that_is_asked_for_ranks_and_a_rule_does_not(tmp_path: Path) -> None:
    row = {"id": "a", "prompt": "1+1?", "responses": ["3", "2"], "scores": [2, 1], "answer": "2"}
    write_lines(tmp_path / "r.jsonl", [row])
    asked = {
        "given": [],
        "reward": ["-r", f"reward={REWARD}"],
        "rule-exact": ["-r", "rule:exact", "--rank-by", "rule-exact"],
    }
    for scorer, flags in asked.items():
        result = bon_json("build-dpo", "r.jsonl", *flags, "--pool", scorer, cwd=tmp_path)
        assert result["scorer"] == scorer
    both = ("-r", "rule:exact", "--pool", "both", "-o", "o.jsonl")
    assert bon_json("build-dpo", "r.jsonl", *both, cwd=tmp_path)["scorer"] == "given"
    assert read_lines(tmp_path / "o.jsonl")[0]["chosen"][0]["content"] == "3"


def test_draws_follow_the_seed_of_the_pool(pool: Path, tmp_path: Path) -> None:
    def rows(*flags: object) -> list[dict[str, Any]]:
        command = ("--rank-by", "reward", "--strategy", "best-random", "-o", tmp_path / "o.jsonl")
        bon_json("build-dpo", "p.pool", *command, *flags, cwd=pool)
        return read_lines(tmp_path / "o.jsonl")

    assert rows() == rows("--seed", 5) != rows("--seed", 6), "the pool was made with seed 5"


@pytest.mark.parametrize("output", ["o.parquet", "o.jsonl.gz", "folder"])
def test_a_second_run_gives_the_same_bytes(given: Path, output: str) -> None:
    def files() -> dict[str, bytes]:
        found = sorted(given.rglob("*"))
        return {str(f): f.read_bytes() for f in found if f.is_file() and ".bon" not in f.parts}

    command = ("build-dpo", "given.jsonl", "-o", output, "--train-test-split", 0.5)
    bon_json(*command, cwd=given)
    first = files()
    bon_json(*command, cwd=given)
    assert files() == first


def test_an_empty_file_no_good_row_and_no_row(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    done = bon("build-dpo", "empty.jsonl", cwd=tmp_path)
    assert done.returncode == 1
    assert "empty.jsonl has no rows" in done.stderr

    (tmp_path / "bad.jsonl").write_bytes(b'garbage\n{"a":\n\xff\xfe\n[1]\n')
    flags = ("--source-kind", "responses", "-o", "bad.parquet", "--max-drops", "100%")
    result = bon_json("build-dpo", "bad.jsonl", *flags, cwd=tmp_path)
    assert result["drops"] == {"invalid_utf8": 1, "malformed_json": 2, "not_an_object": 1}
    assert pq.read_metadata(tmp_path / "bad.parquet").num_rows == 0

    write_lines(tmp_path / "one.jsonl", GIVEN[:1])
    for limit in (0, 1):
        flags = ("--limit", str(limit), "-o", "one.parquet")
        result = bon_json("build-dpo", "one.jsonl", *flags, cwd=tmp_path)
        assert result["input_rows"] == result["output_rows"] == limit
        assert pq.read_metadata(tmp_path / "one.parquet").num_rows == limit


def test_a_number_that_json_has_not_stays_out_of_it(tmp_path: Path) -> None:
    row = {"id": "a", "prompt": "q", "responses": ["x", "y"], "scores": [3e38, -3e38]}
    write_lines(tmp_path / "r.jsonl", [row])
    done = bon("build-dpo", "r.jsonl", "-o", "o.jsonl", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Infinity" not in done.stdout
    assert read_lines(tmp_path / "o.jsonl")[0]["margin"] is None


def test_nan_and_infinite_scores_rank_nobody(tmp_path: Path) -> None:
    lines = ["q,a,nan", "q,b,inf", "q,c,3", "q,d,1e300", "q,e,1", "q,f,-inf"]
    (tmp_path / "s.csv").write_text("\n".join(["prompt,response,score", *lines]))
    bon_json("build-dpo", "s.csv", "-o", "o.jsonl", cwd=tmp_path)
    (row,) = read_lines(tmp_path / "o.jsonl")
    assert (row["chosen"][0]["content"], row["rejected"][0]["content"]) == ("c", "e")


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only to root")
def test_a_read_only_folder(given: Path) -> None:
    (given / "ro").mkdir(mode=0o555)
    done = bon("build-dpo", "given.jsonl", "-o", "ro/x.parquet", cwd=given)
    assert done.returncode == 1
    assert "cannot write into this folder" in done.stderr
    assert names(given) == ["given.jsonl", "ro"]


@pytest.mark.parametrize("output", ["o.parquet", "folder"])
def test_killed_while_writing_the_old_result_stays(tmp_path: Path, output: str) -> None:
    Run(input_rows(6000), num_candidates=2, part_size=50).scores(tmp_path / "p.pool")
    target = tmp_path / output
    bon_json("build-dpo", "p.pool", "--limit", 9, "-o", output, cwd=tmp_path)
    files = sorted(path for path in (target, *target.rglob("*")) if path.is_file())
    old = {path: path.read_bytes() for path in files}

    stopped = bon_stopped(
        "build-dpo", "p.pool", "-o", output, cwd=tmp_path, how=signal.SIGKILL,
        when=lambda: any(is_staged(path) for path in staged(tmp_path, output)),
    )  # fmt: skip

    assert stopped.returncode == -9
    assert {path: path.read_bytes() for path in files} == old
    result = bon_json("build-dpo", "p.pool", "-o", output, cwd=tmp_path)
    assert result["input_rows"] == 6000
    assert staged(tmp_path, output) == [], "and what the killed one left is gone"


def staged(folder: Path, output: str) -> list[Path]:
    """What is being written: beside a file, or inside a folder."""
    return list(folder.glob(f".{output}.*.tmp")) + list((folder / output).glob("*.staging"))


def is_staged(path: Path) -> bool:
    return path.is_file() or any(path.iterdir())


GSM8K = SHARED_DATA / "gsm8k_candidates.jsonl"


@pytest.mark.skipif(not GSM8K.is_file(), reason="the shared data folder is not here")
@pytest.mark.parametrize(
    "rule",
    [
        ["--rule", "label"],
        ["--rule", "math", "--rule-answer-column", "ground_truth"],
        ["--rule", "exact"],
        [],
    ],
)
def test_gsm8k_pairs_are_right_and_wrong_as_the_authors_say(
    tmp_path: Path, rule: list[str]
) -> None:
    flags = ("--strategy", "verified", *rule, "-o", "o.jsonl", "--allow", "same_text")
    result = bon_json("build-dpo", GSM8K, *flags, cwd=tmp_path)

    verdicts: dict[str, dict[str, set[bool]]] = {}
    expected = 0
    for source in read_lines(GSM8K):
        said = [value for value in source.values() if isinstance(value, dict)]
        of_prompt = verdicts.setdefault(source["question"], {})
        for solution in said:
            of_prompt.setdefault(solution["solution"], set()).add(solution["is_correct"])
        expected += {solution["is_correct"] for solution in said} == {True, False}
    rows = read_lines(tmp_path / "o.jsonl")
    assert len(rows) == result["output_rows"] == expected > 400
    for row in rows:
        of_prompt = verdicts[row["prompt"][-1]["content"]]
        assert True in of_prompt[row["chosen"][0]["content"]]
        assert False in of_prompt[row["rejected"][0]["content"]]
    assert result["input_rows"] == 1000 == len(rows) + sum(result["drops"].values())
    assert result["drops"].keys() == {"no_right", "no_wrong"}
    assert result["scorer"] is None
    assert result["rule"] == ("rule-" + rule[1] if rule and rule[1] != "label" else "label")


@pytest.mark.vllm
@pytest.mark.slow
def test_prompts_are_sampled_and_scored_once_for_all_strategies(tmp_path: Path) -> None:
    small = (*MODELS, "-n", 4, "--max-tokens", 24, "--limit", 24, "--part-size", 8)
    first = bon_json("build-dpo", PROMPTS.relative_to(ROOT), *small,
                     "-o", tmp_path / "best-worst.parquet", cwd=ROOT)  # fmt: skip
    assert [stage["num_parts_done"] for stage in first["stages"]] == [3, 3]
    made = pool_files(tmp_path / "prompts.pool")
    paid = ("candidates", "scores/reward")

    for strategy in ("verified", "sigma", "max-margin"):
        flags = ("--strategy", strategy, "-o", f"{strategy}.parquet")
        result = bon_json("build-dpo", "prompts.pool", *flags, cwd=tmp_path)

        books = pq.read_table(tmp_path / f"{strategy}.parquet").num_rows
        assert result["output_rows"] == books
        assert result["input_rows"] == 24 == result["kept_rows"] + sum(result["drops"].values())
        names_run = [stage["name"] for stage in result["stages"] if stage["num_parts_done"]]
        assert names_run == (["score rule-math"] if strategy == "verified" else [])
        now = pool_files(tmp_path / "prompts.pool")
        assert {name: now[name] for name in made if name.startswith(paid)} == {
            name: made[name] for name in made if name.startswith(paid)
        }

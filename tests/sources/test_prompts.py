"""Rows become prompts or drops, each exactly once, with ids and columns that can be relied on."""

import gzip
import hashlib
import json
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bon.config import InputSettings
from bon.errors import (
    BonError,
    InputError,
    InputNotFoundError,
    SettingsError,
    UnknownChoiceError,
    UnknownLayoutError,
)
from bon.records import Drop, Prompt
from bon.sources.files import read_rows
from bon.sources.ids import content_id
from bon.sources.prompts import PromptReader, input_digest

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no real data in {DATA}")


def reader(folder, rows, **flags) -> PromptReader:
    path = folder / "in.jsonl"
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text("\n".join(lines) + "\n")
    return PromptReader(str(path), InputSettings(**flags))


def ids(items) -> list[str]:
    return [item.prompt_id if isinstance(item, Prompt) else item.reason for item in items]


def test_a_row_becomes_a_prompt_with_its_other_columns(tmp_path):
    source = reader(tmp_path, [{"question": "2+2?", "answer": "4", "n": 1.5, "tags": ["x"]}])
    (prompt,) = source
    assert prompt.messages == ({"role": "user", "content": "2+2?"},)
    assert prompt.extra == {"answer": "4", "n": 1.5, "tags": ["x"]}
    assert (prompt.row, prompt.where) == (0, "in.jsonl:1")
    assert source.layout_name == "gsm8k"
    assert source.id_column is None
    assert source.describe() == (
        "read as gsm8k: prompt from `question`, ids made from content, "
        "other columns kept: answer, n, tags"
    )


def test_an_id_column_is_used_and_consumed(tmp_path):
    source = reader(tmp_path, [{"id": 7, "prompt_id": "p", "prompt": "Q"}])
    (prompt,) = source
    assert (prompt.prompt_id, prompt.extra) == ("p", {"id": 7})
    assert "ids from `prompt_id`" in source.describe()
    (prompt,) = reader(tmp_path, [{"id": 7, "prompt_id": "p", "prompt": "Q"}], id_column="id")
    assert (prompt.prompt_id, prompt.extra) == ("7", {"prompt_id": "p"})


@pytest.mark.parametrize(
    "column", ["prompt_id", "id", "question_id", "custom_id", "uid", "uuid", "idx"]
)
def test_known_id_columns(tmp_path, column):
    assert ids(reader(tmp_path, [{column: 12, "prompt": "Q"}])) == ["12"]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "missing_id"),
        ("", "missing_id"),
        (" ", "missing_id"),
        (True, "wrong_type"),
        (1.0, "wrong_type"),
        (["a"], "wrong_type"),
    ],
)
def test_a_bad_id_is_a_drop_where_the_column_was_named(tmp_path, value, reason):
    rows = [{"id": "a", "prompt": "Q"}, {"id": value, "prompt": "Q"}, {"prompt": "Q"}]
    assert ids(reader(tmp_path, rows, id_column="id")) == ["a", reason, "missing_id"]
    first, second, third = reader(tmp_path, rows)
    made = content_id(({"role": "user", "content": "Q"},))
    assert [one.prompt_id for one in (first, second, third)] == ["a", made, f"{made}-2"]
    assert second.extra == ({} if value in (None, "") else {"id": value})


@pytest.mark.parametrize("value", [None, "", " ", True, 1.0, ["a"]])
def test_a_column_in_which_the_first_row_has_no_id_is_none(tmp_path, value):
    rows = [{"id": value, "prompt": "Q"}, {"id": "b", "prompt": "R"}]
    source = reader(tmp_path, rows)
    first, second = source
    assert source.id_column is None
    assert (first.extra, second.extra) == ({"id": value}, {"id": "b"})
    assert ids(reader(tmp_path, [{"prompt_id": value, "id": 5, "prompt": "Q"}])) == ["5"]


def test_ids_that_look_like_made_ones_clash_with_them(tmp_path):
    made = content_id(({"role": "user", "content": "Q"},))
    rows = [
        {"id": made, "prompt": "A"},
        {"id": f"{made}-2", "prompt": "A"},
        {"prompt": "Q"},
        {"prompt": "Q"},
        {"id": f"{made}-4", "prompt": "Q"},
    ]
    assert ids(reader(tmp_path, rows)) == [
        made,
        f"{made}-2",
        f"{made}-3",
        f"{made}-4",
        "duplicate_id",
    ]


def test_an_id_given_twice_is_a_drop_but_a_bad_row_does_not_take_its_id(tmp_path):
    rows = [
        {"id": "a", "prompt": ""},
        {"id": "a", "prompt": "Q"},
        {"id": "a", "prompt": "R"},
        {"id": "b", "prompt": "Q"},
    ]
    items = list(reader(tmp_path, rows))
    assert ids(items) == ["empty_prompt", "a", "duplicate_id", "b"]
    assert [item.id for item in items if isinstance(item, Drop)] == ["a", "a"]
    assert [item.row for item in items] == [0, 1, 2, 3]


def test_ids_from_content_are_stable_and_numbered(tmp_path):
    rows = [{"prompt": text} for text in ("x", "y", "x", "x")]
    x, y, x2, x3 = ids(reader(tmp_path, rows))
    canonical = '[{"content":"x","role":"user"}]'
    assert x == hashlib.sha256(canonical.encode()).hexdigest()[:16]
    assert (x2, x3) == (f"{x}-2", f"{x}-3")
    assert ids(reader(tmp_path, rows[1::-1])) == [y, x]


def test_a_cut_conversation_is_kept_and_a_whole_prompt_is_not_repeated(tmp_path):
    user, answer = {"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}
    rows = [{"prompt": [user, answer], "k": 1}, {"prompt": [user], "k": 2}]
    cut, whole = reader(tmp_path, rows)
    assert cut.messages == whole.messages == (user,)
    assert cut.extra == {"prompt": [user, answer], "k": 1}
    assert whole.extra == {"k": 2}
    (prompt,) = reader(tmp_path, [{"messages": [user, answer]}])
    assert prompt.extra == {"messages": [user, answer]}


def test_flags_override_what_would_be_recognised(tmp_path):
    rows = [{"question": "Q", "text": "T"}, {"question": "R"}]
    source = reader(tmp_path, rows, prompt_column="text")
    first, second = source
    assert (first.messages[0]["content"], first.extra) == ("T", {"question": "Q"})
    assert second.reason == "missing_prompt"
    assert source.describe().startswith("read as prompt-column: prompt from `text`")
    rows = [{"prompt": "P", "question": "Q"}]
    (prompt,) = reader(tmp_path, rows, layout="gsm8k")
    assert (prompt.messages[0]["content"], prompt.extra) == ("Q", {"prompt": "P"})


def test_flags_that_do_not_fit_the_input_are_errors(tmp_path):
    rows = [{"question": "Q"}]
    with pytest.raises(UnknownChoiceError, match="did you mean 'question'"):
        list(reader(tmp_path, rows, prompt_column="qestion"))
    with pytest.raises(UnknownChoiceError, match="no column 'key'"):
        list(reader(tmp_path, rows, id_column="key"))
    with pytest.raises(UnknownLayoutError, match="needs the column turns"):
        list(reader(tmp_path, rows, layout="mt-bench"))
    with pytest.raises(UnknownChoiceError, match="did you mean 'alpaca'"):
        reader(tmp_path, rows, layout="alpacca")
    with pytest.raises(SettingsError, match="together"):
        reader(tmp_path, rows, layout="gsm8k", prompt_column="question")
    with pytest.raises(UnknownLayoutError, match=r"in\.jsonl:2"):
        list(reader(tmp_path, ["{", {"text": "T"}]))


def test_bad_rows_are_drops_with_their_place(tmp_path):
    rows = ["{", {"question": "Q"}, "[]", {"other": 1}, {"question": "R"}]
    items = list(reader(tmp_path, rows))
    reasons = [item.reason if isinstance(item, Drop) else "" for item in items]
    assert reasons == ["malformed_json", "", "not_an_object", "missing_prompt", ""]
    assert [item.row for item in items] == [0, 1, 2, 3, 4]
    assert [item.where for item in items] == [f"in.jsonl:{i}" for i in range(1, 6)]


def test_only_bad_rows_are_only_drops(tmp_path):
    source = reader(tmp_path, ["{", "3"])
    assert [item.reason for item in source] == ["malformed_json", "not_an_object"]
    assert source.layout_name is None
    assert "could be read" in source.describe()


def test_limit_counts_good_and_bad_rows(tmp_path):
    rows = ["{", {"prompt": "a"}, {"prompt": "b"}, {"text": "c"}]
    for limit in range(6):
        expected = min(limit, len(rows))
        assert len(list(reader(tmp_path, rows, limit=limit))) == expected


def test_no_rows_is_an_error(tmp_path):
    with pytest.raises(InputError, match="has no rows"):
        list(reader(tmp_path, [""]))


def test_a_reader_can_be_iterated_again(tmp_path):
    source = reader(tmp_path, [{"id": 1, "prompt": "a"}, {"prompt": ""}, {"id": 1, "prompt": "b"}])
    assert list(source) == list(source)


@needs_data
def test_real_gsm8k_questions():
    source = PromptReader(str(DATA / "gsm8k_test.jsonl"), InputSettings())
    prompts = list(source)
    assert len({prompt.prompt_id for prompt in prompts}) == len(prompts) == 1000
    assert source.describe().endswith("other columns kept: answer")
    assert prompts[0].messages[0]["content"].startswith("Janet’s ducks lay 16 eggs")
    assert prompts[0].extra["answer"].endswith("#### 18")


@needs_data
def test_real_gsm8k_candidates():
    prompts = list(PromptReader(str(DATA / "gsm8k_candidates.jsonl"), InputSettings()))
    assert len(prompts) == 1000
    assert prompts[0].extra["6b_finetuning"]["is_correct"] is False


@needs_data
def test_real_mt_bench_questions():
    source = PromptReader(str(DATA / "mt_bench_questions.jsonl"), InputSettings())
    prompts = list(source)
    assert [prompt.prompt_id for prompt in prompts] == [str(i) for i in range(81, 161)]
    assert source.layout_name == "mt-bench"
    assert all(len(prompt.extra["turns"]) == 2 for prompt in prompts)
    assert prompts[0].messages[0]["content"] == prompts[0].extra["turns"][0]


def test_the_digest_is_that_of_the_bytes(tmp_path, monkeypatch):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"prompt": "x"}\n')
    digest = input_digest(str(path))
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    renamed = path.rename(tmp_path / "b.jsonl")
    assert input_digest(str(renamed)) == digest
    (tmp_path / "c.jsonl").write_bytes(b"{}")
    assert input_digest(str(tmp_path / "*.jsonl")) not in (digest, None)
    monkeypatch.chdir(tmp_path)
    assert input_digest("org/name") is None
    with pytest.raises(InputNotFoundError):
        input_digest(str(path))


JSON_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["role", "content", "from", "value", "k"]), inner),
    ),
    max_leaves=6,
)
COLUMNS = st.sampled_from(
    ["id", "prompt", "messages", "turns", "instruction", "input", "body", "x"]
)
LINES = st.one_of(
    st.binary(max_size=60).map(lambda data: data.replace(b"\n", b"")),
    st.dictionaries(COLUMNS, JSON_VALUES, max_size=4).map(lambda row: json.dumps(row).encode()),
    st.builds(lambda i: json.dumps({"id": i, "prompt": "Q"}).encode(), st.integers(0, 3)),
)


def check_accounting(path) -> None:
    try:
        items = list(PromptReader(str(path), InputSettings()))
        rows = sum(1 for _ in read_rows(str(path), "train"))
    except BonError:
        return
    assert [item.row for item in items] == list(range(rows))
    prompts = [item for item in items if isinstance(item, Prompt)]
    assert len({prompt.prompt_id for prompt in prompts}) == len(prompts)
    for prompt in prompts:
        assert prompt.messages[-1]["role"] == "user" and prompt.messages[-1]["content"].strip()
        json.dumps(prompt.extra, allow_nan=False, ensure_ascii=False).encode()
    assert all(item.reason and item.detail for item in items if isinstance(item, Drop))


@settings(max_examples=150, deadline=None)
@given(lines=st.lists(LINES, max_size=8))
def test_rows_in_are_prompts_and_drops_out(tmp_path_factory, lines):
    path = tmp_path_factory.getbasetemp() / "rows.jsonl"
    path.write_bytes(b'{"id": "first", "prompt": "Q"}\n' + b"\n".join(lines))
    check_accounting(path)


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=120))
def test_any_bytes_as_csv_are_accounted_for(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "rows.csv"
    path.write_bytes(b"id,prompt\n1,Q\n" + data)
    check_accounting(path)


def test_many_prompts_take_no_more_memory_than_their_ids(tmp_path):
    path = tmp_path / "big.jsonl.gz"
    with gzip.open(path, "wt", compresslevel=1) as file:
        file.writelines(f'{{"id": {i}, "prompt": "{"x" * 600} {i}"}}\n' for i in range(60_000))
    tracemalloc.start()
    try:
        assert sum(1 for _ in PromptReader(str(path), InputSettings())) == 60_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 12_000_000  # the file unpacks to 40 MB; 60,000 ids take 6

"""Models that are damaged, incomplete, unfit or strange, through the real command.

A model that cannot be used ends the run with what, where, why and what to do, and what is committed
stays: once it is mended, the same command goes on to the files of a run where nothing happened.
What a model makes of single rows costs only these, each with its reason, and the books close.
The same model is judged the same way by `bon validate`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from support.commands import bon, bon_json, pool_files
from support.datasets import read_lines, user, write_lines
from support.openai_server import OpenAI
from support.servers import FakeServer
from support.tiny_models import (
    edit_config,
    edit_weights,
    save_generator,
    tokenizer,
    work_with,
)
from support.validating import BOOKS, errors, validated

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.faults

Edit = Callable[[Path], object]
SYSTEM = {"role": "system", "content": "be brief"}
EXTRA = "<|extra 9|>"
"""A token whose number is beyond the model's rows."""
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"
)
ASK = [
    {"id": "plain", "prompt": "hi"},
    {"id": "system", "prompt": [SYSTEM, user("hi")]},
    {"id": "extra", "prompt": f"a {EXTRA} b"},
]
GIVEN = [
    {"id": "plain", "prompt": "hi", "responses": ["a", "b"]},
    {"id": "system", "prompt": [SYSTEM, user("hi")], "responses": ["a", "b"]},
    {"id": "extra", "prompt": "hi", "responses": [f"a {EXTRA} b", "b"]},
    {"id": "empty", "prompt": "hi", "responses": ["", ""]},
    {"id": "same", "prompt": "hi", "responses": ["a", "a", "a"]},
]
SAMPLE = ("-n", "2", "--max-tokens", "4", "--generator-engine", "transformers", "-o", "best.jsonl")
SELECT = ("select", "ask.jsonl", "-m", "gen", "-r", "rule:length?max=600", *SAMPLE)
SCORE = ("score", "given.jsonl", "-r", "rm")


@pytest.fixture
def here(tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with models that a fault may change."""
    work_with(tiny_models, tmp_path, monkeypatch)
    write_lines(tmp_path / "ask.jsonl", ASK)
    write_lines(tmp_path / "given.jsonl", GIVEN)
    return tmp_path


@pytest.fixture(scope="module")
def whole(tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands make where nothing is wrong."""
    folder = tmp_path_factory.mktemp("whole")
    write_lines(folder / "ask.jsonl", ASK)
    write_lines(folder / "given.jsonl", GIVEN)
    for name in ("gen", "rm"):
        (folder / name).symlink_to(tiny_models / name)
    bon_json(*SELECT, cwd=folder)
    bon_json(*SCORE, cwd=folder)
    return folder


def without(*names: str) -> Edit:
    return lambda model: [(model / name).unlink() for name in names]


def template(text: str) -> Edit:
    return lambda model: (model / "chat_template.jinja").write_text(text)


def cut(name: str, num_bytes: int = 50) -> Edit:
    return lambda model: (model / name).write_bytes((model / name).read_bytes()[:-num_bytes])


def sharded(model: Path) -> list[Path]:
    """Cut a model's weights into shards, as transformers does."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    is_reward = "Sequence" in (model / "config.json").read_text()
    auto: Any = AutoModelForSequenceClassification if is_reward else AutoModelForCausalLM
    loaded = auto.from_pretrained(model)
    (model / "model.safetensors").unlink()
    loaded.save_pretrained(model, max_shard_size="100KB")
    return sorted(model.glob("model-*.safetensors"))


def a_shard_lost(model: Path) -> None:
    sharded(model)[1].unlink()


def a_shard_cut(model: Path) -> None:
    path = sharded(model)[1]
    path.write_bytes(path.read_bytes()[:-10])


def larger_tokenizer(model: Path) -> None:
    """Give a tokenizer with words beyond the model's rows."""
    found = tokenizer()
    found.add_tokens([f"<|extra {number}|>" for number in range(20)])
    found.save_pretrained(model)


def not_finite(value: float) -> Edit:
    name = "model.layers.0.mlp.up_proj.weight"
    return lambda model: edit_weights(model, lambda weights: weights[name].fill_(value))


NO_TOKENIZER = without("tokenizer.json", "tokenizer_config.json")
NOT_JINJA = template("{% for message in messages %}\n{{ oops }")
REFUSED: dict[str, tuple[Edit, str, str]] = {
    "no chat template": (without("chat_template.jinja"), "has no chat template", "-template"),
    "template that is not Jinja": (NOT_JINJA, "not valid Jinja", "line 2"),
    "no tokenizer": (NO_TOKENIZER, "tokenizer knows no words", "missing or empty"),
    "tokenizer that is cut off": (cut("tokenizer.json"), "", "line"),
    "weights that are cut off": (cut("model.safetensors"), "damaged", "its header says"),
    "a shard that is cut off": (a_shard_cut, "weights are damaged", "model-00002-of-"),
    "a shard that is lost": (a_shard_lost, "weights are incomplete", "missing: model-00002-of-"),
    "config that is no JSON": (cut("config.json"), "cannot read the", "Unterminated string"),
    "no config": (without("config.json"), "not a model", "it has no config.json"),
    "no weights": (without("model.safetensors"), "has no weights", "no *.safetensors"),
}
"""By name: the fault, what is said, and why."""


@pytest.mark.parametrize("command", ["generator", "reward model"])
@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_cannot_be_used_ends_the_run(here: Path, name: str, command: str) -> None:
    fault, what, why = REFUSED[name]
    is_generator = command == "generator"
    model = here / ("gen" if is_generator else "rm")
    fault(model)
    error = refused(here, SELECT if is_generator else SCORE)
    assert what in error
    assert why in error
    assert str(model) in error


def refused(here: Path, command: tuple[str, ...]) -> str:
    """Run what must end with 1, see that validate says the same, and return what was said."""
    done = bon(*command, cwd=here)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    error = done.stderr[done.stderr.index("error: ") :].strip()
    assert "  why:   " in error
    assert "  next:  " in error
    checked = validated(*command[1:])
    assert checked["exit_code"] == 1
    assert errors(checked) == [error]
    return error


@pytest.mark.parametrize(
    ("command", "model", "fault"),
    [(SELECT, "gen", NOT_JINJA), (SCORE, "rm", NO_TOKENIZER), (SCORE, "rm", a_shard_cut)],
    ids=["generator", "reward model", "shard"],
)
def test_a_mended_model_goes_on_to_the_same_files(
    here: Path, tiny_models: Path, whole: Path, command: tuple[str, ...], model: str, fault: Edit
) -> None:
    fault(here / model)
    assert bon(*command, cwd=here).returncode == 1
    pool = "ask.pool" if model == "gen" else "given.pool"
    committed = pool_files(here / pool) if (here / pool).exists() else {}
    shutil.rmtree(here / model)
    shutil.copytree(tiny_models / model, here / model)
    bon_json(*command, cwd=here)
    found, wanted = pool_files(here / pool), pool_files(whole / pool)
    assert found == wanted
    assert all(found[name] == content for name, content in committed.items() if "json" not in name)
    if model == "gen":
        assert (here / "best.jsonl").read_bytes() == (whole / "best.jsonl").read_bytes()


@pytest.mark.parametrize("is_tied", [False, True])
def test_a_reward_model_samples_nothing(here: Path, is_tied: bool) -> None:
    """With tied embeddings its weights would fit a language model."""
    edit_config(here / "rm", tie_word_embeddings=is_tied)
    command = tuple("rm" if word == "gen" else word for word in SELECT)
    error = refused(here, command)
    assert "Qwen3ForSequenceClassification is not a causal language model" in error
    assert not (here / "ask.pool").exists()


def test_a_generator_is_no_reward_model(here: Path) -> None:
    error = refused(here, ("score", "given.jsonl", "-r", "gen"))
    assert "Qwen3ForCausalLM is not a reward model" in error


def test_a_reward_model_without_its_head_is_refused(here: Path) -> None:
    edit_weights(here / "rm", lambda weights: weights.pop("score.weight"))
    error = refused(here, SCORE)
    assert "leaves weights random" in error
    assert "score.weight" in error


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_said(here: Path) -> None:
    error = refused(here, (*SCORE, "--reward-device", "cuda"))
    assert "torch sees no GPU" in error


def closed(result: dict[str, Any], num_rows: int) -> dict[str, int]:
    """Check that every row is accounted for, and return the drops."""
    drops: dict[str, int] = result["drops"]
    assert result["input_rows"] == num_rows == result["kept_rows"] + sum(drops.values())
    return drops


def counted_alike(command: tuple[str, ...], result: dict[str, Any]) -> None:
    """Check that validate counts the same drops."""
    found = validated(*command[1:])
    assert {name: found[name] for name in BOOKS} == {name: result[name] for name in BOOKS}


def test_a_generator_with_a_system_role_it_refuses(here: Path) -> None:
    """Prompts that have one are drops; with --system-prompt all are, and that is no success."""
    template(NO_SYSTEM)(here / "gen")
    larger_tokenizer(here / "gen")
    template(NO_SYSTEM)(here / "gen")
    result = bon_json(*SELECT, cwd=here)
    assert closed(result, 3) == {"template_error": 1, "unknown_token": 1}
    counted_alike(SELECT, result)
    (said,) = [one for one in result["drop_examples"] if one["id"] == "system"]
    assert (said["detail"], said["where"]) == ("no system role", "ask.jsonl:2")
    assert [row["prompt_id"] for row in read_lines(here / "best.jsonl")] == ["plain"]

    command = (*SELECT, "--system-prompt", "be brief", "--pool", "other.pool")
    done = bon(*command, "--json", cwd=here)
    assert done.returncode == 3, done.stderr
    assert closed(json.loads(done.stdout), 3) == {"template_error": 3}
    assert "nothing is left" in done.stderr
    assert validated(*command[1:])["exit_code"] == 3


def test_a_reward_model_with_templates_and_words_it_does_not_know(here: Path) -> None:
    larger_tokenizer(here / "rm")
    template(NO_SYSTEM)(here / "rm")
    result = bon_json(*SCORE, cwd=here)
    assert closed(result, 5) == {}
    assert result["candidate_drops"] == {"template_error": 2, "unknown_token": 1}
    counted_alike(SCORE, result)
    chosen = bon_json("select", "given.pool", "-o", "best.jsonl", cwd=here)
    assert closed(chosen, 5) == {"no_scored_candidate": 1}
    best = {row["prompt_id"]: row for row in read_lines(here / "best.jsonl")}
    assert best.keys() == {"plain", "extra", "empty", "same"}
    assert best["extra"]["response"] == "b"
    assert best["extra"]["rewards"][0] is None


@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=["nan", "inf"])
def test_a_reward_model_that_gives_no_finite_number(here: Path, value: float) -> None:
    not_finite(value)(here / "rm")
    result = bon_json(*SCORE, cwd=here)
    assert closed(result, 5) == {}
    assert result["candidate_drops"] == {"non_finite_score": 11}
    scores = pq.read_table(here / "given.pool/scores/rm/part-00000.parquet")
    assert scores["score"].to_pylist() == [None] * 11
    done = bon("select", "given.pool", "-o", "best.jsonl", "--json", cwd=here)
    assert done.returncode == 3  # nothing is left
    assert closed(json.loads(done.stdout), 5) == {"no_scored_candidate": 5}
    assert (here / "best.jsonl").read_bytes() == b""


def test_a_generator_that_gives_no_finite_number(here: Path) -> None:
    not_finite(float("nan"))(here / "gen")
    done = bon(*SELECT, "--json", cwd=here)
    result = json.loads(done.stdout)
    assert sum(closed(result, 3).values()) == 3
    assert done.returncode == 3
    assert (here / "best.jsonl").read_bytes() == b""


def test_ties_and_empty_and_identical_candidates(here: Path) -> None:
    """All scores are equal: the first candidate is taken, each time, and the ties are told."""
    edit_weights(here / "rm", lambda weights: weights["score.weight"].zero_())
    result = bon_json(*SCORE, cwd=here)
    assert closed(result, 5) == result["candidate_drops"] == {}
    chosen = bon_json("select", "given.pool", "-o", "best.jsonl", cwd=here)
    assert (closed(chosen, 5), chosen["ties"], chosen["lift"]) == ({}, 5, 0.0)
    rows = read_lines(here / "best.jsonl")
    assert [row["candidate"] for row in rows] == [0] * 5
    assert [row["response"] for row in rows] == ["a", "a", f"a {EXTRA} b", "", "a"]
    pairs = bon_json("build-dpo", "given.pool", "-o", "pairs.jsonl", "--max-drops", "5", cwd=here)
    assert sum(closed(pairs, 5).values()) == 5  # no pair says anything


def test_equal_candidates_have_equal_scores_and_empty_ones_a_score(whole: Path) -> None:
    scores = pq.read_table(whole / "given.pool/scores/rm/part-00000.parquet")
    found: dict[str, list[float]] = {}
    for row in scores.to_pylist():
        found.setdefault(row["prompt_id"], []).append(row["score"])
    assert len(set(found["same"])) == len(set(found["empty"])) == 1
    assert None not in {*found["same"], *found["empty"]}
    assert found["plain"][0] == found["same"][0]


def test_a_model_with_more_rows_than_words_samples_on(here: Path) -> None:
    """Tokens that stand for no text add none; vocabularies padded to a round number are usual."""
    shutil.rmtree(here / "gen")
    save_generator(here / "gen", vocab_size=400)
    result = bon_json(*SELECT, cwd=here)
    assert closed(result, 3) == {}
    candidates = pq.read_table(here / "ask.pool/candidates/part-00000.parquet")
    assert max(map(max, candidates["token_ids"].to_pylist())) >= 264
    counted_alike(SELECT, result)


@pytest.mark.parametrize("flags", [("--dtype", "float16"), ("--dtype", "bfloat16")])
def test_half_precision_on_a_cpu_samples_all_the_same(here: Path, flags: tuple[str, ...]) -> None:
    assert closed(bon_json(*SELECT, *flags, cwd=here), 3) == {}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_on_a_cpu_scores_all_the_same(here: Path, dtype: str) -> None:
    result = bon_json(*SCORE, "--reward-dtype", dtype, cwd=here)
    assert closed(result, 5) == result["candidate_drops"] == {}


@pytest.fixture
def served(here: Path) -> Iterator[Callable[[OpenAI], tuple[str, ...]]]:
    """Starts a server with habits of its own, and gives the command that samples from it."""
    opened: list[FakeServer] = []

    def start(habits: OpenAI) -> tuple[str, ...]:
        opened.append(FakeServer(habits).__enter__())
        url = f"server:{opened[-1].url}?patience_s=5"
        return ("select", "ask.jsonl", "-m", url, "-r", "rule:length?max=600", *SAMPLE[:4],
                "-o", "best.jsonl")  # fmt: skip

    yield start
    for server in opened:
        server.__exit__()


def test_a_server_that_returns_fewer_is_asked_until_all_are_there(
    here: Path, served: Callable[[OpenAI], tuple[str, ...]]
) -> None:
    result = bon_json(*served(OpenAI(most_choices=1)), cwd=here)
    assert closed(result, 3) == {}
    candidates = pq.read_table(here / "ask.pool/candidates/part-00000.parquet")
    assert candidates["candidate"].to_pylist() == [0, 1] * 3


def test_a_server_that_returns_none_costs_the_prompts_and_no_row_is_lost(
    here: Path, served: Callable[[OpenAI], tuple[str, ...]]
) -> None:
    done = bon(*served(OpenAI(most_choices=0)), "--json", cwd=here)
    assert done.returncode == 3, done.stderr  # nothing is left
    assert closed(json.loads(done.stdout), 3) == {"no_choices": 3}
    assert (here / "best.jsonl").read_bytes() == b""


def test_a_server_that_refuses_one_prompt_costs_only_that(
    here: Path, served: Callable[[OpenAI], tuple[str, ...]]
) -> None:
    result = bon_json(*served(OpenAI(refuses="extra")), cwd=here)
    assert closed(result, 3) == {"server_refused": 1}

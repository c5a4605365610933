"""What models make of single rows: `bon validate` counts it as the engines of a real run do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from support.commands import bon, bon_json
from support.datasets import write_lines
from support.tiny_models import save_generator, save_reward
from support.validating import BOOKS, validated

pytestmark = pytest.mark.faults

MODELS = ("-m", "gen", "-r", "rm")
FLAGS = ("-n", "2", "--generator-engine", "transformers", "-o", "out.parquet")
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in: `ask.jsonl`, a generator `gen` and a reward model `rm`."""
    write_lines(tmp_path / "ask.jsonl", [{"id": f"p{n}", "prompt": f"say {n}"} for n in range(3)])
    save_generator(tmp_path / "gen")
    save_reward(tmp_path / "rm")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("engine", ["transformers", pytest.param("vllm", marks=pytest.mark.vllm)])
def test_prompts_that_cannot_be_sampled_are_counted_as_the_run_counts_them(
    here: Path, engine: str
) -> None:
    (here / "t.jinja").write_text(NO_SYSTEM)
    rows: list[Any] = [
        {"prompt": "hi"},
        {"prompt": "long " * 40},
        {"prompt": ""},
        {"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]},
        {"prompt": "long " * 20},
    ]
    write_lines(here / "ask.jsonl", rows)
    flags = (
        *("ask.jsonl", "-m", "gen", "-r", "rm", "--generator-engine", engine, "-n", "2"),
        *("--chat-template", "t.jinja", "--reward-template", "t.jinja", "--max-model-len", "128"),
        *("--max-tokens", "8", "--reward-max-length", "60", "--kv-cache-gib", "0.1"),
        *("-o", "out.parquet"),
    )
    found = bon_json("validate", *flags, cwd=here)  # vLLM warns when it is imported
    done = bon_json("select", *flags, cwd=here)
    assert {name: found[name] for name in BOOKS} == {name: done[name] for name in BOOKS}
    assert found["drop_examples"] == done["drop_examples"]
    assert done["drops"] == {"prompt_too_long": 1, "empty_prompt": 1, "template_error": 1}
    (scores,) = (here / "ask.pool/scores").glob("*/part-00000.parquet")
    assert sum(pq.read_table(scores)["truncated"].to_pylist()) == 2  # of one prompt
    texts = [one["text"] for one in found["findings"] if one["status"] == "warning"]
    assert any("1 prompts alone are longer than the 60 tokens" in text for text in texts)


def test_a_prompt_that_no_scorer_takes_is_dropped_by_both(here: Path) -> None:
    (here / "t.jinja").write_text(NO_SYSTEM)
    system = {"role": "system", "content": "s"}
    write_lines(
        here / "ask.jsonl",
        [{"prompt": "hi"}, {"prompt": [system, {"role": "user", "content": "u"}]}],
    )
    flags = ("ask.jsonl", *MODELS, *FLAGS, "--reward-template", "t.jinja", "--max-tokens", "4")
    found, done = validated(*flags), bon_json("select", *flags, cwd=here)
    assert {name: found[name] for name in BOOKS} == {name: done[name] for name in BOOKS}
    assert done["drops"] == {"no_scored_candidate": 1}
    assert done["candidate_drops"] == {"template_error": 2}


def test_the_command_itself_is_quiet_and_loads_no_engine(here: Path) -> None:
    done = bon("validate", "ask.jsonl", "-m", "gen", "-r", "rm", "-n", "2", "--json", cwd=here)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["kept_rows"] == 3
    assert done.stderr == ""
    assert not (here / "ask.pool").exists()

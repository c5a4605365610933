"""`bon score` and `bon select` with a LoRA adapter as reward model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from support.commands import bon_json, pool_files
from support.datasets import write_lines
from support.fakes import InlineEngine
from support.tiny_adapters import edit_adapter, edit_tensors, save_adapter, save_base
from typer.testing import CliRunner, Result

import bon.cli.score  # noqa: F401  (registers the command)
from bon.cli.app import app

RESPONSES = ("42", "I do not know.", "It is 42, since 40 + 2 is 42.", "7")
SCORE = ("score", "in.jsonl", "-r", "mine=adapter")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a generator, `base`, and an adapter that names it by its relative path."""
    pytest.importorskip("peft")
    folder = tmp_path_factory.mktemp("models")
    save_adapter(folder / "adapter", save_base(folder / "base"))
    edit_adapter(folder / "adapter", base_model_name_or_path="./base")
    return folder


@pytest.fixture
def here(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `in.jsonl`, three prompts, and the models; models run in this process."""
    here = tmp_path / "here"
    shutil.copytree(models, here)
    monkeypatch.chdir(here)
    for place in ("bon.cli.engines", "bon.engines.local"):
        monkeypatch.setattr(f"{place}.LocalEngine", lambda log, **limits: InlineEngine())
    rows = [{"prompt": f"What is {n} + 2?", "responses": list(RESPONSES)} for n in range(3)]
    write_lines(here / "in.jsonl", rows)
    return here


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def scored(here: Path) -> dict[str, bytes]:
    done = run(*SCORE)
    assert done.exit_code == 0, done.stderr
    return pool_files(here / "in.pool")


def test_score_then_select_in_a_worker_of_its_own(here: Path) -> None:
    result = bon_json(*SCORE, "--verify", 4, cwd=here)
    (stage,) = result["stages"]
    assert (stage["num_parts_done"], stage["engine"]) == (1, "transformers")
    assert stage["num_tokens_computed"] < stage["num_tokens"]
    assert result["verified"]["mine"]["largest_difference"] < 1e-4
    before = pool_files(here / "in.pool")

    again = bon_json(*SCORE, cwd=here)
    bon_json("select", "in.pool", "--rank-by", "mine", "-o", "best.parquet", cwd=here)

    assert [stage["num_parts_done"] for stage in again["stages"]] == [0]
    assert pool_files(here / "in.pool") == before
    best_of(here, len(RESPONSES))


def best_of(here: Path, num_candidates: int) -> None:
    rows = pq.read_table(here / "best.parquet").to_pylist()
    assert len(rows) == 3
    for row in rows:
        assert len(set(row["rewards"])) == num_candidates
        assert row["reward"] == max(row["rewards"]) == row["rewards"][row["candidate"]]


@pytest.mark.vllm
@pytest.mark.slow
def test_select_samples_and_scores_with_the_same_base(here: Path) -> None:
    write_lines(here / "ask.jsonl", [{"prompt": f"What is {n} + 2?"} for n in range(3)])
    flags = ("-m", "base", "-n", 2, "--max-tokens", 8, "--kv-cache-gib", 0.5, "-o", "best.parquet")
    command = ("select", "ask.jsonl", "-r", "mine=adapter", *flags)

    first = bon_json(*command, cwd=here)
    before = pool_files(here / "ask.pool")
    again = bon_json(*command, cwd=here)

    assert [stage["num_parts_done"] for stage in first["stages"]] == [1, 1]
    assert [stage["num_parts_done"] for stage in again["stages"]] == [0, 0]
    assert pool_files(here / "ask.pool") == before
    best_of(here, 2)


@pytest.mark.parametrize(
    ("changed", "differs"), [("adapter", "digest"), ("a layer", "digest"), ("base", "base_digest")]
)
def test_another_adapter_or_base_is_refused(changed: str, differs: str, here: Path) -> None:
    before = scored(here)
    if changed == "adapter":
        edit_adapter(here / "adapter", lora_alpha=16)
    elif changed == "a layer":
        edit_tensors(here / "adapter", without="layers.0")
    else:
        shutil.rmtree(here / "base")
        save_base(here / "base", seed=8)

    done = run(*SCORE)

    assert done.exit_code == 2
    assert "scorer 'mine' has scored this pool with other settings" in done.stderr
    assert f"{differs}: " in done.stderr
    assert pool_files(here / "in.pool") == before


def test_what_lies_elsewhere_is_the_same_scorer(here: Path) -> None:
    before = scored(here)
    (here / "elsewhere").mkdir()
    shutil.move(here / "adapter", here / "elsewhere" / "adapter")
    shutil.move(here / "base", here / "elsewhere" / "moved")
    edit_adapter(here / "elsewhere" / "adapter", base_model_name_or_path="elsewhere/moved")
    done = run(*SCORE[:-1], "mine=elsewhere/adapter")
    assert done.exit_code == 0, done.stderr
    after = pool_files(here / "in.pool")
    said = json.loads(before.pop("pool.json")), json.loads(after.pop("pool.json"))
    assert [one["scorers"]["mine"].pop("base") for one in said] == ["base", "moved"]
    assert [len(one.pop("same").get("mine", [])) for one in said] == [0, 1], "the old wording"
    assert len({one.pop("checksum") for one in said}) == 2
    assert said[0] == said[1]
    assert after == before

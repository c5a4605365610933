"""What the commands that write sets share: plans, places, cards, the trained model's tokens."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from support.commands import GENERATOR
from support.fakes import Run, input_rows
from support.tiny_models import CHATML, tokenizer

from bon.cli.curation import (
    card_facts,
    check_upload,
    output_paths,
    pair_tokenizer,
    publish,
    ready_pool,
    run_seed,
    step_texts,
)
from bon.cli.flags import Invocation
from bon.cli.stages import Made
from bon.config import ExportSettings, PairSettings
from bon.errors import ModelError, ModelNotFoundError, SettingsError
from bon.exports.formats import choose_format
from bon.pipeline.export import Written
from bon.pool.pool import Pool


def call(source: str = "in.jsonl", output: str | None = None, **flags: Any) -> Invocation:
    return Invocation(
        source, Path(output) if output else None, dry_run=False, as_json=False, quiet=True,
        verbose=False, flags=flags,
    )  # fmt: skip


def test_a_pool_is_opened_as_it_is(tmp_path: Path) -> None:
    made = Run(input_rows(3)).scores(tmp_path / "p")
    ready = ready_pool(call(), "pool", tmp_path / "p", group=True, with_scores=False)
    assert ready == Made(Pool.open(made.layout.root))


@pytest.mark.parametrize(("group", "ids"), [(True, ["a"]), (False, ["0", "1"])])
def test_responses_become_a_pool(tmp_path: Path, group: bool, ids: list[str]) -> None:
    source = tmp_path / "r.jsonl"
    rows = [{"id": "a", "prompt": "q", "response": text, "score": 1} for text in "xy"]
    source.write_text("\n".join(map(json.dumps, rows)))
    root = tmp_path / "r.pool"
    made = ready_pool(call(str(source)), "responses", root, group=group, with_scores=False)
    assert [prompt.prompt_id for prompt in made.pool.prompts(0)] == ids
    assert made.stages == []


def test_steps_by_source() -> None:
    sampled = call(model="m", num_candidates=3, reward=("a=x", "y"))
    root = Path("p")
    assert step_texts(sampled, "pool", root, with_scores=False) == []
    assert step_texts(sampled, "prompts", root, with_scores=True) == [
        "read prompts from in.jsonl into p",
        "generate 3 candidates per prompt with m",
        "score with a=x",
        "score with y",
    ]
    read = ["read pairs from in.jsonl into p"]
    assert step_texts(sampled, "pairs", root, with_scores=False) == read
    assert step_texts(sampled, "pairs", root, with_scores=True) == [
        *read,
        "score with a=x",
        "score with y",
    ]


def test_draws_follow_the_pool_unless_a_seed_is_given(tmp_path: Path) -> None:
    made = Made(Run(input_rows(1), seed=7).scores(tmp_path / "p"))
    assert run_seed(call(), made) == 7
    assert run_seed(call(seed=0), made) == 0


def test_an_upload_needs_a_folder_and_a_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    check_upload(ExportSettings(), tmp_path / "x.parquet")
    export = ExportSettings(push_to_hub="a/b")
    with pytest.raises(SettingsError, match="needs an output folder") as caught:
        check_upload(export, tmp_path / "x.parquet")
    assert caught.value.next_step == f"give -o {tmp_path / 'x'}/"


@pytest.mark.parametrize(
    ("output", "form", "split", "paths"),
    [
        ("x.parquet", "bon", None, ["x.parquet"]),
        ("x.parquet", "bon", 0.1, ["x.parquet", "x.test.parquet"]),
        ("a.b.jsonl.gz", "trl-dpo", 0.1, ["a.b.jsonl.gz", "a.b.test.jsonl.gz"]),
        ("folder", "bon", 0.1, ["folder"]),
    ],
)
def test_places_that_a_result_takes(
    output: str, form: str, split: float | None, paths: list[str]
) -> None:
    export = ExportSettings(train_test_split=split)
    found = output_paths(Path(output), choose_format(form, "pairs"), export)
    assert found == [Path(path) for path in paths]


def test_what_was_written_is_said(tmp_path: Path) -> None:
    written = Written([tmp_path / "x.jsonl"], {"train": 2}, {"train": 1})
    assert publish(call(), ExportSettings(), tmp_path / "x.jsonl", written) == {
        "output": str(tmp_path / "x.jsonl"),
        "files": [str(tmp_path / "x.jsonl")],
        "written_rows": {"train": 2},
        "merged_rows": {"train": 1},
    }


def test_a_card_says_how_the_set_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/bon", "build-dpo", "a b.jsonl", "-o", "pairs"])
    details = {"model": "org/m", "model_digest": "0123456789abcdef01", "temperature": 0.5}
    made = Made(Run(input_rows(5, bad=[1]), seed=7, fingerprint=details).scores(tmp_path / "p"))
    report = {"input_rows": 5, "drops": {"malformed_json": 1}, "candidate_drops": {"x": 2}}

    facts = card_facts(call("a b.jsonl", "pairs"), made, report, {"strategy": "sigma"})

    assert facts.command == "bon build-dpo 'a b.jsonl' -o pairs"
    assert (facts.name, facts.source) == ("pairs", "in.jsonl")
    assert facts.models == {"generator": "org/m, digest 0123456789abcdef"}
    assert facts.sampling == {"num_candidates": 3, "temperature": 0.5, "seed": 7}
    assert facts.scorers == {"reward": "by length"}
    assert facts.method == {"strategy": "sigma"}
    assert (facts.input_rows, facts.drops) == (5, {"malformed_json": 1})
    assert facts.candidate_drops == {"x": 2}


def conversation(text: str, *, system: str = "") -> list[dict[str, str]]:
    before = [{"role": "system", "content": system}] if system else []
    return [*before, {"role": "user", "content": "q"}, {"role": "assistant", "content": text}]


def test_without_a_limit_there_are_no_tokens() -> None:
    assert pair_tokenizer(PairSettings()) is None


def test_tokens_are_those_of_the_models_template(tmp_path: Path) -> None:
    tokenizer(template=CHATML).save_pretrained(tmp_path)
    tokenize = pair_tokenizer(PairSettings(max_length=9, tokenizer=str(tmp_path)))
    assert tokenize is not None
    (tokens,) = tokenize([conversation("hi")])
    text = "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\nhi<|im_end|>\n"
    assert tokens == tokenizer().encode(text, add_special_tokens=False)
    assert tokenize([]) == []


def test_a_conversation_that_the_template_refuses_is_compared_by_its_texts(tmp_path: Path) -> None:
    refusing = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    )
    tokenizer(template=refusing + CHATML).save_pretrained(tmp_path)
    tokenize = pair_tokenizer(PairSettings(max_length=9, tokenizer=str(tmp_path)))
    assert tokenize is not None
    one, same, other, good = tokenize(
        [conversation(text, system="s") for text in ("a", "a", "b")] + [conversation("a")]
    )
    assert one == same != other
    assert good != one


@pytest.mark.parametrize(
    ("broken", "kind", "message"),
    [
        ("nothing", ModelNotFoundError, "cannot load the tokenizer"),
        ("tokenizer.json", ModelNotFoundError, "cannot load the tokenizer"),
        ("chat_template.jinja", ModelError, "template"),
    ],
)
def test_a_tokenizer_that_cannot_be_used(
    tmp_path: Path, broken: str, kind: type[Exception], message: str
) -> None:
    folder = tmp_path / "model"
    if broken != "nothing":
        shutil.copytree(GENERATOR, folder)
        (folder / broken).write_text("{{")
    with pytest.raises(kind, match=message):
        pair_tokenizer(PairSettings(max_length=9, tokenizer=str(folder)))

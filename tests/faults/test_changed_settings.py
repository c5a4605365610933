"""A pool that is resumed with other settings: refused, with all that differs and how to go on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.commands import GENERATOR, REWARD, bon, pool_files
from support.server_pool import PART, SCORERS, sampler, write_prompts

RULES = ("--rank-by", "len", "--pool", "a.pool", "-o", "best.parquet")


@pytest.fixture(scope="module")
def model() -> Iterator[tuple[str, ...]]:
    with sampler() as flags:
        yield flags


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, model: tuple[str, ...]) -> Path:
    """A folder with a finished pool; nothing that follows may change it."""
    folder = tmp_path_factory.mktemp("here")
    write_prompts(folder / "in.jsonl")
    done = bon("select", "in.jsonl", *model, *SCORERS, *PART, *RULES, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def assert_refused(here: Path, command: tuple[object, ...], *differences: str) -> None:
    before = pool_files(here / "a.pool")
    result = (here / "best.parquet").read_bytes()
    done = bon(*command, cwd=here)
    assert done.returncode == 2, done.stderr
    for one in differences:
        assert one in done.stderr
    assert "Traceback" not in done.stderr
    assert "repeat the old settings" in done.stderr
    assert pool_files(here / "a.pool") == before, "nothing is lost"
    assert (here / "best.parquet").read_bytes() == result


@pytest.mark.faults
def test_all_that_differs_is_listed(here: Path, model: tuple[str, ...]) -> None:
    others = ("--seed", 3, "--temperature", 0.5, "--system-prompt", "Be brief.", "-n", 4)
    command = ("select", "in.jsonl", *model, *others, *SCORERS, *PART, *RULES)
    assert_refused(
        here,
        command,
        "seed: 0 -> 3",
        "temperature: 1.0 -> 0.5",
        'system_prompt: null -> "Be brief."',
        "num_candidates: 3 -> 4",
        "another --pool",
    )


@pytest.mark.faults
@pytest.mark.parametrize(
    ("flags", "difference"),
    [
        (["-n", 2], "num_candidates: 3 -> 2"),
        (["--seed", 1], "seed: 0 -> 1"),
        (["--temperature", 0.7], "temperature: 1.0 -> 0.7"),
        (["--top-p", 0.9], "top_p: 1.0 -> 0.9"),
        (["--max-tokens", 17], "max_tokens: 16 -> 17"),
        (["--stop", "."], 'stop: [] -> ["."]'),
        (["--system-prompt", "x"], 'system_prompt: null -> "x"'),
        (["--raw"], "raw: false -> true"),
        (["--part-size", 8], "part_size: 4 -> 8"),
        (["--id-column", "topic"], 'id_column: null -> "topic"'),
        (["--prompt-column", "prompt"], 'prompt_column: null -> "prompt"'),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_settings_of_reading_and_sampling(
    here: Path, model: tuple[str, ...], flags: list[object], difference: str
) -> None:
    command = ("select", "in.jsonl", *model, *SCORERS, *PART, *RULES, *flags)
    assert_refused(here, command, difference)


@pytest.mark.faults
@pytest.mark.parametrize(
    ("spec", "flags", "difference"),
    [
        ("len=rule:length?max=7", [], "max: 6 -> 7"),
        ("len=rule:length?max=6&unit=words", [], 'unit: "chars" -> "words"'),
        ("len=rule:length?max=6&soft=2", [], "soft: 0.0 -> 2.0"),
        ("len=rule:exact", [], "rule:length"),
        ("is=rule:exact", ["--rule-answer-column", "topic"], '"topic"'),
    ],
)
def test_settings_of_rules(here: Path, spec: str, flags: list[str], difference: str) -> None:
    command = ("score", "a.pool", "-r", spec, *flags)
    assert_refused(here, command, difference, "has scored this pool with other settings")
    assert "-r NEWNAME=SPEC" in bon(*command, cwd=here).stderr


@pytest.mark.faults
def test_another_name_goes_on(here: Path, tmp_path: Path) -> None:
    shutil.copytree(here / "a.pool", tmp_path / "a.pool")
    before = pool_files(tmp_path / "a.pool")
    done = bon("score", "a.pool", "-r", "new=rule:length?max=7", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    after = pool_files(tmp_path / "a.pool")
    assert {name for name in before if before[name] != after[name]} == {"pool.json"}


MODELS = ("--generator-engine", "transformers", "-n", 2, "--max-tokens", 8)


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with models in folders of their own, which a test can change."""
    folder = tmp_path_factory.mktemp("sampled")
    write_prompts(folder / "in.jsonl", 4)
    for name, source in (("generator", GENERATOR), ("reward", REWARD)):
        shutil.copytree(source, folder / name)
    (folder / "template.jinja").write_text("{% for m in messages %}{{ m.content }}\n{% endfor %}")
    done = bon("select", "in.jsonl", *models(), *PLACES, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


PLACES = ("--pool", "a.pool", "-o", "best.parquet")


def models(generator: str = "generator", reward: str = "reward") -> tuple[object, ...]:
    return ("-m", generator, "-r", f"reward={reward}", *MODELS)


def changed_model(folder: Path, name: str) -> None:
    """Copy a model and change the last weight."""
    shutil.copytree(folder / name, folder / f"other-{name}", dirs_exist_ok=True)
    (weights,) = (folder / f"other-{name}").glob("*.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)


@pytest.mark.faults
@pytest.mark.parametrize(
    ("flags", "difference"),
    [
        (["--chat-template", "template.jinja"], "chat_template"),
        (["--dtype", "bfloat16"], "dtype"),
        (["--max-model-len", 64], "max_model_len: null -> 64"),
        (["--top-k", 5], "top_k: 0 -> 5"),
        (["--min-p", 0.1], "min_p: 0.0 -> 0.1"),
        (["--reward-max-length", 40], "max_length"),
        (["--reward-truncation-side", "right"], 'truncation_side: "left" -> "right"'),
        (["--reward-dtype", "bfloat16"], "dtype"),
        (["--reward-template", "template.jinja"], "template"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_settings_of_models(sampled: Path, flags: list[object], difference: str) -> None:
    assert_refused(sampled, ("select", "in.jsonl", *models(), *PLACES, *flags), difference)


@pytest.mark.faults
@pytest.mark.parametrize("name", ["generator", "reward"])
def test_models_whose_weights_are_others(sampled: Path, name: str) -> None:
    changed_model(sampled, name)
    command = ("select", "in.jsonl", *models(**{name: f"other-{name}"}), *PLACES)
    assert_refused(sampled, command, "digest")


@pytest.mark.faults
def test_a_model_that_moved_is_the_same_and_its_parts_are_too(sampled: Path) -> None:
    for name in ("generator", "reward"):
        shutil.copytree(sampled / name, sampled / "moved" / name)
    result = (sampled / "best.parquet").read_bytes()
    for generator, reward in (("moved/generator", "moved/reward"), ("generator", "reward")):
        command = ("select", "in.jsonl", *models(generator, reward), *PLACES)
        done = bon(*command, "--repair", cwd=sampled)
        assert done.returncode == 0, done.stderr
        assert "no file of the pool is damaged" in done.stderr
    assert (sampled / "best.parquet").read_bytes() == result

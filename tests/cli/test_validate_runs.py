"""`bon validate` finds what the run ends with, in the same words, and counts what it would drop."""

from __future__ import annotations

import json
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.commands import bon_json, pool_files
from support.damage import truncate
from support.datasets import write_lines
from support.fakes import Run, input_rows
from support.openai_server import OpenAI
from support.ray_cluster import ray_cluster
from support.servers import FakeServer
from support.tiny_models import edit_config, work_with
from support.validating import BOOKS, called, errors, validated

from bon.cli import (  # noqa: F401  (registers the commands)
    build_dpo,
    convert,
    filter,
    score,
    select,
)
from bon.cli import generate as _generate  # noqa: F401  (the same)
from bon.durable import process_tag
from bon.engines.shares import num_cores
from bon.pool.lock import PoolLock
from bon.pool.pool import Pool

RULE = ("-r", "rule:length?max=600")
FLAGS = ("-n", "2", "--generator-engine", "transformers", "-o", "out.parquet")


@pytest.fixture
def here(tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in: `ask.jsonl`, `gen` and `rm`, which a fault may change."""
    write_lines(tmp_path / "ask.jsonl", [{"id": f"p{n}", "prompt": f"say {n}"} for n in range(3)])
    work_with(tiny_models, tmp_path, monkeypatch)
    return tmp_path


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def other_pool(folder: Path) -> None:
    """A pool of the fakes, sampled with settings that no run of the CLI has."""
    Run(input_rows(3)).candidates(folder / "ask.pool")


def held(folder: Path) -> None:
    """A lock of a machine that nobody can ask."""
    (folder / "ask.pool/.bon").mkdir(parents=True)
    holder = {"pid": "7", "host": f"not-{socket.gethostname()}", "command": "bon select"}
    (folder / "ask.pool/.bon/lock").write_text(json.dumps(holder))


def closed(folder: Path) -> None:
    (folder / "ask.pool").mkdir()
    (folder / "ask.pool/mine.txt").write_text("x")


def two_labels(folder: Path) -> None:
    edit_config(folder / "rm", id2label={"0": "a", "1": "b"})


MODELS = ("-m", "gen", "-r", "rm")
ALL = str(num_cores())
ONLY_RULE = ("-m", "gen", *RULE)
NOTHING: Callable[[Path], object] = lambda folder: None  # noqa: E731

FAULTS: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "no input": (lambda folder: (folder / "ask.jsonl").unlink(), MODELS),
    "empty input": (lambda folder: (folder / "ask.jsonl").write_text(""), MODELS),
    "no known columns": (
        lambda folder: write_lines(folder / "ask.jsonl", [{"colour": "red"}]),
        MODELS,
    ),
    "no such column": (NOTHING, (*MODELS, "--prompt-column", "question")),
    "unknown layout": (NOTHING, (*MODELS, "--layout", "alpacca")),
    "bad value": (NOTHING, (*MODELS, "--top-p", "7")),
    "unknown form": (NOTHING, (*MODELS, "--format", "trl")),
    "output is the input": (NOTHING, (*MODELS, "-o", "ask.jsonl")),
    "output of no known type": (NOTHING, (*MODELS, "-o", "best.xlsx")),
    "output below a file": (NOTHING, (*MODELS, "-o", "ask.jsonl/best.parquet")),
    "output folder of others": (NOTHING, (*MODELS, "-o", "gen")),
    "output in the pool": (NOTHING, (*MODELS, "-o", "ask.pool/best.parquet", "--pool", "ask.pool")),
    "pool is a file": (lambda folder: (folder / "ask.pool").write_text("x"), MODELS),
    "pool is a folder of others": (closed, MODELS),
    "pool of other settings": (other_pool, MODELS),
    "pool that is held": (held, MODELS),
    "pool.json damaged": (
        lambda folder: (other_pool(folder), (folder / "ask.pool/pool.json").write_text("{")),
        MODELS,
    ),
    "no generator": (NOTHING, ("-m", "./nowhere", *RULE)),
    "hub without network": (NOTHING, ("-m", "org/no-such-model", *RULE)),
    "generator without config": (lambda f: (f / "gen/config.json").unlink(), ONLY_RULE),
    "generator without weights": (lambda f: (f / "gen/model.safetensors").unlink(), ONLY_RULE),
    "generator cut off": (lambda f: cut(f / "gen/model.safetensors"), ONLY_RULE),
    "no template file": (NOTHING, (*ONLY_RULE, "--chat-template", "none.jinja")),
    "raw and a system prompt": (NOTHING, (*ONLY_RULE, "--raw", "--system-prompt", "x")),
    "adapter without config": (NOTHING, (*ONLY_RULE, "--lora", "gen")),
    "flag of vllm": (NOTHING, (*ONLY_RULE, "--tensor-parallel-size", "2")),
    "generator as a reward model": (NOTHING, ("-m", "gen", "-r", "gen")),
    "reward model cut off": (lambda f: cut(f / "rm/model.safetensors"), MODELS),
    "reward model's config is no JSON": (lambda f: cut(f / "rm/config.json"), MODELS),
    "two labels": (two_labels, MODELS),
    "no reward template": (NOTHING, (*MODELS, "--reward-template", "none.jinja")),
    "unknown rule": (NOTHING, ("-m", "gen", "-r", "rule:lenght")),
    "rule without its option": (NOTHING, ("-m", "gen", "-r", "rule:length")),
    "two of one name": (NOTHING, ("-m", "gen", *RULE, *RULE)),
    "several and none named": (NOTHING, ("-m", "gen", "-r", "a=rm", "-r", "b=rm")),
    "weight of nobody": (NOTHING, (*MODELS, "--aggregate", "sum", "--weight", "x=2")),
    "penalty that does nothing": (NOTHING, (*MODELS, "--uwo-penalty", "2")),
    "flag of models for a rule": (NOTHING, (*ONLY_RULE, "--reward-max-length", "9")),
    "steps of none": (NOTHING, (*MODELS, "--step-separator", "|")),
    "no server": (
        NOTHING,
        ("-m", "gen", "-r", "server:http://127.0.0.1:9", "--server-patience-s", "0"),
    ),
    "no room side by side": (NOTHING, (*MODELS, "--placement", "stream", "--cpus-per-worker", ALL)),
}
ENGINES: dict[str, tuple[str, ...]] = {
    "flag of ray": ("--ray-address", "auto"),
    "range of workers without ray": ("--num-workers", "2..8"),
    "more workers than cores": ("--num-workers", "10000"),
    "more cores than there are": ("--cpus-per-worker", "10000"),
    "more accelerators than there are": ("--gpus-per-worker", "10000"),
}
FAULTS |= {name: (NOTHING, (*MODELS, *flags)) for name, flags in ENGINES.items()}


@pytest.mark.parametrize("name", FAULTS)
def test_what_ends_the_run_is_found_in_the_same_words(here: Path, name: str) -> None:
    fault, flags = FAULTS[name]
    fault(here)
    flags = (*(FLAGS if "-o" not in flags else FLAGS[:-2]), *flags)
    before = pool_files(here)

    code, _, stderr = called("select", "ask.jsonl", *flags)
    result = validated("ask.jsonl", *flags)

    said = stderr[stderr.index("error: ") :].strip()
    assert said in errors(result)
    assert result["exit_code"] == code in (1, 2)
    assert pool_files(here) == before  # neither has written anything


@pytest.mark.parametrize("name", ENGINES)
def test_a_dry_run_refuses_the_workers_that_the_run_refuses(here: Path, name: str) -> None:
    flags = (*MODELS, *FLAGS, *ENGINES[name])
    for command, own in (("select", flags), ("generate", ("-m", "gen", *ENGINES[name]))):
        code, stdout, stderr = called(command, "ask.jsonl", *own, "--dry-run")
        assert (code, stdout) == (2, ""), name
        assert stderr == called(command, "ask.jsonl", *own)[2]


@pytest.mark.parametrize("command", ["score", "filter", "build-dpo", "convert"])
def test_placing_what_is_not_sampled_is_refused_first(here: Path, command: str) -> None:
    write_lines(here / "given.jsonl", [{"prompt": "a", "responses": ["x", "yy"]}])
    flags = ("given.jsonl", "--source-kind", "responses", "--placement", "in-turn")
    said = [called(command, *flags, *more) for more in ((), ("--dry-run",))]
    assert said[0] == said[1]
    assert said[0][:2] == (2, "")
    assert said[0][2].strip() in errors(validated(*flags))
    assert not (here / "given.pool").exists()


def test_of_a_pool_its_scorers_workers_are_looked_at(here: Path, pool: Path) -> None:
    more = ("--num-workers", "10000")
    assert called("score", pool, *RULE, *more)[2].strip() in errors(validated(pool, *RULE, *more))
    assert called("select", pool, "--dry-run", *more)[0] == 0  # no more processes than cores
    assert validated(pool, *more)["exit_code"] == 0
    for idle in (("--placement", "stream"), ("--gpus-per-worker", "1"), ("--ray-address", "auto")):
        assert called("select", pool, *idle)[2].strip() in errors(validated(pool, *idle)), idle


RAY = ("--engine", "ray", "--num-workers", "2")


def test_ray_that_is_not_installed_and_a_cluster_that_is_not_there(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ("given.jsonl", *RULE, "--pool", "given.pool")
    write_lines(here / "given.jsonl", [{"prompt": "a", "responses": ["x", "yy"]}])
    away = (*given, *RAY, "--ray-address", "127.0.0.1:9")
    found = errors(validated(*away))
    assert not (here / "given.pool").exists()
    assert "no Ray cluster answers" in found[0]
    assert called("score", *away)[2].strip().endswith(found[0])
    (here / "none").mkdir()
    (here / "none/ray.py").write_text("raise ModuleNotFoundError('there is no ray here')")
    monkeypatch.syspath_prepend(here / "none")
    (found,) = errors(validated(*given, *RAY))
    assert "Ray is not installed" in found
    assert called("score", *given, *RAY)[2].strip().endswith(found)


@pytest.mark.slow
def test_a_cluster_is_asked_whether_it_can_hold_a_worker_and_all_stages(here: Path) -> None:
    with ray_cluster(2) as cluster:
        ask = ("ask.jsonl", *MODELS, *FLAGS[2:], *RAY, "--ray-address", cluster.address)
        said = {one["text"] for one in validated(*ask)["findings"] if one["check"] == "room"}
        assert said == {"the Ray cluster answers, and one of its nodes can hold a worker"}
        stream = (*ask, "--placement", "stream")
        (found,) = errors(validated(*stream))
        assert "all stages together need 3 CPUs, the cluster has 2" in found
        (found,) = errors(validated(*ask, "--cpus-per-worker", "3"))
        assert "a worker with 3 CPUs is more than any node can hold" in found
        assert not cluster.left()


def test_all_findings_are_listed_not_only_the_first(here: Path) -> None:
    two_labels(here)
    cut(here / "gen/model.safetensors")
    other_pool(here)
    flags = ("-m", "gen", "-r", "rm", "-r", "x=./nowhere", "--rank-by", "x", "--pool", "ask.pool")
    flags += ("-o", "ask.pool/x.csv", "--top-k", "-1", "--min-p", "3")
    result = validated("ask.jsonl", *flags)
    whats = [one["text"] for one in result["findings"] if one["status"] == "failed"]
    for what in (
        "--top-k", "--min-p", "in each other", "2 labels", "no model './nowhere'", "not the one",
    ):  # fmt: skip
        assert sum(what in one for one in whats) == 1, (what, whats)
    assert result["input_rows"] == 3


def test_a_run_that_can_start_is_told_to(here: Path) -> None:
    code, stdout, stderr = called("validate", "ask.jsonl", *MODELS, *FLAGS)
    assert code == 0, stdout
    assert "warning" not in stdout
    assert "findings, all well" in stdout
    assert "the longest" in stdout
    assert "3 prompts × 2 candidates × (1,024 tokens × 9 + 64 bytes)" in stdout
    assert "prompts kept" in stderr
    assert {path.name for path in here.iterdir()} == {"ask.jsonl", "gen", "rm"}
    assert called("validate", "ask.jsonl", *MODELS, *FLAGS, "-q")[1].count("\n") == 1


def test_there_is_no_dry_run_of_a_dry_run(here: Path) -> None:
    code, _, stderr = called("validate", "ask.jsonl", *ONLY_RULE, "--dry-run")
    assert (code, "No such option" in stderr) == (2, True)


def test_drops_beyond_the_limit_end_with_3(here: Path) -> None:
    with (here / "ask.jsonl").open("a") as file:
        file.write('oops\n{"id": "p9", "prompt": " "}\n')
    flags = ("ask.jsonl", *ONLY_RULE, *FLAGS)
    for allowed, code in (("2", 0), ("40%", 0), ("1", 3), ("39%", 3)):
        result = validated(*flags, "--max-drops", allowed)
        assert (result["exit_code"], result["input_rows"], result["kept_rows"]) == (code, 5, 3)
        assert result["drops"] == {"malformed_json": 1, "empty_prompt": 1}


GIVEN: dict[str, list[Any]] = {}
GIVEN["lists"] = [
    {"prompt": "a", "responses": ["x", "", 3], "scores": [1, 2, 3]},
    {"prompt": "", "responses": ["x"]},
    {"prompt": "b", "responses": []},
    {"prompt": "c", "responses": ["y", "y"]},
    {"prompt": "d"},
]
GIVEN["rows that stand apart"] = [
    {"prompt": text, "response": f"{n}"} for n, text in enumerate(["a", "b", "a", "", "b", "a"])
]


def test_no_room_to_sort_rows_that_stand_apart_is_no_failure(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_lines(here / "given.jsonl", GIVEN["rows that stand apart"])
    found = validated("given.jsonl", *RULE)
    assert "to sort them first" in found["findings"][-1]["text"]
    monkeypatch.setattr(tempfile, "tempdir", "/proc")  # where nobody can make a folder
    found = validated("given.jsonl", *RULE)
    assert found["exit_code"] == 0, errors(found)
    said = {one["check"]: (one["status"], one["text"]) for one in found["findings"]}
    assert said["input"][0] == said["disk"][0] == "skipped"
    assert "no room to bring them together in /proc" in said["input"][1]


def test_what_a_killed_look_left_is_removed(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_lines(here / "given.jsonl", GIVEN["rows that stand apart"])
    monkeypatch.setattr(tempfile, "tempdir", str(here / "tmp"))
    left = here / f"tmp/.bon-validate.scratch.{process_tag(2**22 + 1)}.tmp"
    left.mkdir(parents=True)
    validated("given.jsonl", *RULE)
    assert list((here / "tmp").iterdir()) == []


@pytest.mark.parametrize("name", GIVEN)
def test_given_responses_are_counted_as_the_run_counts_them(here: Path, name: str) -> None:
    write_lines(here / "given.jsonl", GIVEN[name])
    found = validated("given.jsonl", *RULE, "-o", "out.parquet")
    assert found["kind"] == "responses"
    done = bon_json("score", "given.jsonl", *RULE, cwd=here)
    assert {name: found[name] for name in BOOKS} == {name: done[name] for name in BOOKS}
    assert found["drop_examples"] == done["drop_examples"]
    assert done["drops"]
    assert validated("given.jsonl", *RULE)["exit_code"] == 0  # the pool that was made fits
    assert {path.name for path in here.glob("*.pool")} == {"given.pool"}


def test_a_server_is_asked_for_its_model_and_samples_nothing(here: Path) -> None:
    with FakeServer(OpenAI()) as server:
        flags = ("-m", f"server:{server.url}", *RULE, "-n", "2", "-o", "out.parquet")
        result = validated("ask.jsonl", *flags)
        assert (result["exit_code"], result["kept_rows"]) == (0, 3)
        assert server.posts == []
    (said,) = [one["text"] for one in result["findings"] if one["status"] == "skipped"]
    assert "the server templates the prompts" in said


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with responses and their pool of two parts, scored by a rule."""
    folder = tmp_path_factory.mktemp("made")
    rows = [{"prompt": f"{n}", "responses": ["x", "yy"]} for n in "abc"]
    write_lines(folder / "given.jsonl", rows)
    bon_json("score", "given.jsonl", *RULE, "--part-size", "2", cwd=folder)
    return folder


@pytest.fixture
def pool(here: Path, made: Path) -> Path:
    """Copies of them."""
    return shutil.copytree(made, here, dirs_exist_ok=True) / "given.pool"


def test_a_pool_is_read_to_its_end(here: Path, pool: Path) -> None:
    before = pool_files(pool)
    result = validated(pool, "-o", "out.parquet")
    assert result["exit_code"] == 0, errors(result)
    assert [result[name] for name in BOOKS] == [3, 3, {}, {}]
    assert [one["text"] for one in result["findings"] if "parts" in one["text"]] == [
        "candidates: 2 of 2 parts are there",
        "scores/rule-length: 2 of 2 parts are there",
    ]
    assert pool_files(pool) == before


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 8
    path.write_bytes(content)


@pytest.mark.parametrize("source", ["given.pool", "given.jsonl"])
def test_every_damaged_part_is_named(here: Path, pool: Path, source: str) -> None:
    names = ["prompts/part-00001", "candidates/part-00000", "scores/rule-length/part-00001"]
    for name in names:
        flip(pool / f"{name}.parquet")
    result = validated(source, *(RULE if source.endswith("jsonl") else ()))
    assert result["exit_code"] == 1
    wheres = [one["where"] for one in result["findings"] if one["status"] == "failed"]
    assert [str(Path(where)).split("given.pool/")[1] for where in wheres] == [
        f"{name}.parquet" for name in names
    ]
    mended = validated("given.jsonl", *RULE, "--repair")
    warned = [one["text"] for one in mended["findings"] if one["status"] == "warning"]
    assert (mended["exit_code"], len(warned)) == (0, 3)
    assert not list((pool / ".bon").glob("damaged*"))


def truncated_candidates(pool: Path) -> None:
    truncate(pool / "candidates/part-00000.parquet")


def grown_and_damaged(pool: Path) -> None:
    with (pool.parent / "given.jsonl").open("a") as file:
        file.write('{"prompt": "d", "responses": ["x"]}\n')
    flip(pool / "prompts/part-00001.parquet")


def truncated_manifest(pool: Path) -> None:
    truncate(pool / "pool.json")


@pytest.mark.parametrize("damage", [truncated_candidates, grown_and_damaged, truncated_manifest])
def test_what_repair_mends_is_no_failure(
    here: Path, pool: Path, damage: Callable[[Path], None]
) -> None:
    damage(pool)
    run = ("given.jsonl", *RULE, "--pool", pool)
    before = pool_files(pool)
    assert validated(*run)["exit_code"] == 1
    result = validated(*run, "-o", "out.parquet", "--repair")
    assert result["exit_code"] == 0, errors(result)
    assert "--repair" in " ".join(
        one["text"] for one in result["findings"] if one["status"] == "warning"
    )
    assert pool_files(pool) == before
    assert called("score", *run, "--repair")[0] == 0
    assert validated(*run)["exit_code"] == 0


@pytest.mark.parametrize("is_mended", [True, False])
def test_repair_of_a_source_mends_what_the_run_makes(
    here: Path, pool: Path, is_mended: bool
) -> None:
    truncate(pool / ("scores/rule-length" if is_mended else "candidates") / "part-00000.parquet")
    run = (pool, *RULE, "--repair")
    assert validated(*run)["exit_code"] == called("score", *run)[0] == (0 if is_mended else 1)


def test_a_lost_pool_json_without_a_copy_ends_both(here: Path, pool: Path) -> None:
    truncate(pool / "pool.json")
    truncate(pool / ".bon/pool.json")
    run = ("given.jsonl", *RULE, "--repair")
    assert called("score", *run)[2].strip() in errors(validated(*run))


def test_parts_that_are_to_be_made_are_counted(here: Path, pool: Path) -> None:
    (pool / "scores/rule-length/part-00001.parquet").unlink()
    result = validated(pool, "-o", "out.parquet")
    assert "scores/rule-length: 1 of 2 parts are there" in json.dumps(result)
    assert called("select", pool, "-o", "out.parquet")[2].strip() in errors(result)
    assert validated(pool, *RULE)["exit_code"] == 0  # what `bon score` would do


def test_a_pool_that_a_run_holds(here: Path, pool: Path) -> None:
    with PoolLock(pool / ".bon/lock"):
        result = validated("given.jsonl", *RULE)
        assert "another run is writing to this pool" in errors(result)[0]
        with pytest.raises(BlockingIOError), PoolLock(pool / ".bon/lock"):
            pass  # the look has not freed it
    assert validated("given.jsonl", *RULE)["exit_code"] == 0


@pytest.fixture
def begun(here: Path) -> Iterator[Path]:
    """The pool of `ask.jsonl`, whose settings are those of the CLI, with fake candidates."""
    from support.fakes import FakeGenerator, InlineEngine, ignore

    from bon.cli.build import generation_plan, prompts_plan
    from bon.config import GenerateSettings, InputSettings
    from bon.pipeline.run import generate, open_pool, read_prompts

    prompts = prompts_plan("ask.jsonl", InputSettings(), None)
    real = generation_plan(
        GenerateSettings(model="gen", num_candidates=2, generator_engine="transformers")
    )
    pool = read_prompts(open_pool(here / "ask.pool", prompts, real), prompts)
    fake = type(real)(FakeGenerator(), real.fingerprint, 2, 0)
    generate(pool, fake, InlineEngine(), None, ignore)
    yield here / "ask.pool"


def test_an_input_that_changed_is_found(here: Path, begun: Path) -> None:
    flags = ("ask.jsonl", *ONLY_RULE, *FLAGS)
    assert validated(*flags)["exit_code"] == 0
    rows = (here / "ask.jsonl").read_text()
    (here / "ask.jsonl").write_text(rows + '{"id": "p9", "prompt": "more"}\n')
    assert validated(*flags)["exit_code"] == 0  # it only grew
    (here / "ask.jsonl").write_text(rows.replace("say 1", "tell 1") + "oops\n")
    before = pool_files(begun)
    result = validated(*flags)
    assert result["exit_code"] == 2
    assert (result["input_rows"], result["drops"]) == (4, {"malformed_json": 1})  # all were read
    assert called("select", *flags)[2].strip().splitlines()[-4:] == errors(result)[0].splitlines()
    assert pool_files(begun) == before


def test_what_was_sampled_costs_no_room_any_more(here: Path, begun: Path) -> None:
    assert Pool.open(begun).parts() == [0]
    text = next(
        one["text"]
        for one in validated("ask.jsonl", *ONLY_RULE, *FLAGS)["findings"]
        if one["check"] == "disk"
    )
    assert "(0 prompts × 2 candidates" in text

"""Models whose files would run code: pickles, code of their own, templates, adapters.

Forced: each tries for real to leave a mark on the disk, through the real command; none does.
"""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from support.commands import GENERATOR, REWARD
from support.terminal import environment

from bon.scorers.judge import JudgeOptions, read_question

MARK = "was-here"
EVIL_MODULE = "from pathlib import Path\nPath({mark!r}).touch()\n"
PROBES = (
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.__class__.__base__ }}",
    "{{ cycler.__init__.__globals__.os.system('touch {mark}') }}",
    "{{ lipsum.__globals__['os'].popen('touch {mark}').read() }}",
    "{% set _ = messages.append(1) %}{{ messages }}",
    "{{ namespace.__init__.__globals__ }}",
)


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.mark,)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    row = {"id": "a", "prompt": "Say a word.", "responses": ["one", "two words"]}
    (tmp_path / "in.jsonl").write_text(json.dumps(row) + "\n")
    for source, name in ((REWARD, "reward"), (GENERATOR, "generator")):
        shutil.copytree(source, tmp_path / name)
        for path in [tmp_path / name, *(tmp_path / name).iterdir()]:
            path.chmod(0o755)
    return tmp_path


def run(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bon", *map(str, arguments)],
        cwd=cwd, env=environment(), capture_output=True, text=True, timeout=300, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


def score(place: Path, *more: object) -> subprocess.CompletedProcess[str]:
    arguments = ("-r", "r=reward", "--reward-device", "cpu", "--pool", "a.pool", *more)
    return run("score", "in.jsonl", *arguments, cwd=place)


def generate(place: Path, *more: object) -> subprocess.CompletedProcess[str]:
    sampling = ("-n", 2, "--max-tokens", 4, "--generator-engine", "transformers")
    return run("generate", "in.jsonl", "-m", "./generator", *sampling, *more, cwd=place)


def scores(place: Path) -> list[float]:
    found = pq.read_table(place / "a.pool" / "scores" / "r" / "part-00000.parquet")
    return list(found["score"].to_pylist())


def as_pickle(folder: Path, mark: Path | None = None) -> None:
    """Put a model's weights into pytorch_model.bin; with a mark, make it a trap."""
    import torch
    from safetensors.torch import load_file

    weights = folder / "model.safetensors"
    if mark is None:
        torch.save(load_file(weights), folder / "pytorch_model.bin")
    else:
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"a": Evil(mark)}, protocol=2))
    weights.unlink()


def test_the_trap_snaps(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Evil(tmp_path / MARK)))
    assert (tmp_path / MARK).exists()


@pytest.mark.faults
def test_a_reward_model_that_is_a_pickle(place: Path) -> None:
    assert score(place).returncode == 0
    want = scores(place)
    shutil.rmtree(place / "a.pool")
    as_pickle(place / "reward")
    done = score(place)
    assert done.returncode == 1
    assert "the model's weights are pickles" in done.stderr
    assert "--reward-allow-pickle" in done.stderr
    done = score(place, "--reward-allow-pickle")
    assert done.returncode == 0, done.stderr
    assert scores(place) == pytest.approx(want, abs=1e-5)


@pytest.mark.faults
@pytest.mark.parametrize("command", ["score", "generate"])
def test_an_evil_pickle_runs_nothing_even_where_pickles_are_allowed(
    command: str, place: Path
) -> None:
    is_score = command == "score"
    as_pickle(place / ("reward" if is_score else "generator"), place / MARK)
    run_it: Callable[..., subprocess.CompletedProcess[str]] = score if is_score else generate
    done = run_it(place)
    assert done.returncode == 1
    assert "pickles" in done.stderr
    done = run_it(place, "--reward-allow-pickle" if is_score else "--allow-pickle")
    assert done.returncode == 1, done.stderr
    assert "this is a bug" not in done.stderr
    assert not (place / MARK).exists()


@pytest.mark.faults
def test_a_pickle_beside_safetensors_is_not_read(place: Path) -> None:
    trap = pickle.dumps({"a": Evil(place / MARK)}, protocol=2)
    for name in ("pytorch_model.bin", "adapter_model.bin", "other.pt", "optimizer.pt"):
        (place / "generator" / name).write_bytes(trap)
        if name != "adapter_model.bin":  # by itself, it is an adapter that is a pickle
            (place / "reward" / name).write_bytes(trap)
    (place / "generator" / "adapter_model.bin").unlink()
    assert score(place).returncode == 0
    done = generate(place)
    assert done.returncode == 0, done.stderr
    assert not (place / MARK).exists()


@pytest.mark.faults
@pytest.mark.parametrize("known", [True, False], ids=["known type", "unknown type"])
def test_code_of_a_repository_is_not_run_and_nobody_is_asked(known: bool, place: Path) -> None:
    for name in ("reward", "generator"):
        folder = place / name
        code = EVIL_MODULE.format(mark=str(place / MARK))
        for module in ("modeling_evil.py", "configuration_evil.py", "tokenization_evil.py"):
            (folder / module).write_text(code)
        config = json.loads((folder / "config.json").read_text())
        config["auto_map"] = {
            "AutoConfig": "configuration_evil.C",
            "AutoModelForCausalLM": "modeling_evil.M",
            "AutoModelForSequenceClassification": "modeling_evil.M",
        }
        config["attn_implementation"] = config["_attn_implementation"] = "evil/kernel"
        if not known:
            config["model_type"] = "evil"
        (folder / "config.json").write_text(json.dumps(config))
        path = folder / "tokenizer_config.json"
        said = json.loads(path.read_text())
        said["auto_map"] = {"AutoTokenizer": ["tokenization_evil.T", None]}
        path.write_text(json.dumps(said))
    for done in (score(place), generate(place)):
        assert done.returncode == (0 if known else 1), done.stderr
        assert "this is a bug" not in done.stderr
    assert not (place / MARK).exists()


@pytest.mark.faults
def test_a_chat_template_reaches_nothing(place: Path) -> None:
    probes = [probe.replace("{mark}", str(place / MARK)) for probe in PROBES]
    rows = [{"id": str(n), "prompt": str(n)} for n in range(len(probes))]
    (place / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    cases = "".join(
        f"{{% if messages[0]['content'] == '{number}' %}}{probe}{{% endif %}}"
        for number, probe in enumerate(probes)
    )
    (place / "t.jinja").write_text("x" + cases)
    done = generate(place, "--chat-template", "t.jinja", "--pool", "a.pool", "--json",
                    "--max-drops", "100%")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["drops"] == {"template_error": len(probes)}
    assert not (place / MARK).exists()


@pytest.mark.parametrize("probe", PROBES)
def test_a_judges_template_reaches_nothing(probe: str, tmp_path: Path) -> None:
    from support.judges import group

    file = tmp_path / "t.jinja"
    file.write_text(probe.replace("{mark}", str(tmp_path / MARK)) + "{{ response }}")
    filled = read_question(JudgeOptions(template=file)).fill(group("a"), response="a")
    assert getattr(filled, "reason", filled) == "template_error"
    assert not (tmp_path / MARK).exists()


@pytest.mark.faults
def test_an_adapter_that_names_a_module_to_import_is_refused(place: Path) -> None:
    (place / "evil_core.py").write_text(EVIL_MODULE.format(mark=str(place / MARK)))
    adapter = place / "adapter"
    adapter.mkdir()
    said = {"peft_type": "LORA", "r": 1, "megatron_config": {"a": 1}, "megatron_core": "evil_core"}
    (adapter / "adapter_config.json").write_text(json.dumps(said))
    from safetensors.numpy import save_file

    save_file({}, adapter / "adapter_model.safetensors")
    done = generate(place, "--lora", "./adapter")
    assert done.returncode == 1
    assert "names a Python module" in done.stderr
    assert not (place / MARK).exists()

"""The Makefile: what it lists, and when its rules have something to do."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bon.config import DEFAULT_MODEL, DEFAULT_REWARD, GenerateSettings

ROOT = Path(__file__).parent.parent
TARGETS = {
    *("help", "setup", "demo", "test", "test-faults", "test-consumers", "soak", "check", "format"),
    *("example-dpo", "bench-generate", "bench-curation", "bench-ray", "bench-scale", "bench-score"),
    *("sample-models", "clean"),
}
FAKE_BON = f"""#!{sys.executable}
import pathlib, sys
arguments = sys.argv[1:]
pathlib.Path("calls").open("a").write(" ".join(arguments) + "\\n")
pool = pathlib.Path(arguments[arguments.index("--pool") + 1])
pool.mkdir(exist_ok=True)
pathlib.Path(arguments[arguments.index("-o") + 1]).write_text("")
sys.exit("--fail" in arguments)
"""


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run make in a folder, with nothing of this process's make or settings in its way."""
    own = {"MODEL", "REWARD", "N", "SAMPLING", "SELECTION", "PAIRS", "FILTERS", "BON", "BON_EXTRA"}
    own |= {"MAKEFLAGS"}
    environment = {k: v for k, v in os.environ.items() if k not in own | {"MFLAGS", "MAKELEVEL"}}
    return subprocess.run(
        ["make", *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )


def bon_commands(result: subprocess.CompletedProcess[str]) -> list[str]:
    """Return the `bon` commands that make printed, one line each."""
    assert result.returncode == 0, result.stderr
    lines = re.sub(r"\s*\\\n\s*", " ", result.stdout).splitlines()
    return [
        re.sub(" +", " ", line)
        for line in lines
        if re.search("bon (select|build-dpo|filter|generate|score)", line)
    ]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Another project: a Makefile that includes ours, prompts, and a `bon` that takes notes."""
    bon = tmp_path / "bin" / "bon"
    bon.parent.mkdir()
    bon.write_text(FAKE_BON)
    bon.chmod(0o755)
    (tmp_path / "Makefile").write_text(
        f"BON := bin/bon\ninclude {ROOT / 'pipelines.mk'}\nall: out/p.best.parquet\n"
    )
    (tmp_path / "p.jsonl").write_text('{"prompt": "a"}\n')
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "q.jsonl").write_text('{"prompt": "a"}\n')
    return tmp_path


def calls(project: Path) -> list[str]:
    path = project / "calls"
    return path.read_text().splitlines() if path.exists() else []


def test_make_alone_lists_every_target_with_a_line() -> None:
    listed = dict(re.findall(r"^  (\S+) +(\S.+)$", make(ROOT).stdout, re.MULTILINE))
    phony = re.findall(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(" ".join(phony).split()) == TARGETS
    results = {f"out/NAME.{kind}.parquet" for kind in ("best", "dpo", "filtered")}
    assert set(listed) == TARGETS | results


def test_the_rule_is_the_bon_command_with_its_variables(project: Path) -> None:
    result = make(project, "-n", "out/p.best.parquet", "MODEL=my/m", "REWARD=a b=c", "N=5")
    (command,) = bon_commands(result)
    assert re.fullmatch(
        r"bin/bon select p\.jsonl --model 'my/m' --reward a --reward b=c -n 5 "
        r"--pool out/p\.[0-9a-f]{8}\.pool -o out/p\.best\.parquet",
        command,
    )


@pytest.mark.parametrize(
    ("kind", "command", "variable"),
    [("dpo", "build-dpo", "PAIRS"), ("filtered", "filter", "FILTERS")],
)
def test_every_kind_of_result_comes_from_the_same_pool(
    project: Path, kind: str, command: str, variable: str
) -> None:
    (best,) = bon_commands(make(project, "-n"))
    (other,) = bon_commands(make(project, "-n", f"out/p.{kind}.parquet", f"{variable}=--some flag"))
    (pool,) = re.findall(r"--pool \S+", best)
    assert other.startswith(f"bin/bon {command} p.jsonl ")
    assert other.endswith(f" --some flag {pool} -o out/p.{kind}.parquet")


def test_kinds_of_results_do_not_disturb_each_other(project: Path) -> None:
    targets = [f"out/p.{kind}.parquet" for kind in ("best", "dpo", "filtered")]
    assert make(project, *targets).returncode == 0
    assert make(project, *targets).returncode == 0
    assert [call.split()[0] for call in calls(project)] == ["select", "build-dpo", "filter"]
    make(project, *targets, "PAIRS=--strategy sigma")
    assert [call.split()[0] for call in calls(project)][3:] == ["build-dpo"]


def test_three_steps_sample_and_score_once(project: Path) -> None:
    file = str(ROOT / "examples" / "three_steps.mk")
    pool = make(project, "-n", "-f", file, "pool", "PROMPTS=p.jsonl", "BON=bin/bon")
    assert [line.split()[1] for line in bon_commands(pool)] == ["generate", "score"]
    (project / "out" / "p.pool").mkdir(parents=True)
    (project / "out" / "p.pool" / "pool.json").touch()
    sets = make(project, "-n", "-f", file, "sets", "PROMPTS=p.jsonl", "STRATEGIES=sigma verified")
    assert bon_commands(sets) == [
        "bon build-dpo out/p.pool --strategy sigma -o out/p.sigma.dpo.parquet",
        "bon build-dpo out/p.pool --strategy verified -o out/p.verified.dpo.parquet",
    ]


def test_defaults_are_those_of_bon(project: Path) -> None:
    (command,) = bon_commands(make(project, "-n"))
    n = GenerateSettings().num_candidates
    assert f"--model '{DEFAULT_MODEL}' --reward {DEFAULT_REWARD} -n {n} " in command


def test_our_own_makefile_has_the_rule(tmp_path: Path) -> None:
    for name in ("Makefile", "pipelines.mk", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "setup_env.py", tmp_path / "scripts")
    (tmp_path / "p.jsonl").touch()
    result = make(tmp_path, "-n", "out/p.best.parquet")
    assert bon_commands(result)[0].startswith(".venv/bin/bon select p.jsonl ")
    assert "scripts/setup_env.py" in result.stdout


def test_set_up_is_asked_only_when_its_inputs_are_newer(tmp_path: Path) -> None:
    for name in ("Makefile", "pipelines.mk", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "setup_env.py").write_text("print('asked')\n")
    (tmp_path / ".venv").mkdir()
    python = f"PYTHON={sys.executable}"
    assert "asked" in make(tmp_path, "setup", python).stdout
    (tmp_path / ".venv" / ".bon-setup").touch()
    assert "asked" not in make(tmp_path, "setup", python).stdout
    assert "asked" in make(tmp_path, "setup", python, "BON_EXTRA=cpu").stdout
    os.utime(tmp_path / ".venv" / ".bon-setup", (0, 0))
    assert "asked" in make(tmp_path, "setup", python).stdout


def test_nothing_runs_twice(project: Path) -> None:
    assert make(project).returncode == 0
    again = make(project)
    assert "up to date" in again.stdout or "Nothing to be done" in again.stdout
    assert len(calls(project)) == 1


@pytest.mark.parametrize(
    ("variable", "same_pool"),
    [
        ("N=2", False),
        ("MODEL=other", False),
        ("SAMPLING=--top-p 0.9 --stop 'it''s'", False),
        ("REWARD=other", True),
        ("SELECTION=--strategy top-k", True),
    ],
)
def test_another_variable_is_noticed(project: Path, variable: str, same_pool: bool) -> None:
    for arguments in ([], [variable], [variable], []):
        assert make(project, *arguments).returncode == 0
    assert len(calls(project)) == 3
    pools = {re.search(r"--pool (\S+)", call)[1] for call in calls(project)}  # type: ignore[index]
    assert len(pools) == (1 if same_pool else 2)


def test_a_changed_input_is_noticed(project: Path) -> None:
    make(project)
    os.utime(project / "p.jsonl", (4e9, 4e9))
    make(project)
    assert len(calls(project)) == 2


def test_a_failed_run_is_run_again(project: Path) -> None:
    assert make(project, "SELECTION=--fail").returncode != 0
    assert make(project, "SELECTION=--fail").returncode != 0
    assert len(calls(project)) == 2


def test_a_run_with_too_many_drops_is_run_again(project: Path) -> None:
    """Exit 3 comes after the file is written, so the file alone looks up to date."""
    assert make(project).returncode == 0
    os.utime(project / "out" / "p.best.parquet", (0, 0))
    bon = project / "bin" / "bon"
    bon.write_text(FAKE_BON.replace('"--fail" in arguments', "3"))
    assert make(project).returncode != 0
    bon.write_text(FAKE_BON)
    assert make(project).returncode == 0
    assert make(project).returncode == 0
    assert len(calls(project)) == 3


def test_a_model_may_have_a_space_in_its_name(project: Path) -> None:
    assert make(project, "MODEL=my models/it's").returncode == 0
    assert "--model my models/it's --reward" in calls(project)[0]


def test_the_last_pool_has_a_plain_name(project: Path) -> None:
    for target in ("out/p.best.parquet", "out/sub/q.best.parquet"):
        assert make(project, target).returncode == 0
        assert make(project, target, "N=3").returncode == 0
    for plain in (project / "out" / "p.pool", project / "out" / "sub" / "q.pool"):
        assert plain.is_symlink() and plain.is_dir()
        assert f"-n 3 --pool {plain.resolve().relative_to(project)} " in "\n".join(calls(project))


def test_a_pool_that_is_no_link_is_left_alone(project: Path) -> None:
    own = project / "out" / "p.pool"
    own.mkdir(parents=True)
    assert make(project).returncode == 0
    assert not own.is_symlink() and not list(own.iterdir())

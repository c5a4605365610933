"""Escapes, control characters and markup in whatever comes from files, models and servers.

Forced: they stand in prompts, responses, ids, columns, values, names of files, settings and broken
rows, and every command is run on them, into pipes and under a terminal. Nothing of it may come out
as more than text.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from support.terminal import environment, on_terminal, unsafe

ESCAPES = "\x1b]0;title\x07\x1b[6n\x9b31m\u202e\u2066\x7f\r\x08\u2028"
MARKUP = "[bold]LOUD[/bold][link=http://evil]l[/link]"
HOSTILE = ESCAPES + MARKUP
LENGTH = f"rule:length?max={len(HOSTILE) + 1}"
PARSED_COLOUR = "\x1b[1mLOUD"
"""What a terminal is sent where markup was obeyed."""
FILE = "\x1b]0;t\x07\u202e[bold]LOUD[∕bold]"
"""A file's name has no slash and no NUL."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    rows = [
        {
            "prompt": f"{HOSTILE} question {number}",
            "responses": [f"{HOSTILE}{'a' * length}" for length in range(1, 4)],
            "id": f"{number}{HOSTILE}",
            f"column{HOSTILE}": HOSTILE,
        }
        for number in range(3)
    ]
    rows.append({**rows[0], "id": f"bad{HOSTILE}", "prompt": 7})
    rows.append({**rows[0], "id": f"bad2{HOSTILE}", "responses": [{HOSTILE: 1}]})
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    lines.append('{"id": "' + ESCAPES.replace("\u2028", "") + '" broken')
    (folder / f"{FILE}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / f"{FILE}.toml").write_text(f"{json.dumps(HOSTILE)} = 1\n")
    (folder / "in.jsonl").write_bytes((folder / f"{FILE}.jsonl").read_bytes())
    done = run("score", f"{FILE}.jsonl", "-r", LENGTH, "--pool", "a.pool", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def run(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bon", *map(str, arguments)],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        timeout=200,
        check=False,
    )


def first_id(folder: Path) -> str:
    part = pq.read_table(folder / "a.pool" / "prompts" / "part-00000.parquet")
    return str(part["prompt_id"][0].as_py())


COMMANDS = {
    "score": (0, ("score", f"{FILE}.jsonl", "-r", LENGTH, "--pool", "new.pool")),
    "score dry run": (0, ("score", f"{FILE}.jsonl", "-r", LENGTH, "--dry-run")),
    "select": (0, ("select", "a.pool", "-o", f"{FILE}.parquet")),
    "select json": (0, ("select", "a.pool", "-o", f"{FILE}.parquet", "--json")),
    "select into a folder": (0, ("select", "a.pool", "-o", "folder")),
    "select csv": (0, ("select", "a.pool", "-o", f"{FILE}.csv")),
    "build-dpo": (0, ("build-dpo", "a.pool", "-o", f"{FILE}.pairs.jsonl")),
    "filter": (0, ("filter", "a.pool", "-o", "f.parquet", "--filter", "length:max_chars=300")),
    "inspect a pool": (0, ("inspect", "a.pool")),
    "inspect a pool, json": (0, ("inspect", "a.pool", "--json")),
    "inspect a prompt": (0, ("inspect", "a.pool", "--prompt", "FIRST")),
    "inspect a file": (0, ("inspect", "best.parquet")),
    "inspect a file, json": (0, ("inspect", "best.parquet", "--json")),
    "convert": (0, ("convert", "best.parquet", "-o", "c.jsonl", "--format", "trl-sft")),
    "validate": (None, ("validate", f"{FILE}.jsonl", "-m", "no/model")),
    "no such input": (1, ("score", f"{FILE}.not", "-r", LENGTH)),
    "no such input, traced": (1, ("score", f"{FILE}.not", "-r", LENGTH, "--debug")),
    "no such prompt": (None, ("inspect", "a.pool", "--prompt", HOSTILE)),
    "no such model": (None, ("select", "in.jsonl", "-m", f"./{FILE}", "-o", "x.parquet")),
    "no such reward": (None, ("score", "in.jsonl", "-r", f"./{FILE}", "--pool", "x.pool")),
    "no such rule": (2, ("score", "in.jsonl", "-r", f"rule:{FILE}", "--pool", "x.pool")),
    "a bad pattern": (2, ("score", "in.jsonl", "-r", f"rule:regex?pattern=({FILE}")),
    "a server's URL": (2, ("score", "in.jsonl", "-r", f"server:http://{FILE}:x")),
    "an unknown key": (2, ("score", "in.jsonl", "-r", LENGTH, "--config",
                           f"{FILE}.toml")),
    "an unknown flag": (2, ("select", "in.jsonl", f"--{FILE}")),
    "an argument too many": (2, ("select", "in.jsonl", f"{FILE}.jsonl")),
    "a bad number": (2, ("select", "in.jsonl", "-n", FILE)),
    "an unknown command": (2, (FILE,)),
    "a hub name": (2, ("select", "a.pool", "-o", "hub", "--push-to-hub", f"a/{FILE}")),
    "a weight": (2, ("select", "a.pool", "-o", "x.parquet", "--weight", f"{FILE}=1")),
    "a bad layout": (2, ("score", "in.jsonl", "-r", LENGTH, "--layout", FILE)),
}  # fmt: skip
QUICK = ("inspect a file", "no such input", "an unknown flag", "an unknown key", "score dry run")


def _cases() -> list[object]:
    quick = [pytest.param(name, id=name) for name in QUICK]
    slow = [name for name in COMMANDS if name not in QUICK]
    return [*quick, *(pytest.param(one, id=one, marks=pytest.mark.faults) for one in slow)]


@pytest.fixture(scope="module")
def best(place: Path) -> Path:
    done = run("select", "a.pool", "-o", "best.parquet", cwd=place)
    assert done.returncode == 0, done.stderr
    return place


def said(name: str, best: Path) -> list[object]:
    return [first_id(best) if word == "FIRST" else word for word in COMMANDS[name][1]]


@pytest.mark.parametrize("name", _cases())
def test_into_pipes(name: str, best: Path) -> None:
    done = run(*said(name, best), cwd=best)
    code = COMMANDS[name][0]
    assert done.returncode == code if code is not None else done.returncode in (0, 1, 2), done
    assert "this is a bug" not in done.stderr
    assert unsafe(done.stderr) == set()
    # the path of a result is for programs: it is exactly what was asked for
    out = done.stdout.replace(f"{FILE}.", "")
    assert unsafe(out) == set()
    if "--json" in COMMANDS[name][1]:
        json.loads(done.stdout)


@pytest.mark.faults
@pytest.mark.parametrize("name", COMMANDS)
def test_on_a_terminal(name: str, best: Path) -> None:
    code, text = on_terminal(*said(name, best), cwd=best)
    wanted = COMMANDS[name][0]
    assert code == wanted if wanted is not None else code in (0, 1, 2), text
    assert unsafe(text, is_terminal=True) == set()
    assert PARSED_COLOUR not in text


def test_a_row_is_shown_with_its_escapes_and_markup_spelled_out(best: Path) -> None:
    code, text = on_terminal("inspect", "best.parquet", cwd=best)
    assert code == 0, text
    assert unsafe(text, is_terminal=True) == set()
    assert "\\x1b]0;title\\x07" in text
    assert "[bold]LOUD[/bold]" in text.replace("\r\n", "")


@pytest.mark.faults
def test_a_dataset_card_has_neither_escapes_nor_markup(best: Path) -> None:
    done = run("select", "a.pool", "-o", "card", cwd=best)
    assert done.returncode == 0, done.stderr
    card = (best / "card" / "README.md").read_text(encoding="utf-8")
    assert unsafe(card) == set()
    assert "LOUD" in card

"""Secrets in the environment, in URLs, in flags, in a config file, and in what servers echo.

Forced: canaries stand in all of these places, runs succeed, fail and are traced, and then every
byte that was printed and every file that was written is searched for them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.judges import ChatServer
from support.servers import Answer, Asked, FakeServer
from support.terminal import environment, on_terminal, unsafe

CANARY = "canary-0x51f3"
"""In every secret: whatever of one is shown, this is."""
KEYS = {
    "HF_TOKEN": f"hf_{CANARY}-hub",
    "OPENAI_API_KEY": f"sk-{CANARY}-openai",
    "BON_SERVER_API_KEY": f"{CANARY}/server+key",
    "WANDB_API_KEY": f"{CANARY}-wandb",
    "MY_PASSWORD": f"{CANARY}-other",
}
JUDGE = "rubric=judge:server:{url}?mode=rubric"
ESCAPES = "\x1b]0;title\x07\x9b31m\u202e[bold]LOUD[/bold]"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    rows = [
        {"id": f"row-{number}", "prompt": f"question {number}", "responses": ["good", "refused"]}
        for number in range(3)
    ]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def run(*arguments: object, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bon", *map(str, arguments)],
        cwd=cwd,
        env=environment(**KEYS, **more),
        capture_output=True,
        encoding="utf-8",
        timeout=200,
        check=False,
    )


def leaks(folder: Path, *texts: str) -> list[str]:
    """Return where the canary is: in a text, in a file of a folder, or in a file's name."""
    found = [text for text in texts if CANARY in text]
    for path in sorted(folder.rglob("*")):
        if CANARY in path.name or (path.is_file() and CANARY.encode() in path.read_bytes()):
            found.append(str(path.relative_to(folder)))
    return found


class Echo:
    """A judge's server that shows in its errors what it was sent, and escapes besides."""

    def __init__(self, **options: Any) -> None:
        self.num_faults = 0
        self.chat = ChatServer(lambda text: "Score: 7", fault=self.fault, **options)

    def fault(self, asked: Asked) -> Answer | None:
        said = f"you sent {asked.headers['Authorization']} {ESCAPES}"
        if asked.path != "/v1/chat/completions":
            return None
        if self.num_faults < 2:
            self.num_faults += 1
            return Answer(said, status=500, headers={"Retry-After": "0"})
        if "refused" in json.dumps(asked.body):
            return Answer({"error": {"message": said}}, status=400)
        return None


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer(Echo().chat) as one:
        yield one


@pytest.mark.faults
@pytest.mark.parametrize("more", [(), ("-v",), ("--debug", "--json"), ("-v", "--debug")], ids=str)
def test_a_run_that_sends_its_key_to_a_server_that_echoes_it(
    more: tuple[str, ...], place: Path, server: FakeServer
) -> None:
    judge = JUDGE.format(url=server.url)
    done = run("score", "in.jsonl", "-r", judge, "--pool", "a.pool", *more, cwd=place)
    assert done.returncode == 0, done.stderr
    sent = {asked.headers.get("Authorization") for asked in server.posts}
    assert sent == {f"Bearer {KEYS['BON_SERVER_API_KEY']}"}  # it was there to be shown
    assert "***" in done.stderr
    assert (place / "a.pool" / "drops").is_dir()
    chosen = run("select", "a.pool", "-o", "card", "--debug", cwd=place)
    assert chosen.returncode == 0, chosen.stderr
    shown = run("inspect", "a.pool", "--json", cwd=place)
    assert leaks(place, done.stdout, done.stderr, chosen.stderr, shown.stdout) == []
    assert unsafe(done.stderr) | unsafe(done.stdout) | unsafe(shown.stdout) == set()


@pytest.mark.faults
@pytest.mark.parametrize("status", [401, 404, 307])
def test_a_server_that_refuses_all_and_echoes_the_key(status: int, place: Path) -> None:
    def reply(asked: Asked) -> Answer:
        said = f"{asked.headers.get('Authorization')} {ESCAPES}"
        where = {"Location": f"http://x/?api_key={KEYS['BON_SERVER_API_KEY']}"}
        return Answer(said, status=status, headers=where if status == 307 else {})

    with FakeServer(reply) as server:
        judge = JUDGE.format(url=server.url)
        arguments = ("score", "in.jsonl", "-r", judge, "--pool", "a.pool", "--debug")
        done = run(*arguments, cwd=place)
        assert done.returncode == 1, done.stderr
        assert server.asked[0].headers["Authorization"].endswith(KEYS["BON_SERVER_API_KEY"])
        code, text = on_terminal(*arguments, cwd=place)
    assert code == 1
    assert leaks(place, done.stdout, done.stderr, text) == []
    assert unsafe(done.stderr) == set()
    assert unsafe(text, is_terminal=True) == set()


LENGTH = ("-r", "rule:length?max=2")
SAID = {
    "a password in a reward's URL": ("score", "in.jsonl", "-r", f"server:http://u:{CANARY}@h:1"),
    "a password in a judge's URL": (
        "score", "in.jsonl", "-r", f"x=judge:server:http://u:{CANARY}@h:1?mode=rubric",
    ),
    "a password in a generator's URL": ("select", "in.jsonl", "-m", f"server:http://u:{CANARY}@h",
                                        "-o", "x.parquet"),
    "a key in a reward's URL": ("score", "in.jsonl", "-r", f"server:http://h?api_key={CANARY}"),
    "a key in a generator's URL": ("select", "in.jsonl", "-m", f"server:http://h?api_key={CANARY}",
                                   "-o", "x.parquet"),
    "a token among engine arguments": ("generate", "in.jsonl", "--engine-args",
                                       f"hf_token=hf_{CANARY}"),
    "a token in the config file": ("generate", "in.jsonl", "--config", "bon.toml"),
    "an unknown key in the config file": ("score", "in.jsonl", *LENGTH, "--config", "other.toml"),
    "a source's URL": ("score", f"https://u:{CANARY}@host/x.jsonl", *LENGTH),
    "a source's query": ("score", f"https://host/x.jsonl?token={CANARY}", *LENGTH),
    "an output's URL": ("score", "in.jsonl", *LENGTH, "--pool", f"s3://k:{CANARY}@bucket/x",
                        "--dry-run"),
    "an unknown flag": ("score", "in.jsonl", f"--api-key={CANARY}"),
    "a model's URL": ("generate", "in.jsonl", "-m", f"https://u:{CANARY}@host/model"),
    "a tokenizer's URL": ("build-dpo", "in.jsonl", *LENGTH, "--tokenizer",
                          f"https://u:{CANARY}@host/t", "--max-length", "9", "-o", "x.jsonl"),
}  # fmt: skip


@pytest.mark.faults
@pytest.mark.parametrize("name", SAID)
def test_what_was_said_with_a_secret_in_it(name: str, place: Path) -> None:
    (place / "bon.toml").write_text(f'[engine_args]\nhf_token = "hf_{CANARY}"\n')
    (place / "other.toml").write_text(f'hub_token = "hf_{CANARY}"\n')
    texts = []
    for more in ((), ("--debug",), ("--dry-run",), ("--dry-run", "--json")):
        done = run(*SAID[name], *more, cwd=place)
        assert "this is a bug" not in done.stderr
        texts += [done.stdout, done.stderr]
    for file in ("bon.toml", "other.toml"):
        (place / file).unlink()
    assert leaks(place, *texts) == []


@pytest.mark.faults
def test_a_hub_that_echoes_the_token(place: Path) -> None:
    def reply(asked: Asked) -> Answer:
        return Answer({"error": f"{asked.headers.get('authorization')} {ESCAPES}"}, status=403)

    made = run("score", "in.jsonl", *LENGTH, "--pool", "a.pool", cwd=place)
    assert made.returncode == 0, made.stderr
    with FakeServer(reply) as hub:
        arguments = ("select", "a.pool", "-o", "card", "--push-to-hub", "org/name", "--debug")
        done = run(*arguments, cwd=place, HF_ENDPOINT=hub.url)
        sent = [asked.headers.get("authorization", "") for asked in hub.asked]
    assert done.returncode == 1
    assert any(KEYS["HF_TOKEN"] in one for one in sent)
    assert leaks(place, done.stdout, done.stderr) == []
    assert unsafe(done.stderr) == set()


@pytest.mark.faults
def test_a_command_line_with_a_secret_is_stored_without_it(place: Path) -> None:
    """The card, the lock and the log keep the command; here the output's name has the key."""
    key = KEYS["WANDB_API_KEY"]
    done = run("score", "in.jsonl", *LENGTH, "--pool", f"{key}.pool", cwd=place)
    assert done.returncode == 0, done.stderr
    pool = place / f"{key}.pool"
    pool.rename(place / "a.pool")
    assert CANARY not in done.stderr
    assert leaks(place) == []
    log = (place / "a.pool" / ".bon" / "run.log").read_text()
    assert '"command": "bon score in.jsonl' in log


@pytest.mark.faults
def test_quotes_around_secrets_leave_the_plan_json(place: Path) -> None:
    secret = f'{CANARY} "quoted" \\ more'
    pattern = f'password="(.*)" {secret}'
    flags = ("--strategy", "majority", "--answer-pattern", pattern, "-o", "x.parquet", "--dry-run")
    for more in ((), ("--json",)):
        done = run("select", "in.jsonl", *LENGTH, *flags, *more, cwd=place, OTHER_SECRET=secret)
        assert done.returncode == 0, done.stderr
        assert leaks(place, done.stdout, done.stderr) == []
    assert json.loads(done.stdout)["settings"]["answer_pattern"] == 'password="***" ***'

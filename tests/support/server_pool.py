"""A pool that `bon` itself makes without any model: a small server samples, rules score."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from support.openai_server import OpenAI
from support.servers import Answer, Asked, FakeServer

SCORERS = ("-r", "len=rule:length?max=6", "-r", "is=rule:exact")
PART = ("--part-size", 4)


def prompt_rows(num_rows: int = 11) -> list[str]:
    """Lines of a prompt file: row 2 is cut off, row 5 is refused by the server, row 6 has no
    answer, which `rule:exact` drops."""
    rows = [
        json.dumps({"id": f"q{n}", "prompt": f"question {n}", "answer": f"{n}", "topic": "a"})
        for n in range(num_rows)
    ]
    if num_rows > 6:
        rows[2] = rows[2][:20]
        rows[5] = json.dumps({"id": "q5", "prompt": "refuse me", "answer": "5", "topic": "a"})
        rows[6] = json.dumps({"id": "q6", "prompt": "question 6", "topic": "a"})
    return rows


def write_prompts(path: Path, num_rows: int = 11) -> Path:
    """Write them."""
    path.write_text("".join(f"{row}\n" for row in prompt_rows(num_rows)))
    return path


@contextmanager
def sampler(reply: Callable[[Asked], Answer] | None = None) -> Iterator[tuple[str, ...]]:
    """Serve a model, and give the flags that sample three candidates from it."""
    with FakeServer(reply or OpenAI()) as server:
        yield ("-m", f"server:{server.url}", "-n", "3", "--max-tokens", "16")


def gated(is_open: Callable[[], bool], *, first: int = 4, timeout_s: float = 60.0) -> OpenAI:
    """Return a model that answers `question N`, from N = first on, only once it may."""

    class Gated(OpenAI):
        def __call__(self, asked: Asked) -> Answer:
            found = re.search(r"question (\d+)", json.dumps(asked.body))
            deadline_s = time.monotonic() + timeout_s
            while found and int(found[1]) >= first and not is_open():
                if time.monotonic() > deadline_s:
                    return Answer({"error": {"message": "the gate stayed shut"}}, status=400)
                time.sleep(0.02)
            return super().__call__(asked)

    return Gated()

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from bon.engines.relay import Relay


def relayed(code: str, capfd: pytest.CaptureFixture[str]) -> str:
    """Return what comes out on stderr of what a process printed to a relay."""
    relay = Relay()
    process = subprocess.Popen([sys.executable, "-c", code], stdout=relay.writer.fileno())
    relay.start()
    process.wait()
    relay.stop()
    return capfd.readouterr().err


def test_lines_come_out_as_text(capfd: pytest.CaptureFixture[str]) -> None:
    code = r"import sys; sys.stdout.buffer.write(b'one\n\x1b]0;t\x07two \xff\n\nhf_token=abc')"
    assert relayed(code, capfd) == "one\n\\x1b]0;t\\x07two \ufffd\n\nhf_token=***\n"


def test_of_a_bar_the_last_state_comes_out(capfd: pytest.CaptureFixture[str]) -> None:
    assert relayed(r"print('\r 10 %\r 50 %\r100 %\r'); print('end')", capfd) == "100 %\nend\n"


def test_a_line_without_an_end_does_not_fill_the_memory(capfd: pytest.CaptureFixture[str]) -> None:
    assert len(relayed("print('x' * 5_000_000)", capfd).replace("\n", "")) == 5_000_000


def test_last_words_of_a_process_that_is_killed(capfd: pytest.CaptureFixture[str]) -> None:
    code = "import os; print('last words', flush=True); os.kill(os.getpid(), 9)"
    assert relayed(code, capfd) == "last words\n"


def test_a_grandchild_that_holds_the_pipe_is_not_waited_for_long(
    capfd: pytest.CaptureFixture[str],
) -> None:
    code = "import subprocess; print('a', flush=True); print(subprocess.Popen(['sleep', '9']).pid)"
    began_s = time.monotonic()
    said = relayed(code, capfd).split()
    assert time.monotonic() - began_s < 8
    assert said[0] == "a"
    os.kill(int(said[1]), 9)


def test_a_relay_that_never_began_can_be_stopped() -> None:
    Relay().stop()
